//! The ports of every lane, and the one memory for them all.
//! Decides which lane serves a connection, and which gives back what has rested.

use alloc::vec::Vec;
use core::hash::Hash;
use core::net::IpAddr;

use ahash::RandomState;
use hashbrown::HashMap;

use super::lane::{Lane, LaneKey, Next, Order, Returned};
use super::{LocalPorts, LocalPortsView};
use crate::client_group::{ClientGroups, share};
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::rng::{Rng, Seed};
use crate::time::Instant;

/// Lanes looked at for one that can give ports back, when the memory for ports is full.
const FORGET_WORK_MAX: usize = 64;

/// Why no local endpoint was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortsFull {
    /// Every port is in use or rests, or there is no local address of the server's family.
    Exhausted,
    /// The client has as many as one may have.
    Client,
}

/// The ports of every pair of real server and local address.
#[derive(Debug)]
pub(crate) struct LocalAddressPool {
    config: LocalPorts,
    seed: Seed,
    /// Local addresses, with how many services use each.
    addresses: Vec<(IpAddr, u32)>,
    lanes: Vec<Option<Lane>>,
    free: Vec<u32>,
    by_key: HashMap<LaneKey, u32, RandomState>,
    groups: ClientGroups,
    /// Ports leased, by client and lane; who has none takes no memory.
    by_client: HashMap<(LaneKey, IpAddr), u32, RandomState>,
    /// The same by server: who has few on all lanes together has few on some.
    by_holder: HashMap<Holder, u32, RandomState>,
    /// Lanes made and leases given so far: what the seed's choices are drawn by.
    lanes_made: u64,
    leases_given: u64,
    leased: u32,
    /// Ports leased or returned, over all lanes.
    remembered: u32,
    /// Where the search for lanes that can give ports back goes on.
    forget_at: usize,
}

impl LocalAddressPool {
    /// Clients are told apart by `groups`.
    pub fn new(config: LocalPorts, groups: ClientGroups, seed: Seed) -> Self {
        let word = |n| seed.derive(n).value();
        Self {
            config,
            seed: seed.derive(4),
            addresses: Vec::new(),
            lanes: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::with_hasher(RandomState::with_seeds(word(0), word(1), word(2), word(3))),
            groups,
            by_client: HashMap::with_hasher(RandomState::with_seeds(word(5), word(6), word(7), word(8))),
            by_holder: HashMap::with_hasher(RandomState::with_seeds(word(9), word(10), word(11), word(12))),
            lanes_made: 0,
            leases_given: 0,
            leased: 0,
            remembered: 0,
            forget_at: 0,
        }
    }

    /// A service uses this address from now on.
    pub fn join(&mut self, address: IpAddr) {
        match self.addresses.binary_search_by_key(&address, |(address, _)| *address) {
            Ok(at) => self.addresses[at].1 += 1,
            Err(at) => self.addresses.insert(at, (address, 1)),
        }
    }

    /// A service uses this address no more. Connections keep what they have.
    pub fn leave(&mut self, address: IpAddr) {
        if let Ok(at) = self.addresses.binary_search_by_key(&address, |(address, _)| *address) {
            self.addresses[at].1 -= 1;
            if self.addresses[at].1 == 0 {
                self.addresses.remove(at);
            }
        }
    }

    /// Whether a service uses this local address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.binary_search_by_key(&address, |(address, _)| *address).is_ok()
    }

    /// Every local address in use by a service, sorted.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(address, _)| *address)
    }

    /// Whether any connection has a local endpoint.
    pub fn has_leases(&self) -> bool {
        self.leased > 0
    }

    /// Connections that have a local endpoint.
    pub fn leased(&self) -> u32 {
        self.leased
    }

    /// The local endpoint a new connection of `client` to `real` would get, from `addresses` of the server's family.
    /// Which address is tried first is drawn from the seed, so that it never runs in step with the scheduler.
    pub fn choose(
        &self,
        now: Instant,
        protocol: Protocol,
        real: Endpoint,
        addresses: &[IpAddr],
        client: IpAddr,
    ) -> Result<Endpoint, PortsFull> {
        let family = AddressFamily::of(real.address);
        let suitable = || addresses.iter().filter(|address| AddressFamily::of(**address) == family);
        let count = suitable().count() as u32;
        let last = count.checked_sub(1).ok_or(PortsFull::Exhausted)?;
        let share = share(self.config.client_max, count.saturating_mul(self.config.count()));
        let client = self.groups.of(client);
        let on_all_lanes = self.by_holder.get(&(protocol, real, client)).copied().unwrap_or(0);
        let on_these = || suitable().map(|local| self.leased_by(LaneKey { protocol, real, local: *local }, client));
        if on_all_lanes >= share && on_these().sum::<u32>() >= share {
            return Err(PortsFull::Client);
        }
        let first = Rng::new(self.seed.derive(self.leases_given)).up_to(last);
        let has_room = self.remembered < self.config.remembered_max || self.giving_lane(now).is_some();
        let found = suitable().cycle().skip(first as usize).take(count as usize).find_map(|address| {
            let key = LaneKey { protocol, real, local: *address };
            let (Next::Rested(port) | Next::Unused { port, .. }) = self.next(now, key, has_room)?;
            Some(Endpoint::new(*address, port))
        });
        found.ok_or(PortsFull::Exhausted)
    }

    /// Leases what [`LocalAddressPool::choose`] says.
    pub fn lease(
        &mut self,
        now: Instant,
        protocol: Protocol,
        real: Endpoint,
        addresses: &[IpAddr],
        client: IpAddr,
    ) -> Result<Endpoint, PortsFull> {
        let chosen = self.choose(now, protocol, real, addresses, client);
        match chosen {
            Ok(local) => {
                let key = LaneKey { protocol, real, local: local.address };
                self.take(now, key);
                self.count_lease(key, client);
            }
            Err(_) => self.look_elsewhere(),
        }
        chosen
    }

    /// None was found: the next search looks at other lanes.
    pub fn look_elsewhere(&mut self) {
        self.forget_at = (self.forget_at + FORGET_WORK_MAX) % self.lanes.len().max(1);
    }

    /// Leases an endpoint that was released towards `real` a moment ago, without rest: it was taken back for this client.
    /// Others may have been released since, for the same client. Returns whether that is so.
    pub fn lease_again(&mut self, protocol: Protocol, real: Endpoint, local: Endpoint, client: IpAddr) -> bool {
        let key = LaneKey { protocol, real, local: local.address };
        let lane = self.by_key.get(&key).and_then(|index| self.lanes[*index as usize].as_mut());
        let Some(lane) = lane else { return false };
        let mut latest = lane.returned.iter().enumerate().rev().take(RELEASED_TOGETHER_MAX);
        let Some((index, _)) = latest.find(|(_, returned)| returned.port == local.port) else { return false };
        lane.returned.remove(index);
        lane.leased += 1;
        self.leased += 1;
        self.leases_given += 1;
        self.count_lease(key, client);
        true
    }

    /// Leases this very endpoint, for a connection that had it before. Returns whether it could: it must be one of this
    /// director's ports that nobody has, and there must be room.
    pub fn lease_exactly(&mut self, protocol: Protocol, real: Endpoint, local: Endpoint, client: IpAddr) -> bool {
        if self.remembered >= self.config.remembered_max || !self.config.has(local.port) {
            return false;
        }
        let key = LaneKey { protocol, real, local: local.address };
        let number = self.config.number(local.port);
        let index = self.lane_of(key);
        let Some(lane) = self.lanes[index as usize].as_mut() else { return false };
        if !lane.use_exactly(number) {
            return false;
        }
        lane.leased += 1;
        self.leased += 1;
        self.remembered += 1;
        self.leases_given += 1;
        self.count_lease(key, client);
        true
    }

    /// A connection has ended: its port goes into quarantine.
    pub fn release(&mut self, now: Instant, protocol: Protocol, real: Endpoint, local: Endpoint, client: IpAddr) {
        let key = LaneKey { protocol, real, local: local.address };
        let Some(lane) = self.by_key.get(&key).and_then(|index| self.lanes[*index as usize].as_mut()) else { return };
        lane.leased -= 1;
        self.leased -= 1;
        lane.returned.push_back(Returned { port: local.port, rests_until: now + self.config.quarantine });
        let client = self.groups.of(client);
        count_down(&mut self.by_client, (key, client));
        count_down(&mut self.by_holder, (protocol, real, client));
    }

    fn count_lease(&mut self, key: LaneKey, client: IpAddr) {
        let client = self.groups.of(client);
        *self.by_client.entry((key, client)).or_insert(0) += 1;
        *self.by_holder.entry((key.protocol, key.real, client)).or_insert(0) += 1;
    }

    /// How many ports of a lane a client has, as the groups tell clients apart.
    fn leased_by(&self, key: LaneKey, client: IpAddr) -> u32 {
        self.by_client.get(&(key, client)).copied().unwrap_or(0)
    }

    /// The state of every lane, sorted.
    pub fn views(&self, now: Instant) -> Vec<LocalPortsView> {
        let mut views: Vec<_> = self.lanes.iter().flatten().map(|lane| self.view(lane, now)).collect();
        views.sort_unstable();
        views
    }

    fn view(&self, lane: &Lane, now: Instant) -> LocalPortsView {
        let quarantined = lane.returned.iter().rev().take_while(|returned| !returned.is_rested(now)).count() as u32;
        LocalPortsView {
            protocol: lane.key.protocol,
            real: lane.key.real,
            local: lane.key.local,
            leased: lane.leased,
            free: lane.order.count - lane.leased - quarantined,
            quarantined,
        }
    }

    /// The port a lane would hand out, a new one only with `has_room` in the memory for ports.
    fn next(&self, now: Instant, key: LaneKey, has_room: bool) -> Option<Next> {
        let lane = self.by_key.get(&key).and_then(|index| self.lanes[*index as usize].as_ref());
        if let Some(rested) = lane.and_then(|lane| lane.returned.front()).filter(|port| port.is_rested(now)) {
            return Some(Next::Rested(rested.port));
        }
        if !has_room || self.config.count() == 0 {
            return None;
        }
        let (order, index) = match lane {
            Some(lane) => (lane.order, lane.unused()?),
            None => (self.next_order(), 0),
        };
        Some(Next::Unused { port: self.config.port(order.at(index)), index })
    }

    fn take(&mut self, now: Instant, key: LaneKey) {
        let Some(next) = self.next(now, key, true) else { return };
        if matches!(next, Next::Unused { .. }) && self.remembered >= self.config.remembered_max {
            self.give_back(now);
        }
        let index = self.lane_of(key);
        let Some(lane) = self.lanes[index as usize].as_mut() else { return };
        match next {
            Next::Rested(_) => drop(lane.returned.pop_front()),
            Next::Unused { index, .. } => {
                lane.use_up(index);
                self.remembered += 1;
            }
        }
        lane.leased += 1;
        self.leased += 1;
        self.leases_given += 1;
    }

    fn lane_of(&mut self, key: LaneKey) -> u32 {
        if let Some(index) = self.by_key.get(&key) {
            return *index;
        }
        let lane = Some(Lane::new(key, self.next_order()));
        self.lanes_made += 1;
        let index = match self.free.pop() {
            Some(index) => {
                self.lanes[index as usize] = lane;
                index
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() as u32 - 1
            }
        };
        self.by_key.insert(key, index);
        index
    }

    /// A lane that can give ports back. Never one whose next port would be new.
    fn giving_lane(&self, now: Instant) -> Option<usize> {
        let count = self.lanes.len();
        let places = (0..count.min(FORGET_WORK_MAX)).map(|step| (self.forget_at + step) % count);
        places.into_iter().find(|at| self.lanes[*at].as_ref().is_some_and(|lane| lane.can_give(now)))
    }

    /// Makes a lane forget some of its ports that have rested, or all of it if nothing is left.
    fn give_back(&mut self, now: Instant) {
        let Some(at) = self.giving_lane(now) else { return };
        self.forget_at = at;
        let Some(lane) = self.lanes[at].as_mut() else { return };
        self.remembered -= lane.give_back(now, |port| self.config.number(port));
        if lane.remembered() == 0 {
            self.by_key.remove(&lane.key);
            self.lanes[at] = None;
            self.free.push(at as u32);
        }
    }

    /// The order of ports in the next lane to be made.
    fn next_order(&self) -> Order {
        Order::new(self.seed.derive(self.lanes_made).derive(0), self.config.count())
    }
}

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, u32, RandomState>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// A client's ports towards a server.
type Holder = (Protocol, Endpoint, IpAddr);

/// Ports towards one server that one packet may free: of a newcomer for each bound (places, half-open ones, ports), and of
/// one more where what one of them hung on becomes half-open itself. Twice as many, to be sure.
const RELEASED_TOGETHER_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::LOCAL_ADDRESSES_MAX;
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(198, 51, 100, 7));
    const LOCAL: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 200));

    fn real(last: u8) -> Endpoint {
        Endpoint::new(IpAddr::from([10, 0, 0, last]), 80)
    }

    fn pool(first: u16, last: u16) -> LocalAddressPool {
        let config = LocalPorts { first, last, client_max: 100, ..LocalPorts::default() };
        LocalAddressPool::new(config, ClientGroups::new(64), Seed::new(7))
    }

    fn lease(pool: &mut LocalAddressPool, now: Instant, server: u8) -> Option<u16> {
        pool.lease(now, Protocol::Tcp, real(server), &[LOCAL], CLIENT).ok().map(|local| local.port)
    }

    #[test]
    fn one_server_gets_every_port_once_and_another_server_gets_them_all_again() {
        let mut pool = pool(2000, 2004);
        for server in [1, 2] {
            let mut ports: Vec<_> = (0..5).filter_map(|_| lease(&mut pool, Instant::ZERO, server)).collect();
            ports.sort_unstable();
            assert_eq!(ports, [2000, 2001, 2002, 2003, 2004]);
            assert_eq!(lease(&mut pool, Instant::ZERO, server), None);
        }
    }

    #[test]
    fn a_port_rests_for_the_quarantine_and_comes_back_first() {
        let mut pool = pool(2000, 2001);
        let port = lease(&mut pool, Instant::ZERO, 1).unwrap();
        let other = lease(&mut pool, Instant::ZERO, 1).unwrap();
        pool.release(Instant::from_secs(10), Protocol::Tcp, real(1), Endpoint::new(LOCAL, port), CLIENT);
        assert_eq!(lease(&mut pool, Instant::from_secs(15), 1), None);
        assert_eq!(lease(&mut pool, Instant::from_nanos(15_000_000_001), 1), Some(port));
        assert_ne!(port, other);
    }

    #[test]
    fn the_port_that_has_rested_longest_is_used_first() {
        let mut pool = pool(2000, 2002);
        let ports: Vec<_> = (0..3).filter_map(|_| lease(&mut pool, Instant::ZERO, 1)).collect();
        for (second, port) in (10..).zip([ports[1], ports[2], ports[0]]) {
            pool.release(Instant::from_secs(second), Protocol::Tcp, real(1), Endpoint::new(LOCAL, port), CLIENT);
        }
        let later = |_| lease(&mut pool, Instant::from_secs(20), 1);
        assert_eq!((0..3).filter_map(later).collect::<Vec<_>>(), [ports[1], ports[2], ports[0]]);
    }

    #[test]
    fn idle_servers_make_room_when_the_memory_for_ports_is_full() {
        let mut pool = LocalAddressPool::new(
            LocalPorts { remembered_max: 2, ..LocalPorts::default() },
            ClientGroups::new(64),
            Seed::new(7),
        );
        let port = lease(&mut pool, Instant::ZERO, 1).unwrap();
        let other = lease(&mut pool, Instant::ZERO, 1).unwrap();
        assert_eq!(lease(&mut pool, Instant::ZERO, 2), None, "two ports are remembered");
        pool.release(Instant::ZERO, Protocol::Tcp, real(1), Endpoint::new(LOCAL, port), CLIENT);
        let later = Instant::from_secs(100);
        assert_eq!(lease(&mut pool, later, 1), Some(port), "what has rested needs no room");
        let leased = [port, other];
        for port in leased {
            pool.release(later, Protocol::Tcp, real(1), Endpoint::new(LOCAL, port), CLIENT);
        }
        let much_later = Instant::from_secs(200);
        assert!(lease(&mut pool, much_later, 2).is_some());
        assert_eq!(pool.remembered, 1, "the idle server is forgotten");
    }

    #[test]
    fn a_server_that_keeps_one_port_gives_the_others_back_and_never_hands_out_what_it_kept() {
        let config =
            LocalPorts { first: 2000, last: 2099, remembered_max: 100, client_max: 100, ..LocalPorts::default() };
        let mut pool = LocalAddressPool::new(config, ClientGroups::new(64), Seed::new(7));
        let ports: Vec<_> = (0..100).filter_map(|_| lease(&mut pool, Instant::ZERO, 1)).collect();
        let (stays, go) = ports.split_first().unwrap();
        let (late, early) = go.split_last().unwrap();
        let release = |pool: &mut LocalAddressPool, second, port| {
            pool.release(Instant::from_secs(second), Protocol::Tcp, real(1), Endpoint::new(LOCAL, port), CLIENT);
        };
        early.iter().for_each(|port| release(&mut pool, 10, *port));
        release(&mut pool, 20, *late);
        let now = Instant::from_secs(21);
        assert!(lease(&mut pool, now, 2).is_some());
        assert_eq!(pool.remembered, 100 - 64 + 1, "so many are given back at once, and no more");
        let other: Vec<_> = (1..80).filter_map(|_| lease(&mut pool, now, 2)).collect();
        assert_eq!((other.len(), pool.remembered), (79, 82), "all but the leased and the resting one were given back");
        let again: Vec<_> = (0..18).filter_map(|_| lease(&mut pool, now, 1)).collect();
        assert_eq!((again.len(), pool.remembered), (18, 100));
        assert!(!again.contains(stays) && !again.contains(late));
        assert_eq!(lease(&mut pool, now, 1), None);
        let view = pool.views(now)[0];
        assert_eq!((view.leased, view.free, view.quarantined), (19, 80, 1));
    }

    #[test]
    fn the_last_free_port_is_found_however_many_addresses_there_are() {
        let mut pool = pool(2000, 2000);
        let addresses: Vec<_> = (1..=LOCAL_ADDRESSES_MAX as u8).map(|n| IpAddr::from([10, 0, 1, n])).collect();
        let mut lease = || pool.lease(Instant::ZERO, Protocol::Tcp, real(1), &addresses, CLIENT).ok();
        assert!((0..LOCAL_ADDRESSES_MAX).all(|_| lease().is_some()));
        assert_eq!(lease(), None);
    }

    #[test]
    fn a_seed_gives_one_sequence() {
        let sequence = |seed| {
            let mut pool = LocalAddressPool::new(LocalPorts::default(), ClientGroups::new(64), Seed::new(seed));
            (0..20).map(|_| lease(&mut pool, Instant::ZERO, 1)).collect::<Vec<_>>()
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }

    #[test]
    fn a_client_leases_its_share_towards_each_server_and_an_ipv6_network_counts_as_one() {
        let config = LocalPorts { first: 2000, last: 2099, client_max: 3, ..LocalPorts::default() };
        let mut pool = LocalAddressPool::new(config, ClientGroups::new(64), Seed::new(7));
        let mut lease = |client: &str, server| {
            let client = client.parse().unwrap();
            pool.lease(Instant::ZERO, Protocol::Tcp, real(server), &[LOCAL], client)
        };
        let of_one = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"].map(|client| lease(client, 1));
        assert!(of_one.iter().all(Result::is_ok));
        assert_eq!(lease("2001:db8::3", 1), Err(PortsFull::Client));
        assert!(lease("2001:db8::3", 2).is_ok() && lease("2001:db8:1::3", 1).is_ok());
        pool.release(Instant::ZERO, Protocol::Tcp, real(1), of_one[0].unwrap(), "2001:db8::1".parse().unwrap());
        assert!(pool.lease(Instant::ZERO, Protocol::Tcp, real(1), &[LOCAL], "2001:db8::3".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_port_that_was_taken_back_is_leased_without_rest() {
        let mut pool = pool(2000, 2000);
        let port = lease(&mut pool, Instant::ZERO, 1).unwrap();
        let local = Endpoint::new(LOCAL, port);
        assert!(!pool.lease_again(Protocol::Tcp, real(1), local, CLIENT), "it is leased");
        pool.release(Instant::ZERO, Protocol::Tcp, real(1), local, CLIENT);
        assert_eq!(lease(&mut pool, Instant::ZERO, 1), None);
        assert!(pool.lease_again(Protocol::Tcp, real(1), local, CLIENT));
        assert_eq!((pool.leased(), pool.remembered), (1, 1));
    }

    #[test]
    fn a_port_is_taken_back_though_another_was_released_after_it() {
        let mut pool = pool(2000, 2001);
        let [first, second] =
            [0, 1].map(|_| Endpoint::new(LOCAL, lease(&mut pool, Instant::ZERO, 1).expect("there are two")));
        pool.release(Instant::ZERO, Protocol::Tcp, real(1), first, CLIENT);
        pool.release(Instant::ZERO, Protocol::Tcp, real(1), second, CLIENT);
        assert!(pool.lease_again(Protocol::Tcp, real(1), first, CLIENT));
        assert!(!pool.lease_again(Protocol::Tcp, real(1), first, CLIENT), "it is leased");
        assert!(pool.lease_again(Protocol::Tcp, real(1), second, CLIENT));
        assert_eq!(pool.leased(), 2);
    }
}
