//! Taking over addresses, and giving them up, while a worker has the device: orders from other threads, and the groups
//! that the device must hear for them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use lvs_core::Instant;
use lvs_io::l2::{Edge, MacAddress};

use crate::bell::Bell;
use crate::error::{AfPacketError, Step};
use crate::socket::{self, Membership};

/// What waits to be done. Each address is there once: the last word counts.
#[derive(Debug, Default)]
struct Waiting {
    addresses: BTreeMap<IpAddr, bool>,
    announces_all: bool,
}

/// Orders on their way to the sending half.
#[derive(Debug)]
pub(crate) struct Orders {
    waiting: Mutex<Waiting>,
    /// Whose memberships the groups are: they end with the device.
    groups: OwnedFd,
    index: u32,
}

impl Orders {
    /// `groups` is a packet socket that receives nothing; `index` the device's number.
    pub(crate) fn new(groups: OwnedFd, index: u32) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), groups, index })
    }

    /// Carries out what waits.
    pub(crate) fn carry_out(&self, edge: &mut Edge, now: Instant) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for (address, is_ours) in waiting.addresses {
            if is_ours { edge.add_address(now, address) } else { edge.remove_address(address) }
        }
        if waiting.announces_all {
            edge.announce(now);
        }
    }

    fn give(&self, order: impl FnOnce(&mut Waiting)) {
        order(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The addresses a device answers for, to be changed from any thread while a worker has the device.
#[derive(Clone, Debug)]
pub struct AddressesHandle {
    pub(crate) device: String,
    pub(crate) orders: Arc<Orders>,
    pub(crate) bell: Arc<Bell>,
}

impl AddressesHandle {
    /// Takes the address over: answers for it and announces it three times, a second apart (gratuitous ARP, unsolicited
    /// neighbour advertisement). Nothing happens if the device answers for it already. The host must not own it
    /// ([`crate::check`]), and whoever had it before should have stopped.
    ///
    /// # Errors
    /// The device cannot be told to hear the group by which an IPv6 address is found; nothing has changed.
    pub fn add(&self, address: IpAddr) -> Result<(), AfPacketError> {
        self.change_group(libc::PACKET_ADD_MEMBERSHIP, address)?;
        self.give(|waiting| _ = waiting.addresses.insert(address, true));
        Ok(())
    }

    /// No longer answers for the address.
    pub fn remove(&self, address: IpAddr) {
        // Where it was there from the start, another socket has the membership.
        let _ = self.change_group(libc::PACKET_DROP_MEMBERSHIP, address);
        self.give(|waiting| _ = waiting.addresses.insert(address, false));
    }

    /// Announces every address again.
    pub fn announce(&self) {
        self.give(|waiting| waiting.announces_all = true);
    }

    fn give(&self, order: impl FnOnce(&mut Waiting)) {
        self.orders.give(order);
        self.bell.ring();
    }

    fn change_group(&self, option: i32, address: IpAddr) -> Result<(), AfPacketError> {
        if address.is_ipv4() {
            return Ok(());
        }
        let mut group = [0; 8];
        group[..6].copy_from_slice(&MacAddress::to_be_heard_for(address).0);
        let (index, kind) = (self.orders.index as i32, libc::PACKET_MR_MULTICAST as u16);
        let membership = Membership { index, kind, address_len: 6, address: group };
        socket::set_option(self.orders.groups.as_fd(), option, membership)
            .map_err(|source| AfPacketError::new(&self.device, Step::Options, source))
    }
}
