//! Packets with wrong checksums open connections and bring them about, as in Linux (recorded: `nat_badcsum`,
//! `nat6_badcsum`); `drop_damaged_openings` has it otherwise.

use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, Packet, sctp, tcp, udp};

const RULES: &str = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
    -A -u 192.0.2.1:80 -s rr\n-a -u 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
    -A --sctp-service 192.0.2.1:80 -s rr\n-a --sctp-service 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
    -A -t [2001:db8::1]:80 -s rr\n-a -t [2001:db8::1]:80 -r [fd00::2]:80 -m\n\
    -A -u [2001:db8::1]:80 -s rr\n-a -u [2001:db8::1]:80 -r [fd00::2]:80 -m\n\
    -A --sctp-service [2001:db8::1]:80 -s rr\n-a --sctp-service [2001:db8::1]:80 -r [fd00::2]:80 -m";
const ENDS: [(&str, &str); 2] = [("198.51.100.7:1024", "192.0.2.1:80"), ("[2001:db8:c::7]:1024", "[2001:db8::1]:80")];

fn desk(drops_damaged: bool) -> Desk {
    let mut desk = Desk::new(RULES);
    desk.set(|settings| settings.drop_damaged_openings = drops_damaged);
    desk
}

#[track_caller]
fn check(desk: &mut Desk, packet: &Packet, is_taken: bool) {
    let verdict = desk.send(&packet.build()).verdict;
    if is_taken {
        assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    } else {
        assert_eq!(verdict, Verdict::Drop(DropReason::BadTransportChecksum));
    }
}

#[test]
fn by_default_they_are_taken_as_linux_takes_them() {
    for (client, service) in ENDS {
        let mut desk = desk(false);
        check(&mut desk, &tcp(client, service).syn().bad_checksum(), true);
        check(&mut desk, &tcp(client, service).ack().bad_checksum(), true);
        assert_eq!(desk.states(), ["ESTABLISHED"]);
        check(&mut desk, &udp(client, service).payload(b"?").bad_checksum(), true);
    }
}

#[test]
fn where_they_are_refused_they_neither_open_a_connection_nor_bring_one_about() {
    for (client, service) in ENDS {
        let mut desk = desk(true);
        let init = sctp(client, service).chunk(1, &[0; 16]);
        let openings = [tcp(client, service).syn(), udp(client, service).payload(b"?"), init];
        for opening in openings {
            check(&mut desk, &opening.clone().bad_checksum(), false);
            assert_eq!(desk.connections(), []);
            check(&mut desk, &opening, true);
            desk = self::desk(true);
        }
        check(&mut desk, &tcp(client, service).syn(), true);
        check(&mut desk, &tcp(client, service).ack().bad_checksum(), false);
        assert_eq!(desk.states(), ["SYN_RECV"]);
        check(&mut desk, &tcp(client, service).ack(), true);
        // From here on it is between the two.
        check(&mut desk, &tcp(client, service).ack().payload(b"x").bad_checksum(), true);
        // One that is over is not opened anew.
        check(&mut desk, &tcp(client, service).rst(), true);
        check(&mut desk, &tcp(client, service).syn().bad_checksum(), false);
        assert_eq!(desk.states(), ["CLOSE"]);
    }
}

#[test]
fn a_datagram_without_a_checksum_is_not_damaged() {
    let (client, service) = ENDS[0];
    check(&mut desk(true), &udp(client, service).payload(b"?").no_checksum(), true);
}
