//! The sysctls of `net.ipv4.vs`, by name: those that are [`Settings`] are read and written there; those of connection
//! synchronisation and connection tracking, which are no director's business, are only remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_core::Settings;

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
        let refused = || format!("sysctl {name} does not take {value}");
        if let Some(field) = field(settings, name) {
            let number = value.trim().parse().map_err(|_| refused())?;
            return field.set(number).ok_or_else(refused);
        }
        let known = self.0.get_mut(name).ok_or_else(|| format!("there is no sysctl {name}"))?;
        *known = value.to_owned();
        Ok(())
    }

    /// One sysctl's value as /proc shows it.
    pub fn get(&self, settings: &Settings, name: &str) -> Option<String> {
        match field(&mut settings.clone(), name) {
            Some(field) => Some(field.get().to_string()),
            None => self.0.get(name).cloned(),
        }
    }
}

/// A setting, to be read or written as a number.
enum Field<'a> {
    Flag(&'a mut bool),
    Byte(&'a mut u8),
    Number(&'a mut u32),
    Seconds(&'a mut Duration),
}

impl Field<'_> {
    fn set(self, value: u32) -> Option<()> {
        match self {
            Self::Flag(flag) => *flag = value != 0,
            Self::Byte(byte) => *byte = value.try_into().ok()?,
            Self::Number(number) => *number = value,
            Self::Seconds(time) => *time = Duration::from_secs(value.into()),
        }
        Some(())
    }

    fn get(self) -> u64 {
        match self {
            Self::Flag(flag) => (*flag).into(),
            Self::Byte(byte) => (*byte).into(),
            Self::Number(number) => (*number).into(),
            Self::Seconds(time) => time.as_secs(),
        }
    }
}

fn field<'a>(settings: &'a mut Settings, name: &str) -> Option<Field<'a>> {
    Some(match name {
        "amemthresh" => Field::Number(&mut settings.amemthresh),
        "am_droprate" => Field::Number(&mut settings.am_droprate),
        "drop_entry" => Field::Byte(&mut settings.drop_entry),
        "drop_packet" => Field::Byte(&mut settings.drop_packet),
        "secure_tcp" => Field::Byte(&mut settings.secure_tcp),
        "cache_bypass" => Field::Flag(&mut settings.cache_bypass),
        "expire_nodest_conn" => Field::Flag(&mut settings.expire_nodest_conn),
        "expire_quiescent_template" => Field::Flag(&mut settings.expire_quiescent_template),
        "sloppy_tcp" => Field::Flag(&mut settings.sloppy_tcp),
        "sloppy_sctp" => Field::Flag(&mut settings.sloppy_sctp),
        "nat_icmp_send" => Field::Flag(&mut settings.nat_icmp_send),
        "pmtu_disc" => Field::Flag(&mut settings.pmtu_disc),
        "conn_reuse_mode" => Field::Byte(&mut settings.conn_reuse_mode),
        "schedule_icmp" => Field::Flag(&mut settings.schedule_icmp),
        "ignore_tunneled" => Field::Flag(&mut settings.ignore_tunneled),
        "snat_reroute" => Field::Flag(&mut settings.snat_reroute),
        "backup_only" => Field::Flag(&mut settings.backup_only),
        "run_estimation" => Field::Flag(&mut settings.run_estimation),
        "lblc_expiration" => Field::Seconds(&mut settings.lblc_expiration),
        "lblcr_expiration" => Field::Seconds(&mut settings.lblcr_expiration),
        _ => return None,
    })
}

const OTHERS: [(&str, &str); 9] = [
    ("conntrack", "0"),
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
        for (name, value) in [("sloppy_tcp", "1"), ("secure_tcp", "3"), ("lblc_expiration", "60"), ("sync_ports", "2")]
        {
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
