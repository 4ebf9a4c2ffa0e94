//! A table of services made from rules, standing in for a director: newest server first, no counters.

use lvs_admin::parse_rules;
use lvs_core::view::{DrainView, ServerView, ServiceView};
use lvs_core::{Command, ServerConfig, ServiceConfig, ServiceKey};

/// The table these rules make. Rules other than `-A`, `-a` and `--add-laddr` are not understood.
pub fn table(rules: &str) -> Vec<ServiceView> {
    from_commands(&parse_rules(rules).expect("valid rules"))
}

pub fn from_commands(commands: &[Command]) -> Vec<ServiceView> {
    let mut services = Vec::new();
    for command in commands {
        match command {
            Command::AddService(key, config) => {
                let added = services.len() as u64;
                services.push(ServiceView { added, ..service(*key, config.clone()) });
            }
            Command::AddServer(key, config) => {
                let service: &mut ServiceView = services.iter_mut().find(|service| service.key == *key).unwrap();
                service.servers.insert(0, server(config.clone()));
            }
            Command::AddLocalAddress(key, address) => {
                let service: &mut ServiceView = services.iter_mut().find(|service| service.key == *key).unwrap();
                service.local_addresses.push(*address);
            }
            other => panic!("not a rule of a table: {other:?}"),
        }
    }
    services
}

pub fn service(key: ServiceKey, config: ServiceConfig) -> ServiceView {
    ServiceView {
        key,
        added: 0,
        config,
        statistics: Default::default(),
        local_addresses: Vec::new(),
        servers: Vec::new(),
    }
}

pub fn server(config: ServerConfig) -> ServerView {
    ServerView {
        effective_weight: config.weight,
        drain: config.drain.map(|drain| DrainView { ends_in: drain.deadline, then: drain.then, open: 0 }),
        config,
        active_connections: 0,
        inactive_connections: 0,
        persistent_connections: 0,
        is_overloaded: false,
        statistics: Default::default(),
    }
}
