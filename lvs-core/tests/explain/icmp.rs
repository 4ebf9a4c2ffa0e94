//! ICMP: errors about connections in both directions, about tunnels, and what is none of ours.

use lvs_testkit::{Desk, icmp, icmp_error, tcp, udp};

use super::Page;

const CLIENT: &str = "198.51.100.7:1024";
const CLIENT6: &str = "[2001:db8:c::7]:1024";

pub(super) fn tell(page: &mut Page) {
    about_connections(page);
    opening(page);
    about_tunnels(page);
    unknown_replies(page);
}

fn about_connections(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n\
         -A -t 192.0.2.1:81 -s rr\n-a -t 192.0.2.1:81 -r 10.0.0.2:81 -g\n\
         -A -u [2001:db8::1]:53 -s rr\n-a -u [2001:db8::1]:53 -r [fd00::2]:5353 -m",
    );
    desk.feed(&tcp(CLIENT, "192.0.2.1:80").syn().build());
    desk.feed(&tcp(CLIENT, "192.0.2.1:81").syn().build());
    desk.feed(&udp(CLIENT6, "[2001:db8::1]:53").payload(b"?").build());
    let seen_by_server = tcp(CLIENT, "10.0.0.2:8080").syn().build();
    let seen_by_client = tcp("192.0.2.1:80", CLIENT).syn().ack().build();
    page.tell("from the server", &mut desk, &icmp_error("10.0.0.2", 3, 1, 0, &seen_by_server).build());
    page.tell("from the client's side", &mut desk, &icmp_error("198.51.100.1", 3, 4, 1400, &seen_by_client).build());
    let to_the_host = icmp_error("10.0.0.2", 3, 1, 0, &tcp(CLIENT, "192.0.2.1:81").syn().build());
    page.tell("about direct routing", &mut desk, &to_the_host.build());
    let to_host = {
        let mut packet = icmp_error("10.0.0.2", 3, 3, 0, &seen_by_server).build();
        packet[16..20].copy_from_slice(&[10, 0, 0, 254]);
        refresh_ip_checksum(&mut packet);
        packet
    };
    page.tell("sent to the host itself", &mut desk, &to_host);
    let seen_by_server6 = udp(CLIENT6, "[fd00::2]:5353").payload(b"?").build();
    page.tell("ICMPv6 from the server", &mut desk, &icmp_error("fd00::2", 1, 4, 0, &seen_by_server6).build());
    page.tell("a ping", &mut desk, &icmp("198.51.100.7", "192.0.2.1", 8, 0, 1).build());
    let about_nothing = icmp_error("10.0.0.9", 3, 1, 0, &tcp(CLIENT, "10.0.0.9:80").syn().build());
    page.tell("about nothing of ours", &mut desk, &about_nothing.build());
    let damaged = icmp_error("10.0.0.2", 3, 1, 0, &seen_by_server).bad_checksum().build();
    page.tell("damaged", &mut desk, &damaged);
    let short = icmp("198.51.100.7", "192.0.2.1", 3, 1, 0).payload(&[0x45, 0, 0]).build();
    page.tell("quoting too little", &mut desk, &short);
}

fn refresh_ip_checksum(packet: &mut [u8]) {
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(((folded & 0xffff) + (folded >> 16)) as u16)).to_be_bytes());
}

fn opening(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n-A -t 192.0.2.1:81 -s rr\n\
         -A -u 192.0.2.1:53 -s rr -p 60 --pe sip\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m",
    );
    desk.set(|settings| settings.schedule_icmp = true);
    let about = |service: &str| icmp_error("198.51.100.1", 3, 1, 0, &tcp(service, CLIENT).ack().build()).build();
    page.tell("schedule_icmp", &mut desk, &about("192.0.2.1:80"));
    page.tell("schedule_icmp, without a server", &mut desk, &about("192.0.2.1:81"));
    let cut = icmp_error("198.51.100.1", 3, 1, 0, &tcp("192.0.2.1:80", CLIENT).ack().build()[..22]).build();
    page.tell("schedule_icmp, without ports", &mut desk, &cut);
    let keyless = icmp_error("198.51.100.1", 3, 1, 0, &udp("192.0.2.1:53", CLIENT).payload(b"?").build()).build();
    page.tell("schedule_icmp, without a Call-ID", &mut desk, &keyless);
}

fn about_tunnels(page: &mut Page) {
    let mut desk = Desk::new(
        "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -i\n\
         -A -t 192.0.2.1:81 -s rr\n-a -t 192.0.2.1:81 -r 10.0.0.3:81 -i --tun-type gue --tun-port 6080",
    );
    let segment = |service: &str| tcp(CLIENT, service).ack().dont_fragment().payload_len(1000).build();
    desk.feed(&tcp(CLIENT, "192.0.2.1:80").syn().build());
    let outside = desk.send(&segment("192.0.2.1:80")).bytes;
    let too_big = icmp_error("10.0.0.1", 3, 4, 1000, &outside).build();
    page.tell("too big for a tunnel", &mut desk, &too_big);
    page.tell("unreachable through a tunnel", &mut desk, &icmp_error("10.0.0.1", 3, 1, 0, &outside).build());
    desk.feed(&tcp(CLIENT, "192.0.2.1:81").syn().build());
    let outside = desk.send(&segment("192.0.2.1:81")).bytes;
    let told = icmp_error("10.0.0.1", 3, 4, 900, &outside[..28]).build();
    page.tell("the path MTU of a GUE tunnel", &mut desk, &told);
    let mut made_up = outside[..28].to_vec();
    made_up[4..6].fill(0);
    let made_up = icmp_error("10.0.0.1", 3, 4, 600, &made_up).build();
    page.tell("a path MTU from anybody", &mut desk, &made_up);
    let gue = desk;
    let mut desk = Desk::new("-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r [fd00::2]:80 -i");
    desk.feed(&tcp(CLIENT, "192.0.2.1:80").syn().build());
    let outside = desk.send(&segment("192.0.2.1:80")).bytes;
    let over_ipv6 = |quoted: &[u8]| icmp("fd00::1", "fd00::ff", 2, 0, 1300).payload(quoted).build();
    page.tell("the path MTU of a tunnel over IPv6", &mut desk, &over_ipv6(&outside[..60]));
    let mut made_up = outside[..60].to_vec();
    made_up[1..4].fill(0);
    page.tell("a path MTU over IPv6 from anybody", &mut desk, &over_ipv6(&made_up));
    let mut desk = gue;
    page.tell("a segment that the path has no room for", &mut desk, &segment("192.0.2.1:81"));
}

fn unknown_replies(page: &mut Page) {
    let mut desk = Desk::new("-A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m");
    desk.set(|settings| settings.nat_icmp_send = true);
    let reply = udp("10.0.0.2:53", CLIENT).payload(b"late");
    page.tell("nat_icmp_send: a reply to nobody", &mut desk, &reply.clone().build());
    page.tell("nat_icmp_send: a reply that goes no further", &mut desk, &reply.hop_limit(1).build());
}
