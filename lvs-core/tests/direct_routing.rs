//! Direct routing leaves packets as they are: what the link added to them is no part of them.

use lvs_testkit::{Desk, tcp, udp};

const RULES: &str = "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -g\n\
    -A -u [2001:db8::80]:53 -s rr\n-a -u [2001:db8::80]:53 -r [fd00::2]:53 -g";

#[test]
fn link_padding_goes_no_further() {
    let requests = [
        (tcp("198.51.100.7:1024", "192.0.2.80:80").syn(), "10.0.0.2"),
        (udp("[2001:db8:c::7]:1024", "[2001:db8::80]:53").payload(b"?"), "fd00::2"),
    ];
    let mut desk = Desk::new(RULES);
    for (request, server) in requests {
        let sent = desk.send(&request.clone().trailing(&[0xee; 6]).build());
        assert!(sent.line().starts_with(&format!("-> {server}: ")), "{}", sent.line());
        assert_eq!(sent.bytes, request.hop_limit(63).build());
    }
}
