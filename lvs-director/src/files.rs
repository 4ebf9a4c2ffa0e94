//! The files that configure a running `lvsd`, read together: the configuration, if there is one, and the rules.

use lvs_admin::Configured;
use lvs_core::{Director, DirectorConfig, Seed, Settings};

use crate::configuration::Configuration;
use crate::{args, capacity, rules};

/// What the files say, and the command line above them.
#[derive(Clone, Debug)]
pub struct Files {
    options: args::Run,
    /// File and command line put together.
    pub configuration: Configuration,
    /// How many workers there are: as many as were asked for at the start.
    pub workers: u16,
    /// What the rules are called in complaints.
    pub rules: String,
    /// The rules themselves.
    pub text: String,
    /// What a worker's director is made with, but for its sides.
    pub config: DirectorConfig,
    /// What a director has been told that has been told nothing else.
    pub configured: Configured,
}

impl Files {
    /// Reads the rules that `configuration` names, which comes of `options`. What follows from the number of workers is that
    /// of `workers`.
    ///
    /// # Errors
    /// A sentence with file and line: they cannot be read, or what is wrong in them.
    pub fn of(options: &args::Run, configuration: Configuration, workers: u16) -> Result<Self, String> {
        let config = capacity::configured(capacity::memory(), workers, &configuration.settings)?;
        let (rules, text) = rules::read(configuration.rules.as_deref())?;
        let mut director = Director::new(without_places(&config), Seed::new(0));
        rules::load(&mut director, &text).map_err(|error| format!("{rules}, {error}"))?;
        let configured = Configured::of(&director);
        Ok(Self { options: options.clone(), configuration, workers, rules, text, config, configured })
    }

    /// Reads configuration and rules again.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn again(&self) -> Result<Self, String> {
        Self::of(&self.options, Configuration::of(&self.options)?, self.workers)
    }

    /// The keys that `newer` gives another value which counts from the next start on.
    pub fn left_for_the_next_start(&self, newer: &Self) -> Vec<&'static str> {
        let (was, is) = (&self.configuration, &newer.configuration);
        let keys = [
            ("device", was.devices != is.devices),
            ("workers", was.workers != is.workers),
            ("on-device-loss", was.on_device_loss != is.on_device_loss),
            ("addresses", was.addresses != is.addresses),
            ("control", was.control != is.control),
            ("control-group", was.control_group != is.control_group),
            ("http", was.http != is.http),
            ("http-token", was.http_token != is.http_token),
            ("seed-file", was.seed_file != is.seed_file),
            ("state", was.state != is.state),
            ("state-every", was.state_every != is.state_every),
            ("log", was.log != is.log),
        ];
        let keys = keys.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key);
        let is_bound = |name: &str| Settings::names().all(|named| named.name != name) && !name.starts_with("timeout_");
        let bounds = DirectorConfig::names().map(|named| named.name).filter(|name| is_bound(name));
        keys.chain(bounds.filter(|name| self.config.get(name) != newer.config.get(name))).collect()
    }
}

/// The same for a director that sees no packets.
pub fn without_places(config: &DirectorConfig) -> DirectorConfig {
    config.clone().with(|config| {
        config.connections_max = 1;
        config.templates_max = 1;
        config.fragments_max = 1;
    })
}
