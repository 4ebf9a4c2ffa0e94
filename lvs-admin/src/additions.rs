//! Services' options for what IPVS never had, there and back: what each word sets, and how it is saved.
//! Which commands take them is for `parse/check`, how they are told apart for `options`.

use core::fmt::Write;
use core::time::Duration;

use lvs_core::service::{ClientAddress, OnReplyConflict, SlowStart};
use lvs_core::{OnServerGone, ServiceConfig};

use crate::options::Group;
use crate::parse::values::number;
use crate::request::UsageError;

/// Takes one option in; those that are not of ours, or not about services, change nothing.
pub(crate) fn take(config: &mut ServiceConfig, group: Group, text: &str) -> Result<(), UsageError> {
    let illegal = |what: &str| UsageError::check(format!("illegal {what} specified"));
    match group {
        Group::ClientAddress => {
            config.full_nat.client_address = named(&CLIENT_ADDRESSES, text).ok_or_else(|| illegal("client address"))?;
        }
        Group::KeepSequence => config.full_nat.rewrite_sequence = false,
        Group::KeepTimestamps => config.full_nat.remove_timestamps = false,
        Group::MssClamp => {
            let most = number(text, 1, u16::MAX.into()).ok_or_else(|| illegal("mss-clamp"))?;
            config.mss_clamp = Some(most);
        }
        Group::Helper => config.helper = (!text.is_empty()).then(|| text.to_owned()),
        Group::TcpTimeout => config.timeouts.get_or_insert_default().tcp = Some(timeout(text)?),
        Group::TcpFinTimeout => config.timeouts.get_or_insert_default().tcp_fin = Some(timeout(text)?),
        Group::UdpTimeout => config.timeouts.get_or_insert_default().udp = Some(timeout(text)?),
        Group::SlowStart => config.slow_start = Some(slow_start(text).ok_or_else(|| illegal("slow-start"))?),
        Group::OnServerGone => {
            config.on_server_gone = named(&SERVER_GONE, text).ok_or_else(|| illegal("on-server-gone"))?;
        }
        Group::OnReplyConflict => {
            config.on_reply_conflict = named(&REPLY_CONFLICTS, text).ok_or_else(|| illegal("on-reply-conflict"))?;
        }
        Group::CheckWindow => config.check_window = true,
        Group::ReuseReschedules => config.reuse_reschedules = true,
        _ => {}
    }
    Ok(())
}

/// The options that make these settings, each with a blank before it; defaults are not written.
pub(crate) fn write(text: &mut String, config: &ServiceConfig) {
    let full_nat = config.full_nat;
    if let Some(name) = name_of(&CLIENT_ADDRESSES, full_nat.client_address) {
        let _ = write!(text, " --client-address {name}");
    }
    if !full_nat.rewrite_sequence {
        text.push_str(" --keep-sequence");
    }
    if !full_nat.remove_timestamps {
        text.push_str(" --keep-timestamps");
    }
    if let Some(most) = config.mss_clamp {
        let _ = write!(text, " --mss-clamp {most}");
    }
    if let Some(name) = &config.helper {
        let _ = write!(text, " --helper {name}");
    }
    let timeouts = config.timeouts.unwrap_or_default();
    for (option, timeout) in
        [("tcp-timeout", timeouts.tcp), ("tcpfin-timeout", timeouts.tcp_fin), ("udp-timeout", timeouts.udp)]
    {
        if let Some(timeout) = timeout {
            let _ = write!(text, " --{option} {}", in_seconds(timeout));
        }
    }
    if let Some(SlowStart { window, min_share, aggression }) = config.slow_start.filter(|it| !it.window.is_zero()) {
        let _ = write!(text, " --slow-start {},{},{aggression}", in_seconds(window), min_share.min(WHOLE));
    }
    if let Some(name) = name_of(&SERVER_GONE, config.on_server_gone) {
        let _ = write!(text, " --on-server-gone {name}");
    }
    if config.reuse_reschedules {
        text.push_str(" --reuse-reschedules");
    }
    if let Some(name) = name_of(&REPLY_CONFLICTS, config.on_reply_conflict) {
        let _ = write!(text, " --on-reply-conflict {name}");
    }
    if config.check_window {
        text.push_str(" --check-window");
    }
}

/// `SECONDS[,SHARE[,AGGRESSION]]`, the last two in 1/1024ths.
fn slow_start(text: &str) -> Option<SlowStart> {
    let mut parts = text.split(',');
    let window = seconds(parts.next()?)?;
    let mut share = |otherwise, most| parts.next().map_or(Some(otherwise), |part| number(part, 0, most));
    let (min_share, aggression) = (share(MIN_SHARE, WHOLE.into())?, share(AGGRESSION, u16::MAX.into())?);
    parts.next().is_none().then_some(SlowStart { window, min_share, aggression })
}

fn timeout(text: &str) -> Result<Duration, UsageError> {
    // How long one may be is for the director to say.
    seconds(text).ok_or_else(|| UsageError::check(format!("invalid timeout value `{text}' specified")))
}

/// Seconds above zero, with up to nine decimals: a director counts in nanoseconds, and no setting is lost by saving it.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.len() > 9 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{decimals:0<9}").parse().ok()?;
    let duration = Duration::new(number(whole, 0, u64::MAX)?, nanoseconds);
    (!duration.is_zero()).then_some(duration)
}

/// As [`seconds`] reads it.
fn in_seconds(duration: Duration) -> String {
    let (whole, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    match nanoseconds {
        0 => whole.to_string(),
        _ => format!("{whole}.{nanoseconds:09}").trim_end_matches('0').to_owned(),
    }
}

fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    names.iter().find(|(name, _)| *name == text).map(|&(_, value)| value)
}

/// The name of a value that is not the default.
fn name_of<T: PartialEq + Default>(names: &[(&'static str, T)], value: T) -> Option<&'static str> {
    names.iter().find(|(_, named)| *named == value && value != T::default()).map(|&(name, _)| name)
}

/// `--client-address`.
const CLIENT_ADDRESSES: [(&str, ClientAddress); 5] = [
    ("none", ClientAddress::None),
    ("toa", ClientAddress::Toa),
    ("uoa", ClientAddress::Uoa),
    ("proxy-v1", ClientAddress::ProxyV1),
    ("proxy-v2", ClientAddress::ProxyV2),
];

/// `--on-server-gone`.
const SERVER_GONE: [(&str, OnServerGone); 5] = [
    ("default", OnServerGone::Default),
    ("reschedule", OnServerGone::Reschedule),
    ("reset", OnServerGone::Reset),
    ("icmp-unreachable", OnServerGone::IcmpUnreachable),
    ("drop", OnServerGone::Drop),
];

/// `--on-reply-conflict`.
const REPLY_CONFLICTS: [(&str, OnReplyConflict); 3] =
    [("allow", OnReplyConflict::Allow), ("another", OnReplyConflict::Another), ("refuse", OnReplyConflict::Refuse)];

/// The greatest share; beyond it a server starts with all of its weight too.
const WHOLE: u16 = 1024;
/// A tenth, as load balancers with slow start commonly begin.
const MIN_SHARE: u16 = 102;
/// A straight line.
const AGGRESSION: u16 = 1024;
