//! The path MTU of tunnels: learned from the path, however little a router quotes, and from nobody else.

use core::time::Duration;

use lvs_core::{DropReason, Settings, Verdict};
use lvs_testkit::{Desk, icmp, tcp, udp};

const KINDS: [&str; 3] = ["", "--tun-type gre", "--tun-type gue --tun-port 6080"];

/// Client, virtual and real server, the director's end of the tunnel, and a router on the way.
struct Ends {
    client: &'static str,
    vip: &'static str,
    real: &'static str,
    end: &'static str,
    router: &'static str,
}

/// Over IPv4 and over IPv6.
const ENDS: [Ends; 2] = [
    Ends { client: "198.51.100.7:1024", vip: "192.0.2.1:80", real: "10.0.0.2", end: "10.0.0.254", router: "10.0.0.1" },
    Ends { client: "198.51.100.7:1024", vip: "192.0.2.1:80", real: "fd00::2", end: "fd00::ff", router: "fd00::1" },
];

fn port(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") }
}

fn desk(ends: &Ends, kind: &str, settings: Settings) -> Desk {
    let rules = format!("-A -t {0} -s rr\n-a -t {0} -r {1} -i {kind}", ends.vip, port(ends.real));
    let mut desk = Desk::with_config(Desk::config().with(|config| config.settings = settings), &rules);
    assert!(matches!(desk.send(&tcp(ends.client, ends.vip).syn().build()).verdict, Verdict::Forward { .. }));
    desk
}

fn long(ends: &Ends) -> Vec<u8> {
    tcp(ends.client, ends.vip).ack().payload_len(1_360).dont_fragment().build()
}

/// An error that tells 1390 bytes, quoting so much.
fn error(ends: &Ends, quoted: &[u8]) -> Vec<u8> {
    let (kind, code) = if ends.real.contains(':') { (2, 0) } else { (3, 4) };
    icmp(port(ends.router).as_str(), port(ends.end).as_str(), kind, code, 1_390).payload(quoted).build()
}

/// Whether a long packet still goes into the tunnel.
fn goes_on(desk: &mut Desk, ends: &Ends) -> bool {
    matches!(desk.send(&long(ends)).verdict, Verdict::Forward { .. })
}

#[test]
fn a_path_mtu_is_learned_from_whatever_a_router_quotes() {
    for ends in &ENDS {
        for kind in KINDS {
            let header_len = if ends.real.contains(':') { 40 } else { 20 };
            for quoted_len in [header_len + 8, header_len + 20, 500] {
                let mut desk = desk(ends, kind, Settings::default());
                let sent = desk.send(&long(ends));
                assert!(matches!(sent.verdict, Verdict::Forward { .. }));
                let told = desk.send(&error(ends, &sent.bytes[..quoted_len]));
                assert!(!matches!(told.verdict, Verdict::Pass), "{} {kind} {quoted_len}: {told:?}", ends.real);
                assert_eq!(desk.director.drops(DropReason::UnprovenPathMtu), 0);
                assert!(!goes_on(&mut desk, ends), "{} {kind} {quoted_len}", ends.real);
                desk.pass(Duration::from_secs(601));
            }
        }
    }
}

#[test]
fn nobody_else_can_tell_one() {
    for ends in &ENDS {
        for kind in KINDS {
            let mut desk = desk(ends, kind, Settings::default());
            let sent = desk.send(&long(ends)).bytes;
            // What everybody knows of the outside, and the client's own packet inside.
            let mut made_up = sent.clone();
            match ends.real.contains(':') {
                true => made_up[1..4].fill(0),
                false => made_up[4..6].fill(0),
            }
            for quoted_len in [60, 500] {
                let refused = desk.send(&error(ends, &made_up[..quoted_len])).verdict;
                assert_eq!(refused, Verdict::Drop(DropReason::UnprovenPathMtu), "{} {kind}", ends.real);
            }
            assert!(goes_on(&mut desk, ends), "{} {kind}", ends.real);
        }
    }
}

#[test]
fn guessing_is_no_way_to_tell_one_either() {
    let ends = &ENDS[0];
    let mut desk = desk(ends, "", Settings::default());
    let sent = desk.send(&long(ends)).bytes;
    let number = u16::from_be_bytes([sent[4], sent[5]]);
    for guess in (0..=u16::MAX).filter(|guess| *guess != number).take(100).chain([number]) {
        let mut guessed = sent.clone();
        guessed[4..6].copy_from_slice(&guess.to_be_bytes());
        let refused = desk.send(&error(ends, &guessed[..28])).verdict;
        assert_eq!(refused, Verdict::Drop(DropReason::UnprovenPathMtu), "{guess}");
    }
    assert!(goes_on(&mut desk, ends));
    // Once nobody guesses any more, the path is believed again.
    desk.pass(Duration::from_secs(10));
    let told = desk.send(&error(ends, &sent[..28])).verdict;
    assert_eq!(told, Verdict::Drop(DropReason::PathMtuLearned));
}

/// Guesses about one end of a tunnel are no guesses about another, and errors that are right are none.
#[test]
fn made_up_errors_about_one_end_do_not_keep_the_others_from_learning() {
    for [guessed, other] in [["10.0.0.2", "10.0.0.3"], ["fd00::2", "fd00::3"]].map(|reals| {
        reals.map(|real| {
            let ends = if real.contains(':') { &ENDS[1] } else { &ENDS[0] };
            Ends { real, vip: if real.ends_with('2') { "192.0.2.1:80" } else { "192.0.2.1:81" }, ..*ends }
        })
    }) {
        let mut desk = desk(&guessed, "", Settings::default());
        desk.ipvsadm(&format!("-A -t {0} -s rr\n-a -t {0} -r {1} -i", other.vip, port(other.real)));
        desk.feed(&tcp(other.client, other.vip).syn().build());
        let (mut made_up, sent) = (desk.send(&long(&guessed)).bytes, desk.send(&long(&other)).bytes);
        made_up[1] ^= 1;
        made_up[4] ^= 1;
        let learned = Verdict::Drop(DropReason::PathMtuLearned);
        // The outer header and eight bytes.
        let least = if guessed.real.contains(':') { 48 } else { 28 };
        for _ in 0..100 {
            desk.feed(&error(&guessed, &made_up[..60]));
        }
        assert_eq!(desk.director.drops(DropReason::UnprovenPathMtu), 100);
        assert_eq!(desk.send(&error(&other, &sent[..least])).verdict, learned, "{}", other.real);
        assert!(!goes_on(&mut desk, &other) && goes_on(&mut desk, &guessed));
        // What is right is no guess, however often it is told while others guess.
        made_up[1] ^= 1;
        made_up[4] ^= 1;
        for _ in 0..100 {
            desk.feed(&error(&guessed, &made_up[..least]));
        }
        desk.pass(Duration::from_millis(300));
        assert_eq!(desk.send(&error(&guessed, &made_up[..least])).verdict, learned, "{}", guessed.real);
    }
}

#[test]
fn linux_believes_anybody_about_gue_and_that_is_to_be_had() {
    let ends = &ENDS[0];
    let mut desk = desk(ends, KINDS[2], Settings::default().with(|settings| settings.tunnel_mtu_proof = false));
    let quoted = udp("10.0.0.254:1", "10.0.0.2:6080").payload_len(8).build();
    assert_eq!(desk.send(&error(ends, &quoted)).verdict, Verdict::Drop(DropReason::PathMtuLearned));
    assert!(!goes_on(&mut desk, ends));
    let sent = desk.send(&tcp(ends.client, ends.vip).ack().dont_fragment().build()).bytes;
    assert_eq!(sent[4..6], [0, 0]);
}
