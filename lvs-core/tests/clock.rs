//! Whatever the caller's clock does, timers go on at its pace.

use core::time::Duration;

use lvs_core::local_address::LocalPorts;
use lvs_core::view::Gauges;
use lvs_core::{AfterDrain, Command, ForwardMethod, HalfOpenPolicy, Instant, ServiceConfig, Verdict};
use lvs_testkit::desk::{nat, tcp_service};
use lvs_testkit::{Desk, tcp, udp};

const RULES: &str = "-A -u 192.0.2.1:53 -s rr\n-a -u 192.0.2.1:53 -r 10.0.0.2:53 -m";
const DAY: Duration = Duration::from_secs(86_400);

fn query(port: u16) -> Vec<u8> {
    udp(std::net::SocketAddr::from(([198, 51, 100, 7], port)), "192.0.2.1:53").payload(b"?").build()
}

/// The clock goes from 100 s through these seconds and back to 101 s: connections opened then end 300 s later.
fn check(leaps: &[u64]) {
    let mut desk = Desk::new(RULES);
    desk.set(|settings| settings.run_estimation = false);
    desk.now = Instant::from_secs(100);
    desk.feed(&query(1));
    for seconds in leaps {
        desk.now = Instant::from_secs(*seconds);
        desk.director.handle_timeout(desk.now);
    }
    desk.now = Instant::from_secs(101);
    desk.feed(&query(2));
    let row = |desk: &Desk| desk.connections().into_iter().find(|row| row.client.port == 2);
    assert_eq!(row(&desk).expect("it lives").expires_in, Duration::from_secs(300), "{leaps:?}");
    let due = desk.director.poll_timeout().expect("something is timed");
    assert!(due <= desk.now + Duration::from_secs(301), "{leaps:?}: due at {due:?}");
    desk.pass(Duration::from_secs(299));
    assert_eq!(row(&desk).expect("it lives").expires_in, Duration::from_secs(1), "{leaps:?}");
    desk.pass(Duration::from_secs(2));
    assert_eq!((row(&desk), desk.director.gauges()), (None, Gauges::default()), "{leaps:?}");
}

#[test]
fn a_clock_that_leapt_ahead_once_does_not_stop_time() {
    check(&[86_400]);
    check(&[86_400, 50, 200_000, 0]);
    check(&[u64::MAX]);
    check(&[u64::MAX / 2_000_000_000, u64::MAX, 0, u64::MAX]);
}

#[test]
fn a_clock_that_is_set_back_goes_on_from_where_it_was() {
    check(&[99]);
    check(&[0, 50]);
    // Looking without telling the time is of the same mind.
    let mut desk = Desk::new(RULES);
    desk.now = Instant::ZERO + DAY;
    desk.feed(&query(1));
    desk.now = Instant::ZERO;
    assert_eq!(desk.connections()[0].expires_in, Duration::from_secs(300));
}

#[test]
fn small_steps_back_are_waited_out() {
    let mut desk = Desk::new(RULES);
    desk.feed(&query(1));
    for _ in 0..100 {
        desk.pass(Duration::from_secs(2));
        desk.now = Instant::from_nanos(desk.now.as_nanos() - 1_000_000);
        desk.director.handle_timeout(desk.now);
    }
    desk.now = Instant::from_nanos(desk.now.as_nanos() + 1_000_000);
    // 100 · (2 s − 1 ms) have passed, and not 100 · 2 s.
    assert_eq!(desk.connections()[0].expires_in, Duration::from_millis(300_000 - 199_901));
}

/// The smallest and greatest of everything at the ends of time: no panic, and timers that end.
#[test]
fn edges_of_time_and_of_every_bound_break_nothing() {
    for (connections_max, other) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let local_ports = LocalPorts::default().with(|ports| {
            ports.first = 65_535;
            ports.last = 65_535;
            ports.shards = 0;
            ports.remembered_max = other;
            ports.quarantine = Duration::MAX;
        });
        let mut desk = Desk::bare(Desk::config().with(|config| {
            config.connections_max = connections_max;
            config.templates_max = other;
            config.fragments_max = other;
            config.fragment_bytes_max = other * 100;
            config.events_max = other;
            config.client_endpoint_max = other;
            config.half_open_max = other;
            config.half_open_policy = HalfOpenPolicy::EvictOldest;
            config.services_max = 10;
            config.servers_max = 10;
            config.local_ports = local_ports;
        }));
        for (turn, nanos) in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX, 5, 0].into_iter().enumerate() {
            desk.now = Instant::from_nanos(nanos);
            turn_of_everything(&mut desk, turn);
        }
    }
}

fn turn_of_everything(desk: &mut Desk, turn: usize) {
    let web = tcp_service("192.0.2.1:80");
    let mut config = ServiceConfig::new("wlc");
    config.persistence_timeout_s = (turn % 2 == 1).then_some(u32::MAX);
    let mut apply = |command| drop(desk.director.apply(desk.now, &command));
    apply(Command::AddService(web, config));
    apply(Command::AddLocalAddress(web, "10.0.0.200".parse().unwrap()));
    for host in 2..5 {
        let mut server = nat(&format!("10.0.0.{host}:80")).weight([0, 1, i32::MAX as u32, u32::MAX][turn % 4]);
        server.forward = if host == 3 { ForwardMethod::FullNat } else { ForwardMethod::Nat };
        apply(Command::AddServer(web, server.clone()));
        apply(Command::EditServer(web, server));
    }
    let mut settings = desk.director.settings().clone();
    (settings.drop_entry, settings.drop_packet, settings.secure_tcp) =
        ((turn % 4) as u8, ((turn + 1) % 4) as u8, ((turn + 2) % 4) as u8);
    (settings.amemthresh, settings.am_droprate) = ([0, 1, u32::MAX][turn % 3], [0, 1, u32::MAX][(turn + 1) % 3]);
    settings.expire_nodest_conn = true;
    let _ = desk.director.apply(desk.now, &Command::SetSettings(settings));
    for port in 0..4 {
        let client = std::net::SocketAddr::from(([198, 51, 100, 7], 1000 + port));
        for packet in [tcp(client, "192.0.2.1:80").syn(), tcp(client, "192.0.2.1:80").ack()] {
            // What has ended is cleared away first: explaining does not.
            desk.director.handle_timeout(desk.now);
            desk.feed(&packet.build());
        }
        for part in udp("198.51.100.7:1024", "192.0.2.1:53").identification(7).payload_len(64).fragments(32) {
            desk.feed(&part);
        }
    }
    let server = nat("10.0.0.2:80").key;
    let drain = Command::Drain { service: web, server, deadline: Duration::MAX, then: AfterDrain::Reset };
    let _ = desk.director.apply(desk.now, &drain);
    for _ in 0..300 {
        desk.director.handle_timeout(desk.now);
    }
    desk.transmits();
    let _ = (desk.director.services(desk.now), desk.director.local_ports(desk.now));
    let _ = desk.director.apply(desk.now, &Command::DeleteService(web));
}

#[test]
fn at_the_end_of_time_timers_end_and_afterwards_connections_live_again() {
    let mut desk = Desk::new(RULES);
    desk.now = Instant::from_nanos(u64::MAX);
    desk.feed(&query(1));
    let calls = std::iter::from_fn(|| {
        desk.director.poll_timeout().filter(|due| *due <= desk.now)?;
        desk.director.handle_timeout(desk.now);
        Some(())
    });
    assert!(calls.take(1_000).count() < 1_000, "timers that never end");
    desk.now = Instant::from_secs(7);
    assert!(matches!(desk.send(&query(2)).verdict, Verdict::Forward { .. }));
    assert!(desk.connections().iter().any(|row| row.client.port == 2));
}
