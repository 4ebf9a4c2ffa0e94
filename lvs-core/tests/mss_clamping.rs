//! MSS clamping: SYNs through a service announce no more than the operator allows, in both directions.

use lvs_core::tunnel::{Accepts, decapsulate};
use lvs_core::wire::{mss, parse::parse};
use lvs_core::{Command, ControlError, Offload, Protocol, ServiceConfig, ServiceKey};
use lvs_testkit::{Desk, Packet, Storage, oracle, tcp};

const CLIENT: &str = "198.51.100.7:1024";
const VIP: &str = "192.0.2.1:80";

/// Clamps the packet to 1400 and compares it with what is expected, checksum included.
fn check(packet: Packet, expected: Packet) {
    let mut storage = Storage::new(&packet.build());
    let mut buffer = storage.packet();
    let headers = parse(buffer.bytes()).unwrap();
    mss::clamp(&mut buffer, &headers, 1400);
    assert_eq!(buffer.bytes(), expected.build());
}

fn mss_option(value: u16) -> [u8; 4] {
    [2, 4, (value >> 8) as u8, value as u8]
}

#[test]
fn only_a_larger_mss_is_lowered() {
    for (announced, expected) in [(1460, 1400), (65_535, 1400), (1401, 1400), (1400, 1400), (536, 536), (0, 0)] {
        for (source, target) in [(CLIENT, VIP), ("[2001:db8:c::7]:1024", "[2001:db8::1]:80")] {
            let syn = |value| tcp(source, target).syn().tcp_options(&mss_option(value));
            check(syn(announced), syn(expected));
            check(syn(announced).ack(), syn(expected).ack());
        }
    }
}

#[test]
fn the_option_is_found_wherever_it_stands() {
    for before in [&[][..], &[1], &[1, 1], &[3, 3, 7], &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]] {
        let syn =
            |value| tcp(CLIENT, VIP).syn().tcp_options(&[before, &mss_option(value)].concat()).payload(b"fast open");
        check(syn(8960), syn(1400));
    }
}

#[test]
fn what_is_no_syn_or_has_no_sound_mss_option_stays_as_it_is() {
    let options = [
        &[][..],
        &[0, 2, 4, 0x23, 0],
        &[2, 3, 0x23, 0],
        &[2, 0, 0x23, 0],
        &[2, 1, 0x23, 0],
        &[2, 40, 0x23, 0],
        &[3, 0, 2, 4, 0x23, 0],
        &[3, 1, 2, 4, 0x23, 0],
    ];
    for options in options {
        let syn = tcp(CLIENT, VIP).syn().tcp_options(options);
        check(syn.clone(), syn);
    }
    let data = tcp(CLIENT, VIP).ack().tcp_options(&mss_option(8960));
    check(data.clone(), data);
}

#[test]
fn a_checksum_left_to_the_device_is_left_alone() {
    let syn = |value| tcp(CLIENT, VIP).syn().tcp_options(&mss_option(value)).partial_checksum();
    let mut storage = Storage::new(&syn(8960).build()).offload(Offload { checksum: syn(0).offload(), gso: None });
    let mut packet = storage.packet();
    let headers = parse(packet.bytes()).unwrap();
    mss::clamp(&mut packet, &headers, 1400);
    assert_eq!(packet.bytes(), syn(1400).build());
}

#[test]
fn a_service_clamps_requests_and_replies() {
    let mut desk = Desk::new("-A -t 192.0.2.1:80 -s rr --mss-clamp 1400\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m");
    let options = mss_option(1460);
    let syn = desk.send(&tcp(CLIENT, VIP).syn().tcp_options(&options).build());
    let answer = desk.send(&tcp("10.0.0.2:8080", CLIENT).syn().ack().tcp_options(&options).build());
    for sent in [syn.bytes, answer.bytes] {
        assert_eq!(sent[40..44], mss_option(1400));
        assert_eq!(oracle::checksum_errors(&sent), [""; 0]);
    }
}

#[test]
fn segments_of_no_bytes_are_not_asked_for() {
    let mut desk = Desk::new("-A -t 192.0.2.1:80 -s rr");
    let key = ServiceKey::address(Protocol::Tcp, VIP.parse().unwrap());
    let mut config = ServiceConfig::new("rr");
    config.mss_clamp = Some(0);
    let refused = desk.director.apply(desk.now, &Command::EditService(key, config));
    assert_eq!(refused, Err(ControlError::Invalid("mss_clamp")));
}

#[test]
fn a_syn_is_clamped_before_it_enters_a_tunnel() {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr --mss-clamp 1400\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -i --tun-type gre --tun-csum",
    );
    let syn = |value| tcp(CLIENT, VIP).syn().tcp_options(&mss_option(value));
    let mut sent = Storage::new(&desk.send(&syn(1460).build()).bytes);
    let mut packet = sent.packet();
    decapsulate(&mut packet, &Accepts { gre: true, ..Accepts::default() }).unwrap();
    assert_eq!(packet.bytes(), syn(1400).hop_limit(63).build());
}
