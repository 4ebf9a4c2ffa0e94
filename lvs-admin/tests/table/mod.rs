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
                services.push(service(*key, config.clone()).with(|view| view.added = added));
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
    ServiceView::new(key, config)
}

pub fn server(config: ServerConfig) -> ServerView {
    let drain = config.drain.map(|drain| DrainView::new(drain.deadline, drain.then, 0));
    ServerView::new(config).with(|view| view.drain = drain)
}
