//! Which addresses a real server may have: what Linux takes, by the recordings `error_kernel` and `error6_kernel` of the
//! control plane (`conformance/netlink/`).

use lvs_core::{Command, ControlError};
use lvs_testkit::Desk;
use lvs_testkit::desk::{nat, tcp_service};

/// Adds a server with this address to a service of its family.
fn add(address: &str) -> Result<(), ControlError> {
    let mut desk = Desk::new("-A -t 192.0.2.1:80 -s rr\n-A -t [2001:db8::1]:80 -s rr");
    let service = if address.starts_with('[') { "[2001:db8::1]:80" } else { "192.0.2.1:80" };
    let server = nat(&format!("{address}:80"));
    desk.director.apply(desk.now, &Command::AddServer(tcp_service(service), server))
}

#[test]
fn servers_have_unicast_addresses() {
    for address in ["127.0.0.1", "10.255.255.255", "240.0.0.1", "[::1]", "[::198.51.100.7]", "[fec0::1]"] {
        assert_eq!(add(address), Ok(()), "{address}");
    }
}

#[test]
fn servers_have_no_addresses_that_name_nobody_many_or_another_family() {
    for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "[::]", "[ff02::1]", "[fe80::1]", "[::ffff:1.2.3.4]"] {
        assert!(matches!(add(address), Err(ControlError::Invalid(_))), "{address}");
    }
}
