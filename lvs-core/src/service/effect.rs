//! Which option of a service does something with which forward method. What is accepted and does nothing is for whoever
//! takes the configuration in to warn about; `lvsd run` does.
//!
//! | option | protocol | Masq | Route | Tunnel | FullNat | Local |
//! |---|---|---|---|---|---|---|
//! | `--client-address toa` | TCP | – | – | – | yes | – |
//! | `--client-address toa` | UDP | – | – | – | – | – |
//! | `--client-address uoa` | TCP | – | – | – | – | – |
//! | `--client-address uoa` | UDP | – | – | – | yes | – |
//! | `--client-address proxy-v1` | TCP | – | – | – | yes | – |
//! | `--client-address proxy-v1` | UDP | – | – | – | – | – |
//! | `--client-address proxy-v2` | TCP | – | – | – | yes | – |
//! | `--client-address proxy-v2` | UDP | – | – | – | yes | – |
//! | `--client-address toa` | SCTP | – | – | – | – | – |
//! | `--client-address uoa` | SCTP | – | – | – | – | – |
//! | `--client-address proxy-v1` | SCTP | – | – | – | – | – |
//! | `--client-address proxy-v2` | SCTP | – | – | – | – | – |
//! | `--keep-sequence` | TCP | – | – | – | yes | – |
//! | `--keep-timestamps` | TCP | – | – | – | yes | – |
//! | `--keep-sequence` | UDP | – | – | – | – | – |
//! | `--keep-timestamps` | SCTP | – | – | – | – | – |
//! | `--helper ftp` | TCP | yes | – | – | yes | – |
//! | `--helper ftp` | UDP | – | – | – | – | – |
//! | `--helper ftp` | SCTP | – | – | – | – | – |
//! | `--mss-clamp 1400` | TCP | yes | yes | yes | yes | – |
//! | `--mss-clamp 1400` | UDP | – | – | – | – | – |
//! | `--check-window` | TCP | yes | yes | yes | yes | yes |
//! | `--check-window` | SCTP | yes | yes | yes | yes | yes |
//! | `--check-window` | UDP | – | – | – | – | – |
//! | `--ops` | UDP | yes | yes | yes | – | yes |
//! | `--tcp-timeout 60` | TCP | yes | yes | yes | yes | yes |
//! | `--tcp-timeout 60` | UDP | – | – | – | – | – |
//! | `--udp-timeout 60` | UDP | yes | yes | yes | yes | yes |
//! | `--udp-timeout 60` | TCP | – | – | – | – | – |
//!
//! Route and Tunnel leave clients and what they say to the servers, which need to be told nothing; FullNAT finds a reply's
//! client through its connection, so none lives for one packet only. `--mss-clamp` lowers what servers announce only
//! where their replies pass the director. A firewall-mark service is of every protocol. Local leaves packets alone; a NAT
//! server on the director's own host is still one of NAT.
//!
//! Every method and protocol has: the scheduler and its flags, persistence and its mask, `--slow-start`,
//! `--on-server-gone`, `--reuse-reschedules`, a server's weight, thresholds and MTU. Refused with a reason, whatever the
//! method: what `ipvsadm` refuses (`-o` without `-u`, `--pe` without persistence), an unknown helper, a segment size of 0,
//! a GUE tunnel without a port, a server of another family than its service except by tunnels and, from IPv6 to IPv4,
//! FullNAT. `--tun-type` and what goes with it is a tunnel's alone, and ports of Route and Tunnel servers become the
//! service's, as in IPVS.

use alloc::vec::Vec;

use crate::flow::Protocol;
use crate::service::{ClientAddress, ForwardMethod, FullNatOptions, ServiceConfig, ServiceKey};

/// The options of a service that do nothing for its servers of this method, as `ipvsadm` writes them, without their
/// values.
///
/// ```
/// use lvs_core::service::effect::without_effect;
/// use lvs_core::{ForwardMethod, Protocol, ServiceConfig, ServiceKey};
/// let key = ServiceKey::address(Protocol::Tcp, "192.0.2.21:21".parse().unwrap());
/// let config = ServiceConfig::new("rr").helper("ftp");
/// assert!(without_effect(&key, &config, ForwardMethod::FullNat).is_empty());
/// assert_eq!(without_effect(&key, &config, ForwardMethod::Tunnel), ["--helper"]);
/// ```
pub fn without_effect(key: &ServiceKey, config: &ServiceConfig, method: ForwardMethod) -> Vec<&'static str> {
    let is = |protocol: Protocol| match key {
        ServiceKey::Address { protocol: own, .. } => *own == protocol,
        ServiceKey::FwMark { .. } => true,
    };
    let is_only_udp = matches!(key, ServiceKey::Address { protocol: Protocol::Udp, .. });
    let (is_tcp, is_udp) = (is(Protocol::Tcp), is(Protocol::Udp));
    let is_full_nat = method == ForwardMethod::FullNat;
    let tells_client = match config.full_nat.client_address {
        ClientAddress::None => true,
        ClientAddress::Toa | ClientAddress::ProxyV1 => is_full_nat && is_tcp,
        ClientAddress::Uoa => is_full_nat && is_udp,
        ClientAddress::ProxyV2 => is_full_nat && (is_tcp || is_udp),
    };
    let default = FullNatOptions::default();
    let is_translated = matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat);
    let timeouts = config.timeouts.unwrap_or_default();
    let options = [
        ("--client-address", !tells_client),
        ("--keep-sequence", config.full_nat.rewrite_sequence != default.rewrite_sequence && !(is_full_nat && is_tcp)),
        (
            "--keep-timestamps",
            config.full_nat.remove_timestamps != default.remove_timestamps && !(is_full_nat && is_tcp),
        ),
        ("--helper", config.helper.is_some() && !(is_translated && is_tcp)),
        ("--mss-clamp", config.mss_clamp.is_some() && (!is_tcp || method == ForwardMethod::Local)),
        ("--check-window", config.check_window && is_only_udp),
        ("--ops", config.one_packet && (is_full_nat || !is_udp)),
        ("--tcp-timeout", timeouts.tcp.is_some() && !is_tcp),
        ("--tcpfin-timeout", timeouts.tcp_fin.is_some() && !is_tcp),
        ("--udp-timeout", timeouts.udp.is_some() && !is_udp),
    ];
    options.into_iter().filter_map(|(option, is_idle)| is_idle.then_some(option)).collect()
}
