//! The forms of single values: numbers, addresses with ports, masks, flags. They are C's (`strtol`, `inet_aton`),
//! because scripts written for ipvsadm may use what those accept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_core::Protocol;
use lvs_core::service::{SchedulerFlags, TunnelKind};

use crate::Names;
use crate::request::UsageError;

/// A decimal number between `min` and `max`, with leading blanks and a sign if need be (`strtol`).
pub(crate) fn number<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Option<T> {
    let text = text.trim_start_matches(C_BLANKS);
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    if (is_negative && value != 0) || value < min || value > max {
        return None;
    }
    T::try_from(value).ok()
}

/// A weight or threshold: 0 to 2³¹ − 1.
pub(super) fn signed(text: &str) -> Option<u32> {
    number(text, 0, i32::MAX as u64)
}

/// A port that must not be 0.
pub(super) fn port(text: &str) -> Option<u16> {
    number(text, 1, u16::MAX.into())
}

/// Seconds from `min` to 31 days.
pub(super) fn timeout(text: &str, min: u64) -> Result<u32, UsageError> {
    number(text, min, TIMEOUT_MAX_S)
        .ok_or_else(|| UsageError::check(format!("invalid timeout value `{text}' specified")))
}

/// `host[:port]`, `[v6]:port` or a bare IPv6 address; the port is `None` where there is none.
pub(super) fn endpoint(text: &str, protocol: Option<Protocol>, names: &Names) -> Option<(IpAddr, Option<u16>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        let port = rest.strip_prefix(':')?;
        return match host.parse::<Ipv6Addr>() {
            Ok(address) => Some((address.into(), Some(port_or_name(port, protocol, names)?))),
            // ipvsadm 1.31 loses the port of anything else in brackets. Of a name too, which may be one that was written
            // for an IPv6 address and has an IPv4 address besides: that would be another service, on every port.
            Err(_) => Some((ipv4(host)?.into(), None)),
        };
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some((address.into(), None));
    }
    match text.split_once(':') {
        // A plain number is a port without a host.
        None if number::<u64>(text, 0, u64::MAX).is_some() => None,
        None => Some((ipv4_or_name(text, names)?.into(), None)),
        Some((host, port)) => Some((ipv4_or_name(host, names)?.into(), Some(port_or_name(port, protocol, names)?))),
    }
}

fn ipv4_or_name(text: &str, names: &Names) -> Option<Ipv4Addr> {
    ipv4(text).or_else(|| names.host(text))
}

fn port_or_name(text: &str, protocol: Option<Protocol>, names: &Names) -> Option<u16> {
    number(text, 0, u16::MAX.into()).or_else(|| names.port(text, protocol?))
}

/// An IPv4 address or mask in any of the forms of `inet_aton`: one to four parts, the last filling what is left,
/// each decimal, octal (`0…`) or hexadecimal (`0x…`).
pub(super) fn ipv4(text: &str) -> Option<Ipv4Addr> {
    // inet_aton stops at the first blank.
    let text = text.split(C_BLANKS).next()?;
    let parts: Vec<u32> = text.split('.').map(c_integer).collect::<Option<_>>()?;
    let (&last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&part| part > 255) {
        return None;
    }
    let bits_left = 32 - 8 * leading.len() as u32;
    if u64::from(last) >> bits_left != 0 {
        return None;
    }
    let high = leading.iter().fold(0, |bits: u64, &part| bits << 8 | u64::from(part));
    u32::try_from(high << bits_left | u64::from(last)).ok().map(Ipv4Addr::from_bits)
}

fn c_integer(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // from_str_radix would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// ipvsadm: `--tun-type`.
pub(super) fn tunnel_kind(text: &str) -> Option<TunnelKind> {
    match text {
        "ipip" => Some(TunnelKind::Ipip),
        "gue" => Some(TunnelKind::Gue),
        "gre" => Some(TunnelKind::Gre),
        _ => None,
    }
}

/// ipvsadm: `--mcast-group`.
pub(super) fn multicast_group(text: &str) -> Result<IpAddr, UsageError> {
    let (group, family) = match text.contains(':') {
        true => (text.parse::<Ipv6Addr>().ok().map(IpAddr::V6), "IPv6"),
        false => (text.parse::<Ipv4Addr>().ok().map(IpAddr::V4), "IPv4"),
    };
    group
        .filter(IpAddr::is_multicast)
        .ok_or_else(|| UsageError::check(format!("invalid {family} mcast-group `{text}'")))
}

/// A comma-separated list of flags, empty entries ignored. Names with a scheduler in them go only with that one.
pub(super) fn scheduler_flags(text: &str, scheduler: &str) -> Result<SchedulerFlags, UsageError> {
    let mut flags = SchedulerFlags::default();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let (bit, wanted) = match name {
            "flag-1" => (SchedulerFlags::FALLBACK, None),
            "flag-2" => (SchedulerFlags::PORT, None),
            "flag-3" => (SchedulerFlags::FLAG_3, None),
            "sh-fallback" => (SchedulerFlags::FALLBACK, Some("sh")),
            "sh-port" => (SchedulerFlags::PORT, Some("sh")),
            "mh-fallback" => (SchedulerFlags::FALLBACK, Some("mh")),
            "mh-port" => (SchedulerFlags::PORT, Some("mh")),
            _ => return Err(UsageError::check(format!("invalid scheduler flag `{name}'"))),
        };
        if wanted.is_some_and(|wanted| wanted != scheduler) {
            return Err(UsageError::check(format!("incompatible scheduler flag `{name}'")));
        }
        flags.0 |= bit;
    }
    Ok(flags)
}

/// At most `len` bytes of `text`, cut between characters.
pub(super) fn truncated(text: &str, len: usize) -> &str {
    let mut end = text.len().min(len);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What C's `isspace` takes for a blank.
const C_BLANKS: [char; 6] = [' ', '\t', '\n', '\x0b', '\x0c', '\r'];
/// ipvsadm 1.31: 31 days.
const TIMEOUT_MAX_S: u64 = 31 * 24 * 3600;
