//! From an argument list to a [`Request`], in three steps, each of which ipvsadm 1.31 does in this order:
//! collect the options left to right (`given`), hold them against the command (`check`), build the request (here).
//! Which complaint comes first follows from that; the sentences and exit statuses are ipvsadm's.

mod check;
mod given;
pub(crate) mod values;

use core::time::Duration;

use lvs_core::service::TunnelKind;
use lvs_core::{AddressFamily, Command, ForwardMethod, ServerConfig, ServiceConfig, ServiceKey};

use crate::Names;
use crate::options::{Group, Meaning, Scanner};
use crate::request::{Columns, ListOptions, Listing, Request, SyncRole, UsageError};
use check::Action;
use given::Given;

/// Parses ipvsadm's arguments, the program's own name not among them. Addresses and ports must be numbers.
///
/// Refuses what ipvsadm refuses by itself, in its words ([`UsageError`]); what only the director can know
/// (whether a service exists, a scheduler's name) is left to [`lvs_core::Director::apply`].
///
/// ```
/// use lvs_admin::{Request, parse};
/// use lvs_core::Command;
///
/// let request = parse(&["-A", "-t", "192.0.2.80:80", "-s", "wrr"]).unwrap();
/// assert!(matches!(request, Request::Apply(Command::AddService(key, config)) if config.scheduler == "wrr"));
/// ```
pub fn parse(args: &[&str]) -> Result<Request, UsageError> {
    parse_with_names(args, &Names::none())
}

/// As [`parse`], and takes host and port names that `names` knows.
pub fn parse_with_names(args: &[&str], names: &Names) -> Result<Request, UsageError> {
    if args.is_empty() {
        return Ok(Request::List(ListOptions::default()));
    }
    let mut scanner = Scanner::new(args);
    let first = scanner.next().ok().flatten().ok_or_else(UsageError::no_command)?;
    let action = match first.meaning {
        Meaning::Help => return Ok(Request::Help),
        Meaning::Version => return Ok(Request::Version),
        meaning => Action::of(meaning).ok_or_else(UsageError::no_command)?,
    };
    let mut given = Given::new(names);
    if let Some(role) = first.value {
        given.daemon.role = sync_role(action, role)?;
    }
    while let Some(found) = scanner.next()? {
        given.take(found)?;
    }
    let timeouts = take_timeouts(action, &mut scanner.positional)?;
    if let Some(word) = scanner.positional.first() {
        return Err(UsageError::check(format!("unexpected argument {word}")));
    }
    let flags = given.scheduler_flags()?;
    check::options(action, given.groups)?;

    let mut service = given.service_config();
    service.scheduler_flags = flags;
    build(action, given, service, timeouts)
}

fn build(
    action: Action,
    given: Given<'_>,
    config: ServiceConfig,
    [tcp, tcp_fin, udp]: [Option<Duration>; 3],
) -> Result<Request, UsageError> {
    Ok(Request::Apply(match action {
        Action::Flush => Command::Flush,
        Action::SetTimeouts => Command::SetTimeouts { tcp, tcp_fin, udp },
        Action::Zero => Command::Zero(given.service),
        Action::AddService => {
            let key = checked_service(&given, &config)?;
            Command::AddService(key, config)
        }
        Action::EditService => {
            let key = checked_service(&given, &config)?;
            Command::EditService(key, config)
        }
        Action::DeleteService => Command::DeleteService(given.demanded_service()),
        Action::AddServer => {
            let (key, server) = checked_server(&given)?;
            Command::AddServer(key, server)
        }
        Action::EditServer => {
            let (key, server) = checked_server(&given)?;
            Command::EditServer(key, server)
        }
        Action::DeleteServer => Command::DeleteServer(given.demanded_service(), given.demanded_server()),
        Action::AddLocalAddress => Command::AddLocalAddress(given.demanded_service(), given.demanded_local_address()),
        Action::DeleteLocalAddress => {
            Command::DeleteLocalAddress(given.demanded_service(), given.demanded_local_address())
        }
        Action::Restore => return Ok(Request::Restore),
        Action::Save => return Ok(Request::Save { numeric: given.groups.has(Group::Numeric) }),
        Action::StartDaemon => return Ok(Request::StartDaemon(given.daemon)),
        Action::StopDaemon => return Ok(Request::StopDaemon(given.daemon.role)),
        Action::List => return Ok(Request::List(list_options(&given))),
    }))
}

/// What `-A` and `-E` demand of a service beyond well-formed options.
fn checked_service(given: &Given<'_>, config: &ServiceConfig) -> Result<ServiceKey, UsageError> {
    let key = given.demanded_service();
    if let ServiceKey::Address { protocol, port, .. } = key {
        if port == 0 && config.persistence_timeout_s.is_none() {
            return Err(UsageError::check("Zero port specified for non-persistent service"));
        }
        if config.one_packet && protocol != lvs_core::Protocol::Udp {
            return Err(UsageError::check("One-Packet Scheduling is only for UDP virtual services"));
        }
    }
    Ok(key)
}

/// What `-a` and `-e` demand of a server beyond well-formed options.
fn checked_server(given: &Given<'_>) -> Result<(ServiceKey, ServerConfig), UsageError> {
    let service = given.demanded_service();
    let mut key = given.demanded_server();
    // FullNAT is ours, and whether it can is for the director to say.
    let reaches_other_family = matches!(given.forward, ForwardMethod::Tunnel | ForwardMethod::FullNat);
    if AddressFamily::of(key.address) != service.family() && !reaches_other_family {
        return Err(UsageError::check("Different address family is allowed only for tunneling servers"));
    }
    check::drain(given.groups)?;
    check::tunnel(given.groups, given.forward, given.tunnel.kind)?;
    // Only address translation can change the port: ipvsadm silently takes the service's for the other methods.
    let is_translated = matches!(given.forward, ForwardMethod::Nat | ForwardMethod::FullNat);
    if let (ServiceKey::Address { port, .. }, false) = (service, is_translated) {
        key.port = port;
    }
    let mut config = ServerConfig::new((key.address, key.port).into(), given.forward).weight(given.weight);
    config.upper_threshold = given.upper_threshold;
    config.lower_threshold = given.lower_threshold;
    config.mtu = given.mtu;
    config.drain = given.drain();
    config.tunnel = given.tunnel;
    if config.tunnel.kind == TunnelKind::Ipip {
        config.tunnel = Default::default();
    }
    Ok((service, config))
}

fn list_options(given: &Given<'_>) -> ListOptions {
    let has = |group| given.groups.has(group);
    // Of several the first here wins, as in ipvsadm.
    let columns = if has(Group::Stats) {
        Columns::Statistics
    } else if has(Group::Rate) {
        Columns::Rates
    } else if has(Group::Thresholds) {
        Columns::Thresholds
    } else if has(Group::PersistentConn) {
        Columns::PersistentConnections
    } else if has(Group::TunnelInfo) {
        Columns::Tunnels
    } else {
        Columns::Load
    };
    let listing = if has(Group::Connection) {
        Listing::Connections { persistence_data: has(Group::PersistentConn) }
    } else if has(Group::Timeout) {
        Listing::Timeouts
    } else if has(Group::Daemon) {
        Listing::Daemons
    } else {
        Listing::Services(columns)
    };
    ListOptions {
        listing,
        service: given.service,
        numeric: has(Group::Numeric),
        exact: has(Group::Exact),
        unsorted: has(Group::NoSort),
    }
}

/// The three values of `--set`; 0 leaves one unchanged.
fn take_timeouts(action: Action, positional: &mut Vec<&str>) -> Result<[Option<Duration>; 3], UsageError> {
    let mut timeouts = [None; 3];
    if action == Action::SetTimeouts {
        if positional.len() < timeouts.len() {
            return Err(UsageError::check("--set option requires 3 timeout values"));
        }
        for (timeout, word) in timeouts.iter_mut().zip(positional.drain(..3)) {
            let seconds = values::timeout(word, 0)?;
            *timeout = (seconds != 0).then(|| Duration::from_secs(seconds.into()));
        }
    }
    Ok(timeouts)
}

fn sync_role(action: Action, word: &str) -> Result<SyncRole, UsageError> {
    match (word, action) {
        ("master", _) => Ok(SyncRole::Master),
        ("backup", _) => Ok(SyncRole::Backup),
        (_, Action::StopDaemon) => Err(UsageError::check("illegal start_daemon specified")),
        _ => Err(UsageError::check("illegal start-daemon parameter specified")),
    }
}
