//! The table against a plain list of connections, and what each lookup promises, one by one.

use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

extern crate std;

const MINUTE: Duration = Duration::from_secs(60);
const START: Instant = Instant::from_secs(1_000);
const CAPACITY: u32 = 8;
const PER_CLIENT_ENDPOINT: u32 = 3;

fn endpoint(text: &str) -> Endpoint {
    let socket: core::net::SocketAddr = text.parse().unwrap();
    Endpoint::new(socket.ip(), socket.port())
}

fn client() -> Endpoint {
    endpoint("198.51.100.7:4000")
}

fn virtual_endpoint() -> Endpoint {
    endpoint("192.0.2.80:80")
}

fn real() -> Endpoint {
    endpoint("10.0.0.2:8080")
}

fn connection(forward: ForwardMethod) -> Connection {
    let timeout = MINUTE;
    Connection { timeout, ..Connection::new(Protocol::Tcp, client(), virtual_endpoint(), real(), forward) }
}

fn table() -> ConnectionTable {
    ConnectionTable::new(CAPACITY, PER_CLIENT_ENDPOINT, ClientGroups::new(64), Seed::new(7))
}

fn request(table: &ConnectionTable, now: Instant) -> Option<ConnectionId> {
    table.find_request(now, Protocol::Tcp, client(), virtual_endpoint())
}

fn reply(table: &ConnectionTable, source: Endpoint) -> Option<ConnectionId> {
    table.find_reply(START, Protocol::Tcp, source, client())
}

#[test]
fn replies_come_from_the_real_server_when_translated_and_from_the_virtual_endpoint_otherwise() {
    use ForwardMethod::*;
    for forward in [Nat, DirectRouting, Tunnel, Local, Bypass] {
        let mut table = table();
        let id = Some(table.insert(START, connection(forward)).unwrap());
        assert_eq!(request(&table, START), id);
        let answers = (reply(&table, real()), reply(&table, virtual_endpoint()));
        assert_eq!(answers, if forward == Nat { (id, None) } else { (None, id) }, "{forward:?}");
    }
}

#[test]
fn a_full_nat_connection_is_found_by_its_local_endpoint_and_not_by_the_client() {
    let local = endpoint("10.0.0.1:5000");
    let mut table = table();
    let full_nat = Connection { local: Some(local), ..connection(ForwardMethod::FullNat) };
    let id = table.insert(START, full_nat).unwrap();
    assert_eq!(request(&table, START), Some(id));
    assert_eq!(table.find_full_nat_reply(START, Protocol::Tcp, real(), local), Some(id));
    assert_eq!(table.find_full_nat_reply(START, Protocol::Udp, real(), local), None);
    assert_eq!(table.find_full_nat_reply(START, Protocol::Tcp, local, real()), None);
    assert_eq!((reply(&table, real()), reply(&table, virtual_endpoint())), (None, None));
    table.remove(id);
    assert_eq!(table.find_full_nat_reply(START, Protocol::Tcp, real(), local), None);
}

#[test]
fn a_connection_that_waits_for_its_clients_port_is_found_from_any_port_until_it_is_known() {
    let mut table = table();
    let unknown = Endpoint::new(client().address, 0);
    let passive = Connection { client: unknown, no_client_port: true, ..connection(ForwardMethod::Nat) };
    let id = table.insert(START, passive).unwrap();
    let elsewhere = endpoint("198.51.100.7:4001");
    let from = |table: &ConnectionTable, client| table.find_request(START, Protocol::Tcp, client, virtual_endpoint());
    assert_eq!((from(&table, client()), from(&table, elsewhere)), (Some(id), Some(id)));

    // One with a known port comes first.
    let exact = table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    assert_eq!((from(&table, client()), from(&table, elsewhere)), (Some(exact), Some(id)));
    table.remove(exact);

    assert!(table.set_client_port(id, client().port));
    assert_eq!((from(&table, client()), from(&table, elsewhere)), (Some(id), None));
    assert_eq!(reply(&table, real()), Some(id));
}

#[test]
fn a_connection_is_dead_at_its_deadline_whether_or_not_it_was_removed() {
    let mut table = table();
    let id = table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    let end = START + MINUTE;
    assert_eq!(request(&table, Instant::from_nanos(end.as_nanos() - 1)), Some(id));
    assert_eq!(request(&table, end), None);
    assert_eq!(table.len(), 1);
    assert_eq!(table.pop_expired(end, &mut 10), Some(id));
}

#[test]
fn the_newer_of_two_connections_with_one_key_is_found() {
    let mut table = table();
    let old = table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    let new = table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    assert_eq!((request(&table, START), reply(&table, real())), (Some(new), Some(new)));
    table.expire_now(new, START);
    assert_eq!((request(&table, START), reply(&table, real())), (Some(old), Some(old)));
}

#[test]
fn the_id_of_an_ended_connection_finds_nothing_in_its_place() {
    let mut table = table();
    let old = table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    assert!(table.remove(old).is_some());
    let new = table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    assert_eq!(table.at(0).map(|(id, _)| id), Some(new));
    assert!(table.get(old).is_none() && table.get_mut(old).is_none() && table.remove(old).is_none());
    assert!(!table.rearm(old, START, MINUTE) && !table.expire_now(old, START) && !table.set_client_port(old, 1));
    assert_eq!(request(&table, START), Some(new));
}

#[test]
fn a_full_table_says_which_limit_was_met() {
    let mut table = table();
    for _ in 0..PER_CLIENT_ENDPOINT {
        table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    }
    assert_eq!(table.insert(START, connection(ForwardMethod::Nat)), Err(TableFull::ClientEndpoint));
    let of_port = |port| Connection { client: Endpoint::new(client().address, port), ..connection(ForwardMethod::Nat) };
    for port in 0..(CAPACITY - PER_CLIENT_ENDPOINT) as u16 {
        table.insert(START, of_port(port)).unwrap();
    }
    assert_eq!(table.insert(START, of_port(9)), Err(TableFull::Capacity));
    assert_eq!(table.len(), CAPACITY);
}

#[test]
fn an_earlier_deadline_comes_up_at_once_and_a_later_one_costs_nothing_until_the_old_one() {
    let mut table = table();
    let id = table.insert(START, connection(ForwardMethod::Nat)).unwrap();
    table.rearm(id, START, 15 * MINUTE); // SYN_RECV → ESTABLISHED
    let mut budget = 10;
    assert_eq!(table.pop_expired(START + 14 * MINUTE, &mut budget), None);
    assert!(budget < 10, "the old deadline came up and was filed anew");
    table.rearm(id, START + 14 * MINUTE, MINUTE / 6); // ESTABLISHED → CLOSE
    let end = START + 14 * MINUTE + MINUTE / 6;
    assert!(table.next_deadline().unwrap() <= end + Duration::from_millis(17));
    assert_eq!(table.pop_expired(Instant::from_nanos(end.as_nanos() - 1), &mut 10), None);
    assert_eq!(table.pop_expired(end, &mut 10), Some(id));

    // It has children: the caller keeps it for another minute.
    table.rearm(id, end, MINUTE);
    assert_eq!(table.pop_expired(end, &mut 10), None);
    assert_eq!(table.pop_expired(end + MINUTE, &mut 10), Some(id));
}

/// A verb with indexes into small sets of values, so that keys collide often.
#[derive(Clone, Debug)]
enum Step {
    Insert {
        connection: Connection,
    },
    Remove {
        which: usize,
    },
    Rearm {
        which: usize,
        timeout: Duration,
    },
    ExpireNow {
        which: usize,
    },
    SetClientPort {
        which: usize,
        port: u16,
    },
    Clock {
        by_s: i64,
    },
    /// Of those that come up, one in `keep_every` has its timer restarted instead of being removed.
    Expire {
        budget: u32,
        keep_every: usize,
    },
}

fn protocols() -> [Protocol; 2] {
    [Protocol::Tcp, Protocol::Udp]
}

fn clients() -> [Endpoint; 4] {
    ["198.51.100.7:0", "198.51.100.7:1", "198.51.100.7:2", "[2001:db8::7]:1"].map(endpoint)
}

fn virtual_endpoints() -> [Endpoint; 2] {
    ["192.0.2.80:80", "192.0.2.80:443"].map(endpoint)
}

fn reals() -> [Endpoint; 2] {
    ["10.0.0.2:80", "192.0.2.80:80"].map(endpoint)
}

fn locals() -> [Endpoint; 2] {
    ["10.0.0.1:5000", "198.51.100.7:1"].map(endpoint)
}

fn any_connection() -> impl Strategy<Value = Connection> {
    let forward =
        prop_oneof![Just(ForwardMethod::Nat), Just(ForwardMethod::DirectRouting), Just(ForwardMethod::FullNat)];
    (0_usize..2, 0_usize..4, 0_usize..2, 0_usize..2, forward, 0_usize..2, 0_u64..400).prop_map(
        |(protocol, client, virtual_endpoint, real, forward, local, timeout_s)| {
            let client = clients()[client];
            let (virtual_endpoint, real) = (virtual_endpoints()[virtual_endpoint], reals()[real]);
            let mut connection = Connection::new(protocols()[protocol], client, virtual_endpoint, real, forward);
            connection.no_client_port = client.port == 0;
            connection.local = (forward == ForwardMethod::FullNat).then_some(locals()[local]);
            connection.timeout = Duration::from_secs(timeout_s);
            connection
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0_usize..CAPACITY as usize;
    prop_oneof![
        6 => any_connection().prop_map(|connection| Step::Insert { connection }),
        1 => which.clone().prop_map(|which| Step::Remove { which }),
        3 => (which.clone(), 0_u64..1_000)
            .prop_map(|(which, s)| Step::Rearm { which, timeout: Duration::from_secs(s) }),
        1 => which.clone().prop_map(|which| Step::ExpireNow { which }),
        1 => (which, 1_u16..3).prop_map(|(which, port)| Step::SetClientPort { which, port }),
        3 => prop_oneof![8 => 0_i64..100, 1 => -100_i64..0, 1 => Just(100_000)].prop_map(|by_s| Step::Clock { by_s }),
        3 => (prop_oneof![0_u32..6, Just(1_000)], 1_usize..4)
            .prop_map(|(budget, keep_every)| Step::Expire { budget, keep_every }),
    ]
}

/// What the table should hold, oldest first, searched from the end.
#[derive(Default)]
struct Model {
    /// In the order in which requests and NAT replies find them, last first.
    by_client: Vec<(ConnectionId, Connection)>,
    /// In the order in which FullNAT replies find them, last first.
    by_local: Vec<ConnectionId>,
    gone: Vec<ConnectionId>,
}

impl Model {
    fn insert(&mut self, id: ConnectionId, connection: Connection) {
        self.by_client.push((id, connection));
        self.by_local.push(id);
    }

    fn remove(&mut self, id: ConnectionId) {
        self.by_client.retain(|(other, _)| *other != id);
        self.by_local.retain(|other| *other != id);
        self.gone.push(id);
    }

    fn get_mut(&mut self, id: ConnectionId) -> &mut Connection {
        &mut self.by_client.iter_mut().find(|(other, _)| *other == id).expect("the table knows no other ids").1
    }

    fn id(&self, which: usize) -> Option<ConnectionId> {
        self.by_client.get(which).map(|(id, _)| *id)
    }

    fn newest(&self, now: Instant, matches: impl Fn(&Connection) -> bool) -> Option<ConnectionId> {
        let found =
            self.by_client.iter().rev().find(|(_, connection)| connection.deadline > now && matches(connection));
        found.map(|(id, _)| *id)
    }

    fn newest_by_local(&self, now: Instant, matches: impl Fn(&Connection) -> bool) -> Option<ConnectionId> {
        let live = |id: &&ConnectionId| {
            let (_, connection) = self.by_client.iter().find(|(other, _)| other == *id).unwrap();
            connection.deadline > now && matches(connection)
        };
        self.by_local.iter().rev().find(live).copied()
    }

    fn request(&self, now: Instant, protocol: Protocol, client: Endpoint, to: Endpoint) -> Option<ConnectionId> {
        let with_port = |port| {
            self.newest(now, |connection| {
                connection.protocol == protocol
                    && connection.client == Endpoint::new(client.address, port)
                    && connection.virtual_endpoint == to
            })
        };
        with_port(client.port).or_else(|| with_port(0))
    }

    fn reply(&self, now: Instant, protocol: Protocol, source: Endpoint, client: Endpoint) -> Option<ConnectionId> {
        self.newest(now, |connection| {
            connection.protocol == protocol
                && connection.client == client
                && match connection.forward {
                    ForwardMethod::Nat => connection.real == source,
                    ForwardMethod::DirectRouting => connection.virtual_endpoint == source,
                    _ => false,
                }
        })
    }
}

fn assert_same(table: &ConnectionTable, model: &Model, now: Instant) {
    for protocol in protocols() {
        for client in clients() {
            for to in virtual_endpoints() {
                let expected = model.request(now, protocol, client, to);
                assert_eq!(table.find_request(now, protocol, client, to), expected, "{protocol} {client} → {to}");
            }
            for source in reals().into_iter().chain(virtual_endpoints()) {
                let expected = model.reply(now, protocol, source, client);
                assert_eq!(table.find_reply(now, protocol, source, client), expected, "{protocol} {source} → {client}");
            }
        }
        for (source, local) in reals().into_iter().flat_map(|real| locals().map(|local| (real, local))) {
            let expected = model.newest_by_local(now, |connection| {
                (connection.protocol, connection.real, connection.local) == (protocol, source, Some(local))
            });
            assert_eq!(table.find_full_nat_reply(now, protocol, source, local), expected, "{source} → {local}");
        }
    }
    let listed: Vec<_> = table.iter().map(|(id, connection)| (id, connection.clone())).collect();
    let mut expected = model.by_client.clone();
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(listed, expected);
    assert_eq!(table.len() as usize, expected.len());
    assert!(model.gone.iter().all(|id| table.get(*id).is_none()));
    let due = model.by_client.iter().map(|(_, connection)| connection.deadline).min();
    assert!(table.may_have_expired(now) || due.is_none_or(|due| due > now));
    let next = table.next_deadline();
    assert_eq!(next.is_some(), due.is_some());
    assert!(next <= due.map(|due| due + Duration::from_millis(17)));
}

fn insert(table: &mut ConnectionTable, model: &mut Model, now: Instant, connection: Connection) {
    let live_of_client = model.by_client.iter().filter(|(_, other)| {
        (other.protocol, other.client) == (connection.protocol, connection.client) && other.deadline > now
    });
    let expected = match () {
        () if model.by_client.len() == CAPACITY as usize => Err(TableFull::Capacity),
        () if live_of_client.count() >= PER_CLIENT_ENDPOINT as usize => Err(TableFull::ClientEndpoint),
        () => Ok(()),
    };
    let inserted = table.insert(now, connection.clone());
    assert_eq!(inserted.map(|_| ()), expected);
    if let Ok(id) = inserted {
        assert!(!model.gone.contains(&id), "an id is never given twice");
        model.insert(id, Connection { deadline: now + connection.timeout, ..connection });
    }
}

fn expire(table: &mut ConnectionTable, model: &mut Model, now: Instant, budget: u32, keep_every: usize) {
    let mut left = budget;
    let mut count = 0;
    while let Some(id) = table.pop_expired(now, &mut left) {
        assert!(model.get_mut(id).deadline <= now, "ended too early");
        count += 1;
        if count % (keep_every + 1) == keep_every {
            table.rearm(id, now, MINUTE);
            *model.get_mut(id) = Connection { timeout: MINUTE, deadline: now + MINUTE, ..model.get_mut(id).clone() };
        } else {
            table.remove(id);
            model.remove(id);
        }
    }
    if left > 0 {
        assert!(model.by_client.iter().all(|(_, connection)| connection.deadline > now), "one that ended was missed");
    }
}

fn apply(table: &mut ConnectionTable, model: &mut Model, now: &mut Instant, step: Step) {
    match step {
        Step::Insert { connection } => insert(table, model, *now, connection),
        Step::Remove { which } => {
            let Some(id) = model.id(which) else { return };
            assert_eq!(table.remove(id).as_ref(), Some(&*model.get_mut(id)));
            model.remove(id);
        }
        Step::Rearm { which, timeout } => {
            let Some(id) = model.id(which) else { return };
            assert!(table.rearm(id, *now, timeout));
            let connection = model.get_mut(id);
            (connection.timeout, connection.deadline) = (timeout, *now + timeout);
        }
        Step::ExpireNow { which } => {
            let Some(id) = model.id(which) else { return };
            assert!(table.expire_now(id, *now));
            let connection = model.get_mut(id);
            connection.deadline = connection.deadline.min(*now);
        }
        Step::SetClientPort { which, port } => {
            let Some(id) = model.id(which) else { return };
            assert!(table.set_client_port(id, port));
            let place = model.by_client.iter().position(|(other, _)| *other == id).unwrap();
            let (_, mut connection) = model.by_client.remove(place);
            connection.client.port = port;
            connection.no_client_port = false;
            model.by_client.push((id, connection)); // found first, as if it were new
        }
        Step::Clock { by_s } => *now = Instant::from_nanos(now.as_nanos().saturating_add_signed(by_s * 1_000_000_000)),
        Step::Expire { budget, keep_every } => expire(table, model, *now, budget, keep_every),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        rng_seed: RngSeed::Fixed(0x1f5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_table_finds_ends_and_counts_what_a_plain_list_would(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut table = ConnectionTable::new(CAPACITY, PER_CLIENT_ENDPOINT, ClientGroups::new(64), Seed::new(seed));
        let mut model = Model::default();
        let mut now = START;
        let reserved = table.reserved_len();
        for step in steps {
            apply(&mut table, &mut model, &mut now, step);
            assert_same(&table, &model, now);
        }
        now = now + Duration::from_secs(1_000_000);
        expire(&mut table, &mut model, now, 1_000, usize::MAX - 1);
        prop_assert_eq!((table.len(), table.next_deadline()), (0, None));
        prop_assert_eq!(table.no_client_port_count, 0);
        prop_assert_eq!(table.reserved_len(), reserved, "memory is what it was at creation");
    }
}
