//! Keeps the host's own stack from answering for services at addresses that the host owns: a table of nftables, `inet
//! lvs`, that drops what comes for them before the stack sees it. AF_PACKET sockets see it all the same. Everything else
//! at these addresses stays the host's: ARP, Neighbor Discovery, pings, ssh.
//!
//! The table stands before the first packet is forwarded, follows services as they come and go, and outlives the
//! process: the next start takes it over in one step. It goes when `lvsd` is stopped for good, or by `lvsd clean`.

mod nftables;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lvs_core::{Command, Director, Instant, Protocol, ServiceConfig, ServiceKey};

use self::nftables::{Family, Place, Rule, Set, Transaction};
use crate::claim::{Claim, claim};
use crate::denied::Denied;
use crate::say;

/// The table, as long as this process looks after it.
#[derive(Clone, Debug)]
pub struct HostRules(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    /// The elements that each service needs.
    services: BTreeMap<ServiceKey, Vec<Element>>,
    _claim: Option<Claim>,
}

/// One thing the host is to be silent about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Element {
    /// A service's port.
    Endpoint(Protocol, IpAddr, u16),
    /// Every port of a protocol: a service of port 0.
    Everywhere(Protocol, IpAddr),
    /// An address where a protocol's helper opens ports that nobody knows beforehand: the host resets no connection there.
    Helped(IpAddr),
}

impl HostRules {
    /// Puts the table in place for the services of `director`, or takes the one over that is there.
    ///
    /// # Errors
    /// Another process looks after it, or the kernel denies it.
    pub fn stand(director: &Director) -> Result<Self, Denied> {
        let claim = claim(USAGE)?;
        let services = director.services(Instant::ZERO);
        let services = services.iter().map(|service| (service.key, elements(&service.key, &service.config)));
        let kept = Kept { services: services.collect(), _claim: claim };
        kept.stand()
            .map_err(|cause| Denied::new(format!("keep this host's stack quiet by nftables ({TABLE})"), cause))?;
        Ok(Self(Arc::new(Mutex::new(kept))))
    }

    /// Does what has to be done before a command is carried out by the workers.
    pub fn precede(&self, command: &Command) {
        let (Command::AddService(key, config) | Command::EditService(key, config)) = command else { return };
        let mut kept = self.lock();
        let needed = elements(key, config);
        let is_there = kept.needed();
        let new: Vec<Element> = needed.iter().copied().filter(|element| !is_there.contains(element)).collect();
        // What an edited service needs no more goes afterwards.
        kept.services.entry(*key).or_default().extend(&new);
        kept.change(&new, Transaction::add_elements);
    }

    /// Does what is left to do when a command has been carried out.
    pub fn follow(&self, command: &Command) {
        let mut kept = self.lock();
        let before = match command {
            Command::DeleteService(_) | Command::Flush | Command::EditService(..) => kept.needed(),
            _ => return,
        };
        match command {
            Command::DeleteService(key) => _ = kept.services.remove(key),
            Command::EditService(key, config) => _ = kept.services.insert(*key, elements(key, config)),
            _ => kept.services.clear(),
        }
        let after = kept.needed();
        let gone: Vec<Element> = before.difference(&after).copied().collect();
        kept.change(&gone, Transaction::delete_elements);
    }

    /// Takes the table away: the host answers for its addresses again.
    pub fn take_down(self) {
        if let Err(error) = take_down() {
            say::warning(format_args!("the nftables table {TABLE} stays: {error}; 'lvsd clean' takes it away"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn needed(&self) -> BTreeSet<Element> {
        self.services.values().flatten().copied().collect()
    }

    /// Changes the elements of the table. Where that fails, for instance because somebody has flushed all of nftables,
    /// the whole table is put in place again.
    fn change(&self, elements: &[Element], how: fn(&mut Transaction, &str, &[Vec<u8>])) {
        if elements.is_empty() {
            return;
        }
        let mut transaction = Transaction::of(NAME);
        fill(&mut transaction, elements, how);
        if let Err(error) = transaction.commit().or_else(|_| self.stand()) {
            say::warning(format_args!("this host's stack may answer clients beside lvsd: nftables: {error}"));
        }
    }

    fn stand(&self) -> io::Result<()> {
        let mut transaction = Transaction::of(NAME);
        transaction.replace_table();
        SETS.into_iter().for_each(|set| transaction.add_set(set));
        transaction.add_chain(ARRIVING, Place::Prerouting);
        transaction.add_chain(LEAVING, Place::Output);
        // What the host asks itself never comes by a device that lvsd hears.
        transaction.add_rule(ARRIVING, Rule::accept_from(LOOPBACK));
        for (family, [endpoints, everywhere, helped]) in [(Family::Ipv4, NAMES[0]), (Family::Ipv6, NAMES[1])] {
            transaction.add_rule(ARRIVING, Rule::of(family).whose_target_is_in(family, endpoints, true).dropped());
            transaction.add_rule(ARRIVING, Rule::of(family).whose_target_is_in(family, everywhere, false).dropped());
            transaction.add_rule(LEAVING, Rule::of(family).whose_source_is_in(family, helped).resets().dropped());
        }
        let elements: Vec<Element> = self.needed().into_iter().collect();
        fill(&mut transaction, &elements, Transaction::add_elements);
        transaction.commit()
    }
}

/// `lvsd clean`: takes away what a killed `lvsd` has left behind.
pub fn clean() -> ExitCode {
    let outcome = claim(USAGE).and_then(|_claim| {
        take_down().map_err(|cause| Denied::new(format!("take the nftables table {TABLE} away"), cause))
    });
    match outcome {
        Ok(true) => say::print(&format!("the nftables table {TABLE} is gone\n")),
        Ok(false) => say::print(&format!("there is no nftables table {TABLE}\n")),
        Err(denied) => {
            say::error(denied);
            ExitCode::FAILURE
        }
    }
}

/// Whether there was one.
fn take_down() -> io::Result<bool> {
    let mut transaction = Transaction::of(NAME);
    transaction.delete_table();
    match transaction.commit() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// What the host has to be silent about for a service. Nothing for one by firewall mark: `lvsd run` gives packets none.
fn elements(key: &ServiceKey, config: &ServiceConfig) -> Vec<Element> {
    let ServiceKey::Address { protocol, address, port } = *key else { return Vec::new() };
    let endpoint = match port {
        0 => Element::Everywhere(protocol, address),
        port => Element::Endpoint(protocol, address, port),
    };
    [Some(endpoint), config.helper.as_ref().map(|_| Element::Helped(address))].into_iter().flatten().collect()
}

/// Puts elements where they belong.
fn fill(transaction: &mut Transaction, elements: &[Element], how: fn(&mut Transaction, &str, &[Vec<u8>])) {
    let mut keys: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    for element in elements {
        let (set, key) = element.place();
        keys.entry(set).or_default().push(key);
    }
    keys.into_iter().for_each(|(set, keys)| how(transaction, set, &keys));
}

impl Element {
    /// The set it is in, and its key there.
    fn place(&self) -> (&'static str, Vec<u8>) {
        let octets = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let names = |address: &IpAddr| NAMES[usize::from(address.is_ipv6())];
        let protocol = |protocol: &Protocol| [protocol.number(), 0, 0, 0];
        match self {
            Self::Endpoint(of, address, port) => {
                let [high, low] = port.to_be_bytes();
                (names(address)[0], [&protocol(of)[..], &octets(address), &[high, low, 0, 0]].concat())
            }
            Self::Everywhere(of, address) => (names(address)[1], [&protocol(of)[..], &octets(address)].concat()),
            Self::Helped(address) => (names(address)[2], octets(address)),
        }
    }
}

/// The table's name, alone and with its family.
const NAME: &str = "lvs";
const TABLE: &str = "'inet lvs'";
const USAGE: &str = "keeping this host's stack quiet about services";
const ARRIVING: &str = "arriving";
const LEAVING: &str = "leaving";
/// The number of `lo`, in every network namespace.
const LOOPBACK: u32 = 1;
/// The sets' names for IPv4 and IPv6.
const NAMES: [[&str; 3]; 2] = [["endpoints4", "everywhere4", "helped4"], ["endpoints6", "everywhere6", "helped6"]];
/// nft(8)'s types `inet_proto`, `ipv4_addr`, `ipv6_addr` and `inet_service`: their numbers, by which it lists keys, and
/// lengths.
const PROTOCOL: (u32, u32) = (12, 1);
const IPV4: (u32, u32) = (7, 4);
const IPV6: (u32, u32) = (8, 16);
const PORT: (u32, u32) = (13, 2);
const SETS: [Set; 6] = [
    (NAMES[0][0], &[PROTOCOL, IPV4, PORT]),
    (NAMES[0][1], &[PROTOCOL, IPV4]),
    (NAMES[0][2], &[IPV4]),
    (NAMES[1][0], &[PROTOCOL, IPV6, PORT]),
    (NAMES[1][1], &[PROTOCOL, IPV6]),
    (NAMES[1][2], &[IPV6]),
];
