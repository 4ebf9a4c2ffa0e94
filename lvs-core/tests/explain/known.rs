//! Packets of known connections.

use core::time::Duration;

use lvs_core::service::OnServerGone;
use lvs_core::{AfterDrain, Command, ServiceConfig};
use lvs_testkit::desk::{nat, tcp_service, udp_service};
use lvs_testkit::{Desk, raw, sctp, tcp, udp};

use super::Page;

const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8:c::7]:1024";
const WEB: &str = "192.0.2.1:80";
const DNS: &str = "192.0.2.1:53";

pub(super) fn tell(page: &mut Page) {
    translated(page);
    directly(page);
    helped(page);
    server_gone(page);
    drained(page);
    not_believed(page);
}

fn not_believed(page: &mut Page) {
    let mut desk = Desk::new("-A -t 192.0.2.1:80 -s rr --check-window\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m");
    desk.feed(&tcp(CLIENT, WEB).syn().numbers(1_000, 0).build());
    desk.feed(&tcp("10.0.0.2:80", CLIENT).syn().ack().numbers(9_000, 1_001).build());
    page.tell("a made-up ACK", &mut desk, &tcp(CLIENT, WEB).ack().numbers(1_001, 1).build());
    desk.feed(&tcp(CLIENT, WEB).ack().numbers(1_001, 9_001).build());
    page.tell("a made-up RST", &mut desk, &tcp(CLIENT, WEB).rst().numbers(1, 0).build());
}

fn translated(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n\
         -A -u [2001:db8::1]:53 -s rr\n-a -u [2001:db8::1]:53 -r [fd00::2]:5353 -m\n\
         -A --sctp-service 192.0.2.1:36412 -s rr\n-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36413 -m\n\
         -A -u 192.0.2.1:500 -s rr\n-a -u 192.0.2.1:500 -r 10.0.0.2:500 -g",
    );
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    page.tell("the SYN|ACK", &mut desk, &tcp("10.0.0.2:8080", CLIENT).syn().ack().build());
    page.tell("the ACK", &mut desk, &tcp(CLIENT, WEB).ack().build());
    page.tell("data", &mut desk, &tcp(CLIENT, WEB).ack().payload(b"GET /").build());
    page.tell("a FIN from the server", &mut desk, &tcp("10.0.0.2:8080", CLIENT).fin().ack().build());
    page.tell("a RST from the client", &mut desk, &tcp(CLIENT, WEB).rst().build());
    desk.feed(&udp(CLIENT6, "[2001:db8::1]:53").payload(b"?").build());
    page.tell("an answer", &mut desk, &udp("[fd00::2]:5353", CLIENT6).payload(b"!").build());
    desk.feed(&sctp(CLIENT, "192.0.2.1:36412").chunk(1, &[0; 16]).build());
    page.tell("INIT ACK", &mut desk, &sctp("10.0.0.2:36413", CLIENT).chunk(2, &[0; 16]).build());
    desk.feed(&udp("198.51.100.7:500", "192.0.2.1:500").payload(b"IKE").build());
    page.tell("ESP follows IKE", &mut desk, &raw("198.51.100.7", "192.0.2.1", 50).payload(b"secret").build());
}

fn directly(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -g\n\
         -A -t 192.0.2.1:81 -s rr\n-a -t 192.0.2.1:81 -r 10.0.0.2:81 -i\n\
         -A -t 192.0.2.1:82 -s rr\n-a -t 192.0.2.1:82 -r 10.0.0.254:82 -m",
    );
    for (port, title) in [(80, "direct routing"), (81, "tunnel"), (82, "the director itself")] {
        let service = format!("192.0.2.1:{port}");
        desk.feed(&tcp(CLIENT, service.as_str()).syn().build());
        page.tell(&format!("the ACK, {title}"), &mut desk, &tcp(CLIENT, service.as_str()).ack().build());
    }
    page.tell("the host's answer", &mut desk, &tcp("10.0.0.254:82", CLIENT).syn().ack().build());
}

fn helped(page: &mut Page) {
    let mut desk = Desk::bare(Desk::config());
    let (ftp, server) = ("192.0.2.1:21", "10.0.0.2:21");
    desk.add(tcp_service(ftp), ServiceConfig::new("rr").helper("ftp"), [nat(server)]);
    desk.feed(&tcp(CLIENT, ftp).syn().numbers(1000, 0).build());
    desk.feed(&tcp(server, CLIENT).syn().ack().numbers(5000, 1001).build());
    desk.feed(&tcp(CLIENT, ftp).ack().numbers(1001, 5001).build());
    let active = b"PORT 198,51,100,7,4,1\r\n";
    page.tell("PORT", &mut desk, &tcp(CLIENT, ftp).ack().numbers(1001, 5001).payload(active).build());
    let pasv = tcp(CLIENT, ftp).ack().numbers(1024, 5001).payload(b"PASV\r\n").build();
    page.tell("PASV", &mut desk, &pasv);
    let passive = tcp(server, CLIENT).ack().numbers(5001, 1030).payload(b"227 (10,0,0,2,4,1)\r\n");
    page.tell("its answer, too far from the client", &mut desk, &passive.clone().hop_limit(1).build());
    page.tell("its answer", &mut desk, &passive.build());
    page.tell("and again", &mut desk, &passive.build());
    page.tell("the data connection", &mut desk, &tcp("198.51.100.7:2000", "192.0.2.1:1025").syn().build());
}

/// A director whose only server was deleted under a TCP and a UDP connection.
fn orphaned(on_server_gone: OnServerGone) -> Desk {
    let mut desk = Desk::bare(Desk::config());
    let mut config = ServiceConfig::new("rr");
    config.on_server_gone = on_server_gone;
    for (service, server) in [(tcp_service(WEB), nat("10.0.0.2:80")), (udp_service(DNS), nat("10.0.0.2:53"))] {
        desk.add(service, config.clone(), [server]);
    }
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    desk.feed(&udp(CLIENT, DNS).payload(b"?").build());
    for (service, server) in [(tcp_service(WEB), nat("10.0.0.2:80")), (udp_service(DNS), nat("10.0.0.2:53"))] {
        desk.apply(&Command::DeleteServer(service, server.key));
    }
    desk
}

fn server_gone(page: &mut Page) {
    let (segment, query) = (tcp(CLIENT, WEB).ack().build(), udp(CLIENT, DNS).payload(b"?").build());
    let mut desk = orphaned(OnServerGone::Reset);
    page.tell("reset: a request of a deleted server's connection", &mut desk, &segment);
    page.tell("and the next one", &mut desk, &segment);
    page.tell("a datagram cannot be reset", &mut desk, &query);
    let mut desk = orphaned(OnServerGone::Reset);
    page.tell("reset: a reply of a deleted server", &mut desk, &tcp("10.0.0.2:80", CLIENT).ack().build());
    let mut desk = orphaned(OnServerGone::IcmpUnreachable);
    page.tell("unreachable: a segment", &mut desk, &segment);
    page.tell("unreachable: a datagram", &mut desk, &query);
    let mut desk = orphaned(OnServerGone::Default);
    page.tell("by default", &mut desk, &segment);
    page.tell("by default, a reply", &mut desk, &tcp("10.0.0.2:80", CLIENT).ack().build());
    desk.set(|settings| settings.expire_nodest_conn = true);
    page.tell("with expire_nodest_conn", &mut desk, &segment);
    page.tell("with expire_nodest_conn, a datagram", &mut desk, &query);
}

fn drained(page: &mut Page) {
    for (then, title) in [(AfterDrain::Reset, "reset"), (AfterDrain::Silence, "silence")] {
        let mut desk = Desk::bare(Desk::config());
        desk.add(tcp_service(WEB), ServiceConfig::new("rr"), [nat("10.0.0.2:80")]);
        desk.feed(&tcp(CLIENT, WEB).syn().build());
        let deadline = Duration::from_secs(1);
        desk.apply(&Command::Drain { service: tcp_service(WEB), server: nat("10.0.0.2:80").key, deadline, then });
        desk.now = desk.now + deadline;
        page.tell(&format!("drained, then {title}"), &mut desk, &tcp(CLIENT, WEB).ack().build());
        let reply = tcp("10.0.0.2:80", CLIENT).ack().build();
        page.tell(&format!("drained, then {title}: a reply"), &mut desk, &reply);
        page.tell(&format!("drained, then {title}: a SYN"), &mut desk, &tcp(CLIENT, WEB).syn().build());
    }
}
