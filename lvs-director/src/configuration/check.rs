//! `lvsd check`: whether `lvsd run --config FILE` could begin with this file, its rules and its settings. Opens no device and
//! no socket, and writes nothing.

use std::path::Path;
use std::process::ExitCode;

use lvs_core::{Director, Instant, Seed};

use super::Configuration;
use crate::{capacity, control, rules, say, seed, warnings};

/// Says on standard output what the file comes to, or on standard error what is wrong, with its line, and fails.
pub fn check(path: &Path) -> ExitCode {
    match checked(path) {
        Ok(comes_to) => say::print(&comes_to),
        Err(complaint) => {
            say::error(complaint);
            ExitCode::FAILURE
        }
    }
}

fn checked(path: &Path) -> Result<String, String> {
    let configuration = Configuration::of_file(path)?;
    configuration.check_addresses().map_err(|complaint| format!("{}: {complaint}", path.display()))?;
    configuration.check_state().map_err(|complaint| format!("{}: {complaint}", path.display()))?;
    let config = capacity::configured(capacity::memory(), configuration.workers, &configuration.settings)
        .map_err(|complaint| format!("{}: {complaint}", path.display()))?;
    if let Some(group) = &configuration.control_group {
        control::group_number(group).map_err(|complaint| format!("{}: {complaint}", path.display()))?;
    }
    if let Some(file) = &configuration.seed_file {
        seed::read(file).map_err(|denied| denied.to_string())?;
    }
    let (name, text) = rules::read(configuration.rules.as_deref())?;
    let places = config.with(|config| {
        config.connections_max = 1;
        config.templates_max = 1;
        config.fragments_max = 1;
    });
    let mut director = Director::new(places, Seed::new(0));
    rules::load(&mut director, &text).map_err(|error| format!("{name}, {error}"))?;
    warnings::about_rules(&director).iter().for_each(say::warning);
    let services = director.services(Instant::ZERO);
    let servers: usize = services.iter().map(|service| service.servers.len()).sum();
    let devices = match configuration.devices.names() {
        [] => "no device".to_owned(),
        names => names.join(" and "),
    };
    Ok(format!(
        "{}: right; {devices}, {} workers, {} services with {servers} servers\n",
        path.display(),
        configuration.workers,
        services.len(),
    ))
}
