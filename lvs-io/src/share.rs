//! Gives every packet to the worker whose director owns its client, whichever queue of the device it came by.
//! The kernel spreads flows over queues by its own hash; this makes up for the difference: packets of another shard
//! are copied into parcels and posted to it. Parcels are bounded and used again, so nothing is allocated for a packet
//! once traffic flows; a shard that does not keep up loses packets, which are counted. Fragments to FullNAT's local
//! addresses go by way of a shard that remembers where their first one went (`share/fragments.rs`).

mod fragments;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use lvs_core::wire::parse::parse;
use lvs_core::{Direction, HEADROOM, Offload, PacketBuf};
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::device::{Arm, BATCH, PacketSource};
use crate::share::fragments::{Datagram, Fragments};
use crate::steer::{Steering, Way};

/// Most parcels that wait for one shard.
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
    let mut posts = Vec::new();
    let mut boxes = Vec::new();
    for _ in &arms {
        let (post, letters) = sync_channel(PARCELS_MAX);
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        posts.push(Post { post, bell: Arc::clone(&bell) });
        boxes.push((letters, bell));
    }
    let shares = arms.into_iter().zip(boxes).enumerate();
    shares
        .map(|(shard, (arm, (letters, bell)))| {
            let wake = wake(&*arm.source, &bell)?;
            let (give_back, returned) = sync_channel(PARCELS_MAX);
            let office = Office {
                steering: steering.clone(),
                direction,
                shard,
                posts: posts.clone(),
                rung: vec![false; posts.len()],
                fragments: Fragments::new(),
                depot: Depot { returned, give_back, made: 0 },
                lost: 0,
            };
            let source = SharedSource {
                inner: arm.source,
                office,
                letters,
                bell,
                opened: Vec::with_capacity(BATCH),
                was_device: false,
                wake,
            };
            Ok(Arm { source: Box::new(source), sink: arm.sink })
        })
        .collect()
}

/// A descriptor that is readable when the bell has rung, or the device wants its turn.
fn wake(source: &dyn PacketSource, bell: &OwnedFd) -> io::Result<OwnedFd> {
    let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for fd in [Some(bell.as_fd()), source.wake_fd()].into_iter().flatten() {
        epoll::add(&either, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(either)
}

/// A packet on its way to another shard.
struct Parcel {
    storage: Box<[u8]>,
    len: usize,
    offload: Offload,
    mark: u32,
    link_priority: u8,
    /// It is a fragment for the sorter, not yet for the shard that owns it.
    is_unsorted: bool,
    /// Where the storage goes back to.
    give_back: SyncSender<Box<[u8]>>,
}

/// The way to a shard.
#[derive(Clone)]
struct Post {
    post: SyncSender<Parcel>,
    bell: Arc<OwnedFd>,
}

/// Storage for the parcels of one shard, made as needed up to a bound.
struct Depot {
    returned: Receiver<Box<[u8]>>,
    give_back: SyncSender<Box<[u8]>>,
    made: usize,
}

impl Depot {
    /// Packs a packet; `None` if every parcel is on its way.
    fn pack(&mut self, packet: &PacketBuf<'_>) -> Option<Parcel> {
        let mut storage = match self.returned.try_recv() {
            Ok(storage) => storage,
            Err(_) if self.made < PARCELS_MAX => {
                self.made += 1;
                Box::default()
            }
            Err(_) => return None,
        };
        // Room for an answer longer than a short packet, too.
        let needed = HEADROOM + packet.len().max(2048);
        if storage.len() < needed {
            storage = vec![0; needed].into_boxed_slice();
        }
        storage[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet.bytes());
        let give_back = self.give_back.clone();
        Some(Parcel {
            storage,
            len: packet.len(),
            offload: packet.offload,
            mark: packet.mark,
            link_priority: packet.link_priority,
            is_unsorted: false,
            give_back,
        })
    }
}

impl Parcel {
    fn bytes(&self) -> &[u8] {
        &self.storage[HEADROOM..HEADROOM + self.len]
    }

    fn give_back(self) {
        // The owner may have ended.
        let _ = self.give_back.try_send(self.storage);
    }
}

/// Decides whose a packet is, and sends off what is another shard's.
struct Office {
    steering: Steering,
    direction: Option<Direction>,
    shard: usize,
    posts: Vec<Post>,
    /// Which shards were posted something in this batch.
    rung: Vec<bool>,
    /// Of datagrams this shard sorts.
    fragments: Fragments<Parcel>,
    depot: Depot,
    lost: u64,
}

/// Whose a fragment is.
enum Owner {
    Shard(usize),
    /// Nobody knows before its datagram's first one has come.
    Unknown(Datagram),
}

impl Office {
    /// Whether a packet is for this shard; if not, it has been sent to where it belongs.
    fn keeps(&mut self, packet: &PacketBuf<'_>) -> bool {
        let (to, is_unsorted) = match self.steering.way(packet.bytes(), self.direction) {
            Way::Owner(shard) => (shard, false),
            Way::Sorter(shard) if shard == self.shard => match self.sort(packet.bytes()) {
                Owner::Shard(shard) => (shard, false),
                Owner::Unknown(datagram) => {
                    match self.depot.pack(packet) {
                        Some(parcel) => self.wait(datagram, parcel),
                        None => self.lost += 1,
                    }
                    return false;
                }
            },
            Way::Sorter(shard) => (shard, true),
        };
        if to == self.shard && !is_unsorted {
            return true;
        }
        match self.depot.pack(packet) {
            Some(parcel) => self.post(to, Parcel { is_unsorted, ..parcel }),
            None => self.lost += 1,
        }
        false
    }

    /// Whether a parcel for this shard holds a packet for it, too.
    fn unwrap(&mut self, parcel: Parcel) -> Option<Parcel> {
        if !parcel.is_unsorted {
            return Some(parcel);
        }
        let parcel = Parcel { is_unsorted: false, ..parcel };
        match self.sort(parcel.bytes()) {
            Owner::Shard(shard) if shard == self.shard => return Some(parcel),
            Owner::Shard(shard) => self.post(shard, parcel),
            Owner::Unknown(datagram) => self.wait(datagram, parcel),
        }
        None
    }

    /// Whose a fragment is that this shard sorts. With a datagram's first one, those that waited are sent off behind it.
    fn sort(&mut self, bytes: &[u8]) -> Owner {
        let Ok(headers) = parse(bytes) else { return Owner::Shard(self.shard) };
        let Some(datagram) = Datagram::of(&headers) else { return Owner::Shard(self.shard) };
        if headers.is_later_fragment() {
            return self.fragments.owner(&datagram).map_or(Owner::Unknown(datagram), Owner::Shard);
        }
        // One without ports is nobody's; some director has to say so.
        let owner = self.steering.shard_by_port(bytes, &headers).unwrap_or(self.shard);
        for parcel in self.fragments.learn(datagram, owner) {
            self.post(owner, parcel);
        }
        Owner::Shard(owner)
    }

    fn wait(&mut self, datagram: Datagram, parcel: Parcel) {
        if let Some(oldest) = self.fragments.wait(datagram, parcel) {
            oldest.give_back();
            self.lost += 1;
        }
    }

    fn post(&mut self, to: usize, parcel: Parcel) {
        match self.posts[to].post.try_send(parcel) {
            Ok(()) => self.rung[to] = true,
            Err(TrySendError::Full(parcel) | TrySendError::Disconnected(parcel)) => {
                parcel.give_back();
                self.lost += 1;
            }
        }
    }

    /// Wakes those who have got something.
    fn ring(&mut self) {
        for (post, rung) in self.posts.iter().zip(&mut self.rung) {
            if std::mem::take(rung) {
                ring(&post.bell);
            }
        }
    }
}

struct SharedSource {
    inner: Box<dyn PacketSource>,
    office: Office,
    letters: Receiver<Parcel>,
    bell: Arc<OwnedFd>,
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
        self.inner.lost() + self.office.lost
    }
}

impl SharedSource {
    /// Lends what other shards have posted. Returns how many parcels there were.
    fn open_parcels(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> usize {
        // The bell before the parcels, so that none is missed.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        let mut taken = 0;
        for parcel in self.letters.try_iter().take(BATCH) {
            taken += 1;
            self.opened.extend(self.office.unwrap(parcel));
        }
        self.office.ring();
        if taken == BATCH {
            // There may be more.
            ring(&self.bell);
        }
        let count = self.opened.len();
        if count > 0 {
            let mut parcels = self.opened.iter_mut();
            let mut packets: [PacketBuf<'_>; BATCH] = std::array::from_fn(|_| match parcels.next() {
                Some(parcel) => {
                    let mut packet = PacketBuf::new(&mut parcel.storage, HEADROOM, parcel.len);
                    packet.offload = parcel.offload;
                    packet.mark = parcel.mark;
                    packet.link_priority = parcel.link_priority;
                    packet
                }
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

fn ring(bell: &OwnedFd) {
    // It cannot be full: 2⁶⁴ rings.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use lvs_core::Seed;
    use lvs_testkit::udp;

    use super::*;
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
    fn a_shard_that_does_not_keep_up_loses_packets_which_are_counted() {
        let (far, mut arms) = queues();
        let client = (0..).find(|client| steering().shard(&packet(*client, 0)) == 1).unwrap();
        for number in 0..=255 {
            far[0].push(packet(client, number));
        }
        for number in 0..44 {
            far[0].push(packet(client, number));
        }
        assert!(receive_all(&mut arms[0]).is_empty());
        assert_eq!(arms[0].source.lost(), 300 - PARCELS_MAX as u64);
        assert_eq!(receive_all(&mut arms[1]).len(), PARCELS_MAX);
        // The parcels came back: there is room again.
        far[0].push(packet(client, 0));
        assert!(receive_all(&mut arms[0]).is_empty());
        assert_eq!(receive_all(&mut arms[1]).len(), 1);
    }
}
