//! Why a TUN device could not be had, in words that say what was denied and what to do about it.

use std::fmt;
use std::io;

/// Why a TUN device could not be opened.
#[derive(Debug)]
pub struct TunError {
    /// The device's name, where one was asked for.
    pub device: String,
    /// Which step failed.
    pub step: Step,
    /// The kernel's word.
    pub source: io::Error,
}

/// A step on the way to an open device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The name was checked: 1 to 15 bytes, none of them `/`, white space or zero.
    Name,
    /// `/dev/net/tun` was opened.
    Open,
    /// The file was attached to the device (`TUNSETIFF`).
    Attach,
    /// The given file was asked what it is attached to (`TUNGETIFF`).
    Inspect,
    /// The virtio-net header or the offloads were set.
    Offload,
}

impl TunError {
    pub(crate) fn new(device: &str, step: Step, source: io::Error) -> Self {
        Self { device: device.to_owned(), step, source }
    }

    /// What to do about it; empty where nothing general can be said.
    pub fn advice(&self) -> &'static str {
        match (self.step, self.source.raw_os_error()) {
            (Step::Name, _) => "an interface name has 1 to 15 bytes and neither '/' nor spaces",
            (Step::Open, Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
                "the kernel's TUN driver is missing: load it with 'modprobe tun', or give the container \
                 '--device /dev/net/tun'"
            }
            (Step::Open, Some(libc::EACCES | libc::EPERM)) => {
                "this user may not open /dev/net/tun: run as root, or allow it with 'chmod 0666 /dev/net/tun'"
            }
            (Step::Attach, Some(libc::EPERM)) => {
                "creating a device needs CAP_NET_ADMIN: run as root, or let root make it for you with \
                 'ip tuntap add dev NAME mode tun user YOU' (and 'multi_queue' or 'vnet_hdr' to match)"
            }
            (Step::Attach, Some(libc::EBUSY)) => {
                "another process holds the device: stop it, choose another name, or open both with several queues"
            }
            (Step::Attach, Some(libc::EINVAL)) => {
                "a device of this name exists and is of another kind: choose another name, or make it again with \
                 'mode tun' (and 'multi_queue' exactly if several queues are wanted)"
            }
            (Step::Inspect, _) => "the given descriptor is not attached to a TUN device (TUNSETIFF comes first)",
            _ => "",
        }
    }
}

impl fmt::Display for TunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = &self.device;
        match self.step {
            Step::Name => write!(f, "'{device}' is not an interface name")?,
            Step::Open => write!(f, "cannot open /dev/net/tun for '{device}'")?,
            Step::Attach => write!(f, "cannot attach to the TUN device '{device}'")?,
            Step::Inspect => f.write_str("cannot use the given TUN descriptor")?,
            Step::Offload => write!(f, "cannot set the offloads of the TUN device '{device}'")?,
        }
        if self.step != Step::Name {
            write!(f, ": {}", self.source)?;
        }
        let advice = self.advice();
        if advice.is_empty() { Ok(()) } else { write!(f, "; {advice}") }
    }
}

impl std::error::Error for TunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<TunError> for io::Error {
    fn from(error: TunError) -> Self {
        Self::new(error.source.kind(), error)
    }
}
