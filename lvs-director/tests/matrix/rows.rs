//! The table: how a director is joined to the network, how it reaches its servers, over which families. Each row is one
//! namespace set-up with TCP and UDP through it; what is expected of a row is in `judge.rs`.

use lvs_core::service::{TunnelChecksum, TunnelConfig, TunnelKind};

/// Whose sockets or devices the director receives by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    AfPacket,
    Tun,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// How the director reaches the servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Nat,
    DirectRouting,
    Tunnel(TunnelConfig),
    /// With the client's address in a TCP option.
    FullNat,
}

impl Method {
    /// The servers have the virtual address and answer by themselves.
    pub fn is_answered_straight(self) -> bool {
        matches!(self, Self::DirectRouting | Self::Tunnel(_))
    }
}

/// Where everybody is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Everybody on one switch, the director with one device.
    OneSwitch,
    /// The client on a switch of its own, the director with a device on either.
    TwoSwitches,
}

/// Who makes real servers of the servers' hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetUp {
    Test,
    /// `lvsd realserver`, as an operator would.
    Lvsd,
}

/// Who the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Browser {
    Own,
    Curl,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub backend: Backend,
    pub method: Method,
    /// The client's family, and the virtual address's.
    pub clients: Family,
    /// The family of the way to the servers: of the tunnels, and of the servers' own addresses.
    pub servers: Family,
    pub layout: Layout,
    pub set_up: SetUp,
    pub browser: Browser,
}

impl Row {
    pub fn name(&self) -> String {
        let mut words = match self.backend {
            // The servers' ends of the tunnels.
            Backend::AfPacket if self.needs_tun() => vec!["afpacket", "and", "tun"],
            Backend::AfPacket => vec!["afpacket"],
            Backend::Tun => vec!["tun"],
        };
        words.extend(match self.method {
            Method::Nat => vec!["nat"],
            Method::DirectRouting => vec!["direct_routing"],
            Method::FullNat => vec!["full_nat"],
            Method::Tunnel(TunnelConfig { kind, checksum, .. }) => {
                let kind = match kind {
                    TunnelKind::Ipip => "ipip",
                    TunnelKind::Gre => "gre",
                    TunnelKind::Gue => "gue",
                };
                match checksum {
                    TunnelChecksum::None => vec![kind],
                    TunnelChecksum::Full => vec![kind, "with_checksum"],
                    TunnelChecksum::Remote => vec![kind, "with_remote_checksum"],
                }
            }
        });
        let word = |family| if family == Family::Ipv4 { "ipv4" } else { "ipv6" };
        words.push(word(self.clients));
        if let Method::Tunnel(_) = self.method {
            words.extend(["in", word(self.servers)]);
        } else if self.clients != self.servers {
            words.extend(["to", word(self.servers)]);
        }
        if self.layout == Layout::TwoSwitches {
            words.push("between_two_devices");
        }
        if self.set_up == SetUp::Lvsd {
            words.push("to_lvsd_realserver");
        }
        if self.browser == Browser::Curl {
            words.push("by_curl");
        }
        words.join("_")
    }

    /// Whether it opens a TUN device: the director's, or that of `lvsd realserver --tunnel`.
    pub fn needs_tun(&self) -> bool {
        self.backend == Backend::Tun || self.set_up == SetUp::Lvsd && matches!(self.method, Method::Tunnel(_))
    }

    /// Whether datagrams in fragments get through: they are not translated to the other family, and in a tunnel become
    /// too long.
    pub fn takes_fragments(&self) -> bool {
        self.clients == self.servers && !matches!(self.method, Method::Tunnel(_))
    }

    pub fn needs_ipv6(&self) -> bool {
        [self.clients, self.servers].contains(&Family::Ipv6)
    }
}

/// All of them; those of curl come last.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for backend in [Backend::AfPacket, Backend::Tun] {
        for (method, clients, servers) in ways() {
            let row = Row {
                backend,
                method,
                clients,
                servers,
                layout: Layout::OneSwitch,
                set_up: SetUp::Test,
                browser: Browser::Own,
            };
            rows.push(row);
            if method == Method::Nat {
                rows.push(Row { layout: Layout::TwoSwitches, ..row });
            }
            let is_plain = !matches!(method, Method::Tunnel(config) if config.checksum != TunnelChecksum::None);
            if method.is_answered_straight() && is_plain && clients == servers {
                rows.push(Row { set_up: SetUp::Lvsd, ..row });
            }
        }
    }
    let by_curl: Vec<Row> = rows.iter().map(|row| Row { browser: Browser::Curl, ..*row }).collect();
    rows.extend(by_curl);
    rows
}

/// Every method, every kind of tunnel, over every pair of families that it joins.
fn ways() -> Vec<(Method, Family, Family)> {
    use Family::{Ipv4, Ipv6};
    use TunnelChecksum::{Full, None, Remote};
    let mut ways = Vec::new();
    for method in [Method::Nat, Method::DirectRouting, Method::FullNat] {
        ways.extend([(method, Ipv4, Ipv4), (method, Ipv6, Ipv6)]);
    }
    // NAT64.
    ways.push((Method::FullNat, Ipv6, Ipv4));
    for (kind, checksums) in
        [(TunnelKind::Ipip, &[None][..]), (TunnelKind::Gre, &[None, Full]), (TunnelKind::Gue, &[None, Full, Remote])]
    {
        for checksum in checksums {
            let port = if kind == TunnelKind::Gue { GUE_PORT } else { 0 };
            let method = Method::Tunnel(TunnelConfig { kind, port, checksum: *checksum });
            ways.extend([Ipv4, Ipv6].into_iter().flat_map(|inner| [Ipv4, Ipv6].map(|outer| (method, inner, outer))));
        }
    }
    ways
}

pub const GUE_PORT: u16 = 6080;
