//! Slow start and reported factors in a director: what schedulers see, when it moves, and what that costs them.

use std::time::Duration;

use lvs_core::service::SlowStart;
use lvs_core::{Command, DirectorConfig, ServerConfig, ServiceConfig};
use lvs_testkit::desk::{nat, tcp_service};
use lvs_testkit::{Desk, tcp};

const WEB: &str = "192.0.2.80:80";
const WARM: &str = "10.0.0.2:80";
const COLD: &str = "10.0.0.3:80";

fn ramping(scheduler: &str) -> ServiceConfig {
    let mut config = ServiceConfig::new(scheduler);
    config.slow_start = Some(SlowStart { window: Duration::from_secs(100), min_share: 102, aggression: 1024 });
    config
}

/// A service with one server of weight 100 that is warm, and one that was added just now.
fn desk(config: ServiceConfig) -> Desk {
    let mut desk = Desk::bare(DirectorConfig::default());
    desk.set(|settings| settings.run_estimation = false);
    desk.add(tcp_service(WEB), config, [server(WARM, 100)]);
    desk.pass(Duration::from_secs(200));
    desk.apply(&Command::AddServer(tcp_service(WEB), server(COLD, 100)));
    desk
}

fn server(at: &str, weight: u32) -> ServerConfig {
    nat(at).weight(weight)
}

fn weight(desk: &Desk, at: &str) -> u32 {
    desk.server(tcp_service(WEB), at).effective_weight
}

/// How many of `count` new connections the cold server gets.
fn share(desk: &mut Desk, first: u32, count: u32) -> u32 {
    let mut cold = 0;
    for number in first..first + count {
        let client = std::net::SocketAddr::from((std::net::Ipv4Addr::from(0xc633_0000 + number), 1_024));
        desk.feed(&tcp(client, WEB.parse::<std::net::SocketAddr>().unwrap()).syn().build());
        cold += u32::from(desk.bytes[16..20] == [10, 0, 0, 3]);
    }
    cold
}

#[test]
fn a_new_server_warms_up_and_reads_its_own_weight_all_the_while() {
    let mut desk = desk(ramping("wrr"));
    let mut seen = vec![weight(&desk, COLD)];
    for _ in 0..5 {
        desk.pass(Duration::from_secs(20));
        seen.push(weight(&desk, COLD));
    }
    // A straight line from a tenth; steps are at least 1/64 of the window apart.
    for (seen, exact) in seen.iter().zip([9, 20, 40, 60, 80, 100]) {
        assert!(*seen <= exact && *seen + 2 >= exact, "{seen} for {exact}");
    }
    assert_eq!(seen[5], 100);
    assert_eq!(desk.server(tcp_service(WEB), COLD).config.weight, 100);
    assert_eq!(weight(&desk, WARM), 100);
    assert_eq!(desk.director.poll_timeout(), None, "a warm server has no timer");
}

#[test]
fn the_ramp_moves_the_shares_of_wrr_and_wlc() {
    for scheduler in ["wrr", "wlc"] {
        let mut desk = desk(ramping(scheduler));
        let cold = share(&mut desk, 0, 110);
        assert!((8..=12).contains(&cold), "{scheduler}: {cold} of 110 at a tenth of the weight");
        desk.pass(Duration::from_secs(1_000)); // warm, and the connections are gone
        let warm = share(&mut desk, 1_000, 110);
        assert!((54..=56).contains(&warm), "{scheduler}: {warm} of 110 at the same weight");
    }
    let mut plain = desk(ServiceConfig::new("wrr"));
    assert_eq!(share(&mut plain, 0, 110), 55);
}

#[test]
fn a_server_that_comes_back_from_weight_0_warms_up_again_and_an_edit_alone_does_not() {
    let mut desk = desk(ramping("wrr"));
    desk.pass(Duration::from_secs(100));
    desk.apply(&Command::EditServer(tcp_service(WEB), server(COLD, 50)));
    assert_eq!(weight(&desk, COLD), 50);
    desk.apply(&Command::EditServer(tcp_service(WEB), server(COLD, 0)));
    desk.apply(&Command::EditServer(tcp_service(WEB), server(COLD, 100)));
    assert_eq!(weight(&desk, COLD), 9);
    // An edit on the way goes on from there.
    desk.pass(Duration::from_secs(50));
    desk.apply(&Command::EditServer(tcp_service(WEB), server(COLD, 200)));
    assert_eq!(weight(&desk, COLD), 100);
    desk.pass(Duration::from_secs(50));
    assert_eq!(weight(&desk, COLD), 200);
}

#[test]
fn a_service_edited_to_have_no_slow_start_has_warm_servers_at_once() {
    let mut desk = desk(ramping("wrr"));
    assert_eq!(weight(&desk, COLD), 9);
    desk.apply(&Command::EditService(tcp_service(WEB), ServiceConfig::new("wrr")));
    assert_eq!(weight(&desk, COLD), 100);
    assert_eq!(desk.director.poll_timeout(), None);
}

#[test]
fn a_reported_factor_multiplies_and_survives_the_operators_edits() {
    let mut desk = desk(ServiceConfig::new("wrr"));
    let factor = |factor| Command::SetServerFactor { service: tcp_service(WEB), server: nat(COLD).key, factor };
    desk.apply(&factor(512));
    assert_eq!(weight(&desk, COLD), 50);
    desk.apply(&Command::EditServer(tcp_service(WEB), server(COLD, 10)));
    assert_eq!(weight(&desk, COLD), 5);
    desk.apply(&factor(0));
    assert_eq!(weight(&desk, COLD), 0);
    desk.apply(&factor(1024));
    assert_eq!((weight(&desk, COLD), desk.server(tcp_service(WEB), COLD).config.weight), (10, 10));
}

#[test]
fn a_ramp_does_not_disturb_the_turns_of_round_robin() {
    let mut desk = desk(ramping("rr"));
    desk.apply(&Command::AddServer(tcp_service(WEB), server("10.0.0.4:80", 100)));
    let mut turns = vec![];
    for number in 0..30 {
        share(&mut desk, number, 1);
        turns.push(desk.bytes[19]);
        desk.pass(Duration::from_secs(3));
    }
    // Newest first, and each in its turn, however often the weights moved meanwhile.
    let expected: Vec<u8> = [4, 3, 2].into_iter().cycle().take(30).collect();
    assert_eq!(turns, expected);
}
