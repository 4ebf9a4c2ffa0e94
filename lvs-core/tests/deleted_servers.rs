//! Deleted servers, however many: each comes back with what it had, in any order, and those that do not are forgotten.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::{Command, ServerKey, ServiceConfig};
use lvs_testkit::desk::{nat, tcp_service};
use lvs_testkit::{Desk, tcp};

const COUNT: u16 = 300;
const SERVICES: [&str; 2] = ["192.0.2.1:80", "192.0.2.1:81"];

fn server(number: u16) -> String {
    format!("10.0.{}.{}:80", number / 200, 1 + number % 200)
}

fn key(number: u16) -> ServerKey {
    nat(&server(number)).key
}

/// Both services have all servers, and each of those one connection.
fn desk() -> Desk {
    let mut desk = Desk::bare(Desk::config());
    for service in SERVICES {
        desk.add(tcp_service(service), ServiceConfig::new("rr"), (0..COUNT).map(|number| nat(&server(number))));
        for number in 0..COUNT {
            let client = SocketAddr::from(([198, 51, 100, 7], 1024 + number));
            desk.feed(&tcp(client, service).syn().build());
            desk.feed(&tcp(client, service).ack().build());
        }
    }
    desk
}

#[test]
fn each_comes_back_with_its_connections_whatever_the_order_and_the_others_are_forgotten() {
    for stride in [1, 7, 299_u32] {
        let in_order = |number: u16| (u32::from(number) * stride % u32::from(COUNT)) as u16;
        let mut desk = desk();
        for service in SERVICES {
            (0..COUNT).for_each(|number| desk.apply(&Command::DeleteServer(tcp_service(service), key(number))));
        }
        assert_eq!(desk.director.gauges().deleted_servers, 2 * u32::from(COUNT));
        for third in 0..2 {
            // The trash is looked through meanwhile.
            desk.pass(Duration::from_secs(20));
            for number in (third * COUNT / 3..(third + 1) * COUNT / 3).map(in_order) {
                for service in SERVICES {
                    desk.apply(&Command::AddServer(tcp_service(service), nat(&server(number))));
                    let view = desk.server(tcp_service(service), &server(number));
                    assert_eq!((view.active_connections, view.statistics.live.connections), (1, 1), "{number}");
                }
            }
            desk.pass(Duration::from_secs(25));
        }
        assert_eq!(desk.director.gauges().deleted_servers, 2 * u32::from(COUNT / 3));
        // Once their connections are gone, 120 to 180 s later.
        desk.pass(Duration::from_secs(1_200));
        assert_eq!(desk.director.gauges().deleted_servers, 0);
        let (service, forgotten) = (tcp_service(SERVICES[0]), server(in_order(COUNT - 1)));
        desk.apply(&Command::AddServer(service, nat(&forgotten)));
        assert_eq!(desk.server(service, &forgotten).statistics.live.connections, 0);
    }
}
