//! Packets that open a connection, or may not.

use core::time::Duration;

use std::net::SocketAddr;

use lvs_core::service::OnServerGone;
use lvs_core::{
    AfterDrain, Command, DirectorConfig, HalfOpenPolicy, ServerConfig, ServerKey, ServiceConfig, ServiceKey,
};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, Storage, raw, sctp, tcp, udp};

use super::Page;

const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8:c::7]:1024";

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

pub(super) fn tell(page: &mut Page) {
    methods(page);
    passed(page);
    persistence(page);
    one_packet(page);
    bypass(page);
    half_open(page);
    again(page);
    server_first(page);
}

fn methods(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s wlc\n\
         -a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 2\n\
         -a -t 192.0.2.1:80 -r 10.0.0.3:80 -m -w 0\n\
         -A -t 192.0.2.1:81 -s rr\n\
         -a -t 192.0.2.1:81 -r 10.0.0.4:81 -g\n\
         -A -u [2001:db8::1]:53 -s rr\n\
         -a -u [2001:db8::1]:53 -r [fd00::2]:53 -i\n\
         -A --sctp-service 192.0.2.1:36412 -s rr\n\
         -a --sctp-service 192.0.2.1:36412 -r 10.0.0.5:36412 -i --tun-type gue --tun-port 6080\n\
         -A -t 192.0.2.1:82 -s rr\n\
         -a -t 192.0.2.1:82 -r 10.0.0.254:82 -m\n\
         -A -f 7 -s sh\n\
         -a -f 7 -r 10.0.0.6:0 -m",
    );
    page.tell("a SYN, by NAT", &mut desk, &tcp(CLIENT, "192.0.2.1:80").syn().build());
    page.tell("a SYN, by direct routing", &mut desk, &tcp(CLIENT, "192.0.2.1:81").syn().build());
    page.tell("a datagram, into an IPv6 tunnel", &mut desk, &udp(CLIENT6, "[2001:db8::1]:53").payload(b"?").build());
    let init = sctp(CLIENT, "192.0.2.1:36412").chunk(1, &[0; 16]).build();
    page.tell("an INIT, into a GUE tunnel", &mut desk, &init);
    page.tell("a SYN to a server on the director itself", &mut desk, &tcp(CLIENT, "192.0.2.1:82").syn().build());
    let marked = Storage::with_room(&tcp(CLIENT, "203.0.113.9:99").syn().build(), 64, 2048).mark(7);
    page.tell_storage("a SYN with a firewall mark", &mut desk, marked);
}

fn passed(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n\
         -A --sctp-service 192.0.2.1:36412 -s rr\n-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36412 -m\n\
         -A -t 192.0.2.1:21 -s rr -p 60\n-A -t 192.0.2.1:0 -s rr -p 60\n-a -t 192.0.2.1:0 -r 10.0.0.2:0 -m",
    );
    page.tell("another family", &mut desk, &tcp(CLIENT6, "[2001:db8::1]:80").syn().build());
    page.tell("another address", &mut desk, &tcp(CLIENT, "192.0.2.9:80").syn().build());
    page.tell("another protocol", &mut desk, &raw("198.51.100.7", "192.0.2.1", 47).payload(b"GRE?").build());
    page.tell("no ports, to a stranger", &mut desk, &raw("198.51.100.7", "192.0.2.9", 6).payload(b"?").build());
    page.tell("a segment that opens nothing", &mut desk, &tcp(CLIENT, "192.0.2.1:80").ack().build());
    page.tell("a chunk that opens nothing", &mut desk, &sctp(CLIENT, "192.0.2.1:36412").chunk(0, b"data").build());
    page.tell("from FTP's data port", &mut desk, &tcp("198.51.100.7:20", "192.0.2.1:99").syn().build());
    let mut desk = Desk::new("-A -t 192.0.2.1:21 -s rr -p 60");
    page.tell("to FTP's service, another port", &mut desk, &tcp(CLIENT, "192.0.2.1:2121").syn().build());
}

fn persistence(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr -p 60\n\
         -a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n\
         -a -t 192.0.2.1:80 -r 10.0.0.3:80 -m",
    );
    desk.set(|settings| settings.expire_quiescent_template = true);
    page.tell("a new client of a persistent service", &mut desk, &tcp(CLIENT, "192.0.2.1:80").syn().build());
    let second = tcp("198.51.100.7:1025", "192.0.2.1:80").syn().build();
    page.tell("the same client's second connection", &mut desk, &second);
    let real = desk.connections()[0].real;
    desk.ipvsadm(&format!("-e -t 192.0.2.1:80 -r {real} -m -w 0"));
    let third = tcp("198.51.100.7:1026", "192.0.2.1:80").syn().build();
    page.tell("its third, with its server quiesced", &mut desk, &third);
}

fn one_packet(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -u 192.0.2.1:53 -s rr -o\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m\n\
         -A -u [2001:db8::1]:53 -s rr -o -p 60\n-a -u [2001:db8::1]:53 -r [fd00::2]:53 -g",
    );
    let query = udp(CLIENT, "192.0.2.1:53").payload(b"?").build();
    page.tell("a datagram scheduled by itself", &mut desk, &query);
    page.tell("and the next one", &mut desk, &query);
    let query = udp(CLIENT6, "[2001:db8::1]:53").payload(b"?").build();
    page.tell("by itself, with persistence", &mut desk, &query);
    page.tell("and the next one", &mut desk, &query);
}

/// A director with a firewall mark that leads past all servers.
fn cache(config: DirectorConfig) -> Desk {
    let mut desk = Desk::with_config(config, "-A -f 7 -s rr\n-A -f 8 -s rr -o\n-A -u 192.0.2.1:53 -s rr");
    desk.set(|settings| settings.cache_bypass = true);
    desk
}

fn bypass(page: &mut Page) {
    let marked = |packet: &[u8], mark| Storage::with_room(packet, 64, 2048).mark(mark);
    let syn = |port: u16| tcp(client(port), "203.0.113.9:80").syn().build();
    let mut desk = cache(Desk::config());
    page.tell_storage("past all servers", &mut desk, marked(&syn(1), 7));
    let query = udp(CLIENT, "203.0.113.9:53").payload(b"?").build();
    page.tell_storage("past all servers, one packet by itself", &mut desk, marked(&query, 8));

    let mut desk = cache(Desk::config().with(|config| config.connections_max = 1));
    desk.send_storage(marked(&syn(1), 7));
    desk.send_storage(marked(&tcp(client(1), "203.0.113.9:80").ack().build(), 7));
    page.tell_storage("past all servers, with a full table", &mut desk, marked(&syn(2), 7));
    page.tell_storage("the same, one packet by itself", &mut desk, marked(&query, 8));
}

fn half_open(page: &mut Page) {
    let web = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m";
    let config = Desk::config().with(|config| {
        config.connections_max = 2;
        config.client_endpoint_max = 1;
        config.half_open_max = 2;
        config.half_open_policy = HalfOpenPolicy::EvictOldest;
    });
    let syn = |port: u16| tcp(client(port), "192.0.2.1:80").syn().build();
    let mut desk = Desk::with_config(config.clone(), web);
    desk.feed(&syn(1));
    desk.feed(&syn(2));
    page.tell("the oldest half-open connection makes room", &mut desk, &syn(3));
    desk.ipvsadm("-A -t 192.0.2.1:81 -s rr\n-a -t 192.0.2.1:81 -r 10.0.0.2:81 -m");
    let other = tcp(client(3), "192.0.2.1:81").syn().build();
    page.tell("nobody makes room for what is refused all the same", &mut desk, &other);

    let config_with_templates = Desk::config().with(|config| config.templates_max = 1);
    let persistent = "-A -t 192.0.2.1:80 -s rr -p 60\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m";
    let mut desk = Desk::with_config(config_with_templates, persistent);
    desk.feed(&syn(1));
    let another = tcp("198.51.100.8:1024", "192.0.2.1:80").syn().build();
    page.tell("a template of somebody who has proved nothing makes room", &mut desk, &another);

    let mut desk = cache(config);
    let marked = |port| Storage::with_room(&bypassing(port), 64, 2048).mark(7);
    desk.send_storage(marked(1));
    desk.send_storage(marked(2));
    page.tell_storage("past all servers, after the oldest half-open one", &mut desk, marked(3));
}

fn bypassing(port: u16) -> Vec<u8> {
    tcp(client(port), "203.0.113.9:80").syn().build()
}

/// Known connections whose packets are scheduled anew.
fn again(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n-a -t 192.0.2.1:80 -r 10.0.0.3:80 -m",
    );
    desk.feed(&tcp(CLIENT, "192.0.2.1:80").syn().build());
    desk.feed(&tcp(CLIENT, "192.0.2.1:80").ack().build());
    desk.feed(&tcp(CLIENT, "192.0.2.1:80").rst().build());
    page.tell("a SYN on a closed connection", &mut desk, &tcp(CLIENT, "192.0.2.1:80").syn().build());

    let mut desk = Desk::bare(Desk::config());
    let mut config = ServiceConfig::new("rr");
    config.on_server_gone = OnServerGone::Reschedule;
    desk.add(tcp_service("192.0.2.1:80"), config, [nat("10.0.0.2:80")]);
    desk.feed(&tcp(CLIENT, "192.0.2.1:80").syn().build());
    let gone: ServerKey = nat("10.0.0.2:80").key;
    desk.apply(&Command::DeleteServer(tcp_service("192.0.2.1:80"), gone));
    desk.apply(&Command::AddServer(tcp_service("192.0.2.1:80"), nat("10.0.0.3:80")));
    page.tell("a deleted server's segment goes elsewhere", &mut desk, &tcp(CLIENT, "192.0.2.1:80").ack().build());

    let dns: ServiceKey = udp_service("192.0.2.1:53");
    let servers: [ServerConfig; 2] = [nat("10.0.0.2:53"), nat("10.0.0.3:53")];
    desk.add(dns, ServiceConfig::new("rr"), servers);
    let query = udp(CLIENT, "192.0.2.1:53").payload(b"?").build();
    desk.feed(&query);
    let real = desk.connections().into_iter().find(|row| row.virtual_endpoint.port == 53).unwrap().real;
    let deadline = Duration::from_secs(1);
    desk.apply(&Command::Drain { service: dns, server: real, deadline, then: AfterDrain::Silence });
    desk.pass(deadline);
    page.tell("a drained server's datagram goes elsewhere", &mut desk, &query);
}

fn server_first(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -u 192.0.2.1:5060 -s rr -p 60 --pe sip\n-a -u 192.0.2.1:5060 -r 10.0.0.2:5060 -m\n\
         -A -u 192.0.2.2:5060 -s rr -p 60 --pe sip -o\n-a -u 192.0.2.2:5060 -r 10.0.0.3:5060 -m",
    );
    let message = b"INVITE sip:b SIP/2.0\r\nCall-ID: a@host\r\n\r\n";
    page.tell("a call, by its Call-ID", &mut desk, &udp(CLIENT, "192.0.2.1:5060").payload(message).build());
    let call = udp("10.0.0.2:5060", "198.51.100.9:5060").payload(message).build();
    page.tell("a server calls first", &mut desk, &call);
    let call = udp("10.0.0.3:5060", "198.51.100.9:5060").payload(message).build();
    page.tell("a server calls first, one packet by itself", &mut desk, &call);
}
