//! `--check-window` of SCTP services: packets without the verification tag that their receiver asked for, or with a wrong
//! checksum, move no association's state. They go their way, as everything does in IPVS. RFC 9260 §8.5.

use lvs_testkit::{Desk, Packet, sctp};

const NAT: &str =
    "-A --sctp-service 192.0.2.1:80 -s rr --check-window\n-a --sctp-service 192.0.2.1:80 -r 10.0.0.2:80 -m";
const NAT6: &str =
    "-A --sctp-service [2001:db8::1]:80 -s rr --check-window\n-a --sctp-service [2001:db8::1]:80 -r [fd00::2]:80 -m";
const ROUTE: &str =
    "-A --sctp-service 192.0.2.1:80 -s rr --check-window\n-a --sctp-service 192.0.2.1:80 -r 10.0.0.2:80 -g";
const FULL_NAT: &str = "-A --sctp-service 192.0.2.1:80 -s rr --check-window\n\
                        -a --sctp-service 192.0.2.1:80 -r 10.0.0.2:80 --fullnat\n\
                        --add-laddr --sctp-service 192.0.2.1:80 --local-address 10.0.0.250";
const ALL: [&str; 4] = [NAT, NAT6, ROUTE, FULL_NAT];
const BOTH_WAYS: [&str; 3] = [NAT, NAT6, FULL_NAT];

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// What packets to the client and to the server have.
const CLIENT: u32 = 0xc11e_0001;
const SERVER: u32 = 0x5e12_0002;
const T_BIT: u8 = 1;

struct Association {
    desk: Desk,
    client: &'static str,
    service: &'static str,
    is_full_nat: bool,
}

impl Association {
    fn new(rules: &str) -> Self {
        let (client, service) = match rules.contains("[2001:db8::1]") {
            false => ("198.51.100.7:1024", "192.0.2.1:80"),
            true => ("[2001:db8:9::7]:1024", "[2001:db8::1]:80"),
        };
        Self { desk: Desk::new(rules), client, service, is_full_nat: rules == FULL_NAT }
    }

    fn client(&mut self, tag: u32, packet: impl FnOnce(Packet) -> Packet) {
        self.desk.feed(&packet(sctp(self.client, self.service).tag(tag)).build());
    }

    /// Nothing where replies bypass the director.
    fn server(&mut self, tag: u32, packet: impl FnOnce(Packet) -> Packet) {
        let row = self.desk.connections()[0].clone();
        if row.forward.name() != "Route" {
            let to = row.local.unwrap_or(row.client).to_string();
            assert_eq!(row.local.is_some(), self.is_full_nat);
            self.desk.feed(&packet(sctp(row.real.to_string().as_str(), to.as_str()).tag(tag)).build());
        }
    }

    fn state(&self) -> &'static str {
        self.desk.connections().first().map_or("gone", |row| row.state)
    }

    fn disbelieved(&self) -> u64 {
        self.desk.director.segments_disbelieved()
    }
}

/// The value of an INIT or INIT ACK chunk.
fn wants(tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend([0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
    value
}

fn init(packet: Packet) -> Packet {
    packet.chunk(INIT, &wants(CLIENT))
}

fn established(rules: &str) -> Association {
    let mut it = Association::new(rules);
    it.client(0, init);
    it.server(CLIENT, |packet| packet.chunk(INIT_ACK, &wants(SERVER)));
    it.client(SERVER, |packet| packet.chunk(COOKIE_ECHO, b"cookie"));
    it.server(CLIENT, |packet| packet.chunk(COOKIE_ACK, b""));
    it.client(SERVER, |packet| packet.chunk(DATA, &[0; 16]));
    assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 0), "{rules}");
    it
}

#[test]
fn an_abort_from_anybody_ends_no_association() {
    for rules in ALL {
        let mut it = established(rules);
        for tag in [0, 1, CLIENT, !SERVER] {
            it.client(tag, |packet| packet.chunk(ABORT, b""));
        }
        it.client(SERVER, |packet| packet.flagged_chunk(ABORT, T_BIT, b""));
        it.client(1, |packet| packet.chunk(COOKIE_ECHO, b"cookie").chunk(ABORT, b""));
        assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 6), "{rules}");
    }
    for rules in BOTH_WAYS {
        let mut it = established(rules);
        for tag in [0, 1, SERVER, !CLIENT] {
            it.server(tag, |packet| packet.chunk(ABORT, b""));
        }
        it.server(CLIENT, |packet| packet.flagged_chunk(ABORT, T_BIT, b""));
        assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 5), "{rules}");
    }
}

#[test]
fn an_abort_of_either_end_ends_it_reflected_or_not() {
    for rules in ALL {
        let mut it = established(rules);
        it.client(SERVER, |packet| packet.chunk(ABORT, b""));
        assert_eq!(it.state(), "CLOSED", "{rules}");
        let mut it = established(rules);
        it.client(CLIENT, |packet| packet.flagged_chunk(ABORT, T_BIT, b""));
        assert_eq!(it.state(), "CLOSED", "{rules}: reflected");
    }
    for rules in BOTH_WAYS {
        let mut it = established(rules);
        it.server(CLIENT, |packet| packet.chunk(ABORT, b""));
        assert_eq!(it.state(), "CLOSED", "{rules}");
        let mut it = established(rules);
        it.server(SERVER, |packet| packet.flagged_chunk(ABORT, T_BIT, b""));
        assert_eq!(it.state(), "CLOSED", "{rules}: reflected");
    }
}

#[test]
fn a_server_that_refuses_an_association_is_believed() {
    for rules in BOTH_WAYS {
        let mut it = Association::new(rules);
        it.client(0, init);
        it.server(1, |packet| packet.chunk(ABORT, b""));
        assert_eq!((it.state(), it.disbelieved()), ("INIT1", 1), "{rules}");
        it.server(CLIENT, |packet| packet.chunk(ABORT, b""));
        assert_eq!(it.state(), "REJECTED", "{rules}");
    }
}

#[test]
fn a_shutdown_has_the_tags_of_its_ends() {
    for rules in BOTH_WAYS {
        let mut it = established(rules);
        it.client(7, |packet| packet.chunk(SHUTDOWN, &[0; 4]));
        assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 1), "{rules}");
        it.client(SERVER, |packet| packet.chunk(SHUTDOWN, &[0; 4]));
        it.server(7, |packet| packet.chunk(SHUTDOWN_ACK, b""));
        it.server(CLIENT, |packet| packet.chunk(SHUTDOWN_ACK, b""));
        assert_eq!(it.state(), "S-ACK-SENT", "{rules}");
        it.client(7, |packet| packet.chunk(SHUTDOWN_COMPLETE, b""));
        it.client(7, |packet| packet.flagged_chunk(SHUTDOWN_COMPLETE, T_BIT, b""));
        it.client(CLIENT, |packet| packet.flagged_chunk(SHUTDOWN_COMPLETE, T_BIT, b""));
        assert_eq!(it.state(), "CLOSED", "{rules}");
    }
}

#[test]
fn a_flood_that_makes_up_the_cookie_stays_half_open() {
    for rules in BOTH_WAYS {
        let mut it = Association::new(rules);
        it.client(0, init);
        it.server(CLIENT, |packet| packet.chunk(INIT_ACK, &wants(SERVER)));
        it.server(1, |packet| packet.chunk(INIT_ACK, &wants(666)));
        for tag in [0, 1, 666, CLIENT] {
            it.client(tag, |packet| packet.chunk(COOKIE_ECHO, b"cookie"));
        }
        it.server(1, |packet| packet.chunk(COOKIE_ACK, b""));
        assert_eq!(it.desk.director.gauges().half_open, 1, "{rules}: {}", it.state());
        it.client(SERVER, |packet| packet.chunk(COOKIE_ECHO, b"cookie"));
        it.server(CLIENT, |packet| packet.chunk(COOKIE_ACK, b""));
        assert_eq!(it.state(), "ESTABLISHED", "{rules}");
    }
}

/// A server keeps nothing until the cookie is back: each answer to a repeated INIT wants another tag.
#[test]
fn either_answer_to_a_repeated_init_may_be_taken() {
    for rules in BOTH_WAYS {
        for taken in [SERVER, SERVER + 1] {
            let mut it = Association::new(rules);
            it.client(0, init);
            it.client(0, init);
            it.server(CLIENT, |packet| packet.chunk(INIT_ACK, &wants(SERVER)));
            it.server(CLIENT, |packet| packet.chunk(INIT_ACK, &wants(SERVER + 1)));
            it.client(taken, |packet| packet.chunk(COOKIE_ECHO, b"cookie"));
            it.server(CLIENT, |packet| packet.chunk(COOKIE_ACK, b""));
            it.client(2 * SERVER, |packet| packet.chunk(ABORT, b""));
            assert_eq!(it.state(), "ESTABLISHED", "{rules}");
            it.client(taken, |packet| packet.chunk(ABORT, b""));
            assert_eq!(it.state(), "CLOSED", "{rules}");
        }
    }
}

/// RFC 9260 §5.2.2: an end that restarted takes new tags, once the cookie has proved it.
#[test]
fn an_association_begun_anew_has_the_tags_of_its_new_handshake() {
    for rules in BOTH_WAYS {
        let mut it = established(rules);
        it.client(0, |packet| packet.chunk(INIT, &wants(31)));
        it.client(SERVER, |packet| packet.chunk(DATA, &[0; 16]));
        it.client(62, |packet| packet.chunk(ABORT, b""));
        assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 1), "{rules}: an INIT from anybody changes nothing");
        it.server(31, |packet| packet.chunk(INIT_ACK, &wants(62)));
        it.client(62, |packet| packet.chunk(COOKIE_ECHO, b"cookie"));
        it.server(31, |packet| packet.chunk(COOKIE_ACK, b""));
        it.client(SERVER, |packet| packet.chunk(ABORT, b""));
        assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 2), "{rules}: the old tags are over");
        it.client(62, |packet| packet.chunk(ABORT, b""));
        assert_eq!(it.state(), "CLOSED", "{rules}");
    }
}

/// Its first packets went through another director, or came before the service asked for this.
#[test]
fn an_association_begun_elsewhere_is_judged_by_what_was_seen_since() {
    for rules in BOTH_WAYS {
        let mut it = Association::new(rules);
        it.desk.set(|settings| settings.sloppy_sctp = true);
        it.client(SERVER, |packet| packet.chunk(DATA, &[0; 16]));
        it.server(CLIENT, |packet| packet.chunk(DATA, &[0; 16]));
        assert_eq!(it.state(), "ESTABLISHED", "{rules}");
        it.client(1, |packet| packet.chunk(ABORT, b""));
        assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 1), "{rules}");
        it.client(SERVER, |packet| packet.chunk(ABORT, b""));
        assert_eq!(it.state(), "CLOSED", "{rules}");
    }
}

#[test]
fn a_damaged_packet_moves_nothing() {
    let mut it = established(NAT);
    it.client(SERVER, |packet| packet.chunk(ABORT, b"").bad_checksum());
    assert_eq!((it.state(), it.disbelieved()), ("ESTABLISHED", 1));
}

#[test]
fn without_the_option_everything_moves_the_state_as_in_ipvs() {
    let mut it = established(&NAT.replace(" --check-window", ""));
    it.client(1, |packet| packet.chunk(ABORT, b""));
    assert_eq!((it.state(), it.disbelieved()), ("CLOSED", 0));
}
