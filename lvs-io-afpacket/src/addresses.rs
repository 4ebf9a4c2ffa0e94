//! Taking over addresses, and giving them up, while a worker has the device: orders from other threads, and the groups
//! that the device must hear for them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Added and not removed since; the groups hold for these. Locked from the change of the groups until the order is
    /// given, so that both come in the same order; a worker that carries out orders does not wait for it.
    added: Mutex<BTreeSet<IpAddr>>,
    /// Whose memberships the groups are: they end with the device. A group that was joined twice is to be left twice.
    groups: OwnedFd,
    index: AtomicU32,
}

impl Orders {
    /// `groups` is a packet socket that receives nothing; `index` the device's number.
    pub(crate) fn new(groups: OwnedFd, index: u32) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), added: Mutex::default(), groups, index: AtomicU32::new(index) })
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

    /// The device is another one: its memberships ended with it, and are wanted of the new one.
    pub(crate) fn move_to(&self, index: u32) {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        if self.index.swap(index, Ordering::Relaxed) == index {
            return;
        }
        for group in added.iter().copied().flat_map(groups) {
            // Where it is gone again its next coming will be told.
            let _ = self.change_group(libc::PACKET_ADD_MEMBERSHIP, group);
        }
    }

    fn change_group(&self, option: i32, group: MacAddress) -> io::Result<()> {
        let membership = Membership::new(self.index.load(Ordering::Relaxed), libc::PACKET_MR_MULTICAST, Some(group));
        socket::set_option(self.groups.as_fd(), option, membership)
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
    /// The device cannot be told to hear the groups an IPv6 address needs; nothing has changed.
    pub fn add(&self, address: IpAddr) -> Result<(), AfPacketError> {
        let mut added = self.added();
        if !added.contains(&address) {
            self.join_groups(address).map_err(|source| AfPacketError::new(&self.device, Step::Options, source))?;
            added.insert(address);
        }
        self.give(|waiting| _ = waiting.addresses.insert(address, true));
        Ok(())
    }

    /// No longer answers for the address.
    pub fn remove(&self, address: IpAddr) {
        let mut added = self.added();
        // Where it was there from the start, another socket has the memberships.
        if added.remove(&address) {
            self.leave_groups(groups(address));
        }
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

    fn added(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.orders.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of the address's groups, or none.
    fn join_groups(&self, address: IpAddr) -> io::Result<()> {
        for (index, group) in groups(address).enumerate() {
            if let Err(error) = self.orders.change_group(libc::PACKET_ADD_MEMBERSHIP, group) {
                self.leave_groups(groups(address).take(index));
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave_groups(&self, groups: impl Iterator<Item = MacAddress>) {
        for group in groups {
            // The kernel refuses nobody who leaves; where the device is gone, so is the membership.
            let _ = self.orders.change_group(libc::PACKET_DROP_MEMBERSHIP, group);
        }
    }
}

/// The groups a device must hear for the address: for IPv6 its solicited-node group, by which it is found, and all
/// nodes', where switches and routers ask who hears which group (RFC 3810 §5.1.15).
pub(crate) fn groups(address: IpAddr) -> impl Iterator<Item = MacAddress> {
    let groups = [MacAddress::of_group(ALL_NODES), MacAddress::to_be_heard_for(address)];
    groups.into_iter().filter(move |_| address.is_ipv6())
}

/// ff02::1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
