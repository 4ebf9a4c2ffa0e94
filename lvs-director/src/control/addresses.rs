//! The addresses that Ethernet devices answer for, as services and local addresses come and go: taken over with the first
//! that needs one, given up with the last. Where the host owns the virtual ones, it is kept quiet about the services
//! instead. Decides nothing where the devices are TUN devices.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_core::{Command, Director, Instant, ServiceKey};
use lvs_io_afpacket::{AddressesHandle, check};

use crate::host_rules::HostRules;
use crate::say;

/// Who needs which address.
#[derive(Debug)]
pub struct Addresses {
    /// The clients' device and the servers', or one for both.
    devices: Vec<AddressesHandle>,
    /// Where the host owns the virtual addresses.
    host_rules: Option<HostRules>,
    services: Users,
    /// FullNAT's, by the services that lease ports of them.
    locals: Users,
}

impl Addresses {
    /// The devices answer already for what `master` has.
    pub fn new(master: &Director, devices: Vec<AddressesHandle>, host_rules: Option<HostRules>) -> Self {
        let mut addresses =
            Self { devices: Vec::new(), host_rules, services: BTreeMap::new(), locals: BTreeMap::new() };
        for service in master.services(Instant::ZERO) {
            addresses.add_service(service.key);
            for local in service.local_addresses {
                addresses.locals.entry(local).or_default().insert(service.key);
            }
        }
        Self { devices, ..addresses }
    }

    /// Does what has to be done before the workers carry out a command.
    pub fn precede(&self, command: &Command) {
        if let Some(host_rules) = &self.host_rules {
            host_rules.precede(command);
        }
    }

    /// Does what follows from a command that the workers have been told.
    pub fn follow(&mut self, command: &Command) {
        if let Some(host_rules) = &self.host_rules {
            host_rules.follow(command);
        }
        match command {
            Command::AddService(key, _) => self.add_service(*key),
            Command::DeleteService(key) => self.forget(key),
            Command::Flush => {
                let devices = &self.devices;
                release_all(&mut self.services, |address| give_up(devices.first(), address));
                release_all(&mut self.locals, |address| give_up(devices.last(), address));
            }
            Command::AddLocalAddress(key, address) => {
                let users = self.locals.entry(*address).or_default();
                if users.insert(*key) && users.len() == 1 {
                    take_over(self.devices.last(), *address);
                }
            }
            Command::DeleteLocalAddress(key, address) => {
                let devices = &self.devices;
                release(&mut self.locals, *address, key, |at| give_up(devices.last(), at));
            }
            _ => {}
        }
    }

    fn add_service(&mut self, key: ServiceKey) {
        let (ServiceKey::Address { address, .. }, None) = (key, &self.host_rules) else { return };
        let users = self.services.entry(address).or_default();
        if users.insert(key) && users.len() == 1 {
            take_over(self.devices.first(), address);
        }
    }

    fn forget(&mut self, key: &ServiceKey) {
        let devices = &self.devices;
        if let ServiceKey::Address { address, .. } = key {
            release(&mut self.services, *address, key, |at| give_up(devices.first(), at));
        }
        // Addresses are few, the services of each may be many.
        let locals: Vec<IpAddr> = self.locals.keys().copied().collect();
        for local in locals {
            release(&mut self.locals, local, key, |at| give_up(devices.last(), at));
        }
    }
}

type Users = BTreeMap<IpAddr, BTreeSet<ServiceKey>>;

/// A service needs an address no more; calls `unused` if nobody does.
fn release(users: &mut Users, address: IpAddr, key: &ServiceKey, unused: impl Fn(IpAddr)) {
    let Entry::Occupied(mut entry) = users.entry(address) else { return };
    if entry.get_mut().remove(key) && entry.get().is_empty() {
        entry.remove();
        unused(address);
    }
}

/// Nobody needs any address; calls `unused` for each.
fn release_all(users: &mut Users, unused: impl Fn(IpAddr)) {
    std::mem::take(users).into_keys().for_each(unused);
}

fn take_over(device: Option<&AddressesHandle>, address: IpAddr) {
    let Some(device) = device else { return };
    let owned =
        check::host("", &[address]).into_iter().find(|finding| matches!(finding, check::Finding::HostOwnsAddress(_)));
    if let Some(finding) = owned {
        say::warning(finding);
    } else if let Err(error) = device.add(address) {
        say::warning(error);
    }
}

fn give_up(device: Option<&AddressesHandle>, address: IpAddr) {
    if let Some(device) = device {
        device.remove(address);
    }
}

#[cfg(test)]
mod tests {
    use lvs_core::{Command, DirectorConfig, Protocol, Seed, ServiceConfig};

    use super::*;

    fn service(port: u16) -> ServiceKey {
        ServiceKey::address(Protocol::Tcp, ([192, 0, 2, 80], port).into())
    }

    fn addresses() -> Addresses {
        let mut addresses = Addresses::new(&Director::new(DirectorConfig::default(), Seed::new(1)), Vec::new(), None);
        for port in [80, 443] {
            addresses.follow(&Command::AddService(service(port), ServiceConfig::new("rr")));
            addresses.follow(&Command::AddLocalAddress(service(port), [10, 9, 0, 200].into()));
        }
        addresses
    }

    #[test]
    fn an_address_is_given_up_with_the_last_service_that_needs_it() {
        let mut addresses = addresses();
        addresses.follow(&Command::DeleteService(service(80)));
        assert_eq!((addresses.services.len(), addresses.locals.len()), (1, 1));
        addresses.follow(&Command::DeleteLocalAddress(service(443), [10, 9, 0, 200].into()));
        assert_eq!((addresses.services.len(), addresses.locals.len()), (1, 0));
        addresses.follow(&Command::DeleteService(service(443)));
        assert_eq!((addresses.services.len(), addresses.locals.len()), (0, 0));
    }

    #[test]
    fn a_flush_gives_every_address_up() {
        let mut addresses = addresses();
        addresses.follow(&Command::Flush);
        assert_eq!((addresses.services.len(), addresses.locals.len()), (0, 0));
    }
}
