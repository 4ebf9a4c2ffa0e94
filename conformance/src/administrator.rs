//! Who types at the recorded director: ipvsadm command lines, sysctls, files below /proc. Joins `lvs-admin` to a
//! director; the texts themselves are made there.

use std::time::Duration;

use lvs_core::{Director, Instant, Settings};

/// What a command printed and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    let _ = (director, now, arguments, stdin);
    Printed { status: 0, stdout: String::new(), stderr: String::new() }
}

/// The connection table as `/proc/net/ip_vs_conn` shows it.
pub fn connections(director: &Director, now: Instant) -> String {
    let _ = (director, now);
    String::new()
}

/// A file below `/proc`; `None` for those nobody can answer.
pub fn read(director: &Director, now: Instant, path: &str) -> Option<String> {
    let _ = (director, now);
    let name = path.strip_prefix("/proc/sys/net/ipv4/vs/")?;
    sysctl(director.settings(), name).map(|value| format!("{value}\n"))
}

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
