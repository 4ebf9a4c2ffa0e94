//! Nobody asks an IPv6 sender for less than 1280 bytes in vain: what is announced can be sent, and 1280 bytes always get
//! through, in fragments where the way to the server takes less (RFC 7915 §5.1, RFC 2473 §7.1, RFC 4213 §3.2).

use lvs_core::wire::fragment::fragment;
use lvs_core::{ControlError, DropReason, Verdict};
use lvs_testkit::{Desk, Outcome, oracle, tcp};

const CLIENT: &str = "[2001:db8:c::7]:40000";
const VIP: &str = "[2001:db8::80]:80";

/// The ways that take something from what an IPv6 packet may be long, and the least that such a way may take.
const WAYS: [(&str, u16); 6] = [
    (
        "-a -t [2001:db8::80]:80 -r 10.0.0.2:80 --fullnat\n--add-laddr -t [2001:db8::80]:80 --local-address 10.0.0.250",
        576,
    ),
    ("-a -t [2001:db8::80]:80 -r 10.0.0.2:80 -i", 576),
    ("-a -t [2001:db8::80]:80 -r 10.0.0.2:80 -i --tun-type gre", 576),
    ("-a -t [2001:db8::80]:80 -r 10.0.0.2:80 -i --tun-type gue --tun-port 6080", 576),
    ("-a -t [2001:db8::80]:80 -r [fd00::2]:80 -i", 1_280),
    ("-a -t [2001:db8::80]:80 -r [fd00::2]:80 -i --tun-type gue --tun-port 6080 --tun-csum", 1_280),
];

fn desk(way: &str, mtu: u16) -> Desk {
    let mut config = Desk::config();
    config.server_side.mtu = mtu;
    let mut desk = Desk::with_config(config, &format!("-A -t {VIP} -s rr\n{way}"));
    desk.send(&tcp(CLIENT, VIP).syn().numbers(1, 0).build());
    desk
}

fn segment(len: usize) -> Vec<u8> {
    tcp(CLIENT, VIP).ack().numbers(2, 5).payload_len(len - 60).build()
}

/// The MTU an ICMPv6 packet too big announces.
fn announced(outcome: &Outcome) -> Option<u32> {
    let message = outcome.bytes.get(40..48)?;
    let is_answer = matches!(outcome.verdict, Verdict::Reply { .. }) && message[..2] == [2, 0];
    is_answer.then(|| u32::from_be_bytes([message[4], message[5], message[6], message[7]]))
}

/// Whether a packet that was forwarded leaves, whole or in fragments its way takes.
fn leaves(outcome: &Outcome) -> bool {
    let Verdict::Forward { mtu, .. } = outcome.verdict else { return false };
    let mut parts = Vec::new();
    let mut buffer = vec![0; 2_000];
    let sent = fragment(&outcome.bytes, mtu.into(), 9, &mut buffer, |part| parts.push(part.to_vec()));
    assert!(parts.iter().all(|part| part.len() <= usize::from(mtu)));
    sent.is_ok() && (parts.len() == 1 || oracle::reassemble(parts.iter().map(Vec::as_slice)).is_some())
}

#[test]
fn what_an_ipv6_sender_is_asked_for_gets_through() {
    for (way, least) in WAYS {
        for mtu in [least, 1_280, 1_300, 1_339, 1_400].into_iter().filter(|mtu| *mtu >= least) {
            let mut desk = desk(way, mtu);
            assert!(leaves(&desk.send(&segment(1_280))), "{way}: 1280 bytes over {mtu}");
            let told = announced(&desk.send(&segment(1_500)));
            let told = told.unwrap_or_else(|| panic!("{way}: 1500 bytes over {mtu}"));
            assert!((1_280..1_500).contains(&told), "{way}: told {told} over {mtu}");
            assert!(leaves(&desk.send(&segment(told as usize))), "{way}: told {told} over {mtu}");
            assert!(
                announced(&desk.send(&segment(told as usize + 1))).is_some(),
                "{way}: {told} and one more over {mtu}"
            );
        }
    }
}

#[test]
fn an_ipv4_packet_goes_through_a_tunnel_over_the_least_ipv6_way() {
    let rules = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r [fd00::2]:80 -i";
    let mut config = Desk::config();
    config.server_side.mtu = 1_280;
    let mut desk = Desk::with_config(config, rules);
    let client = || tcp("198.51.100.7:1024", "192.0.2.1:80");
    assert!(leaves(&desk.send(&client().syn().build())));
    assert!(leaves(&desk.send(&client().ack().payload_len(1_200).dont_fragment().build())));
    let told = desk.send(&client().ack().payload_len(1_201).dont_fragment().build());
    assert!(matches!(told.verdict, Verdict::Reply { .. }));
    assert_eq!(told.bytes[20..28], [3, 4, told.bytes[22], told.bytes[23], 0, 0, 0x04, 0xd8], "1240 bytes fit");
}

#[test]
fn what_becomes_short_ipv4_may_be_fragmented_and_has_a_number_of_its_own() {
    let mut desk = desk(WAYS[0].0, 1_500);
    let mut numbers = Vec::new();
    for _ in 0..100 {
        let sent = desk.send(&segment(1_280));
        assert_eq!((sent.bytes.len(), sent.bytes[6] & 0x40), (1_260, 0));
        numbers.push([sent.bytes[4], sent.bytes[5]]);
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 100);
    let sent = desk.send(&segment(1_281));
    assert_eq!((sent.bytes.len(), &sent.bytes[4..8]), (1_261, &[0, 0, 0x40, 0][..]));
}

#[test]
fn a_way_that_takes_nothing_is_not_forwardable() {
    let mut desk = desk(WAYS[1].0, 80);
    assert_eq!(desk.send(&segment(1_280)).verdict, Verdict::Drop(DropReason::NotForwardable));
}

/// RFC 8200 §5: a way that takes less is none of IPv6, and Linux takes IPv6 from such a device.
#[test]
fn no_way_of_ipv6_is_shorter_than_what_every_sender_may_send() {
    let service = "-A -t [2001:db8::80]:80 -s rr";
    let servers = [
        "-a -t [2001:db8::80]:80 -r [fd00::2]:80 -m",
        "-a -t [2001:db8::80]:80 -r [fd00::2]:80 -g",
        "-a -t [2001:db8::80]:80 -r [fd00::2]:80 --fullnat",
    ];
    let desk = |client_mtu: u16, server_mtu: u16| {
        let mut config = Desk::config();
        (config.client_side.mtu, config.server_side.mtu) = (client_mtu, server_mtu);
        Desk::with_config(config, "-A -t 192.0.2.80:80 -s rr")
    };
    let apply = |desk: &mut Desk, line: &str| {
        let command = lvs_admin::parse_rules(line).expect("a rule").remove(0);
        desk.director.apply(desk.now, &command)
    };
    let is_refused = |outcome: Result<(), ControlError>| matches!(outcome, Err(ControlError::OutOfRange(_)));
    for server in servers {
        let mut desk = desk(1_500, 1_279);
        desk.ipvsadm(service);
        assert!(is_refused(apply(&mut desk, server)), "{server} over 1279");
        assert!(is_refused(apply(&mut desk, &format!("{server} --mtu 1279"))), "{server}");
        assert_eq!(apply(&mut desk, &format!("{server} --mtu 1280")), Ok(()), "{server}");
        let edit = server.replacen("-a", "-e", 1);
        assert!(is_refused(apply(&mut desk, &format!("{edit} --mtu 1279"))), "{edit}");
        assert!(is_refused(apply(&mut desk, &edit)), "{edit} over 1279");
    }
    let mut desk = desk(1_279, 576);
    for line in [service, "-A -f 5 -6 -s rr"] {
        assert!(is_refused(apply(&mut desk, line)), "{line} to clients over 1279");
    }
    for line in ["-A -f 5 -s rr", "-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m --mtu 576", "-a -f 5 -r fd00::2 -i"] {
        assert_eq!(apply(&mut desk, line), Ok(()), "{line}: of IPv4, or in a tunnel");
    }
}
