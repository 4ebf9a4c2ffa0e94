//! An Ethernet device, opened for a director: its options, and the two halves put together, with the Ethernet edge
//! between sockets and packets. How it is opened is in `open.rs`, what happens when it is lost in `guard.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use lvs_core::Direction;
use lvs_io::l2::{Edge, EdgeConfig, FrameReader, LinkMessage, MacAddress, Routes};
use lvs_io::{Arm, LinkWatch, Steering, netdev};
use rustix::event::epoll;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::addresses::{AddressesHandle, Orders};
use crate::bell::{Bell, Post};
use crate::error::{AfPacketError, Step};
use crate::guard::{Guard, Handover, Reopener, Reopening};
use crate::open::{Opened, Plan, packet_socket};
use crate::ring::Delivery;
use crate::sink::{Sink, SinkCountersHandle};
use crate::source::{Source, SourceCountersHandle};

/// How to open a device, and who the director is on its link.
#[derive(Clone, Debug)]
pub struct AfPacketOptions {
    /// Addresses to answer for: the virtual ones, and FullNAT's local ones on the servers' side. The host must not own
    /// them (see [`crate::check`]). [`AfPacketDevice::addresses`] changes them later.
    pub answers_for: Vec<IpAddr>,
    /// Who is on the link, and by whom others are reached.
    pub routes: Routes,
    /// The address to ask for IPv4 neighbours from; without one it asks as a station does that has none yet.
    pub source_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6; without one it asks from the device's link-local address.
    pub source_ipv6: Option<Ipv6Addr>,
    /// Neighbours that are never asked and never forgotten.
    pub static_neighbours: Vec<(IpAddr, MacAddress)>,
    /// The director's own Ethernet address on the link; `None`: the device's. With one of its own the host's stack
    /// takes what is sent to the director for somebody else's and drops it at once, which spares it more than half of
    /// the work. The director then is no longer where the host is: whom servers answer by way of it, they need an
    /// address of `answers_for` as their gateway. The link must let frames from such an address pass (some virtual
    /// networks do not). While it is open, the kernel makes a device that knows one address only (veth, TAP, a bridge)
    /// let everything in. Default `None`.
    pub mac: Option<MacAddress>,
    /// The VLAN to work in (802.1Q, 1 to 4094); `None` for untagged frames. Frames of other VLANs, and frames with a
    /// tag of 802.1ad, are ignored and counted ([`crate::SourceCounters::ignored`]).
    pub vlan: Option<u16>,
    /// Whether `answers_for` is announced at the start: a take-over. Default true.
    pub announces: bool,
    /// Whether frames for other stations are let in: for virtual switches that do not learn. Default false.
    pub is_promiscuous: bool,
    /// Whether frames leave past the device's queueing discipline. Default true.
    pub bypasses_qdisc: bool,
    /// How the kernel hands over what it received. Default: each frame at once.
    pub delivery: Delivery,
    /// Size of the receive ring, in bytes: 2112 for each frame that waits, at least 128 KiB; in blocks, 720 and the
    /// frame's length, at least two blocks. Default 8 MiB.
    pub ring_bytes: usize,
}

impl Default for AfPacketOptions {
    fn default() -> Self {
        Self {
            answers_for: Vec::new(),
            routes: Routes::all_direct(),
            source_ipv4: None,
            source_ipv6: None,
            static_neighbours: Vec::new(),
            mac: None,
            vlan: None,
            announces: true,
            is_promiscuous: false,
            bypasses_qdisc: true,
            delivery: Delivery::default(),
            ring_bytes: 8 << 20,
        }
    }
}

impl AfPacketOptions {
    /// Options by which the director finds its way as the host does: asks from the host's addresses on the device, and
    /// follows the host's routes over it, as they are now. An address without a network around it (`/32`, `/128`) is asked
    /// from only where there is no other: such are virtual ones, which may move to another host.
    ///
    /// # Errors
    /// If the kernel does not say, or there is no such device.
    pub fn of_host(device: &str) -> Result<Self, AfPacketError> {
        let error = |source| AfPacketError::new(device, Step::Host, source);
        let mut options = Self { routes: Routes::new(), ..Self::default() };
        let mut addresses = netdev::addresses(device).map_err(error)?;
        addresses.sort_by_key(|(address, prefix)| *prefix == if address.is_ipv4() { 32 } else { 128 });
        for (address, _) in addresses {
            match address {
                IpAddr::V4(address) => _ = options.source_ipv4.get_or_insert(address),
                // Neighbours are asked from the link-local address anyway.
                IpAddr::V6(address) if address.is_unicast_link_local() => {}
                IpAddr::V6(address) => _ = options.source_ipv6.get_or_insert(address),
            }
        }
        for (network, gateway) in netdev::routes(device).map_err(error)? {
            match gateway {
                Some(gateway) => options.routes.add_gateway(network, gateway),
                None => options.routes.add_direct(network),
            }
        }
        Ok(options)
    }
}

/// An Ethernet device, ready for a worker.
///
/// ```no_run
/// use lvs_core::{Director, DirectorConfig, Seed};
/// use lvs_io::Worker;
/// use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
///
/// let options = AfPacketOptions {
///     answers_for: vec!["192.0.2.80".parse().unwrap()],
///     ..AfPacketOptions::of_host("eth0")?
/// };
/// let device = AfPacketDevice::open("eth0", &options)?;
/// let director = Director::new(DirectorConfig::default(), Seed::new(1));
/// Worker::new(director, device.into_arm(), None)?.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct AfPacketDevice {
    name: String,
    mac: MacAddress,
    mtu: u32,
    source: Source,
    sink: Sink,
    addresses: AddressesHandle,
}

impl AfPacketDevice {
    /// Opens the device. It must be up to receive anything.
    ///
    /// If it goes down, or is deleted, its source says so ([`lvs_io::PacketSource::state`]) and waits until it is up
    /// again, or there is another device of its name: that one is opened with the same options, by the thread that
    /// has the source, in whose network namespace it must be.
    ///
    /// # Errors
    /// [`AfPacketError`] says which step was denied and what to do.
    pub fn open(name: &str, options: &AfPacketOptions) -> Result<Self, AfPacketError> {
        let plan = Plan { name: name.to_owned(), options: options.clone(), steering: None };
        Ok(Self::open_plan(plan)?.pop().expect("one was opened"))
    }

    /// Opens one queue of the device for each shard of `steering`. The kernel gives each queue the packets of its
    /// shard's clients, as far as addresses tell; what is left to do is [`lvs_io::share()`]'s. `direction` is the one
    /// that packets from this device travel in, `None` where one device serves both sides. Only the first queue answers
    /// questions and announces addresses; all of them learn from what it hears. If the device is lost they come back
    /// together, as [`Self::open`] says.
    ///
    /// # Errors
    /// As [`Self::open`]; queues opened before the error are closed again.
    pub fn open_all(
        name: &str,
        options: &AfPacketOptions,
        steering: &Steering,
        direction: Option<Direction>,
    ) -> Result<Vec<Self>, AfPacketError> {
        let steering = Some((Mutex::new(steering.clone()), direction));
        Self::open_plan(Plan { name: name.to_owned(), options: options.clone(), steering })
    }

    fn open_plan(plan: Plan) -> Result<Vec<Self>, AfPacketError> {
        let opened = plan.open()?;
        let posts: Vec<_> = opened.iter().map(|_| post(&plan.name)).collect::<Result<_, _>>()?;
        let everybody: Vec<Post> = posts.iter().map(|(post, _)| post.clone()).collect();
        let reopener = Arc::new(Reopener::new(plan, everybody.iter().map(|post| Arc::clone(&post.bell)).collect()));
        let queues = opened.into_iter().zip(posts).enumerate();
        queues
            .map(|(queue, (opened, (post, heard)))| {
                let reopener = Arc::clone(&reopener);
                assemble(opened, Reopening::new(reopener, queue), everybody.clone(), (post.bell, heard))
            })
            .collect()
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The director's Ethernet address on the link.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The longest packet the link takes, in bytes, IP header included.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The sending half's counters, to be read while a worker has the device.
    pub fn counters(&self) -> SinkCountersHandle {
        self.sink.counters()
    }

    /// The receiving half's counters, to be read while a worker has the device.
    pub fn receive_counters(&self) -> SourceCountersHandle {
        self.source.counters()
    }

    /// The addresses it answers for, to be changed while a worker has the device. Of the queues of
    /// [`Self::open_all`] the first one answers.
    pub fn addresses(&self) -> AddressesHandle {
        self.addresses.clone()
    }

    /// The two halves, for a worker.
    pub fn into_arm(self) -> Arm {
        Arm::new(self.source, self.sink)
    }
}

impl std::fmt::Debug for AfPacketDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AfPacketDevice").field("name", &self.name).field("mac", &self.mac).finish_non_exhaustive()
    }
}

/// Puts the halves of a queue together.
fn assemble(
    opened: Opened,
    reopening: Reopening,
    posts: Vec<Post>,
    (bell, heard): (Arc<Bell>, Receiver<LinkMessage>),
) -> Result<AfPacketDevice, AfPacketError> {
    let Plan { name, options, .. } = reopening.plan();
    let (name, mut options) = (name.clone(), options.clone());
    if !reopening.is_first() {
        options.answers_for.clear();
    }
    let error = |source| AfPacketError::new(&name, Step::Socket, source);
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
        .map_err(|errno| error(errno.into()))?;
    let watch = LinkWatch::new(&name).map_err(error)?;
    let wake = readable_with([timer.as_fd(), bell.fd(), watch.fd()]).map_err(|errno| error(errno.into()))?;
    let Opened { index, mac, mtu, receiver, sender } = opened;
    let reader = FrameReader::new(mac, options.vlan);
    let orders = Orders::new(packet_socket().map_err(error)?, index);
    let addresses = AddressesHandle { device: name.clone(), orders: orders.clone(), bell: bell.clone() };
    let edge = Edge::new(edge_config(mac, &options));
    let handover = Arc::new(Handover::default());
    let mut sink = Sink::new(sender, edge, heard, (bell, Arc::clone(&orders)), Arc::clone(&handover), timer);
    if options.announces {
        sink.announce();
    }
    let guard = Guard::new(watch, reopening, (index, mac), orders, handover);
    let source = Source::new(receiver, reader, posts, wake, guard);
    Ok(AfPacketDevice { name, mac, mtu, source, sink, addresses })
}

/// The way between the halves.
fn post(name: &str) -> Result<(Post, Receiver<LinkMessage>), AfPacketError> {
    let bell = Bell::new().map_err(|errno| AfPacketError::new(name, Step::Socket, errno.into()))?;
    let (messages, heard) = sync_channel(MESSAGES_MAX);
    Ok((Post { messages, bell }, heard))
}

/// Most messages about the link that wait between the halves; more are lost, and come again.
const MESSAGES_MAX: usize = 256;

fn edge_config(mac: MacAddress, options: &AfPacketOptions) -> EdgeConfig {
    EdgeConfig {
        mac,
        vlan: options.vlan,
        source_ipv4: options.source_ipv4,
        source_ipv6: options.source_ipv6,
        answers_for: options.answers_for.clone(),
        routes: options.routes.clone(),
        static_neighbours: options.static_neighbours.clone(),
    }
}

/// A descriptor that is readable when one of these is.
fn readable_with<const N: usize>(fds: [BorrowedFd<'_>; N]) -> rustix::io::Result<OwnedFd> {
    let any = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for fd in fds {
        epoll::add(&any, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(any)
}
