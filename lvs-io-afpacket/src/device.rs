//! An Ethernet device, opened for a director: sockets, with a ring to receive by and one to send by, and the
//! Ethernet edge between them and the packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use lvs_core::Direction;
use lvs_io::l2::{Edge, EdgeConfig, FrameReader, LinkMessage, MacAddress, Routes};
use lvs_io::{Arm, Steering, netdev};
use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::addresses::{AddressesHandle, Orders, groups};
use crate::bell::{Bell, Post};
use crate::error::{AfPacketError, Step};
use crate::fanout;
use crate::ring::{Delivery, ReceiveRing, TransmitRing};
use crate::sink::{Sink, SinkCountersHandle, Sockets};
use crate::socket::{self, Membership};
use crate::source::{FRAME_HEADROOM, Source, SourceCountersHandle};

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
    /// follows the host's routes over it, as they are now.
    ///
    /// # Errors
    /// If the kernel does not say, or there is no such device.
    pub fn of_host(device: &str) -> Result<Self, AfPacketError> {
        let error = |source| AfPacketError::new(device, Step::Host, source);
        let mut options = Self { routes: Routes::new(), ..Self::default() };
        for (address, _) in netdev::addresses(device).map_err(error)? {
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
    /// # Errors
    /// [`AfPacketError`] says which step was denied and what to do.
    pub fn open(name: &str, options: &AfPacketOptions) -> Result<Self, AfPacketError> {
        let device = Hardware::look_up(name, options)?;
        let (post, heard) = post(name)?;
        let receiver = device.receiver(options)?;
        device.bind(&receiver.0, libc::ETH_P_ALL)?;
        device.assemble(receiver, options, vec![post.clone()], (post.bell, heard))
    }

    /// Opens one queue of the device for each shard of `steering`. The kernel gives each queue the packets of its
    /// shard's clients, as far as addresses tell; what is left to do is [`lvs_io::share()`]'s. `direction` is the one
    /// that packets from this device travel in, `None` where one device serves both sides. Only the first queue answers
    /// questions and announces addresses; all of them learn from what it hears.
    ///
    /// # Errors
    /// As [`Self::open`]; queues opened before the error are closed again.
    pub fn open_all(
        name: &str,
        options: &AfPacketOptions,
        steering: &Steering,
        direction: Option<Direction>,
    ) -> Result<Vec<Self>, AfPacketError> {
        let device = Hardware::look_up(name, options)?;
        let fanout = |source| AfPacketError::new(name, Step::Fanout, source);
        let posts: Vec<_> = (0..steering.shards()).map(|_| post(name)).collect::<Result<_, _>>()?;
        let everybody: Vec<Post> = posts.iter().map(|(post, _)| post.clone()).collect();
        let program = fanout::program(steering, direction);
        let mut receivers = Vec::new();
        let mut group = None;
        for _ in &posts {
            let receiver = device.receiver(options)?;
            // Only bound sockets may join a group; until it has joined, it would receive what others receive.
            socket::receive_nothing(receiver.0.as_fd()).map_err(fanout)?;
            device.bind(&receiver.0, libc::ETH_P_ALL)?;
            let joined = socket::join_fanout(receiver.0.as_fd(), group).map_err(fanout)?;
            if group.replace(joined).is_none() {
                socket::set_fanout_program(receiver.0.as_fd(), &program).map_err(fanout)?;
            }
            receivers.push(receiver);
        }
        for (receiver, _) in &receivers {
            socket::detach_filter(receiver.as_fd()).map_err(fanout)?;
        }
        let silent = AfPacketOptions { answers_for: Vec::new(), ..options.clone() };
        let queues = receivers.into_iter().zip(posts).enumerate();
        queues
            .map(|(index, (receiver, (post, heard)))| {
                let options = if index == 0 { options } else { &silent };
                device.assemble(receiver, options, everybody.clone(), (post.bell, heard))
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

/// What there is to know of a device before anything is opened.
struct Hardware<'a> {
    name: &'a str,
    index: u32,
    /// The director's, which need not be the device's.
    mac: MacAddress,
    is_own_mac: bool,
    mtu: u32,
}

impl<'a> Hardware<'a> {
    fn look_up(name: &'a str, options: &AfPacketOptions) -> Result<Self, AfPacketError> {
        let socket = packet_socket().map_err(|source| AfPacketError::new(name, Step::Socket, source))?;
        let error = |source| AfPacketError::new(name, Step::Device, source);
        let index = netdevice::name_to_index(&socket, name).map_err(|errno| error(errno.into()))?;
        let hardware = socket::hardware_address(socket.as_fd(), name).map_err(error)?;
        let mac = options.mac.unwrap_or(hardware);
        if !mac.is_unicast() {
            let group = io::Error::new(io::ErrorKind::InvalidInput, format!("{mac} is no station's address"));
            return Err(AfPacketError::new(name, Step::Options, group));
        }
        let mtu = socket::mtu(socket.as_fd(), name).map_err(error)?;
        Ok(Self { name, index, mac, is_own_mac: mac != hardware, mtu })
    }

    /// A socket with a ring, not bound yet, so that nothing is received that its options would keep out.
    fn receiver(&self, options: &AfPacketOptions) -> Result<(OwnedFd, ReceiveRing), AfPacketError> {
        let error = |step| move |source| AfPacketError::new(self.name, step, source);
        let receiver = packet_socket().map_err(error(Step::Socket))?;
        let ring = ReceiveRing::new(receiver.as_fd(), options.delivery, options.ring_bytes, FRAME_HEADROOM)
            .map_err(error(Step::Ring))?;
        self.prepare_receiver(&receiver, options).map_err(error(Step::Options))?;
        Ok((receiver, ring))
    }

    /// Says what the socket is to hear.
    fn prepare_receiver(&self, receiver: &OwnedFd, options: &AfPacketOptions) -> io::Result<()> {
        let set = |option, value: i32| socket::set_option(receiver.as_fd(), option, value);
        set(libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket::set_receive_buffer(receiver.as_fd(), RECEIVE_BUFFER)?;
        let join = |kind: i32, group: Option<MacAddress>| {
            let membership = Membership::new(self.index, kind, group);
            socket::set_option(receiver.as_fd(), libc::PACKET_ADD_MEMBERSHIP, membership)
        };
        if options.is_promiscuous {
            join(libc::PACKET_MR_PROMISC, None)?;
        }
        if self.is_own_mac {
            join(libc::PACKET_MR_UNICAST, Some(self.mac))?;
        }
        for group in options.answers_for.iter().copied().flat_map(groups) {
            join(libc::PACKET_MR_MULTICAST, Some(group))?;
        }
        Ok(())
    }

    fn bind(&self, socket: &OwnedFd, protocol: i32) -> Result<(), AfPacketError> {
        let error = |source| AfPacketError::new(self.name, Step::Bind, source);
        socket::bind(socket.as_fd(), self.index, protocol).map_err(error)
    }

    /// Puts the halves of a queue together.
    fn assemble(
        &self,
        (receiver, ring): (OwnedFd, ReceiveRing),
        options: &AfPacketOptions,
        posts: Vec<Post>,
        (bell, heard): (Arc<Bell>, Receiver<LinkMessage>),
    ) -> Result<AfPacketDevice, AfPacketError> {
        let error = |step| move |source| AfPacketError::new(self.name, step, source);
        let sender = || -> Result<OwnedFd, AfPacketError> {
            let sender = packet_socket().map_err(error(Step::Socket))?;
            prepare_sender(&sender, options).map_err(error(Step::Options))?;
            Ok(sender)
        };
        let sockets = Sockets { short: sender()?, long: sender()? };
        let transmit = TransmitRing::new(sockets.short.as_fd()).map_err(error(Step::Ring))?;
        self.bind(&sockets.short, 0)?;
        self.bind(&sockets.long, 0)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|errno| error(Step::Socket)(errno.into()))?;
        let wake = readable_with([timer.as_fd(), bell.fd()]).map_err(|errno| error(Step::Socket)(errno.into()))?;
        let reader = FrameReader::new(self.mac, options.vlan);
        let orders = Orders::new(packet_socket().map_err(error(Step::Socket))?, self.index);
        let device = self.name.to_owned();
        let addresses = AddressesHandle { device, orders: orders.clone(), bell: bell.clone() };
        let edge = Edge::new(edge_config(self.mac, options));
        let mut sink = Sink::new(sockets, transmit, edge, heard, (bell, orders), timer);
        if options.announces {
            sink.announce();
        }
        let source = Source::new(ring, receiver, reader, posts, wake);
        Ok(AfPacketDevice { name: self.name.to_owned(), mac: self.mac, mtu: self.mtu, source, sink, addresses })
    }
}

/// The way between the halves.
fn post(name: &str) -> Result<(Post, Receiver<LinkMessage>), AfPacketError> {
    let bell = Bell::new().map_err(|errno| AfPacketError::new(name, Step::Socket, errno.into()))?;
    let (messages, heard) = sync_channel(MESSAGES_MAX);
    Ok((Post { messages, bell }, heard))
}

/// Most messages about the link that wait between the halves; more are lost, and come again.
const MESSAGES_MAX: usize = 256;

/// Bytes that may be on their way out: a batch of super-packets.
const SEND_BUFFER: i32 = 4 << 20;

/// Bytes of super-packets that may wait, as the kernel counts them: about a hundred.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// A socket that receives nothing until it is bound to a protocol.
fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

fn prepare_sender(sender: &OwnedFd, options: &AfPacketOptions) -> io::Result<()> {
    socket::set_option(sender.as_fd(), libc::PACKET_VNET_HDR, 1)?;
    socket::set_option(sender.as_fd(), libc::PACKET_QDISC_BYPASS, i32::from(options.bypasses_qdisc))?;
    socket::set_send_buffer(sender.as_fd(), SEND_BUFFER)
}

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
fn readable_with(fds: [BorrowedFd<'_>; 2]) -> rustix::io::Result<OwnedFd> {
    let any = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for fd in fds {
        epoll::add(&any, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(any)
}
