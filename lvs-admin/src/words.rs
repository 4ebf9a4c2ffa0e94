//! How services, servers and durations are written where ipvsadm's options are not used: by `lvsadm`'s verbs, and in JSON.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::{AddressFamily, Endpoint, ForwardMethod, Protocol, ServiceKey};

/// A service: `tcp:192.0.2.80:80`, `udp:[2001:db8::1]:53`, `sctp:…`, `mark:5`, `mark:5/6`.
///
/// # Errors
/// A sentence that shows how it is written.
///
/// ```
/// use lvs_core::{Protocol, ServiceKey};
///
/// let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
/// assert_eq!(lvs_admin::words::service("tcp:192.0.2.80:80"), Ok(web));
/// assert!(lvs_admin::words::service("192.0.2.80:80").is_err());
/// ```
pub fn service(word: &str) -> Result<ServiceKey, String> {
    let (kind, rest) = word.split_once(':').ok_or_else(|| HOW.to_owned())?;
    let protocol = match kind {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "mark" => return mark(rest),
        _ => return Err(HOW.to_owned()),
    };
    let at: SocketAddr = rest.parse().map_err(|_| HOW.to_owned())?;
    Ok(ServiceKey::address(protocol, at))
}

/// The word that [`service`] reads as this service.
///
/// ```
/// for word in ["tcp:192.0.2.80:80", "sctp:[2001:db8::1]:53", "mark:5", "mark:5/6"] {
///     assert_eq!(lvs_admin::words::service_word(&lvs_admin::words::service(word).unwrap()), word);
/// }
/// ```
pub fn service_word(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            format!("{}:{}", protocol.to_string().to_lowercase(), SocketAddr::new(*address, *port))
        }
        ServiceKey::FwMark { family: AddressFamily::Ipv4, mark } => format!("mark:{mark}"),
        ServiceKey::FwMark { family: AddressFamily::Ipv6, mark } => format!("mark:{mark}/6"),
    }
}

fn mark(word: &str) -> Result<ServiceKey, String> {
    let (number, family) = match word.strip_suffix("/6") {
        Some(number) => (number, AddressFamily::Ipv6),
        None => (word, AddressFamily::Ipv4),
    };
    let mark = number.parse().ok().filter(|mark| *mark != 0).ok_or("a mark is a number from 1 to 4294967295")?;
    Ok(ServiceKey::FwMark { family, mark })
}

/// A forwarding method in the words of ipvsadm's listings, small: `masq`, `route`, `tunnel`, `fullnat`, `local`, `bypass`.
///
/// ```
/// assert_eq!(lvs_admin::words::forward_word(lvs_core::ForwardMethod::DirectRouting), "route");
/// ```
pub fn forward_word(method: ForwardMethod) -> &'static str {
    match method {
        ForwardMethod::Nat => "masq",
        ForwardMethod::DirectRouting => "route",
        ForwardMethod::Tunnel => "tunnel",
        ForwardMethod::FullNat => "fullnat",
        ForwardMethod::Local => "local",
        ForwardMethod::Bypass => "bypass",
    }
}

/// A server: `10.0.0.2:8080`, `[fd00::2]:8080`.
///
/// # Errors
/// A sentence that shows how it is written.
pub fn server(word: &str) -> Result<Endpoint, String> {
    let at: SocketAddr = word.parse().map_err(|_| "write a server as ADDRESS:PORT, an IPv6 address in brackets")?;
    Ok(Endpoint::new(at.ip(), at.port()))
}

/// A duration: `500ms`, `30s`, `5m`, `1h`; a number alone is seconds.
///
/// # Errors
/// A sentence that shows how it is written.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(lvs_admin::words::duration("90"), Ok(Duration::from_secs(90)));
/// assert_eq!(lvs_admin::words::duration("5m"), Ok(Duration::from_secs(300)));
/// ```
pub fn duration(word: &str) -> Result<Duration, String> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let wrong = || "write a time as 500ms, 30s, 5m or 1h".to_owned();
    let number: u64 = word[..end].parse().map_err(|_| wrong())?;
    let milliseconds = match &word[end..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

const HOW: &str =
    "write a service as tcp:ADDRESS:PORT, udp:ADDRESS:PORT, sctp:ADDRESS:PORT, mark:NUMBER or mark:NUMBER/6";
