//! A client that is the director's own host: replies go no further than to its stack.

use lvs_core::{DirectorConfig, Verdict};
use lvs_testkit::{Desk, Storage, tcp, udp};

const HOST: &str = "10.99.0.2:123";
const HOST_V6: &str = "[2001:db8::2]:123";

fn desk(rules: &str) -> Desk {
    let config: DirectorConfig = Desk::config().with(|config| {
        config.host_addresses = ["10.99.0.2", "2001:db8::2"].map(|text| text.parse().expect("an address")).into();
    });
    let mut desk = Desk::bare(config);
    desk.ipvsadm(rules);
    desk
}

#[test]
fn a_reply_to_the_host_itself_is_translated_and_stays_there() {
    let rules = "-A -u 10.99.0.1:123 -s rr\n-a -u 10.99.0.1:123 -r 10.0.0.2:123 -m\n\
                 -A -u [2001:db8::1]:123 -s rr\n-a -u [2001:db8::1]:123 -r [fd00::2]:123 -m";
    let mut desk = desk(rules);
    for (client, service, server) in
        [(HOST, "10.99.0.1:123", "10.0.0.2:123"), (HOST_V6, "[2001:db8::1]:123", "[fd00::2]:123")]
    {
        let question = udp(client, service).payload(b"question").build();
        let _ = desk.send_storage(Storage::with_room(&question, 64, 2048).from_host());
        for _ in 0..3 {
            let sent = desk.send(&udp(server, client).hop_limit(9).payload(b"answer").build());
            assert_eq!(sent.verdict, Verdict::Local);
            assert_eq!(sent.bytes, udp(service, client).hop_limit(9).payload(b"answer").build());
        }
    }
}

#[test]
fn a_reply_that_passes_the_director_by_tcp_and_direct_routing_stays_there_too() {
    let mut desk = desk("-A -t 10.99.0.1:80 -s rr\n-a -t 10.99.0.1:80 -r 10.0.0.2:80 -g");
    let syn = tcp("10.99.0.2:4000", "10.99.0.1:80").syn().build();
    let _ = desk.send_storage(Storage::with_room(&syn, 64, 2048).from_host());
    let reply = tcp("10.99.0.1:80", "10.99.0.2:4000").syn().ack().build();
    let sent = desk.send(&reply);
    assert_eq!((sent.verdict, sent.bytes), (Verdict::Local, reply));
}
