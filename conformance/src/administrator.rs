//! Who types at the recorded director: ipvsadm command lines, sysctls, files below /proc. Joins `lvs-admin` to a
//! director; the texts themselves are made there.

use std::fmt::Display;
use std::time::Duration;

use lvs_admin::{ListOptions, Listing, Names, Request, SaveOptions, split_words};
use lvs_core::{Director, Instant, Settings};

/// What a command printed and how it ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Printed {
    /// Exit status.
    pub status: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `ipvsadm` with a command line's arguments.
pub fn ipvsadm(director: &mut Director, now: Instant, arguments: &str, stdin: &str) -> Printed {
    match lvs_admin::parse(&split_words(arguments)) {
        Ok(Request::Restore) => restore(director, now, stdin),
        Ok(request) => perform(director, now, request),
        Err(error) => Printed::refused(error.exit_status.into(), error),
    }
}

/// The connection table as `/proc/net/ip_vs_conn` shows it.
pub fn connections(director: &Director, now: Instant) -> String {
    lvs_admin::proc::ip_vs_conn(&director.connections(now).collect::<Vec<_>>())
}

/// A file below `/proc`; `None` for those nobody can answer.
pub fn read(director: &Director, now: Instant, path: &str) -> Option<String> {
    if let Some(name) = path.strip_prefix("/proc/sys/net/ipv4/vs/") {
        return sysctl(director.settings(), name).map(|value| format!("{value}\n"));
    }
    match path {
        "/proc/net/ip_vs" => Some(lvs_admin::proc::ip_vs(&director.services(now))),
        "/proc/net/ip_vs_conn" => Some(connections(director, now)),
        "/proc/net/ip_vs_stats" => Some(lvs_admin::proc::ip_vs_stats(&director.statistics())),
        "/proc/net/ip_vs_stats_percpu" => {
            let totals = director.statistics();
            Some(lvs_admin::proc::ip_vs_stats_percpu(&[totals.published], &totals))
        }
        _ => None,
    }
}

impl Printed {
    fn text(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    fn refused(status: i64, error: impl Display) -> Self {
        Self { status, stdout: String::new(), stderr: format!("{error}\n") }
    }
}

/// `ipvsadm -R`: goes on when a rule is refused, stops at a line that is no rule.
fn restore(director: &mut Director, now: Instant, rules: &str) -> Printed {
    let mut printed = Printed::default();
    for request in lvs_admin::restore(rules, &Names::none()) {
        match request {
            Ok(request) => {
                let line = perform(director, now, request);
                printed.status = printed.status.max(line.status);
                printed.stdout += &line.stdout;
                printed.stderr += &line.stderr;
            }
            Err(error) => {
                let line = Printed::refused(error.error.exit_status.into(), error.error);
                printed.status = line.status;
                printed.stderr += &line.stderr;
                break;
            }
        }
    }
    printed
}

fn perform(director: &mut Director, now: Instant, request: Request) -> Printed {
    match request {
        Request::Apply(command) => match director.apply(now, &command) {
            Ok(()) => Printed::default(),
            Err(error) => Printed::refused(REFUSED, error),
        },
        Request::List(options) => list(director, now, &options),
        Request::Save { numeric } => {
            let options = SaveOptions { numeric, ..SaveOptions::default() };
            Printed::text(lvs_admin::save(&director.services(now), options, &Names::none()))
        }
        Request::Help => Printed::text(lvs_admin::usage()),
        Request::Version => Printed::text(lvs_admin::version()),
        Request::Restore | Request::StartDaemon(_) | Request::StopDaemon(_) => {
            Printed::refused(REFUSED, "there are no synchronisation daemons here")
        }
    }
}

fn list(director: &Director, now: Instant, options: &ListOptions) -> Printed {
    let names = Names::none();
    match options.listing {
        Listing::Services(_) => match lvs_admin::list(&director.services(now), options, &names) {
            Ok(text) => Printed::text(text),
            Err(error) => Printed::refused(NOT_LISTED, error),
        },
        Listing::Connections { .. } => {
            let connections: Vec<_> = director.connections(now).collect();
            Printed::text(lvs_admin::list_connections(&connections, options, &names))
        }
        Listing::Timeouts => Printed::text(lvs_admin::list_timeouts(&director.timeouts())),
        Listing::Daemons => Printed::text(lvs_admin::list_daemons(&[])),
    }
}

/// ipvsadm's exit status for what the kernel refuses.
const REFUSED: i64 = 255;
/// ipvsadm's exit status when the service to be listed does not exist.
const NOT_LISTED: i64 = 1;

/// Sets one sysctl of `net.ipv4.vs`. Names that have no meaning here (synchronisation, netfilter) are accepted.
pub fn set_sysctl(settings: &mut Settings, name: &str, value: &str) -> Result<(), String> {
    let number: u32 = value.trim().parse().unwrap_or(0);
    let flag = number != 0;
    let small = u8::try_from(number).map_err(|_| format!("sysctl {name} does not take {value}"));
    match name {
        "amemthresh" => settings.amemthresh = number,
        "am_droprate" => settings.am_droprate = number,
        "drop_entry" => settings.drop_entry = small?,
        "drop_packet" => settings.drop_packet = small?,
        "secure_tcp" => settings.secure_tcp = small?,
        "cache_bypass" => settings.cache_bypass = flag,
        "expire_nodest_conn" => settings.expire_nodest_conn = flag,
        "expire_quiescent_template" => settings.expire_quiescent_template = flag,
        "sloppy_tcp" => settings.sloppy_tcp = flag,
        "sloppy_sctp" => settings.sloppy_sctp = flag,
        "nat_icmp_send" => settings.nat_icmp_send = flag,
        "pmtu_disc" => settings.pmtu_disc = flag,
        "conn_reuse_mode" => settings.conn_reuse_mode = small?,
        "schedule_icmp" => settings.schedule_icmp = flag,
        "ignore_tunneled" => settings.ignore_tunneled = flag,
        "snat_reroute" => settings.snat_reroute = flag,
        "backup_only" => settings.backup_only = flag,
        "conntrack" => settings.conntrack = flag,
        "run_estimation" => settings.run_estimation = flag,
        "lblc_expiration" => settings.lblc_expiration = Duration::from_secs(number.into()),
        "lblcr_expiration" => settings.lblcr_expiration = Duration::from_secs(number.into()),
        _ => {}
    }
    Ok(())
}

/// One sysctl's value as /proc shows it.
fn sysctl(settings: &Settings, name: &str) -> Option<u64> {
    Some(match name {
        "amemthresh" => settings.amemthresh.into(),
        "am_droprate" => settings.am_droprate.into(),
        "drop_entry" => settings.drop_entry.into(),
        "drop_packet" => settings.drop_packet.into(),
        "secure_tcp" => settings.secure_tcp.into(),
        "cache_bypass" => settings.cache_bypass.into(),
        "expire_nodest_conn" => settings.expire_nodest_conn.into(),
        "expire_quiescent_template" => settings.expire_quiescent_template.into(),
        "sloppy_tcp" => settings.sloppy_tcp.into(),
        "sloppy_sctp" => settings.sloppy_sctp.into(),
        "nat_icmp_send" => settings.nat_icmp_send.into(),
        "pmtu_disc" => settings.pmtu_disc.into(),
        "conn_reuse_mode" => settings.conn_reuse_mode.into(),
        "schedule_icmp" => settings.schedule_icmp.into(),
        "ignore_tunneled" => settings.ignore_tunneled.into(),
        "snat_reroute" => settings.snat_reroute.into(),
        "backup_only" => settings.backup_only.into(),
        "conntrack" => settings.conntrack.into(),
        "run_estimation" => settings.run_estimation.into(),
        "lblc_expiration" => settings.lblc_expiration.as_secs(),
        "lblcr_expiration" => settings.lblcr_expiration.as_secs(),
        _ => return None,
    })
}
