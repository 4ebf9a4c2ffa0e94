//! Our asking end against recorded ipvsadm: for the same arguments the client makes the requests that ipvsadm made, and
//! what it reads of the recorded answers prints as ipvsadm printed it.

use lvs_admin::{ListOptions, Listing, Names, Request as Asked, SaveOptions, SyncDaemon, SyncRole};
use lvs_core::ServiceKey;
use lvs_core::view::{ServiceView, TimeoutsView};
use lvs_genl::client::{Client, Reply};
use lvs_genl::convert::Request;
use lvs_genl::ctrl;
use lvs_genl::ipvs::{DaemonMessage, command};
use lvs_genl::wire::{Header, Messages};

use super::Fault;
use super::recording::{Action, Exchange, Program, Recording, Step};
use crate::administrator::SERVICES;

/// Each run of ipvsadm for which our client asks, or prints, something else.
pub fn compare(recording: &Recording) -> Vec<Fault> {
    let names = Names::from_files(&format!("{SERVICES}{MORE_SERVICES}"), HOSTS);
    let faults = recording.steps.iter().enumerate().filter_map(|(index, step)| {
        let Action::Program(program) = &step.action else { return None };
        if !is_recorded(step, program) {
            return None;
        }
        let difference = difference(recording, step, program, &names)?;
        Some(Fault { step: index, what: step.what(), difference })
    });
    faults.collect()
}

fn difference(recording: &Recording, step: &Step, program: &Program, names: &Names) -> Option<String> {
    let mut client = Client::new(0);
    client.learn(&Reply::Family { name: lvs_genl::ipvs::NAME.to_owned(), id: recording.family });
    // The look-ups and the version come first, and without them nothing else does.
    let is_check = |exchange: &&Exchange| {
        let generic = Messages::new(&exchange.asked).next().map(|message| (message.header.kind, message.generic()));
        !matches!(generic, Some((kind, Some((generic, _))))
            if kind == ctrl::ID || generic.command == command::GET_INFO)
    };
    let recorded: Vec<_> = step.exchanges.iter().filter(is_check).collect();
    let expected = requests(program, names, &client, &recorded);
    if expected.len() != recorded.len() {
        return Some(format!("{} requests, not {}", expected.len(), recorded.len()));
    }
    for (expected, exchange) in expected.iter().zip(&recorded) {
        let Header { sequence, port, .. } = Messages::new(&exchange.asked).next()?.header;
        let mut ours = Client::new(port).sequence(sequence).request(expected);
        ours[4..6].copy_from_slice(&recording.family.to_ne_bytes());
        if ours != exchange.asked {
            return Some(format!("asked {ours:02x?}, not {:02x?}", exchange.asked));
        }
    }
    print_difference(&client, program, names, &recorded)
}

/// Whether a conversation was recorded in which IPVS took part and said its version.
fn is_recorded(step: &Step, program: &Program) -> bool {
    let answers = step.exchanges.iter().flat_map(|exchange| &exchange.answered);
    let found = answers.flat_map(|datagram| Messages::new(datagram)).any(|message| {
        message.header.kind == ctrl::ID && message.generic().is_some_and(|(generic, _)| generic.version == 2)
    });
    found && !program.is_ordinary_user
}

/// What we would ask.
fn requests(program: &Program, names: &Names, client: &Client, recorded: &[&Exchange]) -> Vec<Request> {
    let arguments: Vec<_> = program.arguments.iter().map(String::as_str).collect();
    match lvs_admin::parse_with_names(&arguments, names) {
        Ok(Asked::Restore) => {
            let mut expected = Vec::new();
            for request in lvs_admin::restore(&program.stdin, names) {
                match request {
                    Ok(request) => {
                        let rest = recorded.get(expected.len()..).unwrap_or_default();
                        expected.extend(of_one(&request, client, rest));
                    }
                    Err(_) => break,
                }
            }
            expected
        }
        Ok(request) => of_one(&request, client, recorded),
        Err(_) => Vec::new(),
    }
}

fn of_one(request: &Asked, client: &Client, recorded: &[&Exchange]) -> Vec<Request> {
    match request {
        Asked::Apply(command) => Request::of_command(command).into_iter().collect(),
        Asked::StartDaemon(daemon) => {
            vec![Request { daemon: Some(start(daemon)), ..Request::new(command::NEW_DAEMON) }]
        }
        Asked::StopDaemon(role) => vec![Request { daemon: Some(stop(*role)), ..Request::new(command::DEL_DAEMON) }],
        Asked::List(options) => listing(options, client, recorded),
        Asked::Save { .. } => every_service(client, recorded),
        Asked::Help | Asked::Version | Asked::Restore => Vec::new(),
    }
}

fn listing(options: &ListOptions, client: &Client, recorded: &[&Exchange]) -> Vec<Request> {
    match options.listing {
        Listing::Timeouts => vec![Request::new(command::GET_CONFIG)],
        Listing::Daemons => vec![Request::dump(command::GET_DAEMON)],
        Listing::Connections { .. } => Vec::new(),
        Listing::Services(_) => match options.service {
            None => every_service(client, recorded),
            Some(key) => {
                let found = recorded.first().map(|exchange| services(client, exchange)).unwrap_or_default();
                let mut requests = vec![Request::get_service(&key)];
                requests.extend(found.iter().map(|service| Request::get_servers(&service.key)));
                requests
            }
        },
    }
}

/// Every service, and then the servers of each in the order ipvsadm asked.
fn every_service(client: &Client, recorded: &[&Exchange]) -> Vec<Request> {
    let mut requests = vec![Request::dump(command::GET_SERVICE)];
    let found = recorded.first().map(|exchange| services(client, exchange)).unwrap_or_default();
    // Which service an exchange is about is read from what was asked: the order is ipvsadm's own sorting.
    let keys = recorded.iter().skip(1).filter_map(|exchange| asked_about(exchange));
    requests.extend(
        keys.filter(|key| found.iter().any(|service| service.key == *key)).map(|key| Request::get_servers(&key)),
    );
    requests
}

fn asked_about(exchange: &Exchange) -> Option<ServiceKey> {
    let (_, attributes) = Messages::new(&exchange.asked).next()?.generic()?;
    let body = lvs_genl::ipvs::Body::read(attributes).ok()?;
    lvs_genl::ipvs::ServiceMessage::read(body.service?).ok()?.key().ok()?
}

fn replies<'a>(client: &'a Client, exchange: &'a Exchange) -> impl Iterator<Item = Reply> + 'a {
    exchange.answered.iter().flat_map(|datagram| client.replies(datagram)).flatten()
}

fn services(client: &Client, exchange: &Exchange) -> Vec<ServiceView> {
    let only = |reply| match reply {
        Reply::Service(view) => Some(view),
        _ => None,
    };
    replies(client, exchange).filter_map(only).collect()
}

/// What a listing prints of the recorded answers, where that is not what ipvsadm printed.
fn print_difference(client: &Client, program: &Program, names: &Names, recorded: &[&Exchange]) -> Option<String> {
    let arguments: Vec<_> = program.arguments.iter().map(String::as_str).collect();
    let first = recorded.first()?;
    let printed = match lvs_admin::parse_with_names(&arguments, names).ok()? {
        Asked::List(options) => match options.listing {
            Listing::Services(_) => lvs_admin::list(&tables(client, recorded), &options, names).ok()?,
            Listing::Timeouts => lvs_admin::list_timeouts(&timeouts(client, first)?),
            Listing::Daemons => lvs_admin::list_daemons(&daemons(client, first)),
            Listing::Connections { .. } => return None,
        },
        Asked::Save { numeric } => {
            let options = SaveOptions { numeric, ..SaveOptions::default() };
            lvs_admin::save(&tables(client, recorded), options, names)
        }
        _ => return None,
    };
    let lines = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        if program.is_unordered {
            lines.sort();
        }
        lines
    };
    let (ours, theirs) = (lines(&printed), lines(&program.stdout));
    (ours != theirs).then(|| format!("printed\n{}\nnot\n{}", ours.join("\n"), theirs.join("\n")))
}

/// The services with their servers.
fn tables(client: &Client, recorded: &[&Exchange]) -> Vec<ServiceView> {
    let mut services = recorded.first().map(|exchange| services(client, exchange)).unwrap_or_default();
    for exchange in recorded.iter().skip(1) {
        let servers = replies(client, exchange).filter_map(|reply| match reply {
            Reply::Server(view) => Some(view),
            _ => None,
        });
        let key = asked_about(exchange);
        if let Some(service) = services.iter_mut().find(|service| Some(service.key) == key) {
            service.servers = servers.collect();
        }
    }
    services
}

fn timeouts(client: &Client, exchange: &Exchange) -> Option<TimeoutsView> {
    let seconds = |seconds: Option<u32>| std::time::Duration::from_secs(seconds.unwrap_or(0).into());
    replies(client, exchange).find_map(|reply| match reply {
        Reply::Timeouts(found) => {
            Some(TimeoutsView::new(seconds(found.tcp), seconds(found.tcp_fin), seconds(found.udp)))
        }
        _ => None,
    })
}

fn daemons(client: &Client, exchange: &Exchange) -> Vec<SyncDaemon> {
    let only = |reply| match reply {
        Reply::Daemon(found) => Some(SyncDaemon {
            role: if found.state == Some(1) { SyncRole::Master } else { SyncRole::Backup },
            group: found.any_group()?,
            interface: found.interface?,
            sync_id: found.sync_id? as u8,
            max_len: found.max_len,
            port: found.port?,
            ttl: found.ttl?,
        }),
        _ => None,
    };
    replies(client, exchange).filter_map(only).collect()
}

/// ipvsadm sends only what it was given; what is as the default was not.
fn start(daemon: &SyncDaemon) -> DaemonMessage {
    let SyncDaemon { role, interface, sync_id, max_len, group, port, ttl } = daemon.clone();
    DaemonMessage {
        interface: Some(interface),
        sync_id: Some(sync_id.into()),
        max_len,
        port: (port != 8848).then_some(port),
        ttl: (ttl != 1).then_some(ttl),
        group: match group {
            std::net::IpAddr::V4(group) if group.octets() != [224, 0, 0, 81] => Some(group),
            _ => None,
        },
        group6: match group {
            std::net::IpAddr::V6(group) => Some(group),
            std::net::IpAddr::V4(_) => None,
        },
        ..stop(role)
    }
}

fn stop(role: SyncRole) -> DaemonMessage {
    let state = match role {
        SyncRole::Master => 1,
        SyncRole::Backup => 2,
    };
    DaemonMessage { state: Some(state), interface: Some(String::new()), sync_id: Some(0), ..DaemonMessage::default() }
}

/// What the recording machine's `/etc/services` and `/etc/hosts` have besides, of what the recordings use.
const MORE_SERVICES: &str = "\nsmtp 25/tcp\nhttp-alt 8080/tcp\ntproxy 8081/tcp\nredis 6379/tcp\ndomain 53/udp\n";
const HOSTS: &str = "127.0.0.1 localhost\n198.51.100.80 vip.example\n10.1.0.77 web77.example\nfd01::77 web6.example\n";
