//! What leads from one configuration to another: the commands an administrator would have to give, and no more.
//!
//! What is the same in both appears in none of them, so its connections and counters go on. No command empties a whole
//! table, so what a director has beside `before` is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_core::view::{ServiceView, TimeoutsView};
use lvs_core::{Command, Director, Instant, ServerConfig, ServerKey, Settings};

/// What a director was told to do: its rules, timeouts and settings. What it has counted and whom it serves is no part of
/// it, nor are drains and load factors that commands of their own began.
#[derive(Clone, PartialEq, Debug)]
pub struct Configured {
    /// Services, with servers and local addresses.
    pub services: Vec<ServiceView>,
    /// The timeouts.
    pub timeouts: TimeoutsView,
    /// The settings.
    pub settings: Settings,
}

impl Configured {
    /// What this director was told.
    pub fn of(director: &Director) -> Self {
        Self {
            services: director.services(Instant::ZERO),
            timeouts: director.timeouts(),
            settings: director.settings().clone(),
        }
    }
}

/// The shortest list of commands that makes `after` of `before`, in an order in which each can be carried out: first what
/// goes, so that bounds are kept.
///
/// A service or server that is configured otherwise is edited, not deleted and added. In which order the servers of a service
/// were added may differ from `after` then: listings are sorted, and of the schedulers only those see it that take servers
/// in turn.
///
/// ```
/// use lvs_admin::{Configured, difference, parse_rules};
/// use lvs_core::{Director, DirectorConfig, Instant, Seed};
///
/// let director = |rules: &str| {
///     let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
///     parse_rules(rules).unwrap().iter().for_each(|command| director.apply(Instant::ZERO, command).unwrap());
///     Configured::of(&director)
/// };
/// let before = director("-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1\n");
/// let after = director("-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 3\n");
/// let commands: Vec<_> = difference(&before, &after).iter().filter_map(lvs_admin::command_line).collect();
/// assert_eq!(commands, ["-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 3"]);
/// assert!(difference(&after, &after).is_empty());
/// ```
pub fn difference(before: &Configured, after: &Configured) -> Vec<Command> {
    let was: BTreeMap<_, _> = before.services.iter().map(|service| (service.key, service)).collect();
    let is: BTreeMap<_, _> = after.services.iter().map(|service| (service.key, service)).collect();
    let mut commands: Vec<Command> =
        was.keys().filter(|key| !is.contains_key(key)).map(|key| Command::DeleteService(*key)).collect();
    let pairs = || is.iter().filter_map(|(key, service)| Some((*was.get(key)?, *service)));
    pairs().for_each(|(was, is)| go(was, is, &mut commands));
    pairs().for_each(|(was, is)| change(was, is, &mut commands));
    for (key, service) in is.iter().filter(|(key, _)| !was.contains_key(key)) {
        let nothing = ServiceView::new(*key, service.config.clone());
        commands.push(Command::AddService(*key, service.config.clone()));
        change(&nothing, service, &mut commands);
    }
    commands.extend(timeouts(&before.timeouts, &after.timeouts));
    if before.settings != after.settings {
        commands.push(Command::SetSettings(after.settings.clone()));
    }
    commands
}

/// What goes from a service that stays.
fn go(was: &ServiceView, is: &ServiceView, commands: &mut Vec<Command>) {
    let stay: BTreeSet<ServerKey> = is.servers.iter().map(|server| server.config.key).collect();
    // The oldest first, as they came.
    let gone = was.servers.iter().rev().map(|server| server.config.key).filter(|key| !stay.contains(key));
    commands.extend(gone.map(|server| Command::DeleteServer(was.key, server)));
    let kept = addresses_kept(&was.local_addresses, &is.local_addresses);
    let gone = was.local_addresses.iter().filter(|address| !is.local_addresses[..kept].contains(address));
    commands.extend(gone.map(|address| Command::DeleteLocalAddress(was.key, *address)));
}

/// What a service that stays is told otherwise, and what comes to it.
fn change(was: &ServiceView, is: &ServiceView, commands: &mut Vec<Command>) {
    if was.config != is.config {
        commands.push(Command::EditService(is.key, is.config.clone()));
    }
    let kept = addresses_kept(&was.local_addresses, &is.local_addresses);
    commands.extend(is.local_addresses[kept..].iter().map(|address| Command::AddLocalAddress(is.key, *address)));
    let known: BTreeMap<ServerKey, &ServerConfig> =
        was.servers.iter().map(|server| (server.config.key, &server.config)).collect();
    // The oldest first, so that a service that is new lists them as they were listed.
    commands.extend(is.servers.iter().rev().filter_map(|server| match known.get(&server.config.key) {
        None => Some(Command::AddServer(is.key, server.config.clone())),
        Some(config) if **config != server.config => Some(Command::EditServer(is.key, server.config.clone())),
        Some(_) => None,
    }));
}

/// How many of the addresses a service is to have can stay: the first ones, because what is added comes last.
fn addresses_kept(was: &[IpAddr], is: &[IpAddr]) -> usize {
    let mut rest = was.iter();
    is.iter().take_while(|address| rest.any(|other| other == *address)).count()
}

fn timeouts(was: &TimeoutsView, is: &TimeoutsView) -> Option<Command> {
    let changed = |was, is| Some(is).filter(|is| *is != was);
    let (tcp, tcp_fin) = (changed(was.tcp, is.tcp), changed(was.tcp_fin, is.tcp_fin));
    let udp = changed(was.udp, is.udp);
    [tcp, tcp_fin, udp].iter().any(Option::is_some).then_some(Command::SetTimeouts { tcp, tcp_fin, udp })
}
