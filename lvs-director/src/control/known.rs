//! What steering and the host stand-in are told as services come and go: which addresses are virtual, servers', or FullNAT's
//! local ones. Counts who needs which, so that each is told once.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use lvs_core::{Command, Director, Instant, ServiceKey};
use lvs_io::{AddressChange, AddressRole};

type Known = (AddressRole, IpAddr);

/// Which addresses the workers know.
#[derive(Debug, Default)]
pub struct KnownAddresses {
    /// The host answers for virtual addresses itself.
    host_has_virtual: bool,
    /// How many need each.
    users: BTreeMap<Known, usize>,
    /// What each service needs, and how often: two servers may differ in their ports alone.
    of_services: BTreeMap<ServiceKey, BTreeMap<Known, usize>>,
    /// Nobody's any more, and since when. Their connections may still be open.
    former: BTreeMap<Known, Instant>,
    /// The same in order; some of it may be needed again, or have been given up again later.
    queue: VecDeque<(Instant, Known)>,
}

impl KnownAddresses {
    /// The workers know already what `master` has.
    pub fn new(master: &Director, host_has_virtual: bool) -> Self {
        let mut known = Self { host_has_virtual, ..Self::default() };
        let mut told = Vec::new();
        for service in master.services(Instant::ZERO) {
            known.gain_virtual(service.key, &mut told);
            for server in &service.servers {
                known.gain(service.key, (AddressRole::Server, server.config.key.address), &mut told);
            }
            for local in &service.local_addresses {
                known.gain(service.key, (AddressRole::Local, *local), &mut told);
            }
        }
        known
    }

    /// What the workers are to be told because of an accepted command: before it, and after it.
    pub fn follow(&mut self, now: Instant, command: &Command) -> [Vec<AddressChange>; 2] {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        match command {
            Command::AddService(key, _) => self.gain_virtual(*key, &mut before),
            Command::AddServer(key, server) => {
                self.gain(*key, (AddressRole::Server, server.key.address), &mut before);
            }
            Command::AddLocalAddress(key, address) => self.gain(*key, (AddressRole::Local, *address), &mut before),
            Command::DeleteServer(key, server) => {
                self.lose(now, key, (AddressRole::Server, server.address), 1, &mut after);
            }
            Command::DeleteLocalAddress(key, address) => {
                self.lose(now, key, (AddressRole::Local, *address), 1, &mut after);
            }
            Command::DeleteService(key) => self.lose_all(now, key, &mut after),
            Command::Flush => {
                let keys: Vec<ServiceKey> = self.of_services.keys().copied().collect();
                keys.iter().for_each(|key| self.lose_all(now, key, &mut after));
            }
            _ => {}
        }
        self.forget_former(now, &mut after);
        [before, after]
    }

    fn gain_virtual(&mut self, key: ServiceKey, told: &mut Vec<AddressChange>) {
        // Those by mark have servers and local addresses too.
        self.of_services.entry(key).or_default();
        if let (ServiceKey::Address { address, .. }, false) = (key, self.host_has_virtual) {
            self.gain(key, (AddressRole::Virtual, address), told);
        }
    }

    fn gain(&mut self, service: ServiceKey, known: Known, told: &mut Vec<AddressChange>) {
        *self.of_services.entry(service).or_default().entry(known).or_default() += 1;
        let users = self.users.entry(known).or_default();
        *users += 1;
        if *users == 1 && self.former.remove(&known).is_none() {
            told.push(change(known, true));
        }
    }

    fn lose_all(&mut self, now: Instant, service: &ServiceKey, told: &mut Vec<AddressChange>) {
        for (known, count) in self.of_services.remove(service).unwrap_or_default() {
            self.release(now, known, count, told);
        }
    }

    fn lose(&mut self, now: Instant, service: &ServiceKey, known: Known, count: usize, told: &mut Vec<AddressChange>) {
        let Some(of_service) = self.of_services.get_mut(service) else { return };
        let Some(held) = of_service.get_mut(&known) else { return };
        *held -= count;
        if *held == 0 {
            of_service.remove(&known);
        }
        self.release(now, known, count, told);
    }

    /// So many need it no more. Nobody answers for a virtual address then; the others are known for a while.
    fn release(&mut self, now: Instant, known: Known, count: usize, told: &mut Vec<AddressChange>) {
        let Some(users) = self.users.get_mut(&known) else { return };
        *users -= count;
        if *users > 0 {
            return;
        }
        self.users.remove(&known);
        if known.0 == AddressRole::Virtual {
            told.push(change(known, false));
        } else {
            self.former.insert(known, now);
            self.queue.push_back((now, known));
        }
    }

    /// Has the workers forget what nobody has needed for long, and the oldest of what is too much.
    fn forget_former(&mut self, now: Instant, told: &mut Vec<AddressChange>) {
        while let Some(&(since, known)) = self.queue.front() {
            if now.duration_since(since) < KEPT_FOR && self.queue.len() <= FORMER_MAX {
                break;
            }
            self.queue.pop_front();
            if self.former.get(&known) == Some(&since) {
                self.former.remove(&known);
                told.push(change(known, false));
            }
        }
    }
}

fn change((role, address): Known, is_there: bool) -> AddressChange {
    AddressChange { role, address, is_there }
}

/// How long replies of a deleted server, and replies to a deleted local address, are told from requests: as long as an
/// established TCP connection may be silent.
const KEPT_FOR: Duration = Duration::from_secs(900);

/// Most addresses known beyond their use.
const FORMER_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use lvs_core::{DirectorConfig, Seed};

    use super::*;

    /// What the workers are told about each of these rules, in order; `+` is told before the command.
    fn told(known: &mut KnownAddresses, seconds: u64, rules: &str) -> Vec<String> {
        let now = Instant::ZERO + Duration::from_secs(seconds);
        let commands = lvs_admin::parse_rules(rules).expect("rules");
        let changes = commands.iter().flat_map(|command| known.follow(now, command).concat());
        changes
            .map(|AddressChange { role, address, is_there }| {
                format!("{}{role:?} {address}", if is_there { '+' } else { '-' })
            })
            .collect()
    }

    fn nothing_yet() -> KnownAddresses {
        KnownAddresses::new(&Director::new(DirectorConfig::default(), Seed::new(1)), false)
    }

    #[test]
    fn each_address_is_told_with_its_first_user_and_its_last() {
        let mut known = nothing_yet();
        let rules = "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m\n\
            -a -t 192.0.2.80:80 -r 10.0.0.2:81 -m\n-A -u [2001:db8::80]:53 -s rr\n-A -u 192.0.2.80:53 -s rr\n";
        let expected = ["+Virtual 192.0.2.80", "+Server 10.0.0.2", "+Virtual 2001:db8::80"];
        assert_eq!(told(&mut known, 0, rules), expected);
        assert!(told(&mut known, 0, "-d -t 192.0.2.80:80 -r 10.0.0.2:80\n-D -u 192.0.2.80:53\n").is_empty());
        assert_eq!(told(&mut known, 0, "-D -t 192.0.2.80:80\n"), ["-Virtual 192.0.2.80"]);
        assert_eq!(told(&mut known, 0, "-C\n"), ["-Virtual 2001:db8::80"]);
    }

    #[test]
    fn servers_are_known_while_their_connections_may_be_open() {
        let mut known = nothing_yet();
        let service = "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m\n";
        told(&mut known, 0, service);
        told(&mut known, 10, "-C\n");
        // It comes back in time, and leaves again.
        assert_eq!(told(&mut known, 500, service), ["+Virtual 192.0.2.80"]);
        assert!(told(&mut known, 1000, "-d -t 192.0.2.80:80 -r 10.0.0.2:80\n").is_empty());
        assert!(told(&mut known, 1899, "-Z\n").is_empty());
        assert_eq!(told(&mut known, 1900, "-Z\n"), ["-Server 10.0.0.2"]);
    }
}
