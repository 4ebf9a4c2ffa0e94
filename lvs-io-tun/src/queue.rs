//! One queue of a TUN device: opened by name or taken over as a descriptor, split into a source and a sink.
//! Super-packets pass through unsplit, their virtio-net header turned into an [`lvs_core::Offload`] and back.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use lvs_io::{Arm, vnet};

use crate::error::{Step, TunError};
use crate::halves::{Attachment, TunSink, TunSource};
use crate::sys::{self, NAME_SIZE};

/// How to open a TUN device.
#[derive(Clone, Copy, Debug)]
pub struct TunOptions {
    /// Whether super-packets and partial checksums are taken from the kernel and handed back unsplit: ten times the
    /// throughput for bulk traffic. Default true.
    pub offloads: bool,
    /// How many queues, one for each worker; the kernel spreads flows over them. 1 to 256, default 1.
    pub queues: u16,
    /// Longest packet that will be received, in bytes; longer ones arrive cut. Default 65,535: any MTU, any
    /// super-packet. Costs `packet_max` × 32 bytes of address space for each queue.
    pub packet_max: u16,
}

impl Default for TunOptions {
    fn default() -> Self {
        Self { offloads: true, queues: 1, packet_max: u16::MAX }
    }
}

/// One queue of a TUN device. The device lives as long as a queue of it is open, unless it was made persistent.
///
/// ```no_run
/// use lvs_core::{Director, DirectorConfig, Seed};
/// use lvs_io::Worker;
/// use lvs_io_tun::{TunOptions, TunQueue};
///
/// let queue = TunQueue::open("lvs0", &TunOptions::default())?;
/// let director = Director::new(DirectorConfig::default(), Seed::new(1));
/// Worker::new(director, queue.into_arm(), None)?.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    name: String,
    offloads: TunOffloads,
    packet_max: u16,
}

/// What the kernel and this crate have agreed to leave to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TunOffloads {
    /// A virtio-net header comes before each packet; without it there are no offloads.
    pub header: bool,
    /// Partial checksums.
    pub checksum: bool,
    /// TCP super-packets, IPv4 and IPv6.
    pub tcp: bool,
    /// UDP super-packets, IPv4 and IPv6 (Linux 6.2).
    pub udp: bool,
}

impl TunQueue {
    /// Opens the only queue of a device: makes the device, or attaches to a persistent one. `name` may contain `%d`.
    ///
    /// # Errors
    /// [`TunError`] says which step was denied and what to do.
    pub fn open(name: &str, options: &TunOptions) -> Result<Self, TunError> {
        Self::attach(name, options, 0)
    }

    /// Opens `options.queues` queues of one device, for as many workers.
    ///
    /// # Errors
    /// As [`Self::open`]; queues opened before the error are closed again.
    pub fn open_all(name: &str, options: &TunOptions) -> Result<Vec<Self>, TunError> {
        let mut queues = vec![Self::attach(name, options, libc::IFF_MULTI_QUEUE)?];
        // `%d` has become a number by now.
        let name = queues[0].name.clone();
        for _ in 1..options.queues {
            queues.push(Self::attach(&name, options, libc::IFF_MULTI_QUEUE)?);
        }
        Ok(queues)
    }

    fn attach(name: &str, options: &TunOptions, more_flags: i32) -> Result<Self, TunError> {
        let error = |step| move |source| TunError::new(name, step, source);
        let zero_terminated = checked_name(name).map_err(error(Step::Name))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(error(Step::Open))?;
        let fd = OwnedFd::from(file);
        let header = if options.offloads { libc::IFF_VNET_HDR } else { 0 };
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | header | more_flags;
        let name_there = sys::tun_attach(fd.as_fd(), zero_terminated, flags).map_err(error(Step::Attach))?;
        let offloads = if options.offloads {
            agree_on_offloads(fd.as_fd()).map_err(error(Step::Offload))?
        } else {
            TunOffloads::default()
        };
        Ok(Self { fd, name: name_of(&name_there), offloads, packet_max: options.packet_max })
    }

    /// Takes over a descriptor that is attached to a TUN device already (from a service manager, a privileged helper
    /// or another namespace), and makes it nonblocking. Offloads are used if it was attached with `IFF_VNET_HDR`.
    ///
    /// # Errors
    /// If the descriptor is not attached, or is a TAP device or one with packet information headers.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, TunError> {
        let error = |step| move |source: io::Error| TunError::new("", step, source);
        let (name, flags) = sys::tun_attached(fd.as_fd()).map_err(error(Step::Inspect))?;
        if flags & libc::IFF_TUN == 0 || flags & libc::IFF_NO_PI == 0 {
            let wrong_kind = io::Error::new(io::ErrorKind::InvalidInput, "it needs IFF_TUN and IFF_NO_PI");
            return Err(TunError::new(&name_of(&name), Step::Inspect, wrong_kind));
        }
        rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| error(Step::Inspect)(errno.into()))?;
        let has_header = flags & libc::IFF_VNET_HDR != 0;
        let offloads = if has_header {
            agree_on_offloads(fd.as_fd()).map_err(error(Step::Offload))?
        } else {
            TunOffloads::default()
        };
        Ok(Self { fd, name: name_of(&name), offloads, packet_max: u16::MAX })
    }

    /// Attaches to another device in the way this descriptor, whose device is gone, was attached to its own.
    pub(crate) fn attach_alike(name: &str, offloads: TunOffloads, is_multi_queue: bool) -> Result<OwnedFd, TunError> {
        let options = TunOptions { offloads: offloads.header, ..TunOptions::default() };
        let queue = Self::attach(name, &options, if is_multi_queue { libc::IFF_MULTI_QUEUE } else { 0 })?;
        Ok(queue.fd)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was agreed on with the kernel.
    pub fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// Makes the device outlive its queues, or end with the last of them, as it does by default. What
    /// `ip tuntap add` makes outlives them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_persistent(&self, is_persistent: bool) -> Result<(), TunError> {
        sys::tun_set_persistent(self.fd.as_fd(), is_persistent)
            .map_err(|source| TunError::new(&self.name, Step::Attach, source))
    }

    /// The descriptor, for somebody else to take over ([`Self::from_fd`]).
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The queue as a device for a worker. If the device goes down, or is deleted, its source says so
    /// ([`lvs_io::PacketSource::state`]) and waits until it is up again, or somebody has made another TUN device of its
    /// name: that one is attached to in the same way. In a network namespace whose changes the kernel does not tell, a
    /// deleted device is an error.
    pub fn into_arm(self) -> Arm {
        let attachment = Arc::new(Attachment::new(self.fd, self.offloads));
        let source = TunSource::new(Arc::clone(&attachment), self.name, usize::from(self.packet_max));
        Arm::new(source, TunSink::new(attachment))
    }
}

/// Asks for every offload, then for what older kernels have.
fn agree_on_offloads(fd: BorrowedFd<'_>) -> io::Result<TunOffloads> {
    // 10 bytes is the default; a descriptor from elsewhere may have another length set.
    if sys::tun_header_len(fd)? != vnet::HEADER_LEN as i32 {
        sys::tun_set_header_len(fd, vnet::HEADER_LEN as i32)?;
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let header = TunOffloads { header: true, ..TunOffloads::default() };
    let with_checksum = TunOffloads { checksum: true, ..header };
    for (bits, offloads) in [
        (tcp | udp, TunOffloads { tcp: true, udp: true, ..with_checksum }),
        (tcp, TunOffloads { tcp: true, ..with_checksum }),
        (libc::TUN_F_CSUM, with_checksum),
    ] {
        match sys::tun_set_offload(fd, bits) {
            Ok(()) => return Ok(offloads),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(header)
}

fn checked_name(name: &str) -> io::Result<[u8; NAME_SIZE]> {
    let is_good = |byte: u8| byte != 0 && byte != b'/' && !byte.is_ascii_whitespace();
    if name.is_empty() || name.len() >= NAME_SIZE || !name.bytes().all(is_good) || matches!(name, "." | "..") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut zero_terminated = [0; NAME_SIZE];
    zero_terminated[..name.len()].copy_from_slice(name.as_bytes());
    Ok(zero_terminated)
}

fn name_of(zero_terminated: &[u8; NAME_SIZE]) -> String {
    let len = zero_terminated.iter().position(|byte| *byte == 0).unwrap_or(NAME_SIZE);
    String::from_utf8_lossy(&zero_terminated[..len]).into_owned()
}
