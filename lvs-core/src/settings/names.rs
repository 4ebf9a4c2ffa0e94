//! The names of [`Settings`]: what each takes and is for. Every field has its line.

use alloc::string::{String, ToString};

use super::Settings;
use super::named::{Entry, Format, NamedValue, SetError, entry};

impl Settings {
    /// Every setting there is, in alphabetical order.
    pub fn names() -> impl Iterator<Item = &'static NamedValue> {
        TABLE.iter().map(|entry| &entry.named)
    }

    /// Sets one by its name.
    ///
    /// # Errors
    /// [`SetError::UnknownName`] or [`SetError::WrongValue`]; nothing has changed then.
    ///
    /// ```
    /// use lvs_core::Settings;
    /// let mut settings = Settings::default();
    /// settings.set("drop_entry", "1")?;
    /// assert_eq!((settings.drop_entry, settings.get("drop_entry").as_deref()), (1, Some("1")));
    /// assert_eq!(settings.set("drop_entry", "4").unwrap_err().to_string(),
    ///     "drop_entry takes a number from 0 to 3, not \"4\"");
    /// # Ok::<(), lvs_core::settings::SetError>(())
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SetError> {
        find(name).ok_or_else(|| SetError::UnknownName(name.to_string()))?.set_text(self, value)
    }

    /// The value of one as [`Self::set`] takes it; `None` if there is none with this name.
    pub fn get(&self, name: &str) -> Option<String> {
        Some(find(name)?.text(self))
    }
}

fn find(name: &str) -> Option<&'static Entry<Settings>> {
    TABLE.iter().find(|entry| entry.named.name == name)
}

const ANY: Format = Format::Number(0, u32::MAX);
const ANY_SECONDS: Format = Format::Seconds(0, u32::MAX);
const ANY_MILLISECONDS: Format = Format::Milliseconds(0, u32::MAX);
/// 0 off, 1 and 2 automatic, 3 always.
const MODE: Format = Format::Number(0, 3);

const TABLE: &[Entry<Settings>] = &[
    entry!(accept_local: Format::Switch, "Packets from the director's own addresses may open connections."),
    entry!(am_droprate: ANY, "With drop_packet=3, one in so many new connections is refused."),
    entry!(amemthresh: ANY, "The automatic defences begin when fewer places than this are free."),
    entry!(cache_bypass: Format::Switch, "A fwmark service without a usable server lets the packet go on."),
    entry!(conn_reuse_mode: MODE, "A SYN on a finished connection: 0 keep its server, 1 choose anew, 2 also in FIN_WAIT."),
    entry!(drop_damaged_openings: Format::Switch, "Packets with a wrong checksum open no connection and bring none about."),
    entry!(drop_damaged_sctp: Format::Switch, "SCTP packets with a wrong CRC32c do not get a right one through NAT."),
    entry!(drop_entry: MODE, "End half-open and idle connections at random: 0 never, 1 when places are scarce, 3 always."),
    entry!(drop_packet: MODE, "Refuse new connections: 0 never, 1 when places are scarce, 3 one in am_droprate."),
    entry!(expire_nodest_conn: Format::Switch, "Connections of deleted servers end at once."),
    entry!(expire_quiescent_template: Format::Switch, "Persistence leaves servers of weight 0."),
    entry!(icmp_msgs_burst: ANY, "Limited ICMP errors that may be sent at once."),
    entry!(icmp_msgs_per_sec: ANY, "Limited ICMP errors that may be sent in a second; 0 for no limit."),
    entry!(icmp_ratelimit: ANY_MILLISECONDS, "Least time between ICMP errors to one receiver; 0 for no limit."),
    entry!(icmp_ratemask: ANY, "Which types of ICMP errors are limited: bit n for type n."),
    entry!(icmpv6_ratelimit: ANY_MILLISECONDS, "Least time between ICMPv6 errors to one receiver; 0 for no limit."),
    entry!(lblc_expiration: ANY_SECONDS, "How long lblc remembers an unused destination."),
    entry!(lblcr_expiration: ANY_SECONDS, "How long lblcr remembers an unused destination."),
    entry!(nat_icmp_send: Format::Switch, "A NAT server's reply without a connection is answered by ICMP."),
    entry!(pmtu_disc: Format::Switch, "Path-MTU discovery for tunnels."),
    entry!(resets_per_sec: ANY, "RSTs that may answer segments in a second; 0 for no limit."),
    entry!(run_estimation: Format::Switch, "Publish counters and rates every 2 s."),
    entry!(schedule_icmp: Format::Switch, "ICMP errors about unknown flows may open connections."),
    entry!(secure_tcp: MODE, "The stricter TCP table: 0 never, 1 when places are scarce, 3 always."),
    entry!(sloppy_sctp: Format::Switch, "SCTP packets other than INIT may open connections."),
    entry!(sloppy_tcp: Format::Switch, "TCP segments without SYN may open connections."),
    entry!(tunnel_least_mtu: Format::Switch, "IPv6 packets of 1280 bytes always go into tunnels; 0: as in Linux."),
    entry!(tunnel_mtu_proof: Format::Switch, "A tunnel's path MTU is believed only from the path itself; 0: as in Linux."),
];

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn every_field_has_a_name_and_nothing_else_has() {
        let printed = format!("{:#?}", Settings::default());
        let mut fields: Vec<&str> = printed
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(':').map(|(name, _)| name))
            .collect();
        fields.sort_unstable();
        assert_eq!(Settings::names().map(|named| named.name).collect::<Vec<_>>(), fields, "in this order");
    }

    #[test]
    fn every_setting_reads_back_what_it_was_given_and_changes_no_other() {
        for entry in TABLE {
            let name = entry.named.name;
            let default = Settings::default();
            let other = if default.get(name).as_deref() == Some("1") { "0" } else { "1" };
            let mut settings = default.clone();
            settings.set(name, other).expect(name);
            assert_ne!(settings, default, "{name}");
            for entry in TABLE {
                let expected = if entry.named.name == name { other.to_string() } else { entry.text(&default) };
                assert_eq!(entry.text(&settings), expected, "{name}, {}", entry.named.name);
            }
        }
    }

    #[test]
    fn what_does_not_exist_or_fit_changes_nothing() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("no_such", "1"), Err(SetError::UnknownName("no_such".to_string())));
        for (name, value) in [("secure_tcp", "4"), ("sloppy_tcp", "x"), ("amemthresh", "-1"), ("amemthresh", "")] {
            assert!(matches!(settings.set(name, value), Err(SetError::WrongValue { .. })), "{name}={value}");
        }
        assert_eq!((settings, Settings::default().get("no_such")), (Settings::default(), None));
    }
}
