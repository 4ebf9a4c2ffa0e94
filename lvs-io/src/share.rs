//! Gives every packet to the worker whose director owns its client, whichever queue of the device it came by.
//! The kernel spreads flows over queues by its own hash; this makes up for the difference: packets of another shard
//! are copied into parcels and posted to it. Parcels are bounded and used again (`share/parcel.rs`), so nothing is
//! allocated for a packet once traffic flows. Each shard has parcels of its own from each queue, so one that does not
//! keep up loses its own packets and nobody else's; it counts them. Fragments to FullNAT's local addresses go by way of
//! a shard that remembers where their first one went (`share/fragments.rs`).

mod fragments;
mod parcel;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use lvs_core::wire::parse::parse;
use lvs_core::{Direction, PacketBuf};
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::device::{Arm, BATCH, DeviceState, PacketSource};
use crate::known::AddressChange;
use crate::share::fragments::Fragments;
use crate::share::parcel::{Depot, Parcel};
use crate::steer::{Steering, Way};

/// Parcels of one queue, which the other shards have equal parts of; each a batch at the least.
const PARCELS_MAX: usize = 256;

/// Joins one queue of a device for each shard: arm `i` of the result receives the packets of shard `i`.
/// `direction` is the one that packets from this device travel in, `None` where one device serves both sides.
///
/// # Errors
/// If the process has no file descriptors left.
///
/// # Panics
/// If there are fewer arms than shards.
///
/// ```
/// use lvs_core::Seed;
/// use lvs_io::{MemoryPort, Steering, share};
///
/// let queues = [MemoryPort::pair(8), MemoryPort::pair(8)];
/// let arms = queues.map(|(_, device)| device.into_arm());
/// let steering = Steering::new(2, vec!["10.0.0.0/8".parse().unwrap()], Seed::new(7));
/// let arms = share(arms.into(), &steering, None)?;
/// assert_eq!(arms.len(), 2); // one for each worker
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn share(arms: Vec<Arm>, steering: &Steering, direction: Option<Direction>) -> io::Result<Vec<Arm>> {
    assert!(arms.len() >= steering.shards(), "every shard has an arm");
    let parcels_max = parcels_max(arms.len());
    let mut addresses = Vec::new();
    let mut letters = Vec::new();
    for _ in &arms {
        // Room for all the parcels there are for it.
        let (slot, taken) = sync_channel(arms.len() * parcels_max);
        addresses.push((slot, Arc::new(Door::new()?)));
        letters.push(taken);
    }
    let shares = arms.into_iter().zip(letters).enumerate();
    shares
        .map(|(shard, (arm, letters))| {
            let door = Arc::clone(&addresses[shard].1);
            let wake = wake(&*arm.source, &door.bell)?;
            let posts = addresses.iter().map(|(slot, door)| Post {
                slot: slot.clone(),
                door: Arc::clone(door),
                depot: Depot::new(parcels_max),
                is_rung: false,
            });
            let office = Office {
                steering: steering.clone(),
                direction,
                shard,
                posts: posts.collect(),
                fragments: Fragments::new(),
            };
            let source = SharedSource {
                inner: arm.source,
                office,
                letters,
                door,
                opened: Vec::with_capacity(BATCH),
                was_device: false,
                wake,
            };
            Ok(Arm { source: Box::new(source), sink: arm.sink })
        })
        .collect()
}

/// Most parcels that are on their way from one shard to one other, among so many arms.
fn parcels_max(arms: usize) -> usize {
    (PARCELS_MAX / arms.saturating_sub(1).max(1)).max(BATCH)
}

/// A descriptor that is readable when the bell has rung, or the device wants its turn.
fn wake(source: &dyn PacketSource, bell: &OwnedFd) -> io::Result<OwnedFd> {
    let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for fd in [Some(bell.as_fd()), source.wake_fd()].into_iter().flatten() {
        epoll::add(&either, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(either)
}

/// What a shard and those that post to it have in common.
struct Door {
    bell: OwnedFd,
    /// Packets for this shard that did not reach it.
    lost: AtomicU64,
}

impl Door {
    fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { bell, lost: AtomicU64::new(0) })
    }

    fn ring(&self) {
        // It cannot be full: 2⁶⁴ rings.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn count_lost(&self, packets: u64) {
        self.lost.fetch_add(packets, Ordering::Relaxed);
    }
}

/// The way from one shard to another.
struct Post {
    slot: SyncSender<Parcel>,
    door: Arc<Door>,
    depot: Depot,
    /// It was sent something in this batch.
    is_rung: bool,
}

impl Post {
    fn send(&mut self, packet: &PacketBuf<'_>, is_unsorted: bool) {
        let Some(parcel) = self.depot.pack(packet, is_unsorted) else { return self.door.count_lost(1) };
        match self.slot.try_send(parcel) {
            Ok(()) => self.is_rung = true,
            Err(TrySendError::Full(parcel) | TrySendError::Disconnected(parcel)) => {
                parcel.give_back();
                self.door.count_lost(1);
            }
        }
    }
}

/// Decides whose a packet is, and sends off what is another shard's.
struct Office {
    steering: Steering,
    direction: Option<Direction>,
    shard: usize,
    posts: Vec<Post>,
    /// Of datagrams this shard sorts.
    fragments: Fragments,
}

impl Office {
    /// Whether a packet is for this shard; if not, it has been sent to where it belongs.
    fn keeps(&mut self, packet: &PacketBuf<'_>) -> bool {
        match self.steering.way(packet.bytes(), self.direction) {
            Way::Owner(owner) => self.delivers(owner, packet),
            Way::Sorter(sorter) if sorter == self.shard => self.sorts(packet),
            Way::Sorter(sorter) => {
                self.posts[sorter].send(packet, true);
                false
            }
        }
    }

    /// Whether a packet is for this shard, its owner being known; if not, it has been sent there.
    fn delivers(&mut self, owner: usize, packet: &PacketBuf<'_>) -> bool {
        if owner != self.shard {
            self.posts[owner].send(packet, false);
        }
        owner == self.shard
    }

    /// Whether a parcel for this shard holds a packet for it, too.
    fn unwrap(&mut self, mut parcel: Parcel) -> Option<Parcel> {
        if !parcel.is_unsorted || self.sorts(&parcel.packet()) {
            return Some(parcel);
        }
        // What goes on from here is a copy: the parcel's queue has not to wait for a third shard.
        parcel.give_back();
        None
    }

    /// Whether a fragment that this shard sorts is for it; if not, it has been sent off, or waits for its datagram's
    /// first one, behind which it will be sent.
    fn sorts(&mut self, packet: &PacketBuf<'_>) -> bool {
        let Ok(headers) = parse(packet.bytes()) else { return true };
        if headers.fragment.is_none() {
            return true;
        }
        if headers.is_later_fragment() {
            if let Some(owner) = self.fragments.owner(&headers) {
                return self.delivers(owner, packet);
            }
            let lost = self.fragments.wait(packet, &headers);
            self.posts[self.shard].door.count_lost(lost);
            return false;
        }
        // One without ports is nobody's; some director has to say so.
        let owner = self.steering.shard_by_port(packet.bytes(), &headers).unwrap_or(self.shard);
        let waited = self.fragments.learn(&headers, owner);
        let is_own = self.delivers(owner, packet);
        for mut fragment in waited {
            self.posts[owner].send(&fragment.packet(), false);
        }
        is_own
    }

    /// Wakes those who have got something.
    fn ring(&mut self) {
        for post in &mut self.posts {
            if std::mem::take(&mut post.is_rung) {
                post.door.ring();
            }
        }
    }
}

struct SharedSource {
    inner: Box<dyn PacketSource>,
    office: Office,
    letters: Receiver<Parcel>,
    door: Arc<Door>,
    /// Parcels being lent.
    opened: Vec<Parcel>,
    /// Whose turn it was last: device and parcels alternate.
    was_device: bool,
    /// Readable when there are parcels, or the device wants its turn.
    wake: OwnedFd,
}

impl PacketSource for SharedSource {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        self.was_device = !self.was_device;
        let first = if self.was_device { self.receive_from_device(handle)? } else { self.open_parcels(handle) };
        if first > 0 {
            return Ok(first);
        }
        if self.was_device { Ok(self.open_parcels(handle)) } else { self.receive_from_device(handle) }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.poll_fd()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn lost(&self) -> u64 {
        self.inner.lost() + self.door.lost.load(Ordering::Relaxed)
    }

    fn state(&self) -> DeviceState {
        self.inner.state()
    }

    fn learn(&mut self, change: &AddressChange) {
        self.office.steering.learn(change);
        self.inner.learn(change);
    }
}

impl SharedSource {
    /// Lends what other shards have posted. Returns how many parcels there were.
    fn open_parcels(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> usize {
        // The bell before the parcels, so that none is missed.
        let _ = rustix::io::read(&self.door.bell, &mut [0; 8]);
        let mut taken = 0;
        for parcel in self.letters.try_iter().take(BATCH) {
            taken += 1;
            self.opened.extend(self.office.unwrap(parcel));
        }
        self.office.ring();
        if taken == BATCH {
            // There may be more.
            self.door.ring();
        }
        let count = self.opened.len();
        if count > 0 {
            let mut parcels = self.opened.iter_mut();
            let mut packets: [PacketBuf<'_>; BATCH] = std::array::from_fn(|_| match parcels.next() {
                Some(parcel) => parcel.packet(),
                None => PacketBuf::new(&mut [], 0, 0),
            });
            handle(&mut packets[..count]);
        }
        self.opened.drain(..).for_each(Parcel::give_back);
        taken
    }

    /// Lends what the device has for this shard and posts the rest. Returns how many packets the device had.
    fn receive_from_device(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let Self { inner, office, .. } = self;
        let count = inner.receive(&mut |packets| {
            let mut own = 0;
            for index in 0..packets.len() {
                if office.keeps(&packets[index]) {
                    packets.swap(own, index);
                    own += 1;
                }
            }
            if own > 0 {
                handle(&mut packets[..own]);
            }
        })?;
        self.office.ring();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use lvs_core::Seed;
    use lvs_testkit::udp;

    use super::*;
    use crate::known::AddressRole;
    use crate::memory::MemoryPort;

    const SHARDS: usize = 3;

    fn steering() -> Steering {
        Steering::new(SHARDS as u32, vec!["10.0.0.0/8".parse().unwrap()], Seed::new(7))
    }

    fn queues() -> (Vec<MemoryPort>, Vec<Arm>) {
        let (far, arms): (Vec<_>, Vec<_>) =
            (0..SHARDS).map(|_| MemoryPort::pair(1000)).map(|(far, device)| (far, device.into_arm())).unzip();
        (far, share(arms, &steering(), None).unwrap())
    }

    fn receive_all(arm: &mut Arm) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while arm.source.receive(&mut |packets| all.extend(packets.iter().map(|p| p.bytes().to_vec()))).unwrap() > 0 {}
        all
    }

    /// Packet `number` of a client.
    fn packet(client: u32, number: u8) -> Vec<u8> {
        udp(format!("203.0.113.{client}:{}", 1000 + client).as_str(), "192.0.2.1:53").payload(&[number]).build()
    }

    #[test]
    fn every_packet_reaches_its_shard_in_order_whichever_queue_it_came_by() {
        let (far, mut arms) = queues();
        for number in 0..5 {
            for client in 0..40 {
                // All packets of a client come by one queue, as the kernel's hash sees to.
                assert!(far[client as usize % SHARDS].push(packet(client, number)));
            }
        }
        let mut received: Vec<Vec<Vec<u8>>> = arms.iter_mut().map(receive_all).collect();
        // What came by a later queue was posted after an earlier shard had looked.
        for (received, arm) in received.iter_mut().zip(&mut arms) {
            received.extend(receive_all(arm));
        }
        assert_eq!(received.iter().map(Vec::len).sum::<usize>(), 200);
        for (shard, received) in received.iter().enumerate() {
            assert!(received.iter().all(|packet| steering().shard(packet) == shard));
            for client in 0..40 {
                let of_client: Vec<u8> =
                    received.iter().filter(|bytes| bytes[15] == client).map(|bytes| bytes[28]).collect();
                assert!(of_client.is_empty() || of_client == [0, 1, 2, 3, 4], "client {client}: {of_client:?}");
            }
        }
    }

    /// A source with a descriptor of its own, on which nothing ever comes.
    struct WithDescriptor(Box<dyn PacketSource>, OwnedFd);

    impl PacketSource for WithDescriptor {
        fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
            self.0.receive(handle)
        }

        fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
            Some(self.1.as_fd())
        }
    }

    fn is_readable(arm: &Arm) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let fd = arm.source.wake_fd().expect("it has one");
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&at_once)).expect("poll works") > 0
    }

    #[test]
    fn a_parcel_wakes_the_shard_it_is_for() {
        let (far, arms): (Vec<_>, Vec<_>) = (0..SHARDS)
            .map(|_| MemoryPort::pair(1000))
            .map(|(far, device)| {
                let arm = device.into_arm();
                let descriptor = eventfd(0, EventfdFlags::CLOEXEC).expect("descriptors are left");
                (far, Arm { source: Box::new(WithDescriptor(arm.source, descriptor)), sink: arm.sink })
            })
            .unzip();
        let mut arms = share(arms, &steering(), None).unwrap();
        let client = (0..).find(|client| steering().shard(&packet(*client, 0)) == 1).unwrap();
        // More than one batch: it stays awake until all is taken.
        for number in 0..=BATCH as u8 {
            far[0].push(packet(client, number));
        }
        assert!(!is_readable(&arms[1]));
        receive_all(&mut arms[0]);
        assert!(is_readable(&arms[1]) && !is_readable(&arms[2]));
        arms[1].source.receive(&mut |_| {}).unwrap();
        assert!(is_readable(&arms[1]));
        assert_eq!(receive_all(&mut arms[1]).len(), 1);
        assert!(!is_readable(&arms[1]));
    }

    #[test]
    fn replies_of_a_server_that_came_later_reach_the_shard_of_their_client() {
        let (far, mut arms) = queues();
        let server: std::net::IpAddr = "192.168.9.9".parse().unwrap();
        let replies = |count: u32| {
            (0..count).map(|client| udp("192.168.9.9:53", format!("203.0.113.{client}:1000").as_str()).build())
        };
        let owners: Vec<usize> = (0..40).map(|client| steering().shard(&packet(client, 0))).collect();
        let change = AddressChange { role: AddressRole::Server, address: server, is_there: true };
        arms.iter_mut().for_each(|arm| arm.source.learn(&change));
        replies(40).for_each(|reply| assert!(far[0].push(reply)));
        for (shard, arm) in arms.iter_mut().enumerate() {
            let expected = owners.iter().filter(|owner| **owner == shard).count();
            assert_eq!(receive_all(arm).len(), expected);
        }
        // Once it is gone, it is a client like others.
        arms.iter_mut().for_each(|arm| arm.source.learn(&AddressChange { is_there: false, ..change }));
        replies(40).for_each(|reply| assert!(far[0].push(reply)));
        let counts: Vec<usize> = arms.iter_mut().map(|arm| receive_all(arm).len()).collect();
        assert_eq!(counts.iter().filter(|count| **count == 40).count(), 1, "{counts:?}");
    }

    #[test]
    fn a_shard_that_does_not_keep_up_loses_packets_which_it_counts() {
        let (far, mut arms) = queues();
        let client = (0..).find(|client| steering().shard(&packet(*client, 0)) == 1).unwrap();
        let max = parcels_max(SHARDS);
        for number in 0..max + 44 {
            far[0].push(packet(client, number as u8));
        }
        assert!(receive_all(&mut arms[0]).is_empty());
        let lost: Vec<u64> = arms.iter().map(|arm| arm.source.lost()).collect();
        assert_eq!(lost, [0, 44, 0]);
        assert_eq!(receive_all(&mut arms[1]).len(), max);
        // The parcels came back: there is room again.
        far[0].push(packet(client, 0));
        assert!(receive_all(&mut arms[0]).is_empty());
        assert_eq!(receive_all(&mut arms[1]).len(), 1);
    }
}
