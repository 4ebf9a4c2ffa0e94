//! Refused packets, and those answered by ICMP.

use std::net::SocketAddr;

use lvs_core::{ChecksumOffload, Gso, GsoKind, HalfOpenPolicy, Offload, ServiceConfig};
use lvs_testkit::desk::{nat, tcp_service};
use lvs_testkit::{Desk, Storage, sctp, tcp, udp};

use super::Page;

const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8:c::7]:1024";
const WEB: &str = "192.0.2.1:80";
const RULES: &str = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n\
    -A -t [2001:db8::1]:80 -s rr\n-a -t [2001:db8::1]:80 -r [fd00::2]:80 -m\n\
    -A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m\n\
    -A -t 192.0.2.1:81 -s rr\n-A -t [2001:db8::1]:81 -s rr";

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

pub(super) fn tell(page: &mut Page) {
    damaged(page);
    unsendable(page);
    no_server(page);
    full_tables(page);
    defence(page);
    helper(page);
    super_packets(page);
    answered_enough(page);
    reply_conflict(page);
}

fn answered_enough(page: &mut Page) {
    let mut desk = Desk::new(RULES);
    let unserved = tcp(CLIENT, "192.0.2.1:81").syn().build();
    (0..6).for_each(|_| desk.feed(&unserved));
    page.tell("a client that was answered enough", &mut desk, &unserved);
}

fn reply_conflict(page: &mut Page) {
    let service = |at: &str| format!("-A -t {at} -s rr --on-reply-conflict refuse\n-a -t {at} -r 10.0.0.2:80 -m\n");
    let mut desk = Desk::new(&(service("192.0.2.1:80") + &service("192.0.2.2:80")));
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    page.tell("the port has that server by another address", &mut desk, &tcp(CLIENT, "192.0.2.2:80").syn().build());
}

fn damaged(page: &mut Page) {
    let mut desk = Desk::new(RULES);
    let segment = tcp(CLIENT, WEB).syn();
    page.tell("cut inside the IP header", &mut desk, &segment.clone().build()[..19]);
    page.tell("a wrong IP checksum", &mut desk, &segment.clone().bad_ip_checksum().build());
    page.tell("cut inside the transport header", &mut desk, &tcp_stub());
    page.tell("source routed", &mut desk, &segment.ipv4_options(&[131, 7, 4, 10, 9, 9, 9]).build());
    let mut endless = tcp(CLIENT6, "[2001:db8::1]:80").syn().destination_options().build();
    endless[41] = 200;
    page.tell("an extension header longer than the packet", &mut desk, &endless);
}

/// A TCP packet that ends behind the ports.
fn tcp_stub() -> Vec<u8> {
    lvs_testkit::raw("198.51.100.7", "192.0.2.1", 6).payload(&[4, 0, 0, 80]).build()
}

fn unsendable(page: &mut Page) {
    let mut desk = Desk::new(RULES);
    page.tell("from an address that nobody has", &mut desk, &tcp("127.0.0.1:1024", WEB).syn().build());
    let segment = tcp(CLIENT, WEB);
    page.tell("the last hop", &mut desk, &segment.clone().syn().hop_limit(1).build());
    let long = segment.ack().dont_fragment().payload_len(1600);
    page.tell("too long, and not to be fragmented", &mut desk, &long.build());
    page.tell("too long, over IPv6", &mut desk, &tcp(CLIENT6, "[2001:db8::1]:80").syn().payload_len(1600).build());

    let mut desk = Desk::new("-A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -i");
    let query = udp(CLIENT, "192.0.2.1:53").payload(b"?");
    page.tell_storage("no room before it for a tunnel", &mut desk, Storage::with_room(&query.build(), 8, 0));
    let mut config = Desk::config();
    config.server_side.ipv4 = None;
    let mut desk = Desk::with_config(config, "-A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -i");
    page.tell("a tunnel without a source address", &mut desk, &query.build());
}

fn no_server(page: &mut Page) {
    let mut desk = Desk::new(RULES);
    let syn = tcp(CLIENT, "192.0.2.1:81").syn();
    page.tell("no server", &mut desk, &syn.clone().build());
    page.tell("no server, over IPv6", &mut desk, &tcp(CLIENT6, "[2001:db8::1]:81").syn().build());
    page.tell_storage("no server, and no room to tell", &mut desk, Storage::with_room(&syn.build(), 0, 0));
}

fn full_tables(page: &mut Page) {
    let syn = |port: u16| tcp(client(port), WEB).syn().build();
    let ack = tcp(client(1), WEB).ack().build();
    let mut desk = Desk::with_config(Desk::config().with(|config| config.connections_max = 1), RULES);
    [&syn(1), &ack].into_iter().for_each(|packet| desk.feed(packet));
    page.tell("the connection table is full", &mut desk, &syn(2));

    let config = Desk::config().with(|config| config.client_endpoint_max = 1);
    let mut desk = Desk::with_config(config, RULES);
    desk.ipvsadm("-A -t 192.0.2.1:82 -s rr\n-a -t 192.0.2.1:82 -r 10.0.0.2:82 -m");
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    page.tell("one client port with too many", &mut desk, &tcp(CLIENT, "192.0.2.1:82").syn().build());

    let config = Desk::config().with(|config| config.templates_max = 1);
    let mut desk = Desk::with_config(config, "-A -t 192.0.2.1:80 -s rr -p 60\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m");
    [&syn(1), &ack].into_iter().for_each(|packet| desk.feed(packet));
    page.tell("the template table is full", &mut desk, &tcp("198.51.100.8:1", WEB).syn().build());

    let config = Desk::config().with(|config| config.client_templates_max = 1);
    let mut desk = Desk::with_config(
        config,
        "-A -f 1 -s rr -p 60\n-a -f 1 -r 10.0.0.2:0 -m\n-A -f 2 -s rr -p 60\n-a -f 2 -r 10.0.0.2:0 -m",
    );
    [&syn(1), &ack].into_iter().for_each(|packet| drop(desk.send_marked(1, packet)));
    let other = Storage::with_room(&syn(2), 64, 2048).mark(2);
    page.tell_storage("one client with too many templates", &mut desk, other);

    let config = Desk::config().with(|config| {
        config.half_open_max = 1;
        config.half_open_policy = HalfOpenPolicy::Refuse;
    });
    let mut desk = Desk::with_config(config, RULES);
    desk.feed(&syn(1));
    page.tell("too many are half open", &mut desk, &syn(2));
}

fn defence(page: &mut Page) {
    let mut desk = Desk::new(RULES);
    desk.set(|settings| (settings.am_droprate, settings.drop_packet) = (1, 3));
    page.tell("one in so many is refused", &mut desk, &tcp(CLIENT, WEB).syn().build());
    let mut desk = Desk::new("-A -u 192.0.2.1:5060 -s rr -p 60 --pe sip\n-a -u 192.0.2.1:5060 -r 10.0.0.2:5060 -m");
    page.tell("no Call-ID", &mut desk, &udp(CLIENT, "192.0.2.1:5060").payload(b"hello").build());
}

fn helper(page: &mut Page) {
    let mut desk = Desk::bare(Desk::config());
    let (ftp, server) = ("192.0.2.1:21", "10.0.0.2:21");
    desk.add(tcp_service(ftp), ServiceConfig::new("rr").helper("ftp"), [nat(server)]);
    desk.feed(&tcp(CLIENT, ftp).syn().numbers(1000, 0).build());
    desk.feed(&tcp(server, CLIENT).syn().ack().numbers(5000, 1001).build());
    desk.feed(&tcp(CLIENT, ftp).ack().numbers(1001, 5001).build());
    let pasv = tcp(CLIENT, ftp).ack().numbers(1001, 5001).payload(b"PASV\r\n");
    page.tell("a damaged command", &mut desk, &pasv.clone().bad_checksum().build());
    desk.feed(&pasv.build());
    let answer = tcp(server, CLIENT).ack().numbers(5001, 1007).payload(b"227 (10,0,0,2,4,1)\r\n").build();
    page.tell_storage("no room for the new text", &mut desk, Storage::with_room(&answer, 0, 0));
}

fn super_packets(page: &mut Page) {
    let mut desk = Desk::new(RULES);
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    let long = tcp(CLIENT, WEB).ack().payload_len(4000).partial_checksum();
    let offload = |size| {
        let gso = Some(Gso { kind: GsoKind::TcpV4, size, ecn: false });
        Offload { checksum: long.offload(), gso }
    };
    let lent = |offload| Storage::with_room(&long.build(), 64, 2048).offload(offload);
    page.tell_storage("a super-packet", &mut desk, lent(offload(1400)));
    let beside = ChecksumOffload::Partial { start: 20, offset: 2 };
    let wrong = Offload { checksum: beside, gso: None };
    page.tell_storage("its checksum is to go elsewhere", &mut desk, lent(wrong));
    let datagram = sctp(CLIENT, "192.0.2.1:9").chunk(1, &[0; 16]).build();
    page.tell("no such service", &mut desk, &datagram);
}
