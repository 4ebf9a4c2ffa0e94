//! Captures: sockets of their own on the cables, besides the director's, that see what arrives there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;

use lvs_core::wire::parse::parse;
use lvs_core::{Director, DirectorConfig, PacketBuf, Seed};
use lvs_io::tap::{Seen, Tap};
use lvs_io::{Worker, WorkerHandle};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
use lvs_testkit::network::Failure;

/// What arrived at one end of a cable.
#[derive(Clone, Default, Debug)]
pub struct Wire {
    /// Packets by their two addresses.
    pub pairs: BTreeSet<(IpAddr, IpAddr)>,
    /// Who is named as the client in a TCP option.
    pub named: BTreeSet<SocketAddr>,
    /// What tunnels there were.
    pub tunnels: BTreeSet<SeenTunnel>,
}

/// The outside of a packet: IP version, protocol number, and whether it has a checksum of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SeenTunnel {
    pub version: u8,
    pub protocol: u8,
    pub checksum: SeenChecksum,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SeenChecksum {
    None,
    Full,
    /// Left to the receiver.
    Remote,
}

impl Wire {
    pub fn has_from(&self, address: IpAddr) -> bool {
        self.pairs.iter().any(|(source, _)| *source == address)
    }

    pub fn has_to(&self, address: IpAddr) -> bool {
        self.pairs.iter().any(|(_, target)| *target == address)
    }

    fn add(&mut self, bytes: &[u8]) {
        let Ok(headers) = parse(bytes) else { return };
        self.pairs.insert((headers.source, headers.destination));
        if headers.is_later_fragment() {
            return;
        }
        let (version, payload) = (bytes[0] >> 4, headers.payload(bytes));
        let checksum = match headers.protocol {
            TCP => return self.named.extend(client_named(payload)),
            IPV4_IN_IP | IPV6_IN_IP => SeenChecksum::None,
            // RFC 2784: the first bit says that there is one.
            GRE if payload.first().is_some_and(|first| first & 0x80 != 0) => SeenChecksum::Full,
            GRE => SeenChecksum::None,
            UDP if payload.get(2..4) == Some(&crate::rows::GUE_PORT.to_be_bytes()) => gue_checksum(payload),
            _ => return,
        };
        self.tunnels.insert(SeenTunnel { version, protocol: headers.protocol, checksum });
    }
}

/// draft-ietf-intarea-gue-extensions: private flags follow, the highest of which is remote checksum offload.
fn gue_checksum(udp: &[u8]) -> SeenChecksum {
    let is_remote = udp.get(11).is_some_and(|flags| flags & 1 != 0) && udp.get(12).is_some_and(|high| *high == 0x80);
    match udp.get(6..8) {
        _ if is_remote => SeenChecksum::Remote,
        Some([0, 0]) | None => SeenChecksum::None,
        Some(_) => SeenChecksum::Full,
    }
}

/// Whom a segment names as the client: kind 254, length, port, address.
fn client_named(tcp: &[u8]) -> Option<SocketAddr> {
    let header_len = usize::from(tcp.get(12)? >> 4) * 4;
    let mut options = tcp.get(20..header_len)?;
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            // End of the list, and padding (RFC 9293 §3.1).
            (0, _) => return None,
            (1, _) => options = rest,
            (254, [len, high, low, address @ ..]) => {
                let address = match len {
                    8 => IpAddr::from(*address.first_chunk::<4>()?),
                    20 => IpAddr::from(*address.first_chunk::<16>()?),
                    _ => return None,
                };
                return Some(SocketAddr::new(address, u16::from_be_bytes([*high, *low])));
            }
            (_, [len, ..]) => options = options.get(usize::from(*len).max(2)..)?,
            (_, []) => return None,
        }
    }
    None
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;

/// A capture that goes on.
pub struct Capture {
    handle: WorkerHandle,
    thread: thread::JoinHandle<Result<Wire, Failure>>,
}

impl Capture {
    /// Of what arrives by the device, in the calling thread's namespace.
    pub fn start(device: &str) -> Result<Self, Failure> {
        let options = AfPacketOptions { announces: false, is_promiscuous: true, ..AfPacketOptions::default() };
        let seen = SharedWire::default();
        let arm = AfPacketDevice::open(device, &options)?.into_arm().with_tap(seen.clone());
        let mut worker = Worker::new(Director::new(DirectorConfig::default(), Seed::new(0)), arm, None)?;
        let handle = worker.handle();
        let thread = thread::spawn(move || {
            worker.run()?;
            // What is still in the ring.
            while worker.turn()? {}
            let seen = seen.0.lock().map_err(|_| "a tap has panicked")?;
            Ok(seen.clone())
        });
        Ok(Self { handle, thread })
    }

    pub fn stop(self) -> Result<Wire, Failure> {
        self.handle.stop();
        self.thread.join().expect("a capture does not panic")
    }
}

#[derive(Clone, Default)]
struct SharedWire(Arc<Mutex<Wire>>);

impl Tap for SharedWire {
    fn packet(&mut self, seen: Seen, packet: &PacketBuf<'_>) {
        if seen == Seen::Received
            && let Ok(mut wire) = self.0.lock()
        {
            wire.add(packet.bytes());
        }
    }
}
