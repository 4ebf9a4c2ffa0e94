//! Opens the queues of a device: looks it up by name, makes sockets with their rings, binds them, and joins several into
//! a fanout group. Done once at the start, and again when the device is another one of the same name.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lvs_core::Direction;
use lvs_io::l2::MacAddress;
use lvs_io::{AddressChange, Steering};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};

use crate::addresses::groups;
use crate::device::AfPacketOptions;
use crate::error::{AfPacketError, Step};
use crate::fanout;
use crate::ring::{ReceiveRing, TransmitRing};
use crate::sink::Sockets;
use crate::socket::{self, Membership};
use crate::source::FRAME_HEADROOM;

/// What is to be opened.
#[derive(Debug)]
pub(crate) struct Plan {
    pub name: String,
    pub options: AfPacketOptions,
    /// How the queues share the clients, where there are several. What the workers learn later counts when the queues are
    /// opened again; until then [`lvs_io::share()`] makes up for what the kernel's program does not know.
    pub steering: Option<(Mutex<Steering>, Option<Direction>)>,
}

/// One queue, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The device's number.
    pub index: u32,
    /// The director's Ethernet address, which need not be the device's.
    pub mac: MacAddress,
    pub mtu: u32,
    pub receiver: (OwnedFd, ReceiveRing),
    pub sender: (Sockets, TransmitRing),
}

impl Plan {
    /// Takes in that an address of the services has come or gone.
    pub(crate) fn learn(&self, change: &AddressChange) {
        if let Some((steering, _)) = &self.steering {
            lock(steering).learn(change);
        }
    }

    /// Opens every queue, in the order of their shards. Whatever was opened before an error is closed again.
    pub(crate) fn open(&self) -> Result<Vec<Opened>, AfPacketError> {
        let device = Hardware::look_up(&self.name, &self.options)?;
        let receivers = match &self.steering {
            None => {
                let receiver = device.receiver(&self.options)?;
                device.bind(&receiver.0, libc::ETH_P_ALL)?;
                vec![receiver]
            }
            Some((steering, direction)) => device.fanout(&self.options, &lock(steering), *direction)?,
        };
        let open = |receiver| {
            let sender = device.sender(&self.options)?;
            Ok(Opened { index: device.index, mac: device.mac, mtu: device.mtu, receiver, sender })
        };
        receivers.into_iter().map(open).collect()
    }
}

fn lock(steering: &Mutex<Steering>) -> MutexGuard<'_, Steering> {
    steering.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Receivers that the kernel gives the packets of their shards' clients.
    fn fanout(
        &self,
        options: &AfPacketOptions,
        steering: &Steering,
        direction: Option<Direction>,
    ) -> Result<Vec<(OwnedFd, ReceiveRing)>, AfPacketError> {
        let fanout = |source| AfPacketError::new(self.name, Step::Fanout, source);
        let program = fanout::program(steering, direction);
        let mut receivers = Vec::new();
        let mut group = None;
        for _ in 0..steering.shards() {
            let receiver = self.receiver(options)?;
            // Only bound sockets may join a group; until it has joined, it would receive what others receive.
            socket::receive_nothing(receiver.0.as_fd()).map_err(fanout)?;
            self.bind(&receiver.0, libc::ETH_P_ALL)?;
            let joined = socket::join_fanout(receiver.0.as_fd(), group).map_err(fanout)?;
            if group.replace(joined).is_none() {
                socket::set_fanout_program(receiver.0.as_fd(), &program).map_err(fanout)?;
            }
            receivers.push(receiver);
        }
        for (receiver, _) in &receivers {
            socket::detach_filter(receiver.as_fd()).map_err(fanout)?;
        }
        Ok(receivers)
    }

    /// The sockets to send by.
    fn sender(&self, options: &AfPacketOptions) -> Result<(Sockets, TransmitRing), AfPacketError> {
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
        Ok((sockets, transmit))
    }
}

/// Bytes that may be on their way out: a batch of super-packets.
const SEND_BUFFER: i32 = 4 << 20;

/// Bytes of super-packets that may wait, as the kernel counts them: about a hundred.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// A socket that receives nothing until it is bound to a protocol.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

fn prepare_sender(sender: &OwnedFd, options: &AfPacketOptions) -> io::Result<()> {
    socket::set_option(sender.as_fd(), libc::PACKET_VNET_HDR, 1)?;
    socket::set_option(sender.as_fd(), libc::PACKET_QDISC_BYPASS, i32::from(options.bypasses_qdisc))?;
    socket::set_send_buffer(sender.as_fd(), SEND_BUFFER)
}
