//! The addresses that Ethernet devices answer for, as services and local addresses come and go: taken over with the first
//! that needs one, given up with the last. Where the host owns the virtual ones, it is kept quiet about the services
//! instead. Decides nothing where the devices are TUN devices.

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
    services: BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
    /// FullNAT's, by the services that lease ports of them.
    locals: BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
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
            Command::DeleteService(key) => self.forget(|other| other == key),
            Command::Flush => self.forget(|_| true),
            Command::AddLocalAddress(key, address) => {
                let users = self.locals.entry(*address).or_default();
                if users.insert(*key) && users.len() == 1 {
                    take_over(self.devices.last(), *address);
                }
            }
            Command::DeleteLocalAddress(key, address) => {
                let devices = &self.devices;
                release(&mut self.locals, |at, other| at == address && other == key, |at| give_up(devices.last(), at));
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

    fn forget(&mut self, is_gone: impl Fn(&ServiceKey) -> bool) {
        let devices = &self.devices;
        release(&mut self.services, |_, key| is_gone(key), |address| give_up(devices.first(), address));
        release(&mut self.locals, |_, key| is_gone(key), |address| give_up(devices.last(), address));
    }
}

/// Takes out who is gone; calls `unused` for each address that nobody needs any more.
fn release(
    users: &mut BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
    is_gone: impl Fn(&IpAddr, &ServiceKey) -> bool,
    unused: impl Fn(IpAddr),
) {
    users.retain(|address, keys| {
        keys.retain(|key| !is_gone(address, key));
        if keys.is_empty() {
            unused(*address);
        }
        !keys.is_empty()
    });
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
