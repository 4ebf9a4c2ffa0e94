//! The sysctls of `net.ipv4.vs`, and `accept_local`, by name: those that are [`Settings`] are read and written there; those of connection
//! synchronisation, connection tracking and routing, which are no director's business, are only remembered.

use std::collections::BTreeMap;

use lvs_core::Settings;
use lvs_core::settings::SetError;

/// Sysctls that are not settings, with the values the recorded kernel gave them.
#[derive(Clone, Debug)]
pub struct Remembered(BTreeMap<String, String>);

impl Default for Remembered {
    fn default() -> Self {
        Self(OTHERS.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

impl Remembered {
    /// Sets one sysctl. The error names one that does not exist or does not take this value.
    pub fn set(&mut self, settings: &mut Settings, name: &str, value: &str) -> Result<(), String> {
        match (settings.set(setting_of(name), value), self.0.get_mut(name)) {
            (Err(SetError::UnknownName(_)), Some(known)) => *known = value.to_owned(),
            (outcome, _) => outcome.map_err(|error| format!("sysctls: {error}"))?,
        }
        Ok(())
    }

    /// One sysctl's value as /proc shows it.
    pub fn get(&self, settings: &Settings, name: &str) -> Option<String> {
        settings.get(setting_of(name)).or_else(|| self.0.get(name).cloned())
    }
}

/// The setting that a recording's sysctl is.
fn setting_of(name: &str) -> &str {
    match name {
        "ipv4/conf/all/accept_local" | "ipv4/conf/c0/accept_local" => "accept_local",
        "ipv6/icmp/ratelimit" => "icmpv6_ratelimit",
        // Those of ICMP are settings too.
        name => name.strip_prefix("ipv4/").unwrap_or(name),
    }
}

const OTHERS: [(&str, &str); 12] = [
    ("backup_only", "0"),
    ("conntrack", "0"),
    ("ignore_tunneled", "0"),
    ("snat_reroute", "1"),
    ("sync_persist_mode", "0"),
    ("sync_ports", "1"),
    ("sync_qlen_max", "11161"), // a share of the recorder's memory
    ("sync_refresh_period", "0"),
    ("sync_retries", "0"),
    ("sync_sock_size", "0"),
    ("sync_threshold", "3\t50"),
    ("sync_version", "1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_is_read_as_it_was_written() {
        let (mut settings, mut remembered) = (Settings::default(), Remembered::default());
        for (name, value) in [
            ("sloppy_tcp", "1"),
            ("secure_tcp", "3"),
            ("lblc_expiration", "60"),
            ("sync_ports", "2"),
            ("ipv4/icmp_ratelimit", "250"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            remembered.set(&mut settings, name, value).expect("it takes the value");
            assert_eq!(remembered.get(&settings, name).as_deref(), Some(value));
        }
        assert!(settings.sloppy_tcp);
    }

    #[test]
    fn what_does_not_exist_or_fit_is_refused() {
        let (mut settings, mut remembered) = (Settings::default(), Remembered::default());
        assert!(remembered.set(&mut settings, "no_such", "1").is_err());
        assert!(remembered.set(&mut settings, "secure_tcp", "256").is_err());
        assert!(remembered.set(&mut settings, "sloppy_tcp", "x").is_err());
        assert_eq!(settings, Settings::default());
        assert_eq!(remembered.get(&settings, "no_such"), None);
    }
}
