//! FTP through FullNAT, also from IPv6 to IPv4: what is announced passes the director both ways, and so both sides read
//! addresses that they can reach.

use core::time::Duration;

use lvs_core::local_address::LocalPorts;
use lvs_core::{DirectorConfig, DropReason, Verdict};
use lvs_testkit::{Desk, Outcome, oracle, tcp};

/// A service, its client, its server, and what the director is to the server.
#[derive(Clone, Copy, Debug)]
struct Place {
    client: &'static str,
    virtual_address: &'static str,
    real: &'static str,
    local: &'static str,
}

const IPV4: Place =
    Place { client: "198.51.100.7", virtual_address: "192.0.2.121", real: "10.0.0.2", local: "10.0.0.200" };
const IPV6: Place =
    Place { client: "2001:db8::7", virtual_address: "2001:db8:1::21", real: "fd00::2", local: "fd00::200" };
const NAT64: Place = Place { real: "10.0.0.2", local: "10.0.0.200", ..IPV6 };

fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// A control connection, and how much its sides have said by their own count.
struct Talk {
    desk: Desk,
    place: Place,
    /// The director's endpoint towards the server.
    local: String,
    /// What the server's view of the client's numbers is ahead of the client's.
    shift: u32,
    client_said: u32,
    server_said: u32,
    /// By how many bytes what arrived at the other side was longer than what was said.
    client_added: u32,
    server_added: u32,
}

const C: u32 = 1_000;
const S: u32 = 9_000;

impl Talk {
    fn begin(place: Place, options: &str) -> Self {
        Self::with_config(Desk::config(), place, options)
    }

    fn with_config(config: DirectorConfig, place: Place, options: &str) -> Self {
        let (service, server) = (at(place.virtual_address, 21), at(place.real, 21));
        // A second local address: both connections of a session are to have the same one.
        let other = place.local.replace("200", "201");
        let mut desk = Desk::with_config(
            config,
            &format!(
                "-A -t {service} -s rr --helper ftp {options}\n\
                 --add-laddr -t {service} --local-address {}\n--add-laddr -t {service} --local-address {other}\n\
                 -a -t {service} -r {server} --fullnat",
                place.local
            ),
        );
        let client = at(place.client, 1024);
        let syn = desk.send(&tcp(client.as_str(), service.as_str()).syn().numbers(C - 1, 0).build());
        let (sequence, ..) = fields(&syn);
        let local = desk.connections()[0].local.expect("a FullNAT connection has one").to_string();
        let answer = tcp(server.as_str(), local.as_str()).syn().ack().numbers(S - 1, sequence.wrapping_add(1));
        fields(&desk.send(&answer.build()));
        let shift = sequence.wrapping_sub(C - 1);
        let (client_said, server_said, client_added, server_added) = (0, 0, 0, 0);
        let mut talk = Self { desk, place, local, shift, client_said, server_said, client_added, server_added };
        talk.send_request(b"");
        talk
    }

    fn send_request(&mut self, text: &[u8]) -> (u32, u32, Vec<u8>) {
        let (client, service) = (at(self.place.client, 1024), at(self.place.virtual_address, 21));
        let heard = (S + self.server_said).wrapping_add(self.server_added);
        let packet = tcp(client.as_str(), service.as_str()).ack().numbers(C + self.client_said, heard).payload(text);
        fields(&self.desk.send(&packet.build()))
    }

    fn send_reply(&mut self, text: &[u8]) -> (u32, u32, Vec<u8>) {
        let heard = (C + self.client_said).wrapping_add(self.client_added).wrapping_add(self.shift);
        let server = at(self.place.real, 21);
        let packet = tcp(server.as_str(), self.local.as_str()).ack().numbers(S + self.server_said, heard).payload(text);
        fields(&self.desk.send(&packet.build()))
    }

    /// The client says something, and the server reads this.
    #[track_caller]
    fn says(&mut self, said: &str, read: &str) {
        let (sequence, acknowledgment, text) = self.send_request(said.as_bytes());
        assert_eq!(String::from_utf8_lossy(&text), read);
        let expected = (C + self.client_said).wrapping_add(self.client_added).wrapping_add(self.shift);
        assert_eq!((sequence, acknowledgment), (expected, S + self.server_said));
        self.client_said += said.len() as u32;
        self.client_added = self.client_added.wrapping_add((read.len() as u32).wrapping_sub(said.len() as u32));
    }

    /// The server says something, and the client reads this.
    #[track_caller]
    fn answers(&mut self, said: &str, read: &str) {
        let (sequence, acknowledgment, text) = self.send_reply(said.as_bytes());
        assert_eq!(String::from_utf8_lossy(&text), read);
        let expected = (S + self.server_said).wrapping_add(self.server_added);
        assert_eq!((sequence, acknowledgment), (expected, C + self.client_said));
        self.server_said += said.len() as u32;
        self.server_added = self.server_added.wrapping_add((read.len() as u32).wrapping_sub(said.len() as u32));
    }

    /// The director's endpoint of the connection that is expected.
    fn expected(&self) -> String {
        let all = self.desk.connections();
        let expected: Vec<_> = all.iter().filter(|row| row.state == "LISTEN").collect();
        assert_eq!(expected.len(), 1, "{all:?}");
        let local = expected[0].local.expect("a FullNAT connection has one");
        assert_eq!(local.to_string().rsplit_once(':').unwrap().0, self.local.rsplit_once(':').unwrap().0);
        local.to_string()
    }

    /// A client comes for its data, and the server answers.
    #[track_caller]
    fn takes_data(&mut self, port: u16) -> Vec<u8> {
        let local = self.expected();
        let place = self.place;
        let (client, service) = (at(place.client, 3100), at(place.virtual_address, port));
        let server = at(place.real, port);
        let sent = self.desk.send(&tcp(client.as_str(), service.as_str()).syn().numbers(70, 0).build());
        let isn = check_ends(&sent, &local, &server).0;
        let answer = tcp(server.as_str(), local.as_str()).syn().ack().numbers(80, isn.wrapping_add(1));
        assert_eq!(check_ends(&self.desk.send(&answer.build()), &service, &client).1, 71);
        let ack = tcp(client.as_str(), service.as_str()).ack().numbers(71, 81);
        let sent = self.desk.send(&ack.build());
        assert_eq!(check_ends(&sent, &local, &server).2, b"", "data have no header before them");
        options(&sent)
    }

    /// The server comes with data to the client's port, and the client answers.
    #[track_caller]
    fn brings_data(&mut self, local: &str, port: u16) {
        let place = self.place;
        let (client, service, server) = (at(place.client, port), at(place.virtual_address, 20), at(place.real, 20));
        let syn = tcp(server.as_str(), local).syn().numbers(80, 0);
        check_ends(&self.desk.send(&syn.build()), &service, &client);
        let answer = tcp(client.as_str(), service.as_str()).syn().ack().numbers(70, 81);
        assert_eq!(check_ends(&self.desk.send(&answer.build()), local, &server).1, 81);
        let data = tcp(server.as_str(), local).ack().numbers(81, 71).payload(b"data");
        assert_eq!(check_ends(&self.desk.send(&data.build()), &service, &client).2, b"data");
    }
}

#[track_caller]
fn fields(outcome: &Outcome) -> (u32, u32, Vec<u8>) {
    assert!(matches!(outcome.verdict, Verdict::Forward { .. }), "{}", outcome.line());
    let segment = oracle::parse(&outcome.bytes).expect("a packet").segment.to_vec();
    let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
    (number(4), number(8), segment[usize::from(segment[12] >> 4) * 4..].to_vec())
}

fn options(outcome: &Outcome) -> Vec<u8> {
    let segment = oracle::parse(&outcome.bytes).expect("a packet").segment.to_vec();
    segment[20..usize::from(segment[12] >> 4) * 4].to_vec()
}

#[track_caller]
fn check_ends(outcome: &Outcome, source: &str, destination: &str) -> (u32, u32, Vec<u8>) {
    let all = fields(outcome);
    let parsed = oracle::parse(&outcome.bytes).expect("a packet");
    let port = |at: usize| u16::from_be_bytes([parsed.segment[at], parsed.segment[at + 1]]);
    let ends = (at(&parsed.source.to_string(), port(0)), at(&parsed.destination.to_string(), port(2)));
    assert_eq!(ends, (source.to_owned(), destination.to_owned()));
    all
}

/// As PORT and 227 have it.
fn numbers(endpoint: &str) -> String {
    let (address, port) = endpoint.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    format!("{},{},{}", address.replace('.', ","), port >> 8, port & 0xff)
}

#[test]
fn a_passive_client_reads_the_virtual_address_and_its_data_pass() {
    let mut talk = Talk::begin(IPV4, "");
    talk.answers("220 ready\r\n", "220 ready\r\n");
    talk.says("PASV\r\n", "PASV\r\n");
    talk.answers("227 Entering (10,0,0,2,200,10).\r\n", "227 Entering (192,0,2,121,200,10).\r\n");
    talk.says("RETR a\r\n", "RETR a\r\n");
    talk.takes_data(51_210);
    talk.answers("150 here\r\n", "150 here\r\n");
    // And once more: both sides keep count.
    talk.says("PASV\r\n", "PASV\r\n");
    talk.answers("227 Entering (10,0,0,2,200,11).\r\n", "227 Entering (192,0,2,121,200,11).\r\n");
    talk.says("QUIT\r\n", "QUIT\r\n");
    talk.answers("221 bye\r\n", "221 bye\r\n");
}

#[test]
fn an_extended_passive_client_needs_no_address_and_nat64_tells_the_servers_family() {
    for (place, said, read) in [
        (IPV4, "EPSV\r\n", "EPSV\r\n"),
        (IPV4, "EPSV 1\r\n", "EPSV 1\r\n"),
        (IPV6, "EPSV 2\r\n", "EPSV 2\r\n"),
        (NAT64, "EPSV\r\n", "EPSV\r\n"),
        (NAT64, "EPSV 2\r\n", "EPSV 1\r\n"),
    ] {
        let mut talk = Talk::begin(place, "");
        talk.says(said, read);
        talk.answers("229 Extended (|||51210|)\r\n", "229 Extended (|||51210|)\r\n");
        talk.takes_data(51_210);
        talk.says("NOOP\r\n", "NOOP\r\n");
    }
}

#[test]
fn a_server_is_told_to_call_the_director_and_reaches_the_client() {
    for (place, said) in [
        (IPV4, "PORT 198,51,100,7,166,149\r\n"),
        (IPV4, "EPRT |1|198.51.100.7|42645|\r\n"),
        (IPV6, "EPRT |2|2001:db8::7|42645|\r\n"),
        (NAT64, "EPRT |2|2001:db8::7|42645|\r\n"),
    ] {
        let mut talk = Talk::begin(place, "");
        let (_, _, text) = talk.send_request(said.as_bytes());
        let local = talk.expected();
        let read = if said.starts_with("PORT") {
            format!("PORT {}\r\n", numbers(&local))
        } else {
            let (address, port) = local.rsplit_once(':').unwrap();
            let address = address.trim_matches(['[', ']']);
            format!("EPRT |{}|{address}|{port}|\r\n", if address.contains(':') { 2 } else { 1 })
        };
        assert_eq!(String::from_utf8_lossy(&text), read);
        // Sent again, because it was lost, it says the same.
        talk.says(said, &read);
        talk.answers("200 fine\r\n", "200 fine\r\n");
        talk.says("RETR a\r\n", "RETR a\r\n");
        talk.brings_data(&local, 42_645);
        talk.answers("226 done\r\n", "226 done\r\n");
        talk.says("QUIT\r\n", "QUIT\r\n");
        talk.answers("221 bye\r\n", "221 bye\r\n");
    }
}

#[test]
fn a_reply_that_comes_again_is_rewritten_again() {
    let mut talk = Talk::begin(IPV4, "");
    talk.says("PASV\r\n", "PASV\r\n");
    let said = b"227 Entering (10,0,0,2,200,10).\r\n";
    let first = talk.send_reply(said);
    assert_eq!(talk.send_reply(said), first, "Linux's helper behind NAT does otherwise");
}

#[test]
fn the_proxy_header_goes_with_the_control_connection_and_toa_with_both() {
    let mut talk = Talk::begin(IPV4, "--client-address proxy-v1");
    // The greeting acknowledges the header, which the client knows nothing of.
    let header = b"PROXY TCP4 198.51.100.7 192.0.2.121 1024 21\r\n".len() as u32;
    talk.shift = talk.shift.wrapping_add(header);
    talk.answers("220 ready\r\n", "220 ready\r\n");
    talk.says("PASV\r\n", "PASV\r\n");
    talk.answers("227 Entering (10,0,0,2,200,10).\r\n", "227 Entering (192,0,2,121,200,10).\r\n");
    assert_eq!(talk.takes_data(51_210), [0; 0]);
    let mut talk = Talk::begin(IPV4, "--client-address toa");
    talk.answers("220 ready\r\n", "220 ready\r\n");
    talk.says("PASV\r\n", "PASV\r\n");
    talk.answers("227 Entering (10,0,0,2,200,10).\r\n", "227 Entering (192,0,2,121,200,10).\r\n");
    assert_eq!(talk.takes_data(51_210), [254, 8, 12, 28, 198, 51, 100, 7]);
}

#[test]
fn what_was_expected_and_did_not_come_gives_its_port_back() {
    let mut talk = Talk::begin(IPV4, "");
    let leased =
        |talk: &Talk| -> u32 { talk.desk.director.local_ports(talk.desk.now).iter().map(|all| all.leased).sum() };
    talk.says("PASV\r\n", "PASV\r\n");
    talk.answers("227 Entering (10,0,0,2,200,10).\r\n", "227 Entering (192,0,2,121,200,10).\r\n");
    let (_, _, _) = talk.send_request(b"PORT 198,51,100,7,166,149\r\n");
    assert_eq!(leased(&talk), 3);
    talk.desk.pass(Duration::from_secs(24 * 3600));
    assert_eq!((talk.desk.connections().len(), leased(&talk)), (0, 0));
}

#[test]
fn an_announcement_for_which_no_port_is_left_waits() {
    let local_ports = LocalPorts::default().with(|ports| {
        ports.first = 2000;
        ports.last = 2000;
    });
    let config = Desk::config().with(|config| config.local_ports = local_ports);
    let mut talk = Talk::with_config(config, IPV4, "");
    talk.says("PASV\r\n", "PASV\r\n");
    talk.answers("227 Entering (10,0,0,2,200,10).\r\n", "227 Entering (192,0,2,121,200,10).\r\n");
    talk.takes_data(51_210);
    talk.says("PASV\r\n", "PASV\r\n");
    // The same port of the server again, while the last connection to it stands.
    let heard = (C + talk.client_said).wrapping_add(talk.shift);
    let again = tcp("10.0.0.2:21", talk.local.as_str()).ack().numbers(S + talk.server_said, heard);
    let again = again.payload(b"227 Entering (10,0,0,2,200,10).\r\n").build();
    let verdict = talk.desk.send(&again).verdict;
    assert!(
        matches!(verdict, Verdict::Drop(DropReason::LocalPortsExhausted | DropReason::ClientPortsFull)),
        "{verdict:?}"
    );
}
