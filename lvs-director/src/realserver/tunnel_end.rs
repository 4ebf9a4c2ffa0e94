//! The decapsulating end of tunnels: what reaches an Ethernet device through IPIP, GRE or GUE for a virtual address is
//! handed to the kernel by a TUN device. Runs in the foreground; what it made vanishes with it.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use lvs_core::tunnel::{self, Accepts, EndCounters};
use lvs_core::{Director, DirectorConfig, Seed};
use lvs_io::{MonotonicClock, OnPass, Prefix, Worker};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, receive_nothing};
use lvs_io_tun::{TunOptions, TunQueue, netdev};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::denied::Denied;
use crate::say;
use crate::threads::stop_on_signals;

/// Where tunnels end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunnelEnd {
    /// The Ethernet device they come by.
    pub device: String,
    /// The UDP port of GUE; `None` leaves it out.
    pub gue_port: Option<u16>,
    /// Whose tunnels they are; anybody's if there is none.
    pub peers: Vec<Prefix>,
}

/// The TUN device that inner packets come out of.
const HOST_DEVICE: &str = "lvsend%d";

/// Runs until SIGINT or SIGTERM.
pub(super) fn run(end: &TunnelEnd, vips: &[IpAddr], done: &mut String) -> Result<(), Denied> {
    let to_host = TunQueue::open(HOST_DEVICE, &TunOptions::default())?;
    let name = to_host.name().to_owned();
    netdev::set_up(&name).map_err(|error| Denied::described(&error))?;
    // Clients are not behind this device, though their packets come out of it.
    fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0")
        .map_err(|cause| Denied::new(format_args!("set the rp_filter of {name}"), cause))?;
    let options = AfPacketOptions { announces: false, ..AfPacketOptions::of_host(&end.device)? };
    let accepts = Accepts { ipip: true, gre: true, gue_port: end.gue_port };
    let arm = AfPacketDevice::open(&end.device, &options)?.into_arm();
    let clock = MonotonicClock::new();
    // Nobody outside may guess where a part of a packet is filed.
    let seed = Seed::new(RandomState::new().build_hasher().finish());
    let tunnels = tunnel::TunnelEnd::new(accepts, vips.to_vec(), seed);
    let tunnels = match end.peers.is_empty() {
        true => tunnels,
        false => tunnels.with_peers(end.peers.iter().map(|peer| (peer.address(), peer.bits())).collect()),
    };
    let (arm, counters) = arm.behind_tunnel_end(tunnels, clock);
    let _silent =
        silence(end.gue_port).map_err(|cause| Denied::new("open raw sockets", cause).remedy("run as root"))?;
    let nobody = Director::new(DirectorConfig::default(), Seed::new(0));
    let mut worker = Worker::new(nobody, arm, None)
        .and_then(|worker| {
            stop_on_signals(vec![worker.handle()])?;
            Ok(worker.with_clock(clock).with_on_pass(OnPass::ToHost(to_host.into_arm().sink)))
        })
        .map_err(|cause| Denied::new("end tunnels", cause))?;
    // Whoever does not want to read it wants the tunnels all the same.
    let _ = say::print(done);
    done.clear();
    say::note(format_args!("ending tunnels on {} by {name}; Ctrl-C ends it and undoes everything", end.device));
    if end.peers.is_empty() {
        say::warning("anybody may send through these tunnels; name the directors with --peer");
    }
    worker.run().map_err(|cause| Denied::new("go on", cause))?;
    done.push_str(&account(&counters.get()));
    Ok(())
}

/// What came, and what was lost.
fn account(counters: &EndCounters) -> String {
    let mut text = format!("{} packets came through tunnels\n", counters.taken_out);
    for (count, what) in [
        (counters.joined, "of them in parts"),
        (counters.refused, "refused: malformed, a wrong checksum, or congestion that cannot be handed on"),
        (counters.strangers, "refused: not from one of the peers"),
        (counters.parts_full, "parts refused or given up: too many wait for others"),
        (counters.parts_overlapping, "parts refused: they had come already"),
        (counters.parts_timed_out, "parts given up: the others did not come in time"),
    ] {
        if count > 0 {
            text.push_str(&format!("  {count} {what}\n"));
        }
    }
    text
}

/// Sockets that receive nothing, for as long as they are held. The kernel sees the outer packets too; without a socket
/// for their protocol it would tell the director that they are unwelcome.
///
/// # Errors
/// Raw sockets are denied, or the port of GUE is taken.
pub fn silence(gue_port: Option<u16>) -> io::Result<(Vec<OwnedFd>, Option<UdpSocket>)> {
    let mut sockets = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        for protocol in [ipproto::IPIP, ipproto::IPV6, ipproto::GRE] {
            match socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)) {
                Ok(socket) => {
                    receive_nothing(socket.as_fd())?;
                    sockets.push(socket);
                }
                // A kernel without IPv6.
                Err(rustix::io::Errno::AFNOSUPPORT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let bind = |port| {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))
    };
    let gue = gue_port.map(bind).transpose()?;
    if let Some(gue) = &gue {
        receive_nothing(gue.as_fd())?;
    }
    Ok((sockets, gue))
}
