//! What the options of one command line said, with ipvsadm's defaults for what they did not say.
//! Each value is read as its option comes by, so order counts where it does in ipvsadm:
//! `-r` takes its default port from a service before it, `-M` its form, `-6` needs `-f` before it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lvs_core::service::{DrainConfig, SchedulerFlags, TunnelChecksum, TunnelConfig};
use lvs_core::{AddressFamily, AfterDrain, Endpoint, ForwardMethod, Netmask, Protocol, ServiceConfig, ServiceKey};

use super::values;
use crate::options::{Found, Group, Groups, Meaning};
use crate::request::{SyncDaemon, SyncRole, UsageError};
use crate::{Names, additions};

pub(super) struct Given<'a> {
    names: &'a Names,
    pub(super) groups: Groups,
    pub(super) service: Option<ServiceKey>,
    scheduler: &'a str,
    scheduler_flags: &'a str,
    persistence_timeout_s: Option<u32>,
    netmask: Option<Netmask>,
    persistence_engine: &'a str,
    real_server: Option<Endpoint>,
    pub(super) forward: ForwardMethod,
    pub(super) weight: u32,
    pub(super) upper_threshold: u32,
    pub(super) lower_threshold: u32,
    pub(super) tunnel: TunnelConfig,
    pub(super) daemon: SyncDaemon,
    pub(super) mtu: Option<u16>,
    drain_s: Option<u32>,
    local_address: Option<IpAddr>,
    /// A service with the options of ours and nothing else.
    additions: ServiceConfig,
}

impl<'a> Given<'a> {
    pub(super) fn new(names: &'a Names) -> Self {
        Self {
            names,
            groups: Groups::default(),
            service: None,
            scheduler: DEFAULT_SCHEDULER,
            scheduler_flags: "",
            persistence_timeout_s: None,
            netmask: None,
            persistence_engine: "",
            real_server: None,
            forward: ForwardMethod::DirectRouting,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: TunnelConfig::default(),
            daemon: SyncDaemon {
                role: SyncRole::Master,
                interface: "eth0".to_owned(),
                sync_id: 0,
                max_len: None,
                group: IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81)),
                port: 8848,
                ttl: 1,
            },
            mtu: None,
            drain_s: None,
            local_address: None,
            additions: ServiceConfig::default(),
        }
    }

    /// Takes one option in.
    pub(super) fn take(&mut self, found: Found<'a>) -> Result<(), UsageError> {
        let value = found.value.unwrap_or_default();
        match found.meaning {
            Meaning::TcpService => self.take_service(Protocol::Tcp, value),
            Meaning::UdpService => self.take_service(Protocol::Udp, value),
            Meaning::SctpService => self.take_service(Protocol::Sctp, value),
            Meaning::FwMarkService => {
                self.mark(Group::Service)?;
                let mark = values::number(value, 1, u32::MAX.into())
                    .ok_or_else(|| UsageError::check(format!("invalid fwmark value `{value}' specified")))?;
                self.service = Some(ServiceKey::FwMark { family: AddressFamily::Ipv4, mark });
                Ok(())
            }
            Meaning::Ipv6 => match &mut self.service {
                Some(ServiceKey::FwMark { family, .. }) => {
                    *family = AddressFamily::Ipv6;
                    Ok(())
                }
                // ipvsadm prints an empty line after this one.
                _ => Err(UsageError::check("-6 used before -f\n")),
            },
            Meaning::Gatewaying => self.take_forward(ForwardMethod::DirectRouting),
            Meaning::Ipip => self.take_forward(ForwardMethod::Tunnel),
            Meaning::Masquerading => self.take_forward(ForwardMethod::Nat),
            Meaning::FullNat => self.take_forward(ForwardMethod::FullNat),
            Meaning::Sort => Ok(()),
            Meaning::Plain(group) => {
                self.mark(group)?;
                self.take_plain(group, found.value)
            }
            _ => Err(UsageError::check(format!("invalid option `{}'", found.word))),
        }
    }

    fn take_plain(&mut self, group: Group, value: Option<&'a str>) -> Result<(), UsageError> {
        let text = value.unwrap_or_default();
        let illegal = |what: &str| UsageError::check(format!("illegal {what} specified"));
        match group {
            Group::Scheduler if !text.is_empty() => self.scheduler = text,
            Group::SchedulerFlags => self.scheduler_flags = text,
            Group::Persistent => {
                self.persistence_timeout_s = Some(match value {
                    Some(value) => values::timeout(value, 1)?,
                    None => DEFAULT_PERSISTENCE_S,
                });
            }
            Group::Netmask => self.netmask = Some(self.read_netmask(text)?),
            Group::PersistenceEngine => self.persistence_engine = text,
            Group::RealServer => self.real_server = Some(self.read_real_server(text)?),
            Group::Weight => self.weight = values::signed(text).ok_or_else(|| illegal("weight"))?,
            Group::UpperThreshold => {
                self.upper_threshold = values::signed(text).ok_or_else(|| illegal("u_threshold"))?;
            }
            Group::LowerThreshold => {
                self.lower_threshold = values::signed(text).ok_or_else(|| illegal("l_threshold"))?;
            }
            Group::TunnelType => {
                self.tunnel.kind = values::tunnel_kind(text).ok_or_else(|| illegal("tunnel type"))?;
            }
            Group::TunnelPort => self.tunnel.port = values::port(text).ok_or_else(|| illegal("tunnel port"))?,
            Group::TunnelChecksum => self.tunnel.checksum = TunnelChecksum::Full,
            Group::TunnelRemoteChecksum => self.tunnel.checksum = TunnelChecksum::Remote,
            Group::SyncId => self.daemon.sync_id = values::number(text, 0, 255).ok_or_else(|| illegal("syncid"))?,
            Group::SyncMaxlen => {
                let len = values::number(text, 1, SYNC_LEN_MAX).ok_or_else(|| illegal("sync-maxlen"))?;
                self.daemon.max_len = Some(len);
            }
            Group::McastInterface => self.daemon.interface = values::truncated(text, INTERFACE_LEN_MAX).to_owned(),
            Group::McastAddress => self.daemon.group = values::multicast_group(text)?,
            Group::McastPort => self.daemon.port = values::port(text).ok_or_else(|| illegal("mcast-port"))?,
            Group::McastTtl => self.daemon.ttl = values::number(text, 1, 255).ok_or_else(|| illegal("mcast-ttl"))?,
            Group::LocalAddress => {
                self.local_address = Some(text.parse().map_err(|_| illegal("local address"))?);
            }
            Group::Mtu => {
                self.mtu = Some(values::number(text, 1, u16::MAX.into()).ok_or_else(|| illegal("mtu"))?);
            }
            Group::Drain => {
                // How long one may be is for the director to say.
                let seconds = values::number(text, 0, u32::MAX.into()).ok_or_else(|| illegal("drain"))?;
                self.drain_s = Some(seconds);
            }
            _ => additions::take(&mut self.additions, group, text)?,
        }
        Ok(())
    }

    fn take_service(&mut self, protocol: Protocol, value: &str) -> Result<(), UsageError> {
        self.mark(Group::Service)?;
        let (address, port) = values::endpoint(value, Some(protocol), self.names)
            .ok_or_else(|| UsageError::check("illegal virtual server address[:port] specified"))?;
        self.service = Some(ServiceKey::Address { protocol, address, port: port.unwrap_or(0) });
        Ok(())
    }

    fn take_forward(&mut self, forward: ForwardMethod) -> Result<(), UsageError> {
        self.mark(Group::Forward)?;
        self.forward = forward;
        Ok(())
    }

    fn read_real_server(&self, value: &str) -> Result<Endpoint, UsageError> {
        let (protocol, service_port) = match self.service {
            Some(ServiceKey::Address { protocol, port, .. }) => (Some(protocol), port),
            Some(ServiceKey::FwMark { .. }) => (Some(Protocol::Tcp), 0),
            // Nothing says yet whose port names count: only numbers do.
            None => (None, 0),
        };
        let (address, port) = values::endpoint(value, protocol, self.names)
            .ok_or_else(|| UsageError::check("illegal real server address[:port] specified"))?;
        Ok(Endpoint::new(address, port.unwrap_or(service_port)))
    }

    fn read_netmask(&self, value: &str) -> Result<Netmask, UsageError> {
        match self.service.map(|service| service.family()) {
            Some(AddressFamily::Ipv6) => values::number(value, 1, 128)
                .map(Netmask::V6)
                .ok_or_else(|| UsageError::check("illegal ipv6 netmask specified")),
            _ => values::ipv4(value)
                .map(Netmask::V4)
                .ok_or_else(|| UsageError::check("illegal virtual server persistent mask specified")),
        }
    }

    /// Counts an option; each may be given once.
    fn mark(&mut self, group: Group) -> Result<(), UsageError> {
        match self.groups.insert(group) {
            true => Ok(()),
            false => Err(UsageError::check(format!("multiple '{}' options specified", group.name()))),
        }
    }

    /// The service of a command that must have one.
    pub(super) fn demanded_service(&self) -> ServiceKey {
        self.service.expect("check::options has refused the command without a service")
    }

    /// The server of a command that must have one.
    pub(super) fn demanded_server(&self) -> Endpoint {
        self.real_server.expect("check::options has refused the command without a server")
    }

    /// How the server is to be taken out of service, if it is.
    pub(super) fn drain(&self) -> Option<DrainConfig> {
        let then = if self.groups.has(Group::DrainReset) { AfterDrain::Reset } else { AfterDrain::Silence };
        self.drain_s.map(|seconds| DrainConfig { deadline: Duration::from_secs(seconds.into()), then })
    }

    /// The local address of a command that must have one.
    pub(super) fn demanded_local_address(&self) -> IpAddr {
        self.local_address.expect("check::options has refused the command without a local address")
    }

    /// Read last of all, because a flag's name must go with the scheduler, whichever comes first.
    pub(super) fn scheduler_flags(&self) -> Result<SchedulerFlags, UsageError> {
        values::scheduler_flags(self.scheduler_flags, self.scheduler)
    }

    /// The service, without its scheduler flags.
    pub(super) fn service_config(&self) -> ServiceConfig {
        let mut config = self.additions.clone();
        config.scheduler = self.scheduler.to_owned();
        config.persistence_timeout_s = self.persistence_timeout_s;
        // A mask of all ones is no mask, so that equal services compare equal.
        config.netmask = self
            .netmask
            .filter(|&mask| mask != Netmask::host(AddressFamily::Ipv4) && mask != Netmask::host(AddressFamily::Ipv6));
        config.one_packet = self.groups.has(Group::OnePacket);
        config.persistence_engine = (!self.persistence_engine.is_empty()).then(|| self.persistence_engine.to_owned());
        config
    }
}

/// ipvsadm: `-s`.
const DEFAULT_SCHEDULER: &str = "wlc";
/// ipvsadm 1.31: `-p` without a value; its manual says 300.
const DEFAULT_PERSISTENCE_S: u32 = 360;
/// A UDP datagram less the IPv4 and UDP headers.
const SYNC_LEN_MAX: u64 = 65_535 - 20 - 8;
/// Linux: `IFNAMSIZ` less the terminating zero.
const INTERFACE_LEN_MAX: usize = 15;
