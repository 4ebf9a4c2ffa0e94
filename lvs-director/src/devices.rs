//! The devices `lvsd run` forwards on: which kind, how they are opened, and what they say about their sides.

use std::fs;
use std::net::IpAddr;

use lvs_core::Side;
use lvs_io::Arm;
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions, check};
use lvs_io_tun::{TunOptions, TunQueue, netdev};

use crate::denied::Denied;

/// The clients' device and the servers', or one for both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Devices {
    /// TUN devices: what is routed into them. Made if need be.
    Tun(Vec<String>),
    /// Ethernet devices, beside the host's own stack.
    AfPacket(Vec<String>),
}

impl Devices {
    /// Their names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Tun(names) | Self::AfPacket(names) => names,
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
        let mut side = Side { mtu: mtu.unwrap_or(Side::default().mtu), ..Side::default() };
        if let Self::AfPacket(_) = self {
            let options = AfPacketOptions::of_host(name)?;
            side.ipv4 = options.source_ipv4;
            side.ipv6 = options.source_ipv6;
        }
        Ok(side)
    }

    /// Whether a host stack receives the packets too, and routes what is not the director's.
    pub fn have_a_host(&self) -> bool {
        matches!(self, Self::AfPacket(_))
    }

    /// Opens them. On Ethernet the clients' answers for `virtual_addresses` and the servers' for `local_addresses`, if the
    /// host leaves them to it.
    ///
    /// # Errors
    /// A device is denied, or the host owns such an address.
    pub fn open(&self, virtual_addresses: &[IpAddr], local_addresses: &[IpAddr]) -> Result<Vec<Arm>, Denied> {
        match self {
            Self::Tun(names) => names.iter().map(|name| tun(name)).collect(),
            Self::AfPacket(names) => match names.as_slice() {
                [clients, servers] => {
                    Ok(vec![ethernet(clients, virtual_addresses)?, ethernet(servers, local_addresses)?])
                }
                names => {
                    names.iter().map(|name| ethernet(name, &[virtual_addresses, local_addresses].concat())).collect()
                }
            },
        }
    }
}

fn tun(name: &str) -> Result<Arm, Denied> {
    let tun = TunQueue::open(name, &TunOptions::default())?;
    // An ordinary user may use a device root made for them, but not bring it up; root may have done that too.
    if let Err(error) = netdev::set_up(tun.name())
        && !netdev::is_up(tun.name()).unwrap_or(false)
    {
        eprintln!("lvsd: {error}; let root do it: 'ip link set {name} up'");
    }
    Ok(tun.into_arm())
}

fn ethernet(name: &str, answers_for: &[IpAddr]) -> Result<Arm, Denied> {
    for finding in check::host(name, answers_for) {
        match finding {
            check::Finding::HostOwnsAddress(_) => return Err(Denied::said(&finding)),
            check::Finding::HostForwards { .. } | check::Finding::DeviceDown(_) => {
                eprintln!("lvsd: warning: {finding}")
            }
        }
    }
    let options = AfPacketOptions { answers_for: answers_for.to_vec(), ..AfPacketOptions::of_host(name)? };
    Ok(AfPacketDevice::open(name, &options)?.into_arm())
}
