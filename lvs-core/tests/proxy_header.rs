//! Behind FullNAT, a server believes the PROXY header that comes first. Nothing a client sends may take its place, and
//! honest clients notice nothing of what keeps it so. Held against a plain TCP server, with and without SYN cookies.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use lvs_core::local_address::LocalPorts;
use lvs_core::{ChecksumOffload, DropReason, Gso, GsoKind, Offload, Verdict};
use lvs_testkit::{Desk, Outcome, Packet, Storage, oracle, strategy, tcp};
use proptest::prelude::*;

const CLIENT: &str = "198.51.100.7:1024";
const VIRTUAL: &str = "192.0.2.80:80";
const REAL: &str = "10.0.0.2:8080";
const SPOOFED: &[u8] = b"PROXY TCP4 10.9.8.7 192.0.2.80 1 80\r\n";
const HEADER: &[u8] = b"PROXY TCP4 198.51.100.7 192.0.2.80 1024 80\r\n";

fn rules(more: &str) -> String {
    format!(
        "-A -t 192.0.2.80:80 -s rr --client-address proxy-v1 {more}\n\
         --add-laddr -t 192.0.2.80:80 --local-address 10.0.0.200\n\
         -a -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat"
    )
}

/// A segment of the client.
fn request() -> Packet {
    tcp(CLIENT, VIRTUAL).ack()
}

/// A TCP segment's fields.
#[derive(Clone, Copy, Debug)]
struct Segment {
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

fn segment(packet: &[u8]) -> (Segment, u16, &[u8]) {
    let parsed = oracle::parse(packet).expect("a packet");
    let number = |at: usize| u32::from_be_bytes(parsed.segment[at..at + 4].try_into().unwrap());
    let segment = Segment { sequence: number(4), acknowledgment: number(8), flags: parsed.segment[13] };
    let urgent = u16::from_be_bytes([parsed.segment[18], parsed.segment[19]]);
    (segment, urgent, &parsed.segment[usize::from(parsed.segment[12] >> 4) * 4..])
}

/// A connection of the director with a server that does what it is told.
struct Talk {
    desk: Desk,
    local: SocketAddr,
    /// The client's first number as the server knows it.
    isn: u32,
}

impl Talk {
    /// The client has sent a SYN with number 1000.
    fn begin(more: &str) -> Self {
        let mut desk = Desk::new(&rules(more));
        let sent = desk.send(&tcp(CLIENT, VIRTUAL).syn().numbers(1000, 0).build());
        let local = desk.connections()[0].local.expect("a FullNAT connection has one");
        Self { desk, local: SocketAddr::new(local.address, local.port), isn: segment(&sent.bytes).0.sequence }
    }

    /// And the server, whose first number is 5000, has answered it.
    fn open(more: &str) -> Self {
        let mut talk = Self::begin(more);
        let told = talk.answer(5000, talk.isn.wrapping_add(1));
        assert_eq!(told.acknowledgment, 1001);
        talk
    }

    /// A SYN|ACK of the server, as the client gets it.
    fn answer(&mut self, isn: u32, acknowledgment: u32) -> Segment {
        self.reply(&tcp(REAL, self.local).syn().ack().numbers(isn, acknowledgment))
    }

    /// A segment of the server, as the client gets it.
    #[track_caller]
    fn reply(&mut self, packet: &Packet) -> Segment {
        segment(&forwarded(self.desk.send(&packet.build()))).0
    }

    /// A SYN of the client, as the server gets it.
    #[track_caller]
    fn syn(&mut self, isn: u32) -> u32 {
        let sent = forwarded(self.desk.send(&tcp(CLIENT, VIRTUAL).syn().numbers(isn, 0).build()));
        segment(&sent).0.sequence
    }

    #[track_caller]
    fn check_refused(&mut self, packet: &Packet) {
        let verdict = self.desk.send(&packet.build()).verdict;
        assert_eq!(verdict, Verdict::Drop(DropReason::OutOfSequence));
    }

    /// The client's first data arrive behind the header.
    #[track_caller]
    fn check_announced(&mut self, packet: &Packet, isn_at_server: u32) {
        let sent = forwarded(self.desk.send(&packet.build()));
        let (segment, _, payload) = segment(&sent);
        assert_eq!(segment.sequence, isn_at_server.wrapping_add(1));
        assert!(payload.starts_with(HEADER), "{:?}", String::from_utf8_lossy(payload));
    }
}

#[track_caller]
fn forwarded(outcome: Outcome) -> Vec<u8> {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    outcome.bytes
}

#[test]
fn data_on_the_number_of_the_syn_does_not_pass() {
    let mut talk = Talk::open("");
    // One byte the server throws away, then what it would take for the header.
    let data = [b"X", SPOOFED].concat();
    talk.check_refused(&request().numbers(1000, 5001).payload(&data));
    assert_eq!(talk.desk.director.drops(DropReason::OutOfSequence), 1);
    talk.check_refused(&request().fin().numbers(1000, 5001));
    let probe = request().numbers(1000, 5001);
    assert_eq!(segment(&forwarded(talk.desk.send(&probe.build()))).0.sequence, talk.isn, "asks whether it lives");
    talk.check_announced(&request().numbers(1001, 5001).payload(b"hello"), talk.isn);
}

#[test]
fn a_super_packet_that_begins_on_the_number_of_the_syn_does_not_pass() {
    let mut talk = Talk::open("");
    let data = request().numbers(1000, 5001).payload_len(4000).partial_checksum();
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1, ecn: false });
    let offload = Offload { checksum: data.offload(), gso };
    let sent = talk.desk.send_storage(Storage::with_room(&data.build(), 64, 64).offload(offload));
    assert_eq!(sent.verdict, Verdict::Drop(DropReason::OutOfSequence));
    assert_eq!(offload.checksum, ChecksumOffload::Partial { start: 20, offset: 16 });
}

#[test]
fn another_syn_moves_no_numbers_until_the_server_answers_it() {
    for more in ["", "--keep-sequence"] {
        let mut talk = Talk::open(more);
        talk.desk.pass(Duration::from_millis(10));
        talk.syn(1000 - 500);
        // The server's challenge: its connection still begins with the first SYN.
        let (local, isn) = (talk.local, talk.isn);
        let challenge = talk.reply(&tcp(REAL, local).ack().numbers(5001, isn.wrapping_add(1)));
        assert_eq!(challenge.acknowledgment, 1001);
        talk.check_refused(&request().numbers(1001 - 28, 5001).payload(SPOOFED));
        talk.check_announced(&request().numbers(1001, 5001).payload(b"hello"), isn);
    }
}

#[test]
fn nothing_but_syns_passes_before_the_server_has_answered_one() {
    let mut talk = Talk::begin("");
    talk.desk.pass(Duration::from_millis(10));
    let again = talk.syn(2000);
    talk.check_refused(&request().numbers(1001, 1).payload(SPOOFED));
    talk.check_refused(&request().numbers(2001, 1));
    // It answers the first of them, which the client has given up: no segment of the second can be a part of that.
    let isn = talk.isn;
    talk.answer(5000, isn.wrapping_add(1));
    talk.check_refused(&request().numbers(2001, 5001).payload(SPOOFED));
    assert_eq!(talk.answer(6000, again.wrapping_add(1)).acknowledgment, 2001);
    talk.check_announced(&request().numbers(2001, 6001).payload(b"hello"), again);
}

#[test]
fn the_answer_to_another_syn_ack_of_the_server_does_not_pass() {
    // A server with SYN cookies has answered two SYNs and would take the answer to either.
    let mut talk = Talk::open("--keep-sequence");
    talk.syn(900);
    talk.answer(7000, 901);
    talk.check_refused(&request().numbers(1001 - HEADER.len() as u32, 5001).payload(SPOOFED));
    talk.check_refused(&request().numbers(1001, 5001));
    talk.check_announced(&request().numbers(901, 7001).payload(b"hello"), 900);
}

#[test]
fn what_the_server_says_first_may_be_acknowledged() {
    let mut talk = Talk::open("");
    let (local, isn) = (talk.local, talk.isn);
    let ack = isn.wrapping_add(1);
    talk.check_refused(&request().numbers(1001, 5006));
    talk.reply(&tcp(REAL, local).ack().numbers(5001, ack).payload(b"hello"));
    talk.reply(&tcp(REAL, local).ack().fin().numbers(5006, ack));
    forwarded(talk.desk.send(&request().numbers(1001, 5006).build()));
    talk.check_refused(&request().numbers(1001, 5008));
    talk.check_announced(&request().fin().numbers(1001, 5007), isn);
}

#[test]
fn a_syn_with_data_does_not_pass_on_a_connection_that_was_open_either() {
    let mut talk = Talk::open("");
    let (local, isn) = (talk.local, talk.isn);
    talk.check_announced(&request().numbers(1001, 5001).payload(b"hello"), isn);
    let all = isn.wrapping_add(1 + HEADER.len() as u32 + 5);
    talk.reply(&tcp(REAL, local).ack().fin().numbers(5001, all));
    let syn = tcp(CLIENT, VIRTUAL).syn().numbers(9000, 0).payload(SPOOFED).build();
    assert_eq!(talk.desk.send(&syn).verdict, Verdict::Drop(DropReason::NotForwardable));
}

#[test]
fn a_connection_opened_anew_has_a_header_of_its_own() {
    // The states a connection may be in when its client comes again.
    for state in ["FIN_WAIT", "CLOSE_WAIT", "TIME_WAIT", "CLOSE", "ESTABLISHED"] {
        let mut talk = Talk::open("");
        talk.desk.set(|settings| settings.conn_reuse_mode = 0);
        let (local, isn) = (talk.local, talk.isn);
        talk.check_announced(&request().numbers(1001, 5001).payload(b"hello"), isn);
        let all = isn.wrapping_add(1 + HEADER.len() as u32 + 5);
        assert_eq!(talk.reply(&tcp(REAL, local).ack().numbers(5001, all)).acknowledgment, 1006);
        let is_closed_by = |side: &str| match side {
            "client" => matches!(state, "CLOSE_WAIT" | "TIME_WAIT"),
            _ => matches!(state, "FIN_WAIT" | "TIME_WAIT"),
        };
        if is_closed_by("client") {
            forwarded(talk.desk.send(&request().fin().numbers(1006, 5001).build()));
        }
        if is_closed_by("server") {
            talk.reply(&tcp(REAL, local).ack().fin().numbers(5001, all));
        }
        if state == "CLOSE" {
            talk.reply(&tcp(REAL, local).rst().numbers(5001, 0));
        }
        assert_eq!(talk.desk.connections()[0].state, state);
        talk.desk.pass(Duration::from_secs(1));

        // A server that still has the old connection says so, and the client resets that: by the old numbers.
        let anew = talk.syn(90_000);
        assert!(anew.wrapping_sub(all) < 1 << 31, "beyond the old ones");
        assert_eq!(talk.reply(&tcp(REAL, local).ack().numbers(5002, all)).acknowledgment, 1006);
        let reset = talk.desk.send(&tcp(CLIENT, VIRTUAL).rst().numbers(1006, 0).build());
        assert_eq!(segment(&forwarded(reset)).0.sequence, all);
        // One that has forgotten it takes the new one.
        assert_eq!(talk.syn(90_000), anew);
        assert_eq!(talk.answer(7000, anew.wrapping_add(1)).acknowledgment, 90_001);
        talk.check_refused(&request().numbers(90_000, 7001).payload(SPOOFED));
        talk.check_announced(&request().numbers(90_001, 7001).payload(b"hello"), anew);
    }
}

#[test]
fn a_refused_connection_is_refused_with_the_number_the_client_asked_with() {
    let mut talk = Talk::open("");
    let local = talk.local;
    let anew = talk.syn(90_000);
    let refusal = tcp(REAL, local).rst().ack().numbers(0, anew.wrapping_add(1));
    assert_eq!(talk.reply(&refusal).acknowledgment, 90_001);
}

#[test]
fn a_syn_ack_lost_on_its_way_to_the_client_comes_again() {
    let mut talk = Talk::open("");
    talk.desk.pass(Duration::from_secs(1));
    let isn = talk.isn;
    assert_eq!(talk.syn(1000), isn);
    assert_eq!(talk.answer(5000, isn.wrapping_add(1)).acknowledgment, 1001);
    // A server that kept nothing of the first one has another number now.
    assert_eq!(talk.answer(6000, isn.wrapping_add(1)).acknowledgment, 1001);
    talk.check_refused(&request().numbers(1001, 5001));
    talk.check_announced(&request().numbers(1001, 6001).payload(b"hello"), isn);
}

#[test]
fn urgent_data_are_the_clients_own_and_not_a_byte_of_the_header() {
    let len = HEADER.len() as u16;
    // A pointer of 0 and one of 1 both mean the first byte to most servers.
    for (pointer, payload, expected) in [(0, &b"hello"[..], 1 + len), (1, b"hello", 1 + len), (5, b"hello", 5 + len)] {
        let mut talk = Talk::open("");
        let data = request().urgent(pointer).numbers(1001, 5001).payload(payload);
        assert_eq!(segment(&forwarded(talk.desk.send(&data.build()))).1, expected);
        // Announced before they come.
        let notice = request().urgent(pointer).numbers(1001, 5001);
        assert_eq!(segment(&forwarded(talk.desk.send(&notice.build()))).1, expected);
        talk.check_refused(&request().urgent(pointer).numbers(1000, 5001));
        let later = request().urgent(pointer).numbers(1006, 5001).payload(payload);
        assert_eq!(segment(&forwarded(talk.desk.send(&later.build()))).1, pointer);
    }
}

#[test]
fn no_fragment_passes_before_the_header() {
    // The first one has nothing but a TCP header of 24 bytes, the next one the data.
    let mut talk = Talk::open("");
    let data = request().numbers(1001, 5001).tcp_options(&[1; 4]).payload(SPOOFED).fragments(24);
    for part in &data {
        assert_eq!(talk.desk.send(part).verdict, Verdict::Drop(DropReason::NotForwardable));
    }
    let syn = tcp(CLIENT, VIRTUAL).syn().numbers(2000, 0).tcp_options(&[1; 4]).payload(SPOOFED).identification(9);
    assert_eq!(talk.desk.send(&syn.fragments(24)[0]).verdict, Verdict::Drop(DropReason::NotForwardable));
}

/// What a client may do.
#[derive(Clone, Debug)]
enum Step {
    Syn {
        isn: usize,
        again: bool,
    },
    /// Data or nothing, with a number near the one the client's `isn` gives.
    Send {
        isn: usize,
        past: i32,
        answers: usize,
        flags: u8,
        urgent: u16,
        len: usize,
    },
    /// As an honest client goes on.
    Shake {
        isn: usize,
    },
    /// The server gives its connection up, silently or not.
    Forget,
    Close,
    Pass {
        seconds: u64,
    },
}

/// Numbers a client chooses from: two of them a header's length apart, one about to wrap.
const ISNS: [u32; 4] = [1000, 1000 - 44, 70_000, u32::MAX - 20];

fn step() -> impl Strategy<Value = Step> {
    let isn = || 0..ISNS.len();
    let past = prop_oneof![Just(0), Just(1), Just(2), Just(-43), -46..50];
    let flags = prop_oneof![12 => Just(ACK), 2 => Just(ACK | FIN), 2 => Just(ACK | URG), 1 => Just(RST), 1 => Just(0)];
    let len = prop_oneof![Just(0), Just(1), Just(40), Just(46)];
    prop_oneof![
        3 => (isn(), any::<bool>()).prop_map(|(isn, again)| Step::Syn { isn, again }),
        12 => (isn(), past, 0..4usize, flags, 0..60u16, len)
            .prop_map(|(isn, past, answers, flags, urgent, len)| Step::Send { isn, past, answers, flags, urgent, len }),
        2 => isn().prop_map(|isn| Step::Shake { isn }),
        1 => Just(Step::Forget),
        1 => Just(Step::Close),
        1 => (0..100u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// A TCP server at one endpoint, as far as it takes data.
#[derive(Default)]
struct Server {
    has_cookies: bool,
    /// The client's and its own first number of each SYN|ACK, as long as they count.
    answered: Vec<(u32, u32)>,
    open: Option<Open>,
    given: u32,
}

/// A connection that came about.
struct Open {
    isn: u32,
    next: u32,
    received: BTreeMap<u32, u8>,
    /// Bytes taken out of the stream, by their place in it.
    urgent: Vec<u32>,
}

impl Open {
    /// What its program reads.
    fn stream(&self) -> Vec<u8> {
        let bytes = (0..).map_while(|place| Some((place, *self.received.get(&place)?)));
        bytes.filter(|(place, _)| !self.urgent.contains(place)).map(|(_, byte)| byte).collect()
    }

    fn expected(&self) -> u32 {
        let count = (0..).take_while(|place| self.received.contains_key(place)).count();
        self.isn.wrapping_add(1).wrapping_add(count as u32)
    }
}

impl Server {
    /// What it answers to a packet.
    fn take(&mut self, packet: &[u8]) -> Option<Segment> {
        let (segment, urgent, payload) = segment(packet);
        if segment.flags & RST != 0 {
            if self.open.as_ref().is_some_and(|open| open.expected() == segment.sequence) {
                self.open = None;
            }
            return None;
        }
        if segment.flags & SYN != 0 {
            return self.take_syn(segment.sequence);
        }
        if segment.flags & ACK == 0 {
            return None;
        }
        if self.open.is_none() {
            let is_answer = |(isn, own): &(u32, u32)| {
                let past = segment.sequence.wrapping_sub(isn.wrapping_add(1)) as i32;
                // Cookies are checked against the very number; what is remembered, against the window.
                let is_near = if self.has_cookies { past == 0 } else { past > -1000 };
                is_near && segment.acknowledgment == own.wrapping_add(1)
            };
            let (isn, own) = *self.answered.iter().find(|pair| is_answer(pair))?;
            self.answered.clear();
            self.open = Some(Open { isn, next: own.wrapping_add(1), received: BTreeMap::new(), urgent: vec![] });
        }
        let open = self.open.as_mut().expect("it is open");
        if (segment.acknowledgment.wrapping_sub(open.next) as i32) > 0 {
            return Some(Segment { sequence: open.next, acknowledgment: open.expected(), flags: ACK });
        }
        let past = segment.sequence.wrapping_sub(open.isn.wrapping_add(1)) as i32;
        if segment.flags & URG != 0 {
            // What it has acknowledged is no longer urgent.
            let place = past + i32::from(urgent.max(1)) - 1;
            let least = open.expected().wrapping_sub(open.isn.wrapping_add(1));
            open.urgent.extend(u32::try_from(place).ok().filter(|place| *place >= least));
        }
        for (place, byte) in (past..).zip(payload) {
            if let Ok(place @ 0..10_000) = u32::try_from(place) {
                open.received.entry(place).or_insert(*byte);
            }
        }
        Some(Segment { sequence: open.next, acknowledgment: open.expected(), flags: ACK })
    }

    fn take_syn(&mut self, isn: u32) -> Option<Segment> {
        if let Some(open) = &self.open {
            return Some(Segment { sequence: open.next, acknowledgment: open.expected(), flags: ACK });
        }
        if let (Some((known, own)), false) = (self.answered.first(), self.has_cookies) {
            let flags = if *known == isn { SYN | ACK } else { ACK };
            let sequence = if *known == isn { *own } else { own.wrapping_add(1) };
            return Some(Segment { sequence, acknowledgment: known.wrapping_add(1), flags });
        }
        self.given += 100_000;
        // A cookie is the same for the same SYN.
        let own = if self.has_cookies { isn.wrapping_mul(0x9e37_79b1) } else { self.given };
        self.answered.push((isn, own));
        Some(Segment { sequence: own, acknowledgment: isn.wrapping_add(1), flags: SYN | ACK })
    }
}

/// Client, director and servers, one for each local endpoint.
struct World {
    desk: Desk,
    has_cookies: bool,
    servers: BTreeMap<SocketAddr, Server>,
    /// Numbers that acknowledge what the client has seen of its servers, newest first.
    seen: Vec<u32>,
}

impl World {
    fn send(&mut self, packet: &Packet) {
        let sent = self.desk.send(&packet.build());
        if !matches!(sent.verdict, Verdict::Forward { .. }) {
            return;
        }
        let parsed = oracle::parse(&sent.bytes).expect("a packet");
        let port = u16::from_be_bytes([parsed.segment[0], parsed.segment[1]]);
        let local = SocketAddr::new(parsed.source, port);
        let has_cookies = self.has_cookies;
        let server = self.servers.entry(local).or_insert_with(|| Server { has_cookies, ..Server::default() });
        let answer = server.take(&sent.bytes);
        if let Some(open) = &server.open {
            let stream = open.stream();
            let len = stream.len().min(HEADER.len());
            assert_eq!(String::from_utf8_lossy(&stream[..len]), String::from_utf8_lossy(&HEADER[..len]));
        }
        if let Some(answer) = answer {
            self.reply(local, answer);
        }
    }

    fn reply(&mut self, local: SocketAddr, answer: Segment) {
        let packet = tcp(REAL, local).flags(answer.flags).numbers(answer.sequence, answer.acknowledgment);
        if self.desk.send(&packet.build()).verdict != Verdict::Pass {
            let is_long = u32::from(answer.flags & (SYN | FIN) != 0);
            self.seen.insert(0, answer.sequence.wrapping_add(is_long));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Syn { isn, again } => {
                for _ in 0..=u8::from(*again) {
                    self.send(&tcp(CLIENT, VIRTUAL).syn().numbers(ISNS[*isn], 0));
                }
            }
            Step::Send { isn, past, answers, flags, urgent, len } => {
                let sequence = ISNS[*isn].wrapping_add(1).wrapping_add_signed(*past);
                let acknowledgment = self.seen.get(*answers).copied().unwrap_or(0);
                let packet = tcp(CLIENT, VIRTUAL).flags(*flags).numbers(sequence, acknowledgment);
                let packet = if flags & URG != 0 { packet.urgent(*urgent) } else { packet };
                self.send(&packet.payload(&vec![b'x'; *len]));
            }
            Step::Shake { isn } => {
                self.send(&tcp(CLIENT, VIRTUAL).syn().numbers(ISNS[*isn], 0));
                let acknowledgment = self.seen.first().copied().unwrap_or(0);
                self.send(&request().numbers(ISNS[*isn].wrapping_add(1), acknowledgment));
            }
            Step::Forget => self.servers.values_mut().for_each(|server| server.open = None),
            Step::Close => {
                for (local, server) in core::mem::take(&mut self.servers) {
                    if let Some(open) = server.open {
                        let flags = FIN | ACK;
                        self.reply(local, Segment { sequence: open.next, acknowledgment: open.expected(), flags });
                    }
                }
            }
            Step::Pass { seconds } => self.desk.pass(Duration::from_secs(*seconds)),
        }
    }
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn whatever_a_client_sends_the_server_reads_the_header_first(
        has_cookies in any::<bool>(),
        keeps_sequence in any::<bool>(),
        reuse in 0..2u8,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let local_ports = LocalPorts::default().with(|ports| {
    ports.first = 2000;
    ports.last = 2000;
});
        let config = Desk::config().with(|config| config.local_ports = local_ports);
        let rules = rules(if keeps_sequence { "--keep-sequence" } else { "" });
        let mut desk = Desk::with_config(config, &rules);
        desk.set(|settings| settings.conn_reuse_mode = reuse);
        let mut world = World { desk, has_cookies, servers: BTreeMap::new(), seen: vec![] };
        steps.iter().for_each(|step| world.step(step));
    }
}
