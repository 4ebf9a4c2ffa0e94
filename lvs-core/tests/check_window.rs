//! `--check-window`: segments with numbers or checksums that their sender cannot have used move no connection's state.
//! They go their way, as everything does in IPVS.

use lvs_core::Verdict;
use lvs_testkit::{Desk, Packet, tcp};

const NAT: &str = "-A -t 192.0.2.1:80 -s rr --check-window\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m";
const NAT6: &str = "-A -t [2001:db8::1]:80 -s rr --check-window\n-a -t [2001:db8::1]:80 -r [fd00::2]:80 -m";
const ROUTE: &str = "-A -t 192.0.2.1:80 -s rr --check-window\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -g";
const FULL_NAT: &str = "-A -t 192.0.2.1:80 -s rr --check-window\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 --fullnat\n\
                        --add-laddr -t 192.0.2.1:80 --local-address 10.0.0.250";

/// A connection: the client's first number is 1,000, the server's 900,000, each as its sender sees it.
struct Conversation {
    desk: Desk,
    client: &'static str,
    service: &'static str,
    /// Where the server sends from and to, and what its view of the client's numbers is ahead.
    reply: Option<(String, String, u32)>,
}

impl Conversation {
    fn new(rules: &str) -> Self {
        let (client, service) = match rules.contains("[2001:db8::1]") {
            false => ("198.51.100.7:1024", "192.0.2.1:80"),
            true => ("[2001:db8:9::7]:1024", "[2001:db8::1]:80"),
        };
        Self { desk: Desk::new(rules), client, service, reply: None }
    }

    fn client(&mut self, packet: impl FnOnce(Packet) -> Packet) {
        let sent = self.desk.send(&packet(tcp(self.client, self.service)).build());
        assert!(matches!(sent.verdict, Verdict::Forward { .. }), "it goes its way: {}", sent.line());
        if self.reply.is_none() {
            let row = &self.desk.connections()[0];
            let at = if row.forward.name() == "Route" { row.virtual_endpoint } else { row.real };
            // Behind an IPv4 header of twenty bytes, the number is the second word of the segment.
            let ahead = match row.local {
                Some(_) => u32::from_be_bytes(sent.bytes[24..28].try_into().unwrap()).wrapping_sub(1_000),
                None => 0,
            };
            self.reply = Some((at.to_string(), row.local.unwrap_or(row.client).to_string(), ahead));
        }
    }

    /// `acknowledgment` in the client's numbers.
    fn server(&mut self, sequence: u32, acknowledgment: u32, packet: impl FnOnce(Packet) -> Packet) {
        let (from, to, ahead) = self.reply.clone().expect("the client came first");
        // Its replies bypass the director.
        if from == self.service {
            return;
        }
        let segment = tcp(from.as_str(), to.as_str()).numbers(sequence, acknowledgment.wrapping_add(ahead));
        self.desk.feed(&packet(segment).build());
    }

    fn shake_hands(&mut self) {
        self.client(|segment| segment.syn().numbers(1_000, 0));
        self.server(900_000, 1_001, |segment| segment.syn().ack());
        self.client(|segment| segment.ack().numbers(1_001, 900_001));
    }

    fn state(&self) -> &'static str {
        self.desk.connections().first().map_or("gone", |row| row.state)
    }
}

/// Some data both ways: the client has sent up to 1,101, the server up to 900,501.
fn established(rules: &str) -> Conversation {
    let mut it = Conversation::new(rules);
    it.shake_hands();
    assert_eq!(it.state(), "ESTABLISHED");
    it.client(|segment| segment.ack().psh().numbers(1_001, 900_001).payload_len(100));
    it.server(900_001, 1_101, |segment| segment.ack().psh().payload_len(500));
    it.client(|segment| segment.ack().numbers(1_101, 900_501));
    it
}

#[test]
fn a_rst_from_anybody_ends_no_connection() {
    for rules in [NAT, NAT6, ROUTE, FULL_NAT] {
        for number in [0xdead_beef, 0, 1_001, 1_101 + 70_000] {
            let mut it = established(rules);
            it.client(|segment| segment.rst().numbers(number, 0));
            // Without replies nothing tells where in its last 64 KiB the client is.
            let may_be_its_own = rules == ROUTE && number == 1_001;
            assert_eq!(it.state(), if may_be_its_own { "CLOSE" } else { "ESTABLISHED" }, "{rules}: {number}");
            assert_eq!(it.desk.director.segments_disbelieved(), u64::from(!may_be_its_own));
        }
    }
}

#[test]
fn a_rst_of_either_side_ends_it() {
    for rules in [NAT, NAT6, ROUTE, FULL_NAT] {
        let mut it = established(rules);
        it.client(|segment| segment.rst().numbers(1_101, 0));
        assert_eq!(it.state(), "CLOSE", "{rules}");
        if rules != ROUTE {
            let mut it = established(rules);
            it.server(800_000, 1_101, |segment| segment.rst().ack());
            assert_eq!(it.state(), "ESTABLISHED", "{rules}");
            it.server(900_501, 1_101, |segment| segment.rst().ack());
            assert_eq!(it.state(), "CLOSE", "{rules}");
        }
    }
}

#[test]
fn a_server_that_refuses_a_connection_is_believed() {
    for rules in [NAT, NAT6, FULL_NAT] {
        let mut it = Conversation::new(rules);
        it.client(|segment| segment.syn().numbers(1_000, 0));
        it.server(0, 5_000, |segment| segment.rst().ack());
        assert_eq!(it.state(), "SYN_RECV", "{rules}: it acknowledges what was not sent");
        it.server(0, 1_001, |segment| segment.rst().ack());
        assert_eq!(it.state(), "CLOSE", "{rules}");
    }
}

#[test]
fn a_fin_from_anybody_and_a_segment_without_flags_change_nothing() {
    for rules in [NAT, NAT6, ROUTE, FULL_NAT] {
        let mut it = established(rules);
        it.client(|segment| segment.fin().ack().numbers(0xdead_beef, 900_501));
        it.client(|segment| segment.flags(0).numbers(1_101, 900_501));
        it.client(|segment| segment.fin().numbers(1_101, 0));
        assert_eq!(it.state(), "ESTABLISHED", "{rules}");
        if rules != ROUTE {
            it.client(|segment| segment.fin().ack().numbers(1_101, 0xdead_beef));
            assert_eq!(it.state(), "ESTABLISHED", "{rules}");
        }
        it.client(|segment| segment.fin().ack().numbers(1_101, 900_501));
        let finished = if rules == ROUTE { "FIN_WAIT" } else { "CLOSE_WAIT" };
        assert_eq!(it.state(), finished, "{rules}");
    }
}

#[test]
fn both_sides_may_finish_in_any_order() {
    for rules in [NAT, NAT6, FULL_NAT] {
        let mut it = established(rules);
        it.server(900_501, 1_101, |segment| segment.fin().ack().payload_len(10));
        assert_eq!(it.state(), "FIN_WAIT", "{rules}");
        it.client(|segment| segment.fin().ack().numbers(1_101, 900_512));
        assert_eq!(it.state(), "TIME_WAIT", "{rules}");
        let mut it = established(rules);
        it.client(|segment| segment.fin().ack().numbers(1_101, 900_501));
        it.server(900_501, 1_102, |segment| segment.fin().ack().payload_len(10));
        assert_eq!((it.state(), it.desk.director.segments_disbelieved()), ("TIME_WAIT", 0), "{rules}");
    }
}

#[test]
fn a_damaged_segment_moves_nothing() {
    let mut it = established(NAT);
    it.client(|segment| segment.rst().numbers(1_101, 0).bad_checksum());
    it.client(|segment| segment.fin().ack().numbers(1_101, 900_501).bad_checksum());
    assert_eq!((it.state(), it.desk.director.segments_disbelieved()), ("ESTABLISHED", 2));
    let mut it = Conversation::new(NAT);
    it.client(|segment| segment.syn().numbers(1_000, 0));
    it.server(900_000, 1_001, |segment| segment.syn().ack());
    it.client(|segment| segment.ack().numbers(1_001, 900_001).bad_checksum());
    assert_eq!(it.state(), "SYN_RECV");
}

#[test]
fn a_flood_that_makes_up_the_handshakes_end_stays_half_open() {
    for rules in [NAT, NAT6, FULL_NAT] {
        let mut it = Conversation::new(rules);
        it.client(|segment| segment.syn().numbers(1_000, 0));
        it.client(|segment| segment.ack().numbers(1_001, 0x1234_5678));
        assert_eq!(it.state(), "SYN_RECV", "{rules}: before the server has answered");
        it.server(900_000, 1_001, |segment| segment.syn().ack());
        for made_up in [0x1234_5678, 900_000, 900_002, 0] {
            it.client(|segment| segment.ack().numbers(1_001, made_up));
            assert_eq!(it.state(), "SYN_RECV", "{rules}: {made_up}");
        }
        assert_eq!(it.desk.director.gauges().half_open, 1);
        it.client(|segment| segment.ack().numbers(1_001, 900_001));
        assert_eq!(it.state(), "ESTABLISHED", "{rules}");
    }
}

/// Nor does a SYN that nobody believes end somebody else's half-open connection.
#[test]
fn a_syn_that_is_not_believed_makes_nobody_give_way() {
    for rules in [NAT, NAT6, FULL_NAT] {
        let mut it = Conversation::new(rules);
        it.desk = Desk::with_config(Desk::config().with(|config| config.half_open_max = 1), rules);
        it.shake_hands();
        it.server(900_001, 1_001, |segment| segment.fin().ack());
        assert_eq!(it.state(), "FIN_WAIT");
        let mut other: std::net::SocketAddr = it.client.parse().unwrap();
        other.set_port(4096);
        it.desk.feed(&tcp(other, it.service).syn().numbers(5, 0).build());
        let before = it.state();
        it.client(|segment| segment.syn().numbers(0xdead_beef, 0));
        assert_eq!((it.state(), it.desk.director.segments_disbelieved()), (before, 1), "{rules}");
        assert_eq!(it.desk.director.gauges().half_open, 1, "{rules}");
    }
}

/// The numbers go round, windows are scaled, and what was lost comes again.
#[test]
fn a_long_conversation_is_followed() {
    let mut it = Conversation::new(NAT);
    // Scale by 7 (RFC 7323).
    let scale = [3, 3, 7, 1];
    let start = u32::MAX - 500_000;
    it.client(|segment| segment.syn().numbers(start, 0).tcp_options(&scale));
    it.server(900_000, start.wrapping_add(1), |segment| segment.syn().ack().tcp_options(&scale));
    let mut next = start.wrapping_add(1);
    it.client(|segment| segment.ack().numbers(next, 900_001));
    for _ in 0..1_000 {
        // Ten segments, of which the server acknowledges the first only, then all.
        for part in 0..10 {
            it.client(|segment| segment.ack().numbers(next.wrapping_add(1_400 * part), 900_001).payload_len(1_400));
        }
        it.server(900_001, next.wrapping_add(1_400), |segment| segment.ack());
        next = next.wrapping_add(14_000);
        it.server(900_001, next, |segment| segment.ack());
    }
    it.client(|segment| segment.rst().numbers(next.wrapping_sub(70_000), 0));
    it.server(900_001, next.wrapping_sub(14_000_000), |segment| segment.fin().ack());
    assert_eq!((it.state(), it.desk.director.segments_disbelieved()), ("ESTABLISHED", 2));
    it.client(|segment| segment.rst().numbers(next, 0));
    assert_eq!(it.state(), "CLOSE");
}

#[test]
fn without_the_option_everything_moves_the_state_as_in_ipvs() {
    let mut it = established("-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m");
    it.client(|segment| segment.rst().numbers(0xdead_beef, 0).bad_checksum());
    assert_eq!((it.state(), it.desk.director.segments_disbelieved()), ("CLOSE", 0));
}

#[test]
fn what_is_not_believed_is_explained() {
    let it = established(NAT);
    let mut rst = lvs_testkit::Storage::new(&tcp(it.client, it.service).rst().numbers(1, 0).build());
    let explanation = it.desk.director.explain(it.desk.now, &rst.packet()).to_string();
    assert!(explanation.contains("numbers, tag or checksum are wrong: the state stays as it is"), "{explanation}");
}
