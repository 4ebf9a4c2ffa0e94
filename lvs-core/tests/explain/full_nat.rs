//! FullNAT: both ends translated, ports leased, the client's address told.

use lvs_core::local_address::LocalPorts;
use lvs_testkit::{Desk, Storage, icmp_error, tcp, udp};

use super::Page;

const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8:c::7]:1024";
const WEB: &str = "192.0.2.1:80";

pub(super) fn tell(page: &mut Page) {
    both_ends(page);
    between_families(page);
    proxy_header(page);
    length(page);
    ports(page);
}

fn both_ends(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr --client-address toa\n--add-laddr -t 192.0.2.1:80 --local-address 10.0.0.200\n\
         -a -t 192.0.2.1:80 -r 10.0.0.2:8080 --fullnat\n\
         -A -u 192.0.2.1:53 -s rr --client-address uoa\n--add-laddr -u 192.0.2.1:53 --local-address 10.0.0.200\n\
         -a -u 192.0.2.1:53 -r 10.0.0.2:53 --fullnat",
    );
    page.tell("a SYN", &mut desk, &tcp(CLIENT, WEB).syn().build());
    let local = desk.connections()[0].local.expect("it has one");
    page.tell("the SYN|ACK", &mut desk, &tcp("10.0.0.2:8080", local).syn().ack().numbers(5000, 1001).build());
    page.tell("the ACK, with the client's address", &mut desk, &tcp(CLIENT, WEB).ack().numbers(1001, 5001).build());
    let quoted = tcp(local, "10.0.0.2:8080").ack().build();
    page.tell("an error from the server's side", &mut desk, &icmp_error("10.0.0.1", 3, 1, 0, &quoted).build());
    page.tell("a datagram, with the client's address", &mut desk, &udp(CLIENT, "192.0.2.1:53").payload(b"?").build());
}

fn between_families(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t [2001:db8::1]:80 -s rr\n--add-laddr -t [2001:db8::1]:80 --local-address 10.0.0.200\n\
         -a -t [2001:db8::1]:80 -r 10.0.0.2:8080 --fullnat",
    );
    page.tell("from IPv6 to IPv4", &mut desk, &tcp(CLIENT6, "[2001:db8::1]:80").syn().build());
    let local = desk.connections()[0].local.expect("it has one");
    page.tell("and back", &mut desk, &tcp("10.0.0.2:8080", local).syn().ack().numbers(5000, 1001).build());
}

fn proxy_header(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr --client-address proxy-v1\n--add-laddr -t 192.0.2.1:80 --local-address 10.0.0.200\n\
         -a -t 192.0.2.1:80 -r 10.0.0.2:8080 --fullnat",
    );
    let isn = desk.send(&tcp(CLIENT, WEB).syn().numbers(1000, 0).build()).bytes;
    let isn = u32::from_be_bytes(isn[24..28].try_into().unwrap());
    let early = tcp(CLIENT, WEB).ack().numbers(1001, 1).payload(b"PROXY TCP4 10.9.8.7").build();
    page.tell("data before the SYN|ACK", &mut desk, &early);
    let local = desk.connections()[0].local.expect("it has one");
    desk.feed(&tcp("10.0.0.2:8080", local).syn().ack().numbers(5000, isn.wrapping_add(1)).build());
    let data = tcp(CLIENT, WEB).ack().numbers(1001, 5001).payload(b"GET /").build();
    page.tell("the first data, behind the header", &mut desk, &data);
}

fn length(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -u 192.0.2.1:53 -s rr --client-address proxy-v2\n--add-laddr -u 192.0.2.1:53 --local-address 10.0.0.200\n\
         -a -u 192.0.2.1:53 -r 10.0.0.2:53 --fullnat",
    );
    let mut query = udp(CLIENT, "192.0.2.1:53").payload(b"?").no_checksum().build();
    query[24..26].copy_from_slice(&100u16.to_be_bytes());
    page.tell("a datagram longer than its packet", &mut desk, &query);
}

fn ports(page: &mut Page) {
    let local_ports = LocalPorts::default().with(|ports| {
        ports.first = 2000;
        ports.last = 2000;
    });
    let mut desk = Desk::with_config(
        Desk::config().with(|config| config.local_ports = local_ports),
        "-A -t 192.0.2.1:80 -s rr\n--add-laddr -t 192.0.2.1:80 --local-address 10.0.0.200\n\
         -a -t 192.0.2.1:80 -r 10.0.0.2:8080 --fullnat",
    );
    desk.feed(&tcp(CLIENT, WEB).syn().build());
    let second = tcp("198.51.100.8:1", WEB).syn();
    page.tell("the local port of a half-open connection", &mut desk, &tcp("198.51.100.9:1", WEB).syn().build());
    desk.feed(&tcp("198.51.100.9:1", WEB).ack().build());
    page.tell("no local port is left", &mut desk, &second.clone().build());
    let unanswerable = Storage::with_room(&second.build(), 0, 0);
    page.tell_storage("no local port is left, nor room for an answer", &mut desk, unanswerable);
    desk.set(|settings| settings.schedule_icmp = true);
    let quoted = tcp(WEB, "198.51.100.8:2").ack().build();
    let error = icmp_error("198.51.100.1", 3, 1, 0, &quoted).build();
    page.tell("no local port is left for a flow that is quoted", &mut desk, &error);

    let local_ports = LocalPorts::default().with(|ports| ports.client_max = 1);
    let mut desk = Desk::with_config(
        Desk::config().with(|config| config.local_ports = local_ports),
        "-A -t 192.0.2.1:80 -s rr\n--add-laddr -t 192.0.2.1:80 --local-address 10.0.0.200\n\
         -a -t 192.0.2.1:80 -r 10.0.0.2:8080 --fullnat",
    );
    desk.feed(&tcp("198.51.100.8:2", WEB).syn().build());
    desk.feed(&tcp("198.51.100.8:2", WEB).ack().build());
    page.tell("one client has its share of local ports", &mut desk, &second.build());
    desk.set(|settings| settings.schedule_icmp = true);
    let quoted = tcp(WEB, "198.51.100.8:3").ack().build();
    page.tell("the same of a flow that is quoted", &mut desk, &icmp_error("198.51.100.1", 3, 1, 0, &quoted).build());
}
