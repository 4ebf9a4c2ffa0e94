//! The requests of stock ipvsadm 1.31: which attributes it sends with each command.

use lvs_core::{Command, Netmask, ServiceKey};

use super::{netmask_of, no_name};
use crate::additions::{ServerAdditions, ServiceAdditions};
use crate::ipvs::{ServerMessage, ServiceFlags, ServiceMessage, TimeoutsMessage, command};

/// The attributes of a request of the IPVS family.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Request {
    /// One of [`command`].
    pub command: u8,
    /// Whether every object is asked for.
    pub is_dump: bool,
    /// The service.
    pub service: Option<ServiceMessage>,
    /// The server.
    pub server: Option<ServerMessage>,
    /// The synchronisation daemon.
    pub daemon: Option<crate::ipvs::DaemonMessage>,
    /// The timeouts.
    pub timeouts: TimeoutsMessage,
    /// Identifier, if the request may be sent again: it gets its first answer then.
    pub request_id: Option<[u8; 16]>,
}

impl Request {
    /// A request without attributes.
    pub fn new(command: u8) -> Self {
        Self { command, ..Self::default() }
    }

    /// A request for every object, without attributes.
    pub fn dump(command: u8) -> Self {
        Self { is_dump: true, ..Self::new(command) }
    }

    /// What ipvsadm sends for a command, with our additions where it sets any; `None` for a command that IPVS never
    /// had: those are the business of [`crate::lvs`].
    pub fn of_command(command: &Command) -> Option<Self> {
        let request = match command {
            Command::AddService(key, config) | Command::EditService(key, config) => Self {
                command: match command {
                    Command::AddService(..) => command::NEW_SERVICE,
                    _ => command::SET_SERVICE,
                },
                service: Some(ServiceMessage {
                    additions: marked(ServiceAdditions::of(config)),
                    ..ServiceMessage::of_config(key, config)
                }),
                ..Self::default()
            },
            Command::DeleteService(key) => Self::about(command::DEL_SERVICE, key),
            Command::Flush => Self::new(command::FLUSH),
            Command::AddServer(key, config) | Command::EditServer(key, config) => {
                let additions = ServerAdditions::of(config);
                let additions = ServerAdditions { is_marked: additions.is_given(), ..additions };
                Self {
                    server: Some(ServerMessage { additions, ..ServerMessage::of_config(config) }),
                    ..Self::about(
                        match command {
                            Command::AddServer(..) => command::NEW_SERVER,
                            _ => command::SET_SERVER,
                        },
                        key,
                    )
                }
            }
            Command::DeleteServer(key, server) => {
                Self { server: Some(ServerMessage::of_bare_key(server)), ..Self::about(command::DEL_SERVER, key) }
            }
            Command::Zero(None) => Self::new(command::ZERO),
            Command::Zero(Some(key)) => Self::about(command::ZERO, key),
            Command::SetTimeouts { tcp, tcp_fin, udp } => {
                let seconds = |timeout: &Option<core::time::Duration>| {
                    Some(timeout.map_or(0, |timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX)))
                };
                let timeouts = TimeoutsMessage { tcp: seconds(tcp), tcp_fin: seconds(tcp_fin), udp: seconds(udp) };
                Self { timeouts, ..Self::new(command::SET_CONFIG) }
            }
            _ => return None,
        };
        Some(request)
    }

    /// Asks for one service, as `ipvsadm -L` of one does.
    pub fn get_service(key: &ServiceKey) -> Self {
        let mut request = Self::about(command::GET_SERVICE, key);
        if let Some(service) = &mut request.service {
            // ipvsadm leaves the mask at zero here.
            service.netmask = Some([0; 4]);
        }
        request
    }

    /// Asks for the servers of a service.
    pub fn get_servers(key: &ServiceKey) -> Self {
        Self { service: Some(ServiceMessage::of_key(key)), ..Self::dump(command::GET_SERVER) }
    }

    /// A request about a service whose key matters alone: ipvsadm fills the rest with what it did not read.
    fn about(command: u8, key: &ServiceKey) -> Self {
        let service = ServiceMessage {
            scheduler: no_name(),
            flags: Some(ServiceFlags::all(0)),
            timeout_s: Some(0),
            netmask: Some(netmask_of(Netmask::host(key.family()))),
            ..ServiceMessage::of_key(key)
        };
        Self { service: Some(service), ..Self::new(command) }
    }
}

fn marked(additions: ServiceAdditions) -> ServiceAdditions {
    ServiceAdditions { is_marked: additions.is_given(), ..additions }
}
