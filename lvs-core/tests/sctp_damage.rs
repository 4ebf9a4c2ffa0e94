//! SCTP's CRC32c covers the ports, and so it is computed anew where one changes: of a packet that was damaged on its way,
//! too, as Linux does (`conformance/`). FullNAT drops it, and NAT does if it is told to.

use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, Packet, oracle, sctp};

const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8::7]:1024";
const VIRTUAL: &str = "192.0.2.80:80";
const VIRTUAL6: &str = "[2001:db8:1::80]:80";

fn desk(virtual_endpoint: &str, server: &str, more: &str) -> Desk {
    Desk::new(&format!(
        "-A --sctp-service {virtual_endpoint} -s rr\n-a --sctp-service {virtual_endpoint} -r {server}\n{more}"
    ))
}

fn init(client: &str, to: &str) -> Packet {
    sctp(client, to).chunk(1, &[0; 16])
}

fn damaged(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.build();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes
}

const DROPPED: Verdict = Verdict::Drop(DropReason::BadTransportChecksum);

#[test]
fn nat_mends_a_damaged_packet_as_linux_does_unless_it_is_told_to_drop_it() {
    for (client, virtual_endpoint, server) in
        [(CLIENT, VIRTUAL, "10.0.0.2:8080 -m"), (CLIENT6, VIRTUAL6, "[fd00::2]:8080 -m")]
    {
        let mut desk = desk(virtual_endpoint, server, "");
        let packet = init(client, virtual_endpoint);
        let sent = desk.send(&damaged(&packet));
        assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{}", sent.line());
        assert_eq!(oracle::checksum_errors(&sent.bytes), [""; 0]);
        desk.set(|settings| settings.drop_damaged_sctp = true);
        assert_eq!(desk.send(&damaged(&packet)).verdict, DROPPED);
        assert!(matches!(desk.send(&packet.build()).verdict, Verdict::Forward { .. }), "an intact one passes");
        let real = server.split_whitespace().next().unwrap();
        let reply = sctp(real, client).chunk(2, &[0; 16]);
        assert_eq!(desk.send(&damaged(&reply)).verdict, DROPPED);
        assert!(matches!(desk.send(&reply.build()).verdict, Verdict::Forward { .. }));
    }
}

#[test]
fn what_needs_no_new_sum_keeps_the_wrong_one() {
    let mut desk = desk(VIRTUAL, "10.0.0.2:80 -m", "");
    desk.set(|settings| settings.drop_damaged_sctp = true);
    let sent = desk.send(&damaged(&init(CLIENT, VIRTUAL)));
    assert!(matches!(sent.verdict, Verdict::Forward { .. }), "{}", sent.line());
    assert_eq!(oracle::checksum_errors(&sent.bytes), ["L4"], "the server sees to it");
}

#[test]
fn full_nat_drops_a_damaged_packet() {
    for (client, virtual_endpoint, server, local) in [
        (CLIENT, VIRTUAL, "10.0.0.2:8080", "10.0.0.200"),
        (CLIENT6, VIRTUAL6, "[fd00::2]:8080", "fd00::200"),
        (CLIENT6, VIRTUAL6, "10.0.0.2:8080", "10.0.0.200"),
    ] {
        let laddr = format!("--add-laddr --sctp-service {virtual_endpoint} --local-address {local}");
        let mut desk = desk(virtual_endpoint, &format!("{server} --fullnat"), &laddr);
        let packet = init(client, virtual_endpoint);
        assert!(matches!(desk.send(&packet.build()).verdict, Verdict::Forward { .. }));
        assert_eq!(desk.send(&damaged(&packet)).verdict, DROPPED);
        let local = desk.connections()[0].local.expect("a FullNAT connection has one").to_string();
        assert_eq!(desk.send(&damaged(&sctp(server, local.as_str()).chunk(2, &[0; 16]))).verdict, DROPPED);
        assert_eq!(desk.director.drops(DropReason::BadTransportChecksum), 2);
    }
}
