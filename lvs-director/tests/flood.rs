//! What strangers can do to a director that `lvsd` makes: made-up SYNs, 1,100 a second, and more clients of a
//! persistent service than a library's director takes. The time is virtual, the configuration `lvsd run`'s own.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::local_address::LocalPorts;
use lvs_core::{DirectorConfig, HalfOpenPolicy, Verdict};
use lvs_director::capacity;
use lvs_testkit::{Desk, tcp};

/// A service of each kind, and a persistent one beside it.
const RULES: &str = "\
-A -t 192.0.2.80:80 -s rr
-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m
-A -t [2001:db8::80]:80 -s rr
-a -t [2001:db8::80]:80 -r [fd00::2]:80 -m
-A -t 192.0.2.80:443 -s rr -p 300
-a -t 192.0.2.80:443 -r 10.0.0.2:443 -m
";

/// What `lvsd run` gives its only worker on a machine with so much memory.
fn config_of_lvsd(memory: u64) -> DirectorConfig {
    let config = capacity::configured(memory, 1, &[]).expect("it fits");
    let [client_side, server_side] = [Desk::config().client_side, Desk::config().server_side];
    config.with(|config| {
        config.client_side = client_side;
        config.server_side = server_side;
        config.local_ports = LocalPorts::default();
    })
}

/// An address that nobody has, out of a service's clients.
fn made_up(number: u64, service: SocketAddr) -> SocketAddr {
    // SplitMix64's step: scattered, and the same each time.
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let port = 1024 + (random >> 48) as u16 % 60_000;
    match service {
        // 11.0.0.0/8: nobody's here.
        SocketAddr::V4(_) => SocketAddr::from(([11, (random >> 16) as u8, (random >> 8) as u8, random as u8], port)),
        // One /64 is enough for as many sources as anybody likes.
        SocketAddr::V6(_) => {
            let words = [(random >> 32) as u16, (random >> 16) as u16, random as u16, number as u16];
            let [a, b, c, d] = words;
            SocketAddr::from(([0x2001, 0xdb8, 0xbad, 0, a, b, c, d], port))
        }
    }
}

/// A client connects to the service, which answers after a round trip: whether it got through.
fn connects(desk: &mut Desk, client: SocketAddr, service: SocketAddr, round_trip: Duration) -> bool {
    if !matches!(desk.send(&tcp(client, service).syn().build()).verdict, Verdict::Forward { .. }) {
        return false;
    }
    desk.pass(round_trip);
    let real = match service {
        SocketAddr::V4(_) => SocketAddr::from(([10, 0, 0, 2], service.port())),
        SocketAddr::V6(_) => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 2], service.port())),
    };
    [tcp(real, client).syn().ack(), tcp(client, service).ack(), tcp(client, service).ack().payload(b"GET /")]
        .iter()
        .all(|packet| matches!(desk.send(&packet.build()).verdict, Verdict::Forward { .. }))
}

/// Floods `flooded` for two minutes, longer than a half-open connection lives, and says how many of those who connect
/// to each of the three services meanwhile, one a second, do not get through.
fn shut_out_by_flood(config: DirectorConfig, flooded: &str) -> usize {
    let mut desk = Desk::with_config(config, RULES);
    let flooded: SocketAddr = flooded.parse().expect("a service");
    let (mut sent, mut shut_out) = (0, 0);
    for second in 0..SECONDS {
        for service in ["192.0.2.80:80", "[2001:db8::80]:80", "192.0.2.80:443"] {
            for _ in 0..SYNS_PER_S / 3 {
                sent += 1;
                desk.feed(&tcp(made_up(sent, flooded), flooded).syn().build());
            }
            let service: SocketAddr = service.parse().expect("a service");
            let client = match service {
                SocketAddr::V4(_) => SocketAddr::from(([198, 51, 100, second as u8], 2000)),
                SocketAddr::V6(_) => SocketAddr::from(([0x2001, 0xdb8, 1, 0, 0, 0, 0, second], 2000)),
            };
            shut_out += usize::from(!connects(&mut desk, client, service, Duration::from_millis(100)));
        }
        desk.pass(Duration::from_millis(700));
    }
    shut_out
}

#[test]
fn services_of_lvsd_stay_open_under_made_up_syns() {
    for (memory, flooded) in [
        (1 << 30, "192.0.2.80:80"),
        (1 << 30, "[2001:db8::80]:80"),
        (SMALL, "192.0.2.80:80"),
        (SMALL, "[2001:db8::80]:80"),
    ] {
        assert_eq!(shut_out_by_flood(config_of_lvsd(memory), flooded), 0, "{flooded} on {memory} bytes");
    }
}

#[test]
fn a_persistent_service_of_lvsd_stays_open_under_made_up_syns() {
    for memory in [1 << 30, SMALL] {
        assert_eq!(shut_out_by_flood(config_of_lvsd(memory), "192.0.2.80:443"), 0, "{memory} bytes");
    }
}

#[test]
fn the_same_flood_shuts_a_director_that_refuses_newcomers() {
    let config = Desk::config().with(|config| {
        config.half_open_max = 4_096;
        config.half_open_policy = HalfOpenPolicy::Refuse;
    });
    assert!(shut_out_by_flood(config, "192.0.2.80:80") > 100);
}

#[test]
fn a_persistent_service_of_lvsd_takes_more_clients_than_a_librarys() {
    let refused = |config: DirectorConfig| {
        let service: SocketAddr = "192.0.2.80:443".parse().expect("a service");
        let mut desk = Desk::with_config(config, RULES);
        let clients = (0..20_000u32).map(|number| SocketAddr::from(((0x0c00_0000 + number).to_be_bytes(), 5000)));
        clients.filter(|client| !connects(&mut desk, *client, service, Duration::from_millis(1))).count()
    };
    assert_eq!(refused(Desk::config()), 20_000 - 16_384);
    assert_eq!(refused(config_of_lvsd(1 << 30)), 0);
}

const SYNS_PER_S: u64 = 1_100;
const SECONDS: u16 = 120;
/// A small board's memory.
const SMALL: u64 = 128 << 20;
