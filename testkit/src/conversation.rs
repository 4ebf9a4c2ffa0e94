//! A fuzz target: a client that sends what it likes, a server that does as TCP says, with or without SYN cookies, and
//! between them a director that tells the server whose connection it is. What the bytes choose is what both do next.
//!
//! The law: a server's program never reads anything before the header that the director made, and behind it the bytes
//! that the client sent, in order; no TOA option but the director's own reaches it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::{Director, DirectorConfig, Instant, Seed, Verdict};

use crate::desk::hand_over;
use crate::{Packet, Storage, oracle, tcp};

/// Client, virtual endpoint, server, local address: IPv4, IPv6 and from the one to the other.
const PLACES: [[&str; 4]; 3] = [
    ["198.51.100.7:1024", "192.0.2.25:25", "10.0.0.2:25", "10.0.0.200"],
    ["[2001:db8::7]:1024", "[2001:db8:1::25]:25", "[fd00::2]:25", "fd00::200"],
    ["[2001:db8::7]:1024", "[2001:db8:1::25]:25", "10.0.0.2:25", "10.0.0.200"],
];
const KINDS: [&str; 3] = ["proxy-v1", "proxy-v2", "toa"];
/// First numbers a client chooses from: two of them a header's length apart, one about to wrap.
const ISNS: [u32; 4] = [1000, 1000 - 44, 70_000, u32::MAX - 20];
const STEPS_MAX: usize = 200;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Plays the conversation that the bytes choose.
///
/// # Panics
/// If the law is broken.
pub fn play(data: &[u8]) {
    let mut script = Script(data);
    let Some(setup) = script.next() else { return };
    let mut world = World::new(setup);
    for _ in 0..STEPS_MAX {
        let Some(step) = script.next() else { break };
        world.step(step, &mut script);
    }
}

/// Choices, zero once they are used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// Near zero, of either sign.
    fn near(&mut self) -> i32 {
        i32::from(self.byte().cast_signed())
    }
}

/// What a client says under a number: nothing that a header has, and never the same within 64 bytes.
fn said(sequence: u32) -> u8 {
    0x80 | (sequence & 0x3f) as u8
}

/// The fields of a TCP segment that count here.
#[derive(Clone, Copy)]
struct Segment {
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

fn read(packet: &[u8]) -> (Segment, SocketAddr, Vec<u8>, Vec<u8>) {
    let parsed = oracle::parse(packet).expect("a packet");
    let bytes = parsed.segment;
    let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let segment = Segment { sequence: number(4), acknowledgment: number(8), flags: bytes[13] };
    let header_len = usize::from(bytes[12] >> 4) * 4;
    let source = SocketAddr::new(parsed.source, u16::from_be_bytes([bytes[0], bytes[1]]));
    (segment, source, bytes[20..header_len].to_vec(), bytes[header_len..].to_vec())
}

struct World {
    director: Director,
    now: Instant,
    place: [&'static str; 4],
    /// Before the first byte.
    header: Vec<u8>,
    /// In an option.
    toa: Option<Vec<u8>>,
    has_cookies: bool,
    servers: BTreeMap<SocketAddr, Server>,
    /// Numbers that acknowledge what the client has seen of its servers, newest first.
    seen: Vec<u32>,
}

impl World {
    fn new(setup: u8) -> Self {
        let place = PLACES[usize::from(setup) % 3];
        let kind = KINDS[usize::from(setup / 3) % 3];
        let keep = if setup & 64 != 0 { "--keep-sequence" } else { "" };
        let [client, service, real, local] = place;
        let rules = format!(
            "-A -t {service} -s rr --client-address {kind} {keep}\n--add-laddr -t {service} --local-address {local}\n\
             -a -t {service} -r {real} --fullnat"
        );
        let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
        for command in lvs_admin::parse_rules(&rules).expect("the rules are right") {
            director.apply(Instant::ZERO, &command).expect("the rules are accepted");
        }
        let ends = [client, service].map(|end| end.parse::<SocketAddr>().expect("a constant"));
        Self {
            director,
            now: Instant::from_secs(1),
            place,
            header: header(kind, ends),
            toa: (kind == "toa").then(|| toa(ends[0])),
            has_cookies: setup & 128 != 0,
            servers: BTreeMap::new(),
            seen: Vec::new(),
        }
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let isn = ISNS[usize::from(step / 16) % ISNS.len()];
        let [client, service, ..] = self.place;
        let client = || tcp(client, service);
        match step % 16 {
            0 => self.send(&client().syn().numbers(isn, 0)),
            1 => self.send(&client().syn().ack().numbers(isn, script.near() as u32)),
            2 => self.send(&client().rst().numbers(isn.wrapping_add_signed(1 + script.near()), 0)),
            3 => {
                self.now = self.now + Duration::from_millis(u64::from(script.byte()) * 500);
                self.director.handle_timeout(self.now);
            }
            // An honest client's next step.
            4 => {
                self.send(&client().syn().numbers(isn, 0));
                self.send(&client().ack().numbers(isn.wrapping_add(1), self.acknowledgment(0)));
            }
            5 | 6 => self.server_says(script),
            7 => self.server_forgets(),
            // The numbers of an answer to a SYN|ACK, moved on alike.
            8 => {
                let past = script.near();
                let add = (past + self.header.len() as i32) * i32::from(past != 0) + script.near() % 4;
                let oldest = self.seen.last().copied().unwrap_or(0);
                self.say(isn, past, oldest.wrapping_add_signed(add), ACK, script.byte());
            }
            kind => {
                let past = if kind < 12 { 0 } else { script.near() };
                let flags = if kind == 15 { ACK | FIN } else { ACK };
                let acknowledgment = self.acknowledgment(script.byte());
                self.say(isn, past, acknowledgment, flags, script.byte());
            }
        }
    }

    /// What the client has seen before the last so many segments.
    fn acknowledgment(&self, back: u8) -> u32 {
        self.seen.get(usize::from(back) % 8).copied().unwrap_or(0)
    }

    fn say(&mut self, isn: u32, past: i32, acknowledgment: u32, flags: u8, len: u8) {
        let sequence = isn.wrapping_add_signed(1 + past);
        let text: Vec<u8> = (0..u32::from(len % 64)).map(|place| said(sequence.wrapping_add(place))).collect();
        let packet = tcp(self.place[0], self.place[1]).flags(flags);
        self.send(&packet.numbers(sequence, acknowledgment).tcp_options(SPOOFED_TOA).payload(&text));
    }

    fn send(&mut self, packet: &Packet) {
        let storage = Storage::with_room(&packet.build(), 128, 2048);
        let sent = hand_over(&mut self.director, self.now, storage);
        if !matches!(sent.verdict, Verdict::Forward { .. }) {
            return;
        }
        let (segment, local, options, payload) = read(&sent.bytes);
        let named = options.windows(2).any(|window| matches!(window, [253 | 254, 8 | 20]));
        let is_ours = self.toa.as_ref().is_some_and(|toa| options.starts_with(toa));
        assert!(!named || is_ours, "a TOA option that the director did not make: {options:?}");
        let has_cookies = self.has_cookies;
        let server = self.servers.entry(local).or_insert_with(|| Server::new(has_cookies));
        let answer = server.take(segment, &payload);
        server.check(&self.header);
        if let Some(answer) = answer {
            self.reply(local, answer, &[]);
        }
    }

    fn reply(&mut self, local: SocketAddr, answer: Segment, payload: &[u8]) {
        let packet = tcp(self.place[2], local).flags(answer.flags);
        let packet = packet.numbers(answer.sequence, answer.acknowledgment).payload(payload).build();
        let sent = hand_over(&mut self.director, self.now, Storage::with_room(&packet, 128, 2048));
        if matches!(sent.verdict, Verdict::Forward { .. }) {
            let is_long = u32::from(answer.flags & (SYN | FIN) != 0);
            self.seen.insert(0, answer.sequence.wrapping_add(is_long + payload.len() as u32));
        }
    }

    /// Data, an end or a RST of the server that was spoken to last.
    fn server_says(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let Some((local, server)) = self.servers.iter_mut().next_back() else { return };
        let Some(open) = &mut server.open else { return };
        let text = vec![b'x'; usize::from(what / 4)];
        let flags = match what % 4 {
            0 if open.ended.is_none() => ACK | FIN,
            1 => RST,
            _ if open.ended.is_some() => return,
            _ => ACK,
        };
        let said = Segment { sequence: open.next, acknowledgment: open.expected(), flags };
        open.next = open.next.wrapping_add(text.len() as u32 + u32::from(flags & FIN));
        if flags & FIN != 0 {
            open.ended = Some(self.now);
        }
        if flags & RST != 0 {
            server.open = None;
        }
        let local = *local;
        self.reply(local, said, if flags & RST == 0 { &text } else { &[] });
    }

    /// A server whose client has not ended, long after it has, remembers nothing of it.
    fn server_forgets(&mut self) {
        for server in self.servers.values_mut() {
            let ended = server.open.as_ref().and_then(|open| open.ended);
            if ended.is_some_and(|at| self.now >= at + Duration::from_secs(60)) {
                server.open = None;
            }
        }
    }
}

/// A TCP server at one endpoint, as far as it takes data.
struct Server {
    has_cookies: bool,
    /// The client's and its own first number of its last SYN|ACK, without cookies.
    answered: Option<(u32, u32)>,
    open: Option<Open>,
    given: u32,
}

/// A connection that came about.
struct Open {
    /// The number of the first byte it takes.
    base: u32,
    /// The next number of its own.
    next: u32,
    received: BTreeMap<u32, u8>,
    /// Where the client's end is.
    client_end: Option<u32>,
    ended: Option<Instant>,
}

impl Open {
    fn stream(&self) -> Vec<u8> {
        (0..).map_while(|place| self.received.get(&place).copied()).collect()
    }

    fn expected(&self) -> u32 {
        let len = self.stream().len() as u32;
        self.base.wrapping_add(len).wrapping_add(u32::from(self.client_end == Some(len)))
    }
}

/// What a cookie adds to the client's number: a secret of the server's.
const COOKIE: u32 = 0x9e37_79b1;

impl Server {
    fn new(has_cookies: bool) -> Self {
        Self { has_cookies, answered: None, open: None, given: 0 }
    }

    /// What it answers to a segment.
    fn take(&mut self, segment: Segment, payload: &[u8]) -> Option<Segment> {
        let Segment { sequence, acknowledgment, flags } = segment;
        if flags & RST != 0 {
            if self.open.as_ref().is_some_and(|open| open.expected() == sequence) {
                self.open = None;
            }
            return None;
        }
        match flags & (SYN | ACK) {
            SYN => return self.take_syn(sequence),
            // Nobody has asked for a SYN|ACK.
            both if both == SYN | ACK => {
                return Some(Segment { sequence: acknowledgment, acknowledgment: 0, flags: RST });
            }
            _ => {}
        }
        if flags & ACK == 0 {
            return None;
        }
        if self.open.is_none() {
            if !self.is_answer(sequence, acknowledgment) {
                return Some(Segment { sequence: acknowledgment, acknowledgment: 0, flags: RST });
            }
            self.answered = None;
            let received = BTreeMap::new();
            self.open = Some(Open { base: sequence, next: acknowledgment, received, client_end: None, ended: None });
        }
        let open = self.open.as_mut().expect("it is open");
        let answer = |open: &Open| Segment { sequence: open.next, acknowledgment: open.expected(), flags: ACK };
        if (acknowledgment.wrapping_sub(open.next) as i32) > 0 {
            return Some(answer(open));
        }
        let past = sequence.wrapping_sub(open.base) as i32;
        for (place, byte) in (past..).zip(payload) {
            if let Ok(place @ 0..10_000) = u32::try_from(place) {
                open.received.entry(place).or_insert(*byte);
            }
        }
        if flags & FIN != 0 && past >= 0 {
            open.client_end.get_or_insert(past as u32 + payload.len() as u32);
        }
        let told = answer(open);
        let has_all = open.client_end == Some(open.stream().len() as u32);
        if has_all && open.ended.is_some() && acknowledgment == open.next {
            self.open = None;
        }
        Some(told)
    }

    /// Whether these numbers answer a SYN|ACK: of a cookie they add up to it, and stand for one of a few segment sizes.
    fn is_answer(&self, sequence: u32, acknowledgment: u32) -> bool {
        let (isn, own) = (sequence.wrapping_sub(1), acknowledgment.wrapping_sub(1));
        if self.has_cookies {
            return own.wrapping_sub(isn).wrapping_sub(COOKIE) < 4;
        }
        self.answered.is_some_and(|(known, given)| given == own && known == isn)
    }

    fn take_syn(&mut self, isn: u32) -> Option<Segment> {
        if let Some(open) = &self.open {
            return Some(Segment { sequence: open.next, acknowledgment: open.expected(), flags: ACK });
        }
        let own = match self.answered {
            _ if self.has_cookies => isn.wrapping_add(COOKIE + 3),
            Some((known, given)) if known == isn => given,
            Some((known, given)) => {
                let (sequence, acknowledgment) = (given.wrapping_add(1), known.wrapping_add(1));
                return Some(Segment { sequence, acknowledgment, flags: ACK });
            }
            None => {
                self.given += 100_000;
                self.answered = Some((isn, self.given));
                self.given
            }
        };
        Some(Segment { sequence: own, acknowledgment: isn.wrapping_add(1), flags: SYN | ACK })
    }

    fn check(&self, header: &[u8]) {
        let Some(open) = &self.open else { return };
        let stream = open.stream();
        let (first, rest) = stream.split_at(header.len().min(stream.len()));
        assert_eq!(String::from_utf8_lossy(first), String::from_utf8_lossy(&header[..first.len()]));
        let follows = |pair: &[u8]| pair[1] == said(u32::from(pair[0]) + 1);
        assert!(rest.iter().all(|byte| byte & 0xc0 == 0x80) && rest.windows(2).all(follows), "{rest:?}");
    }
}

/// What a client says of itself, in an option: somebody else.
const SPOOFED_TOA: &[u8] = &[254, 8, 0, 80, 10, 9, 8, 7];

fn toa(client: SocketAddr) -> Vec<u8> {
    let mut option = vec![254, if client.is_ipv4() { 8 } else { 20 }];
    option.extend(client.port().to_be_bytes());
    push_address(&mut option, client);
    option
}

fn push_address(bytes: &mut Vec<u8>, end: SocketAddr) {
    match end {
        SocketAddr::V4(end) => bytes.extend(end.ip().octets()),
        SocketAddr::V6(end) => bytes.extend(end.ip().octets()),
    }
}

/// The PROXY header of a connection between these ends, by HAProxy's specification.
fn header(kind: &str, [client, to]: [SocketAddr; 2]) -> Vec<u8> {
    let is_ipv4 = client.is_ipv4();
    match kind {
        "proxy-v1" => {
            let family = if is_ipv4 { 4 } else { 6 };
            format!("PROXY TCP{family} {} {} {} {}\r\n", client.ip(), to.ip(), client.port(), to.port()).into_bytes()
        }
        "proxy-v2" => {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
            header.extend(if is_ipv4 { [0x11, 0, 12] } else { [0x21, 0, 36] });
            push_address(&mut header, client);
            push_address(&mut header, to);
            header.extend([client.port().to_be_bytes(), to.port().to_be_bytes()].concat());
            header
        }
        _ => Vec::new(),
    }
}
