//! Whether a request may be answered at all, and what it may ask for: decided by its door, its token, and by the headers with
//! which browsers say where a request comes from. A page of another site reaches a loopback address too, by its own name
//! for it (DNS rebinding) or straight; neither is answered.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};

use super::answer::Complaint;
use super::token::Token;
use crate::control::Peer;

/// What whoever asks may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// Read what names no client.
    Read,
    /// Everything.
    Full,
}

/// Who has come in at a door.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    /// What the door alone lets them do.
    pub access: Access,
    /// Who they are in the record of what was changed.
    pub peer: Peer,
}

/// What the sender of these headers may do.
///
/// # Errors
/// It is not answered, and why.
pub(super) fn access(headers: &HeaderMap, visitor: &Visitor, token: Option<&Token>) -> Result<Access, Complaint> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_loopback(host) {
        return Err(Complaint::forbidden(
            "the Host header names another host than this one: ask for localhost, 127.0.0.1 or [::1]",
        ));
    }
    if let Some(origin) = headers.get(ORIGIN)
        && origin.as_bytes() != format!("http://{host}").as_bytes()
    {
        return Err(Complaint::forbidden("the Origin header names another site: lvsd answers its own page alone"));
    }
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|sent| sent.as_bytes() == value.as_bytes());
    if is("sec-fetch-site", "cross-site") && !is("sec-fetch-mode", "navigate") {
        return Err(Complaint::forbidden("another site's page asks: lvsd answers its own page alone"));
    }
    match (headers.get(AUTHORIZATION), token) {
        (None, _) => Ok(visitor.access),
        (Some(sent), Some(token)) if token.is_sent_by(sent.as_bytes()) => Ok(Access::Full),
        // Whoever may do everything by the door needs no token, right or wrong.
        _ if visitor.access == Access::Full => Ok(Access::Full),
        (Some(_), Some(_)) => Err(Complaint::unauthorized("this is not the token")),
        (Some(_), None) => Err(Complaint::unauthorized("lvsd was started without a token (--http-token FILE)")),
    }
}

/// Whether a `Host` header (RFC 9110 §7.2), with or without a port, names the host itself.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest),
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port_is_right = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let is_address = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    port_is_right && (is_address || name.eq_ignore_ascii_case("localhost"))
}

/// The media type without its parameters.
pub(super) fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_answered() {
        for host in ["localhost", "LOCALHOST:980", "127.0.0.1", "127.0.0.1:80", "127.9.8.7:1", "[::1]", "[::1]:980"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "127.0.0.1:80:80",
            "127.0.0.1:",
            "::1",
            "192.0.2.1",
            "[::2]",
            "[::1",
            "[::1]x",
            "[localhost",
            "0.0.0.0",
            "localhost:99999",
            "127.1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_a_foreign_site_sends_is_refused_whatever_the_door() {
        let visitor = Visitor { access: Access::Full, peer: Peer::Process { uid: 0, pid: 1 } };
        let asked = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(*name, value.parse().unwrap());
            }
            access(&headers, &visitor, None).map_err(|complaint| complaint.status.as_u16())
        };
        let host = ("host", "localhost:980");
        assert_eq!(asked(&[host]), Ok(Access::Full));
        assert_eq!(asked(&[host, ("origin", "http://localhost:980")]), Ok(Access::Full));
        for origin in
            ["http://localhost", "http://localhost:981", "https://localhost:980", "null", "http://evil.example"]
        {
            assert_eq!(asked(&[host, ("origin", origin)]), Err(403), "{origin}");
        }
        assert_eq!(asked(&[("host", "evil.example"), ("origin", "http://evil.example")]), Err(403));
        assert_eq!(asked(&[]), Err(403));
        let site = ("sec-fetch-site", "cross-site");
        assert_eq!(asked(&[host, site, ("sec-fetch-mode", "no-cors")]), Err(403));
        assert_eq!(asked(&[host, site, ("sec-fetch-mode", "navigate")]), Ok(Access::Full), "a link to it");
    }
}
