//! Fragments.

use lvs_testkit::{Desk, sctp, udp};

use super::Page;

const CLIENT: &str = "198.51.100.7:1024";
const DNS: &str = "192.0.2.1:53";

pub(super) fn tell(page: &mut Page) {
    let rules = "-A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:5353 -m\n\
         -A --sctp-service 192.0.2.1:36412 -s rr\n-a --sctp-service 192.0.2.1:36412 -r 10.0.0.2:36413 -m\n\
         -A -u 192.0.2.1:54 -s rr";
    let datagram = |id: u32| udp(CLIENT, DNS).payload_len(1000).identification(id);
    let mut desk = Desk::new(rules);
    let parts = datagram(1).fragments(400);
    page.tell("the first fragment", &mut desk, &parts[0]);
    page.tell("the last one", &mut desk, &parts[2]);
    let overlapping = &datagram(1).fragments(392)[1];
    page.tell("one that overlaps", &mut desk, overlapping);
    let parts = datagram(2).fragments(400);
    page.tell("a later fragment before its first", &mut desk, &parts[1]);
    page.tell("and its first", &mut desk, &parts[0]);
    let foreign = udp(CLIENT, "203.0.113.9:9").payload_len(1000).fragments(400);
    page.tell("somebody else's first fragment", &mut desk, &foreign[0]);
    page.tell("somebody else's later fragment", &mut desk, &foreign[1]);
    let parts = datagram(4).fragments(400);
    desk.feed(&parts[0]);
    let mut last_hop = datagram(4).hop_limit(1).fragments(400);
    page.tell("a later fragment at its last hop", &mut desk, &last_hop.remove(1));
    let parts = datagram(5).payload_len(3400).dont_fragment().fragments(1600);
    desk.feed(&datagram(5).payload_len(3400).dont_fragment().fragments(400)[0]);
    page.tell("a later fragment too long, and not to be fragmented", &mut desk, &parts[1]);
    let unknown = udp(CLIENT, "203.0.113.9:9").payload_len(1000).identification(9).fragments(400);
    page.tell("a later fragment of nothing", &mut desk, &unknown[1]);
    let refused = udp(CLIENT, "192.0.2.1:54").payload_len(1000).identification(3).fragments(400);
    page.tell("a first fragment that is refused", &mut desk, &refused[0]);
    page.tell("what follows a refused one", &mut desk, &refused[1]);
    let whole = sctp(CLIENT, "192.0.2.1:36412").chunk(1, &[7; 500]).fragments(400);
    page.tell("a part of what is needed whole", &mut desk, &whole[0]);
    page.tell("and the other", &mut desk, &whole[1]);

    let mut desk = Desk::with_config(Desk::config().with(|config| config.fragments_max = 0), rules);
    page.tell("there is no memory for fragments", &mut desk, &datagram(2).fragments(400)[1]);
}
