//! Why a device could not be opened, in words that say what was denied and what to do about it.

use std::fmt;
use std::io;

/// Why an Ethernet device could not be opened for a director.
#[derive(Debug)]
pub struct AfPacketError {
    /// The device's name.
    pub device: String,
    /// Which step failed.
    pub step: Step,
    /// The kernel's word.
    pub source: io::Error,
}

/// A step on the way to an open device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// An AF_PACKET socket was made.
    Socket,
    /// The device was looked up: its number, Ethernet address and MTU.
    Device,
    /// The receive ring was set up.
    Ring,
    /// An option was set.
    Options,
    /// The socket was bound to the device.
    Bind,
    /// The queues were joined into a fanout group.
    Fanout,
    /// The host's own addresses and routes were read.
    Host,
}

impl AfPacketError {
    pub(crate) fn new(device: &str, step: Step, source: io::Error) -> Self {
        Self { device: device.to_owned(), step, source }
    }

    /// What to do about it; empty where nothing general can be said.
    pub fn advice(&self) -> &'static str {
        match (self.step, self.source.raw_os_error()) {
            (Step::Socket, Some(libc::EPERM | libc::EACCES)) => {
                "packet sockets need CAP_NET_RAW: run as root, or 'setcap cap_net_raw,cap_net_admin+ep' the program"
            }
            (Step::Socket, Some(libc::EAFNOSUPPORT)) => {
                "the kernel has no packet sockets: load them with 'modprobe af_packet'"
            }
            (Step::Device | Step::Host, Some(libc::ENODEV)) => {
                "there is no such device in this network namespace: see 'ip link'"
            }
            (Step::Device, None) => "direct routing and ARP need Ethernet: choose another device, or use a TUN device",
            (Step::Ring, Some(libc::ENOMEM)) => "the receive ring does not fit the memory: choose a smaller one",
            (Step::Bind, Some(libc::ENETDOWN)) => "the device is down: 'ip link set DEVICE up'",
            _ => "",
        }
    }
}

impl fmt::Display for AfPacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.step {
            Step::Socket => "make a packet socket for",
            Step::Device => "use the device",
            Step::Ring => "set up a receive ring on",
            Step::Options => "set the options of a packet socket on",
            Step::Bind => "receive from",
            Step::Fanout => "share several queues of",
            Step::Host => "read the addresses and routes of",
        };
        write!(f, "cannot {what} {}: {}", self.device, self.source)?;
        let advice = self.advice();
        if advice.is_empty() { Ok(()) } else { write!(f, "; {advice}") }
    }
}

impl std::error::Error for AfPacketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<AfPacketError> for io::Error {
    fn from(error: AfPacketError) -> Self {
        Self::new(error.source.kind(), error)
    }
}
