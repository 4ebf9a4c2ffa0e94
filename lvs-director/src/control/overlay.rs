//! The last word about each thing that the control socket has set: what is left of a long record of commands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lvs_core::{Command, ServerConfig, ServerKey, ServiceConfig, ServiceKey};

use super::drains::Drain;
use super::journal::Line;

/// Whether something was added here, or is the rules' and was edited: without the rules there is nothing to edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Added,
    Edited,
}

/// What was said last of a server.
type SaidOfServer = (Said, ServerConfig);

/// Last words, on top of rules that are not known here.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Overlay {
    /// Nothing of the rules is left.
    is_flushed: bool,
    /// Services that were deleted, and may have been added again since: what the rules say of them is gone.
    deleted: BTreeSet<ServiceKey>,
    services: BTreeMap<ServiceKey, (Said, ServiceConfig)>,
    /// With their places in the order in which they were added, which schedulers see. `None`: deleted.
    servers: BTreeMap<(ServiceKey, ServerKey), (u64, Option<SaidOfServer>)>,
    drains: BTreeMap<(ServiceKey, ServerKey), Drain>,
    factors: BTreeMap<(ServiceKey, ServerKey), u32>,
    added: u64,
    /// `false`: deleted.
    local_addresses: BTreeMap<(ServiceKey, IpAddr), bool>,
    /// TCP, TCP after FIN, UDP.
    timeouts: [Option<Duration>; 3],
    settings: BTreeMap<String, String>,
}

impl Overlay {
    /// Takes note of what was carried out.
    pub fn note(&mut self, line: &Line) {
        match line {
            Line::Setting(name, value) => _ = self.settings.insert(name.clone(), value.clone()),
            Line::Drain(drain) => _ = self.drains.insert((drain.service, drain.server), *drain),
            Line::Command(command) => self.note_command(command),
        }
    }

    fn note_command(&mut self, command: &Command) {
        match command {
            Command::AddService(key, config) => _ = self.services.insert(*key, (Said::Added, config.clone())),
            Command::EditService(key, config) => {
                let said = self.services.get(key).map_or(Said::Edited, |(said, _)| *said);
                self.services.insert(*key, (said, config.clone()));
            }
            Command::DeleteService(key) => {
                self.forget(|other| other != key);
                self.deleted.insert(*key);
            }
            Command::Flush => {
                self.forget(|_| false);
                self.deleted.clear();
                self.is_flushed = true;
            }
            Command::AddServer(key, config) | Command::EditServer(key, config) => {
                self.added += 1;
                let new = if matches!(command, Command::AddServer(..)) { Said::Added } else { Said::Edited };
                let (place, said) = match self.servers.get(&(*key, config.key)) {
                    Some((place, Some((said, _)))) => (*place, *said),
                    _ => (self.added, new),
                };
                // What an edit says of a drain is a line of its own.
                self.drains.remove(&(*key, config.key));
                self.servers.insert((*key, config.key), (place, Some((said, config.clone()))));
            }
            Command::DeleteServer(key, server) => {
                self.drains.remove(&(*key, *server));
                self.factors.remove(&(*key, *server));
                self.servers.insert((*key, *server), (0, None));
            }
            Command::SetServerFactor { service, server, factor } => {
                self.factors.insert((*service, *server), *factor);
            }
            Command::AddLocalAddress(key, address) => _ = self.local_addresses.insert((*key, *address), true),
            Command::DeleteLocalAddress(key, address) => _ = self.local_addresses.insert((*key, *address), false),
            Command::SetTimeouts { tcp, tcp_fin, udp } => {
                // Each may say only some of the three.
                for (last, word) in self.timeouts.iter_mut().zip([tcp, tcp_fin, udp]) {
                    *last = word.or(*last);
                }
            }
            _ => {}
        }
    }

    fn forget(&mut self, keeps: impl Fn(&ServiceKey) -> bool) {
        self.services.retain(|key, _| keeps(key));
        self.servers.retain(|(key, _), _| keeps(key));
        self.drains.retain(|(key, _), _| keeps(key));
        self.factors.retain(|(key, _), _| keeps(key));
        self.local_addresses.retain(|(key, _), _| keeps(key));
    }

    /// Forgets what was said of the things that these commands are about. The rules had these services: where they were
    /// all deleted at once, each is from now on by itself.
    pub fn yield_to(&mut self, commands: &[Command], services: impl Iterator<Item = ServiceKey>) {
        if self.is_flushed && !commands.is_empty() {
            self.is_flushed = false;
            self.deleted.extend(services);
        }
        commands.iter().for_each(|command| self.forget_of(command));
    }

    fn forget_of(&mut self, command: &Command) {
        match command {
            Command::AddService(key, _) | Command::EditService(key, _) => {
                self.deleted.remove(key);
                self.services.remove(key);
            }
            Command::DeleteService(key) => {
                self.forget(|other| other != key);
                self.deleted.remove(key);
            }
            Command::AddServer(key, config) | Command::EditServer(key, config) => {
                self.forget_server(key, &config.key);
            }
            Command::DeleteServer(key, server) => self.forget_server(key, server),
            Command::AddLocalAddress(key, address) | Command::DeleteLocalAddress(key, address) => {
                self.local_addresses.remove(&(*key, *address));
            }
            Command::SetTimeouts { tcp, tcp_fin, udp } => {
                for (last, word) in self.timeouts.iter_mut().zip([tcp, tcp_fin, udp]) {
                    *last = last.filter(|_| word.is_none());
                }
            }
            Command::SetSettings(settings) => {
                self.settings.retain(|name, value| settings.get(name).as_ref() == Some(value));
            }
            _ => {}
        }
    }

    fn forget_server(&mut self, key: &ServiceKey, server: &ServerKey) {
        let place = (*key, *server);
        self.servers.remove(&place);
        self.drains.remove(&place);
        self.factors.remove(&place);
    }

    /// The drain that this server has.
    pub fn drain(&self, key: &ServiceKey, server: &ServerKey) -> Option<&Drain> {
        self.drains.get(&(*key, *server))
    }

    /// Commands that come to the same as all that were noted.
    pub fn lines(&self) -> Vec<Line> {
        let mut commands = Vec::new();
        if self.is_flushed {
            commands.push(Command::Flush);
        }
        commands.extend(self.deleted.iter().map(|key| Command::DeleteService(*key)));
        commands.extend(self.services.iter().map(|(key, (said, config))| match said {
            Said::Added => Command::AddService(*key, config.clone()),
            Said::Edited => Command::EditService(*key, config.clone()),
        }));
        commands.extend(self.local_addresses.iter().map(|((key, address), is_there)| match is_there {
            true => Command::AddLocalAddress(*key, *address),
            false => Command::DeleteLocalAddress(*key, *address),
        }));
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|(_, (place, _))| *place);
        commands.extend(servers.into_iter().map(|((key, server), (_, config))| match config {
            Some((Said::Added, config)) => Command::AddServer(*key, config.clone()),
            Some((Said::Edited, config)) => Command::EditServer(*key, config.clone()),
            None => Command::DeleteServer(*key, *server),
        }));
        let [tcp, tcp_fin, udp] = self.timeouts;
        if self.timeouts.iter().any(Option::is_some) {
            commands.push(Command::SetTimeouts { tcp, tcp_fin, udp });
        }
        let settings = self.settings.iter().map(|(name, value)| Line::Setting(name.clone(), value.clone()));
        let factors = self.factors.iter().map(|((service, server), factor)| {
            Line::Command(Command::SetServerFactor { service: *service, server: *server, factor: *factor })
        });
        let drains = self.drains.values().map(|drain| Line::Drain(*drain));
        commands.into_iter().map(Line::Command).chain(settings).chain(factors).chain(drains).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Overlay {
        let mut overlay = Overlay::default();
        for command in lvs_admin::parse_rules(text).unwrap() {
            overlay.note(&Line::Command(command));
        }
        overlay
    }

    fn check(noted: &str, left: &str) {
        let lines = after(noted).lines();
        let commands = lines.iter().filter_map(|line| match line {
            Line::Command(command) => lvs_admin::command_line(command),
            Line::Setting(..) | Line::Drain(_) => None,
        });
        assert_eq!(commands.collect::<Vec<_>>().join("\n"), left);
    }

    #[test]
    fn the_last_word_about_each_thing_is_left() {
        check(
            "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.9:80 -m -w 1\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1\n\
             -e -t 192.0.2.80:80 -r 10.0.0.9:80 -m -w 5\n-E -t 192.0.2.80:80 -s wrr\n--set 100 0 0\n--set 0 20 0",
            "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.9:80 -m -w 5\n\
             -a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1\n--set 100 20 0",
        );
    }

    #[test]
    fn what_was_only_edited_is_edited_still() {
        check(
            "-E -t 192.0.2.80:80 -s wrr\n-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 5\n-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 6",
            "-E -t 192.0.2.80:80 -s wrr\n-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 6",
        );
    }

    #[test]
    fn what_was_deleted_is_deleted_from_the_rules_too() {
        check(
            "-d -t 192.0.2.80:80 -r 10.0.0.2:80\n-D -u 192.0.2.80:53",
            "-D -u 192.0.2.80:53\n-d -t 192.0.2.80:80 -r 10.0.0.2:80",
        );
        check("-A -t 192.0.2.80:80 -s rr\n-C\n-A -t 192.0.2.81:80 -s rr", "-C\n-A -t 192.0.2.81:80 -s rr");
        check("-D -t 192.0.2.80:80\n-A -t 192.0.2.80:80 -s rr", "-D -t 192.0.2.80:80\n-A -t 192.0.2.80:80 -s rr");
    }
}
