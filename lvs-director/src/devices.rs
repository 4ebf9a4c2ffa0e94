//! The devices `lvsd run` forwards on: which kind, how they are opened, and what they say about their sides.

use std::fs;
use std::net::IpAddr;

use lvs_core::{Direction, Side};
use lvs_io::{Arm, Steering, share};
use lvs_io_afpacket::{AddressesHandle, AfPacketDevice, AfPacketOptions, Delivery, SourceCountersHandle, check};
use lvs_io_tun::{TunOptions, TunQueue, netdev};

use crate::claim::{Claim, claim};
use crate::denied::Denied;
use crate::say;
use crate::warnings::tun;

/// The clients' device and the servers', or one for both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Devices {
    /// TUN devices: what is routed into them. Made if need be.
    Tun(Vec<String>),
    /// Ethernet devices, beside the host's own stack, and how the kernel hands over what they receive.
    AfPacket(Vec<String>, Delivery),
}

/// Devices, opened.
pub struct Opened {
    /// What each worker gets: the servers' device too where there are two.
    pub arms: Vec<(Arm, Option<Arm>)>,
    /// What every queue counts of what it could not hand on. None for TUN.
    pub counters: Vec<SourceCountersHandle>,
    /// The addresses that the clients' device, and the servers', answers for. None for TUN.
    pub addresses: Vec<AddressesHandle>,
    /// What keeps other processes off the devices, for as long as it is held.
    pub claims: Vec<Claim>,
}

impl Devices {
    /// Their names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Tun(names) | Self::AfPacket(names, _) => names,
        }
    }

    /// What is known of the two sides before the devices are opened: MTUs, and the host's addresses on Ethernet.
    ///
    /// # Errors
    /// An Ethernet device does not exist.
    pub fn sides(&self) -> Result<[Side; 2], Denied> {
        let names = self.names();
        let [Some(client), Some(server)] = [names.first(), names.last()] else { return Ok([Side::default(); 2]) };
        Ok([self.side(client)?, self.side(server)?])
    }

    fn side(&self, name: &str) -> Result<Side, Denied> {
        let mtu = fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok().and_then(|mtu| mtu.trim().parse().ok());
        let mut side = Side::default().with(|side| side.mtu = mtu.unwrap_or(Side::default().mtu));
        if let Self::AfPacket(..) = self {
            let options = AfPacketOptions::of_host(name)?;
            side.ipv4 = options.source_ipv4;
            side.ipv6 = options.source_ipv6;
        }
        Ok(side)
    }

    /// Whether a host stack receives the packets too, and routes what is not the director's.
    pub fn have_a_host(&self) -> bool {
        matches!(self, Self::AfPacket(..))
    }

    /// Opens them, with a queue for each shard of `steering`. On Ethernet the clients' answers for `virtual_addresses`
    /// and the servers' for `local_addresses`, if the host leaves them to it.
    ///
    /// # Errors
    /// A device is denied, another process forwards on it, or the host owns such an address.
    pub fn open(
        &self,
        virtual_addresses: &[IpAddr],
        local_addresses: &[IpAddr],
        steering: &Steering,
    ) -> Result<Opened, Denied> {
        let claims = self.names().iter().map(|name| claim(&format!("forwarding on {name}")));
        let claims = claims.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
        if !self.have_a_host() {
            tun::refuse_owned(virtual_addresses.iter().chain(local_addresses).copied())?;
        }
        let (mut counters, mut addresses) = (Vec::new(), Vec::new());
        let mut one = |name, answers_for: &[IpAddr], direction| {
            self.open_one(name, answers_for, steering, direction, (&mut counters, &mut addresses))
        };
        let arms = match self.names() {
            [clients, servers] => {
                let clients = one(clients, virtual_addresses, Some(Direction::Request))?;
                let servers = one(servers, local_addresses, Some(Direction::Reply))?;
                clients.into_iter().zip(servers.into_iter().map(Some)).collect()
            }
            [both, ..] => {
                let arms = one(both, &[virtual_addresses, local_addresses].concat(), None)?;
                arms.into_iter().map(|arm| (arm, None)).collect()
            }
            [] => Vec::new(),
        };
        Ok(Opened { arms, counters, addresses, claims })
    }

    /// One arm for each shard. Their counters and addresses, if they have some, are added to those given.
    fn open_one(
        &self,
        name: &str,
        answers_for: &[IpAddr],
        steering: &Steering,
        direction: Option<Direction>,
        (counters, addresses): (&mut Vec<SourceCountersHandle>, &mut Vec<AddressesHandle>),
    ) -> Result<Vec<Arm>, Denied> {
        let arms = match self {
            Self::Tun(_) => tun(name, steering.shards())?,
            Self::AfPacket(_, delivery) => {
                let queues = ethernet(name, answers_for, steering, direction, *delivery)?;
                counters.extend(queues.iter().map(AfPacketDevice::receive_counters));
                // Of several queues the first one answers.
                addresses.extend(queues.first().map(AfPacketDevice::addresses));
                queues.into_iter().map(AfPacketDevice::into_arm).collect()
            }
        };
        if steering.shards() == 1 {
            return Ok(arms);
        }
        share(arms, steering, direction).map_err(|cause| Denied::new("join the queues", cause))
    }
}

fn tun(name: &str, queues: usize) -> Result<Vec<Arm>, Denied> {
    let options = TunOptions { queues: queues as u16, ..TunOptions::default() };
    let queues = if queues == 1 { vec![TunQueue::open(name, &options)?] } else { TunQueue::open_all(name, &options)? };
    // An ordinary user may use a device root made for them, but not bring it up; root may have done that too.
    if let Err(error) = netdev::set_up(queues[0].name())
        && !netdev::is_up(queues[0].name()).unwrap_or(false)
    {
        say::note(format_args!("{error}; let root do it: 'ip link set {name} up'"));
    }
    Ok(queues.into_iter().map(TunQueue::into_arm).collect())
}

fn ethernet(
    name: &str,
    answers_for: &[IpAddr],
    steering: &Steering,
    direction: Option<Direction>,
    delivery: Delivery,
) -> Result<Vec<AfPacketDevice>, Denied> {
    for finding in check::host(name, answers_for) {
        match finding {
            check::Finding::HostOwnsAddress(_) => return Err(Denied::said(&finding)),
            check::Finding::HostForwards { .. } | check::Finding::DeviceDown(_) => say::warning(finding),
        }
    }
    let options = AfPacketOptions { answers_for: answers_for.to_vec(), delivery, ..AfPacketOptions::of_host(name)? };
    Ok(match steering.shards() {
        1 => vec![AfPacketDevice::open(name, &options)?],
        _ => AfPacketDevice::open_all(name, &options, steering, direction)?,
    })
}
