//! Servers that a service cannot have, whatever they are called.

use lvs_core::{Command, ControlError, ForwardMethod, ServerConfig};
use lvs_testkit::Desk;
use lvs_testkit::desk::{nat, tcp_service};

const WEB: &str = "192.0.2.80:80";

#[test]
fn bypass_leads_to_no_server() {
    let mut desk = Desk::new("-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m");
    let bypass = |at: &str| ServerConfig::new(at.parse().unwrap(), ForwardMethod::Bypass);
    let now = desk.now;
    for command in [
        Command::AddServer(tcp_service(WEB), bypass("10.0.0.3:80")),
        Command::EditServer(tcp_service(WEB), bypass("10.0.0.2:80")),
    ] {
        assert!(matches!(desk.director.apply(now, &command), Err(ControlError::Invalid(_))), "{command:?}");
    }
    assert_eq!(desk.server(tcp_service(WEB), "10.0.0.2:80").config, nat("10.0.0.2:80"));
}
