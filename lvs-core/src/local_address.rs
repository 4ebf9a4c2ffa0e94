//! Local addresses (FullNAT): which endpoint of the director's own a connection uses towards its real server.
//! The one promise: no two connections of a protocol have the same pair of real and local endpoint at once, and a pair
//! that was used rests for a while. The same local endpoint serves different real servers at once.
//!
//! Each pair of real server and local address has its own ports (a *lane*), made when it is first used. A lane hands
//! out ports that have rested, oldest first, then ports it does not remember, in an order drawn from the seed. Both
//! take constant work. When the memory for ports is full, lanes give back what has rested.
//! Source: the published behaviour of DPVS and Alibaba LVS.
//!
//! A service needs local addresses of its servers' family. Whoever carries the packets sees to it that the servers'
//! replies to them ([`crate::Director::local_addresses`]) reach the director:
//!
//! ```
//! use lvs_core::{Command, Director, DirectorConfig, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
//!
//! let mut director = Director::new(DirectorConfig::default(), Seed::new(0x5eed));
//! let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
//! for command in [
//!     Command::AddService(web, ServiceConfig::new("rr")),
//!     Command::AddLocalAddress(web, "10.0.0.200".parse().unwrap()),
//!     Command::AddServer(web, ServerConfig::full_nat("10.1.0.2:8080".parse().unwrap())),
//! ] {
//!     director.apply(Instant::ZERO, &command).unwrap();
//! }
//! assert_eq!(director.local_addresses().count(), 1);
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::rng::{Rng, Seed};
use crate::time::Instant;

/// Local addresses one service may have. All are tried for a connection before it is refused, so this also bounds the
/// work.
pub const LOCAL_ADDRESSES_MAX: usize = 64;
/// Lanes looked at for one that can give ports back, when the memory for ports is full.
const FORGET_WORK_MAX: usize = 64;
/// A lane gives ports back if it can give this part of what it remembers, so that the work pays.
const FORGET_PART: usize = 8;

/// Which local ports FullNAT may use, and how.
///
/// ```
/// use lvs_core::local_address::LocalPorts;
/// let second_of_four = LocalPorts { shard: 1, shards: 4, ..LocalPorts::default() };
/// assert_eq!(second_of_four.count(), 16_128); // 1025, 1029, … 65533
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalPorts {
    /// First port of the range. Default 1025, as DPVS.
    pub first: u16,
    /// Last port of the range. Default 65535.
    pub last: u16,
    /// Which of several directors that share the local addresses this one is, from 0. Default 0.
    pub shard: u16,
    /// How many directors share the local addresses: this one uses only ports with `port % shards == shard`, so that
    /// whoever steers packets can tell from a reply whose it is. 0 counts as 1. Default 1.
    pub shards: u16,
    /// How long a port rests after its connection before it may be used towards the same server again. Default 5 s:
    /// late segments of the old connection are gone by then; that a server still in TIME_WAIT takes the new one is seen
    /// to by rewritten sequence numbers ([`crate::service::FullNatOptions::rewrite_sequence`]). Where those are off,
    /// set at least the servers' TIME_WAIT, 60 s on Linux.
    pub quarantine: Duration,
    /// Most ports in use or remembered for having been in use, over all servers; 16 bytes each, allocated as needed.
    /// Default 262,144. A server that needs more makes others give back ports that have rested, as long as those are an
    /// eighth of what another one has on a local address.
    pub remembered_max: u32,
}

impl LocalPorts {
    /// How many ports these are, for each local address and server.
    pub const fn count(&self) -> u32 {
        let first = self.first_port();
        if first > self.last as u32 { 0 } else { (self.last as u32 - first) / self.step() + 1 }
    }

    /// The first port of this shard. Port 0 is never used.
    const fn first_port(&self) -> u32 {
        let first = if self.first == 0 { 1 } else { self.first as u32 };
        let shard = self.shard as u32 % self.step();
        first + (shard + self.step() - first % self.step()) % self.step()
    }

    const fn step(&self) -> u32 {
        if self.shards == 0 { 1 } else { self.shards as u32 }
    }

    /// The port with this number, which is below [`LocalPorts::count`].
    fn port(&self, index: u32) -> u16 {
        u16::try_from(self.first_port() + index * self.step()).unwrap_or(self.last)
    }
}

impl Default for LocalPorts {
    fn default() -> Self {
        Self {
            first: 1025,
            last: u16::MAX,
            shard: 0,
            shards: 1,
            quarantine: Duration::from_secs(5),
            remembered_max: 1 << 18,
        }
    }
}

/// How many ports of a local address are in which state, towards one real server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LocalPortsView {
    /// The protocol.
    pub protocol: Protocol,
    /// The real server.
    pub real: Endpoint,
    /// The local address.
    pub local: IpAddr,
    /// Used by a connection.
    pub leased: u32,
    /// Ready to be used.
    pub free: u32,
    /// Resting after their last connection.
    pub quarantined: u32,
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
    /// Lanes made, orders renewed and leases given so far: what the seed's choices are drawn by.
    lanes_made: u64,
    orders_renewed: u64,
    leases_given: u64,
    leased: u32,
    /// Ports leased or returned, over all lanes.
    remembered: u32,
    /// Where the search for lanes that can give ports back goes on.
    forget_at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct LaneKey {
    protocol: Protocol,
    real: Endpoint,
    local: IpAddr,
}

/// The ports of one local address towards one real server.
#[derive(Debug)]
struct Lane {
    key: LaneKey,
    order: Order,
    /// How far `order` is used up.
    used: u32,
    /// Ports to pass over in `order`, sorted: leased or resting when the lane last gave ports back.
    kept: Vec<u16>,
    leased: u32,
    /// Ports that came back, oldest first.
    returned: VecDeque<Returned>,
}

#[derive(Clone, Copy, Debug)]
struct Returned {
    port: u16,
    rests_until: Instant,
}

/// A port to use next.
#[derive(Clone, Copy)]
enum Next {
    Rested(u16),
    Unused {
        port: u16,
        /// Its place in the lane's order.
        index: u32,
    },
}

/// Every number below `count` once, in an order drawn from a seed, without memory: `offset + index · step`, where
/// `step` and `count` have no common divisor.
#[derive(Clone, Copy, Debug)]
struct Order {
    offset: u32,
    step: u32,
    count: u32,
}

impl LocalAddressPool {
    pub fn new(config: LocalPorts, seed: Seed) -> Self {
        let word = |n| seed.derive(n).value();
        Self {
            config,
            seed: seed.derive(4),
            addresses: Vec::new(),
            lanes: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::with_hasher(RandomState::with_seeds(word(0), word(1), word(2), word(3))),
            lanes_made: 0,
            orders_renewed: 0,
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

    /// The local endpoint a new connection to `real` would get, from `addresses` of the server's family. `None` if none
    /// is left. Which address is tried first is drawn from the seed, so that it never runs in step with the scheduler.
    pub fn choose(&self, now: Instant, protocol: Protocol, real: Endpoint, addresses: &[IpAddr]) -> Option<Endpoint> {
        let family = AddressFamily::of(real.address);
        let suitable = || addresses.iter().filter(|address| AddressFamily::of(**address) == family);
        let count = suitable().count();
        let first = Rng::new(self.seed.derive(self.leases_given)).up_to(u32::try_from(count).ok()?.checked_sub(1)?);
        let has_room = self.remembered < self.config.remembered_max || self.giving_lane(now).is_some();
        suitable().cycle().skip(first as usize).take(count).find_map(|address| {
            let key = LaneKey { protocol, real, local: *address };
            let (Next::Rested(port) | Next::Unused { port, .. }) = self.next(now, key, has_room)?;
            Some(Endpoint::new(*address, port))
        })
    }

    /// Leases what [`LocalAddressPool::choose`] says.
    pub fn lease(
        &mut self,
        now: Instant,
        protocol: Protocol,
        real: Endpoint,
        addresses: &[IpAddr],
    ) -> Option<Endpoint> {
        let chosen = self.choose(now, protocol, real, addresses);
        match chosen {
            Some(local) => self.take(now, LaneKey { protocol, real, local: local.address }),
            // The next search looks at other lanes.
            None => self.forget_at = (self.forget_at + FORGET_WORK_MAX) % self.lanes.len().max(1),
        }
        chosen
    }

    /// A connection has ended: its port goes into quarantine.
    pub fn release(&mut self, now: Instant, protocol: Protocol, real: Endpoint, local: Endpoint) {
        let key = LaneKey { protocol, real, local: local.address };
        let Some(lane) = self.by_key.get(&key).and_then(|index| self.lanes[*index as usize].as_mut()) else { return };
        lane.leased -= 1;
        self.leased -= 1;
        lane.returned.push_back(Returned { port: local.port, rests_until: now + self.config.quarantine });
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
        let (order, used) = lane.map_or_else(|| (self.next_order(), 0), |lane| (lane.order, lane.used));
        let (kept, remembered) = lane.map_or((&[][..], 0), |lane| (&lane.kept, lane.remembered()));
        if remembered >= order.count || !has_room {
            return None;
        }
        let unused = (used..order.count).map(|index| (index, self.config.port(order.at(index))));
        let (index, port) = unused.into_iter().find(|(_, port)| kept.binary_search(port).is_err())?;
        Some(Next::Unused { port, index })
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
                lane.used = index + 1;
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
        let (order, kept, returned) = (self.next_order(), Vec::new(), VecDeque::new());
        let lane = Some(Lane { key, order, used: 0, kept, leased: 0, returned });
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

    /// A lane that can give ports back: one of a server that is gone, mostly. Never one whose next port would be new.
    fn giving_lane(&self, now: Instant) -> Option<usize> {
        let count = self.lanes.len();
        let places = (0..count.min(FORGET_WORK_MAX)).map(|step| (self.forget_at + step) % count);
        places.into_iter().find(|at| self.lanes[*at].as_ref().is_some_and(|lane| lane.can_give(now)))
    }

    /// Makes a lane forget the ports that have rested. Those that have not, or are leased, will be passed over when its
    /// order begins again.
    fn give_back(&mut self, now: Instant) {
        let Some(at) = self.giving_lane(now) else { return };
        self.forget_at = at;
        let Some(lane) = self.lanes[at].as_mut() else { return };
        let mut is_kept = alloc::vec![false; usize::from(u16::MAX) + 1];
        let drawn = (0..lane.used).map(|index| self.config.port(lane.order.at(index)));
        drawn.chain(lane.kept.iter().copied()).for_each(|port| is_kept[usize::from(port)] = true);
        let rested = lane.returned.iter().take_while(|port| port.is_rested(now)).count();
        for rested in lane.returned.drain(..rested) {
            is_kept[usize::from(rested.port)] = false;
            self.remembered -= 1;
        }
        if lane.remembered() == 0 {
            self.by_key.remove(&lane.key);
            self.lanes[at] = None;
            self.free.push(at as u32);
            return;
        }
        lane.kept = (0..=u16::MAX).filter(|port| is_kept[usize::from(*port)]).collect();
        lane.used = 0;
        lane.order = Order::new(self.seed.derive(self.orders_renewed).derive(1), self.config.count());
        self.orders_renewed += 1;
    }

    /// The order of ports in the next lane to be made.
    fn next_order(&self) -> Order {
        Order::new(self.seed.derive(self.lanes_made).derive(0), self.config.count())
    }
}

impl Lane {
    /// Ports leased or returned.
    fn remembered(&self) -> u32 {
        self.leased + self.returned.len() as u32
    }

    /// Whether enough of its ports have rested.
    fn can_give(&self, now: Instant) -> bool {
        let has_rested = self.returned.front().is_some_and(|port| port.is_rested(now));
        has_rested && {
            let rested = self.returned.partition_point(|port| port.is_rested(now));
            rested * FORGET_PART >= self.remembered() as usize
        }
    }
}

impl Returned {
    /// Strictly after its time, so that a port never rests for no time at all.
    fn is_rested(&self, now: Instant) -> bool {
        self.rests_until < now
    }
}

impl Order {
    fn new(seed: Seed, count: u32) -> Self {
        let mut rng = Rng::new(seed);
        let offset = rng.up_to(count.saturating_sub(1));
        let start = rng.up_to(count.saturating_sub(1));
        // Among 2¹⁶ numbers the next one without a common divisor is never more than a few steps away.
        let step = (start.max(1)..).find(|step| are_coprime(*step, count.max(1))).unwrap_or(1);
        Self { offset, step, count }
    }

    /// The number in place `index`, which is below `count`.
    fn at(&self, index: u32) -> u32 {
        let place = u64::from(self.offset) + u64::from(index) * u64::from(self.step);
        (place % u64::from(self.count)) as u32
    }
}

fn are_coprime(mut a: u32, mut b: u32) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 200));

    fn real(last: u8) -> Endpoint {
        Endpoint::new(IpAddr::from([10, 0, 0, last]), 80)
    }

    fn pool(first: u16, last: u16) -> LocalAddressPool {
        let config = LocalPorts { first, last, ..LocalPorts::default() };
        LocalAddressPool::new(config, Seed::new(7))
    }

    fn lease(pool: &mut LocalAddressPool, now: Instant, server: u8) -> Option<u16> {
        pool.lease(now, Protocol::Tcp, real(server), &[LOCAL]).map(|local| local.port)
    }

    #[test]
    fn an_order_names_every_number_once() {
        for count in [1, 2, 6, 97, 1024, 64_511] {
            let order = Order::new(Seed::new(u64::from(count)), count);
            let mut seen: Vec<_> = (0..count).map(|index| order.at(index)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    fn shards_share_the_ports_without_overlap() {
        for shards in [1, 3, 4, 7] {
            let of = |shard| LocalPorts { shard, shards, ..LocalPorts::default() };
            assert_eq!((0..shards).map(|shard| of(shard).count()).sum::<u32>(), 64_511);
            assert!((0..shards).all(|shard| of(shard).first_port() % u32::from(shards) == u32::from(shard)));
        }
        assert_eq!(LocalPorts { first: 9, last: 5, ..LocalPorts::default() }.count(), 0);
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
        pool.release(Instant::from_secs(10), Protocol::Tcp, real(1), Endpoint::new(LOCAL, port));
        assert_eq!(lease(&mut pool, Instant::from_secs(15), 1), None);
        assert_eq!(lease(&mut pool, Instant::from_nanos(15_000_000_001), 1), Some(port));
        assert_ne!(port, other);
    }

    #[test]
    fn the_port_that_has_rested_longest_is_used_first() {
        let mut pool = pool(2000, 2002);
        let ports: Vec<_> = (0..3).filter_map(|_| lease(&mut pool, Instant::ZERO, 1)).collect();
        for (second, port) in (10..).zip([ports[1], ports[2], ports[0]]) {
            pool.release(Instant::from_secs(second), Protocol::Tcp, real(1), Endpoint::new(LOCAL, port));
        }
        let later = |_| lease(&mut pool, Instant::from_secs(20), 1);
        assert_eq!((0..3).filter_map(later).collect::<Vec<_>>(), [ports[1], ports[2], ports[0]]);
    }

    #[test]
    fn idle_servers_make_room_when_the_memory_for_ports_is_full() {
        let mut pool = LocalAddressPool::new(LocalPorts { remembered_max: 2, ..LocalPorts::default() }, Seed::new(7));
        let port = lease(&mut pool, Instant::ZERO, 1).unwrap();
        let other = lease(&mut pool, Instant::ZERO, 1).unwrap();
        assert_eq!(lease(&mut pool, Instant::ZERO, 2), None, "two ports are remembered");
        pool.release(Instant::ZERO, Protocol::Tcp, real(1), Endpoint::new(LOCAL, port));
        let later = Instant::from_secs(100);
        assert_eq!(lease(&mut pool, later, 1), Some(port), "what has rested needs no room");
        let leased = [port, other];
        for port in leased {
            pool.release(later, Protocol::Tcp, real(1), Endpoint::new(LOCAL, port));
        }
        let much_later = Instant::from_secs(200);
        assert!(lease(&mut pool, much_later, 2).is_some());
        assert_eq!(pool.remembered, 1, "the idle server is forgotten");
    }

    #[test]
    fn a_server_that_keeps_one_port_gives_the_others_back_and_never_hands_out_what_it_kept() {
        let config = LocalPorts { first: 2000, last: 2099, remembered_max: 100, ..LocalPorts::default() };
        let mut pool = LocalAddressPool::new(config, Seed::new(7));
        let ports: Vec<_> = (0..100).filter_map(|_| lease(&mut pool, Instant::ZERO, 1)).collect();
        let (stays, go) = ports.split_first().unwrap();
        let (late, early) = go.split_last().unwrap();
        let release = |pool: &mut LocalAddressPool, second, port| {
            pool.release(Instant::from_secs(second), Protocol::Tcp, real(1), Endpoint::new(LOCAL, port));
        };
        early.iter().for_each(|port| release(&mut pool, 10, *port));
        release(&mut pool, 20, *late);
        let now = Instant::from_secs(21);
        let other: Vec<_> = (0..50).filter_map(|_| lease(&mut pool, now, 2)).collect();
        assert_eq!((other.len(), pool.remembered), (50, 52), "all but the leased and the resting one were given back");
        let again: Vec<_> = (0..48).filter_map(|_| lease(&mut pool, now, 1)).collect();
        assert_eq!((again.len(), pool.remembered), (48, 100));
        assert!(!again.contains(stays) && !again.contains(late));
        assert_eq!(lease(&mut pool, now, 1), None);
        let view = pool.views(now)[0];
        assert_eq!((view.leased, view.free, view.quarantined), (49, 50, 1));
    }

    #[test]
    fn the_last_free_port_is_found_however_many_addresses_there_are() {
        let mut pool = pool(2000, 2000);
        let addresses: Vec<_> = (1..=LOCAL_ADDRESSES_MAX as u8).map(|n| IpAddr::from([10, 0, 1, n])).collect();
        let mut lease = || pool.lease(Instant::ZERO, Protocol::Tcp, real(1), &addresses);
        assert!((0..LOCAL_ADDRESSES_MAX).all(|_| lease().is_some()));
        assert_eq!(lease(), None);
    }

    #[test]
    fn a_seed_gives_one_sequence() {
        let sequence = |seed| {
            let mut pool = LocalAddressPool::new(LocalPorts::default(), Seed::new(seed));
            (0..20).map(|_| lease(&mut pool, Instant::ZERO, 1)).collect::<Vec<_>>()
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }
}
