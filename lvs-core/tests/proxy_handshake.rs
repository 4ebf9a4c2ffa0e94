//! A server that speaks first (SMTP, IMAP, MySQL, SSH, FTP) says nothing before it has the PROXY header, and its client
//! nothing before the server: the header goes with the ACK that completes the handshake, and again until the server has
//! it.

use core::time::Duration;

use lvs_core::Verdict;
use lvs_testkit::{Desk, Packet, Storage, oracle, tcp};

/// A service, its client and its server, of either family.
#[derive(Clone, Copy, Debug)]
struct Place {
    client: &'static str,
    virtual_endpoint: &'static str,
    real: &'static str,
    local: &'static str,
}

const PLACES: [Place; 3] = [
    Place { client: "198.51.100.7:1024", virtual_endpoint: "192.0.2.25:25", real: "10.0.0.2:25", local: "10.0.0.200" },
    Place {
        client: "[2001:db8::7]:1024",
        virtual_endpoint: "[2001:db8:1::25]:25",
        real: "[fd00::2]:25",
        local: "fd00::200",
    },
    // NAT64.
    Place {
        client: "[2001:db8::7]:1024",
        virtual_endpoint: "[2001:db8:1::25]:25",
        real: "10.0.0.2:25",
        local: "10.0.0.200",
    },
];

/// A handshake up to the server's SYN|ACK, whose number is 5000; the client's is 1000.
struct Talk {
    desk: Desk,
    place: Place,
    local: String,
    isn: u32,
}

impl Place {
    /// The segment size that a server with an MTU of 1500 bytes announces.
    fn segment_size(&self) -> u16 {
        if self.real.starts_with('[') { 1440 } else { 1460 }
    }

    fn options(&self) -> [u8; 4] {
        let [high, low] = self.segment_size().to_be_bytes();
        [2, 4, high, low]
    }
}

impl Talk {
    fn begin(place: Place, options: &str) -> Self {
        let Place { client, virtual_endpoint, real, local } = place;
        let mut desk = Desk::new(&format!(
            "-A -t {virtual_endpoint} -s rr {options}\n\
             --add-laddr -t {virtual_endpoint} --local-address {local}\n\
             -a -t {virtual_endpoint} -r {real} --fullnat"
        ));
        let sent = desk.send(&tcp(client, virtual_endpoint).syn().numbers(1000, 0).build());
        let isn = numbers(&forwarded(sent)).0;
        let local = desk.connections()[0].local.expect("a FullNAT connection has one").to_string();
        let mut talk = Self { desk, place, local, isn };
        talk.syn_ack();
        talk
    }

    /// The server's SYN|ACK, as the client gets it.
    fn syn_ack(&mut self) -> Vec<u8> {
        let syn_ack =
            self.server().syn().ack().numbers(5000, self.isn.wrapping_add(1)).tcp_options(&self.place.options());
        forwarded(self.desk.send(&syn_ack.build()))
    }

    fn client(&self) -> Packet {
        tcp(self.place.client, self.place.virtual_endpoint).ack()
    }

    fn server(&self) -> Packet {
        tcp(self.place.real, self.local.as_str())
    }

    /// What the server gets of a segment of the client: its number behind the SYN's, and its payload.
    #[track_caller]
    fn at_server(&mut self, packet: &Packet) -> (u32, Vec<u8>) {
        let sent = forwarded(self.desk.send(&packet.build()));
        let parsed = oracle::parse(&sent).expect("a packet");
        let payload = parsed.segment[usize::from(parsed.segment[12] >> 4) * 4..].to_vec();
        (numbers(&sent).0.wrapping_sub(self.isn.wrapping_add(1)), payload)
    }

    /// What the client gets of a segment of the server: number and acknowledgment.
    #[track_caller]
    fn at_client(&mut self, packet: &Packet) -> (u32, u32) {
        numbers(&forwarded(self.desk.send(&packet.build())))
    }

    fn header(&self, kind: &str) -> Vec<u8> {
        match (kind, self.place.client.starts_with('[')) {
            ("proxy-v1", false) => b"PROXY TCP4 198.51.100.7 192.0.2.25 1024 25\r\n".to_vec(),
            ("proxy-v1", true) => b"PROXY TCP6 2001:db8::7 2001:db8:1::25 1024 25\r\n".to_vec(),
            ("proxy-v2", false) => {
                [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[198, 51, 100, 7, 192, 0, 2, 25, 4, 0, 0, 25]].concat()
            }
            _ => {
                let [client, virtual_address] =
                    ["2001:db8::7", "2001:db8:1::25"].map(|text| text.parse::<core::net::Ipv6Addr>().unwrap().octets());
                let front = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24";
                [&front[..], &client, &virtual_address, &[4, 0, 0, 25]].concat()
            }
        }
    }
}

#[track_caller]
fn forwarded(outcome: lvs_testkit::Outcome) -> Vec<u8> {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    outcome.bytes
}

fn numbers(packet: &[u8]) -> (u32, u32) {
    let segment = oracle::parse(packet).expect("a packet").segment.to_vec();
    let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
    (number(4), number(8))
}

/// Every place, both versions, with both kinds of sequence numbers.
fn each(check: impl Fn(Talk, Vec<u8>)) {
    for place in PLACES {
        for kind in ["proxy-v1", "proxy-v2"] {
            for more in ["", "--keep-sequence"] {
                let talk = Talk::begin(place, &format!("--client-address {kind} {more}"));
                let header = talk.header(kind);
                check(talk, header);
            }
        }
    }
}

#[test]
fn a_server_that_speaks_first_gets_the_header_with_the_handshake() {
    each(|mut talk, header| {
        assert_eq!(talk.at_server(&talk.client().numbers(1001, 5001)), (0, header.clone()), "{:?}", talk.place);
        // The greeting acknowledges the header, of which the client knows nothing.
        let all = talk.isn.wrapping_add(1 + header.len() as u32);
        let greeting = talk.server().ack().numbers(5001, all).payload(b"220 mail\r\n");
        assert_eq!(talk.at_client(&greeting), (5001, 1001));
        let after = header.len() as u32;
        assert_eq!(talk.at_server(&talk.client().numbers(1001, 5011)), (after, vec![]));
        assert_eq!(
            talk.at_server(&talk.client().numbers(1001, 5011).payload(b"EHLO a\r\n")),
            (after, b"EHLO a\r\n".into())
        );
        let answer = talk.server().ack().numbers(5011, all.wrapping_add(8));
        assert_eq!(talk.at_client(&answer), (5011, 1009));
    });
}

#[test]
fn a_header_that_was_lost_goes_with_the_answer_to_the_next_syn_ack() {
    each(|mut talk, header| {
        for _ in 0..3 {
            assert_eq!(talk.at_server(&talk.client().numbers(1001, 5001)), (0, header.clone()));
            talk.desk.pass(Duration::from_secs(3));
            assert_eq!(numbers(&talk.syn_ack()), (5000, 1001));
        }
    });
}

#[test]
fn data_behind_a_header_whose_acknowledgment_is_under_way_bring_it_again() {
    each(|mut talk, header| {
        talk.at_server(&talk.client().numbers(1001, 5001));
        let both = [&header[..], b"EHLO a\r\n"].concat();
        assert_eq!(talk.at_server(&talk.client().numbers(1001, 5001).payload(b"EHLO a\r\n")), (0, both));
        assert_eq!(
            talk.at_server(&talk.client().numbers(1009, 5001).payload(b"x")),
            (header.len() as u32 + 8, b"x".into())
        );
    });
}

#[test]
fn half_of_a_header_that_arrived_acknowledges_nothing_of_the_client() {
    each(|mut talk, header| {
        talk.at_server(&talk.client().numbers(1001, 5001));
        let half = talk.isn.wrapping_add(1 + header.len() as u32 / 2);
        assert_eq!(talk.at_client(&talk.server().ack().numbers(5001, half)), (5001, 1001));
        assert_eq!(talk.at_server(&talk.client().numbers(1001, 5001)), (0, header.clone()), "all of it again");
    });
}

#[test]
fn a_probe_on_the_number_of_the_syn_and_a_rst_carry_none() {
    each(|mut talk, _| {
        assert_eq!(talk.at_server(&talk.client().numbers(1000, 5001)), (u32::MAX, vec![]));
        assert_eq!(talk.at_server(&talk.client().rst().numbers(1001, 5001)), (0, vec![]));
    });
}

#[test]
fn clients_announce_segments_that_leave_room_for_the_header() {
    each(|mut talk, header| {
        let told = oracle::parse(&talk.syn_ack()).unwrap().segment[20..24].to_vec();
        let expected = talk.place.segment_size() - header.len() as u16;
        assert_eq!(told, [&[2, 4][..], &expected.to_be_bytes()].concat());
        // The client's first segment, as long as it may be, reaches the server behind the header.
        let data = talk.client().numbers(1001, 5001).payload_len(usize::from(expected));
        let (_, payload) = talk.at_server(&data);
        assert_eq!(payload.len(), usize::from(talk.place.segment_size()));
    });
}

#[test]
fn a_handshake_without_room_for_the_header_is_refused_and_not_passed_without() {
    let mut talk = Talk::begin(PLACES[0], "--client-address proxy-v1");
    let ack = talk.client().numbers(1001, 5001).build();
    let sent = talk.desk.send_storage(Storage::with_room(&ack, 0, 0));
    assert_eq!(sent.verdict, Verdict::Drop(lvs_core::DropReason::NoHeadroom));
}

#[test]
fn toa_puts_nothing_before_the_data() {
    for place in PLACES {
        let mut talk = Talk::begin(place, "--client-address toa");
        assert_eq!(talk.at_server(&talk.client().numbers(1001, 5001)), (0, vec![]));
    }
}
