//! The names of what a [`DirectorConfig`] bounds: its own fields', and those of what it holds. Its sides, registries and
//! shard are not set by name.

use alloc::string::String;
use core::time::Duration;

use super::{DirectorConfig, HalfOpenPolicy};
use crate::connection::State;
use crate::connection::tcp::TcpState;
use crate::connection::timeouts::Timeouts;
use crate::director::control::TIMEOUT_MAX_S;
use crate::scheduler::LoadFormula;
use crate::settings::Settings;
use crate::settings::named::{Entry, Format, NamedValue, SetError, Value, entry};

impl DirectorConfig {
    /// Everything that is set by name, in two alphabetical lists: bounds, and then [`Settings::names`].
    pub fn names() -> impl Iterator<Item = &'static NamedValue> {
        TABLE.iter().map(|entry| &entry.named).chain(Settings::names())
    }

    /// Sets one by its name: a bound, a timeout or one of the settings to start with.
    ///
    /// # Errors
    /// [`SetError::UnknownName`] or [`SetError::WrongValue`]; nothing has changed then.
    ///
    /// ```
    /// use lvs_core::{DirectorConfig, HalfOpenPolicy};
    /// let mut config = DirectorConfig::default();
    /// for (name, value) in [("half_open_policy", "evict_oldest"), ("half_open_max", "4096"), ("drop_entry", "1")] {
    ///     config.set(name, value)?;
    /// }
    /// assert_eq!((config.half_open_policy, config.settings.drop_entry), (HalfOpenPolicy::EvictOldest, 1));
    /// # Ok::<(), lvs_core::settings::SetError>(())
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SetError> {
        match find(name) {
            Some(entry) => entry.set_text(self, value),
            None => self.settings.set(name, value),
        }
    }

    /// The value of one as [`Self::set`] takes it; `None` if there is none with this name.
    pub fn get(&self, name: &str) -> Option<String> {
        find(name).map(|entry| entry.text(self)).or_else(|| self.settings.get(name))
    }
}

fn find(name: &str) -> Option<&'static Entry<DirectorConfig>> {
    TABLE.iter().find(|entry| entry.named.name == name)
}

const ANY: Format = Format::Number(0, u32::MAX);
const PLACES: Format = Format::Number(1, u32::MAX / 2);
const PREFIX: Format = Format::Number(0, 128);
const PORT: Format = Format::Number(1, 65_535);
const A_DAY: Format = Format::Seconds(0, 86_400);
const TIMEOUT: Format = Format::Seconds(1, TIMEOUT_MAX_S as u32);
const POLICY: Format = Format::Word(&["refuse", "evict_oldest"]);
const FORMULA: Format = Format::Word(&["active_and_total", "active_and_inactive"]);

#[rustfmt::skip] // A line each.
const TABLE: &[Entry<DirectorConfig>] = &[
    entry!(client_endpoint_max: ANY, "Most connections of one client address and port."),
    entry!(client_ipv6_prefix: PREFIX, "By how many bits IPv6 clients are told apart where one may have only so much."),
    entry!(client_templates_max: ANY, "Most persistence templates of one client; 4294967295 is a quarter of all."),
    entry!(connections_max: PLACES, "Most connections; memory for them is reserved at the start."),
    entry!(events_max: ANY, "Most events kept until they are polled."),
    entry!(expectations_max: ANY, "Most connections that one connection's helper expects at once (FTP data)."),
    entry!(fragment_bytes_max: ANY, "Most bytes of fragments kept back."),
    entry!(fragments_max: ANY, "Most fragmented datagrams remembered."),
    entry!(half_open_max: ANY, "Most half-open TCP and SCTP connections; 4294967295 is half of connections_max."),
    entry!(half_open_policy: POLICY, "What a SYN beyond half_open_max meets: it is refused, or the oldest makes room."),
    entry!(load_formula: FORMULA, "How least-connection schedulers weigh connections."),
    entry!(local_ports_client_max = local_ports.client_max: ANY,
        "FullNAT: most local ports of one client towards one server; 4294967295 is a quarter of all."),
    entry!(local_ports_first = local_ports.first: PORT, "FullNAT: the first local port."),
    entry!(local_ports_last = local_ports.last: PORT, "FullNAT: the last local port."),
    entry!(local_ports_quarantine = local_ports.quarantine: A_DAY, "FullNAT: how long a local port rests after use."),
    entry!(local_ports_remembered_max = local_ports.remembered_max: ANY, "FullNAT: most local ports in use or resting."),
    entry!(servers_max: ANY, "Most real servers, of all services together."),
    entry!(services_max: ANY, "Most services."),
    entry!(templates_max: PLACES, "Most persistence templates."),
    Entry {
        named: timeout("timeout_tcp", "How long a TCP connection in ESTABLISHED lives ('ipvsadm --set', tcp)."),
        get: |config| timeout_s(&config.timeouts, State::Tcp(TcpState::Established)),
        set: |config, seconds| config.timeouts.set(Some(duration(seconds)), None, None),
    },
    Entry {
        named: timeout("timeout_tcp_fin", "How long a TCP connection in FIN_WAIT lives ('ipvsadm --set', tcpfin)."),
        get: |config| timeout_s(&config.timeouts, State::Tcp(TcpState::FinWait)),
        set: |config, seconds| config.timeouts.set(None, Some(duration(seconds)), None),
    },
    Entry {
        named: timeout("timeout_udp", "How long a UDP flow lives ('ipvsadm --set', udp)."),
        get: |config| timeout_s(&config.timeouts, State::Udp),
        set: |config, seconds| config.timeouts.set(None, None, Some(duration(seconds))),
    },
];

const fn timeout(name: &'static str, about: &'static str) -> NamedValue {
    NamedValue { name, format: TIMEOUT, about }
}

fn timeout_s(timeouts: &Timeouts, state: State) -> u32 {
    timeouts.of(state).number(TIMEOUT)
}

fn duration(seconds: u32) -> Duration {
    Duration::of_number(seconds, TIMEOUT)
}

/// As the words of [`POLICY`] stand.
impl Value for HalfOpenPolicy {
    fn number(&self, _: Format) -> u32 {
        match self {
            Self::Refuse => 0,
            Self::EvictOldest => 1,
        }
    }

    fn of_number(number: u32, _: Format) -> Self {
        if number == 0 { Self::Refuse } else { Self::EvictOldest }
    }
}

/// As the words of [`FORMULA`] stand.
impl Value for LoadFormula {
    fn number(&self, _: Format) -> u32 {
        match self {
            Self::ActiveAndTotal => 0,
            Self::ActiveAndInactive => 1,
        }
    }

    fn of_number(number: u32, _: Format) -> Self {
        if number == 0 { Self::ActiveAndTotal } else { Self::ActiveAndInactive }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    /// What is not set by a name, or has a table of its own.
    const WITHOUT: [&str; 6] = ["client_side", "server_side", "host_addresses", "schedulers", "helpers", "settings"];

    #[test]
    fn every_field_has_a_name() {
        let printed = format!("{:#?}", DirectorConfig::default());
        let fields = printed.lines().filter_map(|line| Some(line.strip_prefix("    ")?.split_once(':')?.0));
        let names: Vec<&str> = TABLE.iter().map(|entry| entry.named.name).collect();
        for field in fields.filter(|field| !field.starts_with([' ', '"']) && !WITHOUT.contains(field)) {
            let stem = if field == "timeouts" { "timeout" } else { field };
            assert!(names.iter().any(|name| name.starts_with(stem)), "{field}");
        }
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn everything_reads_back_what_it_was_given_and_changes_nothing_else() {
        let default = DirectorConfig::default();
        for NamedValue { name, format, .. } in DirectorConfig::names() {
            let other = match format {
                Format::Word(words) => words[1],
                _ if default.get(name).as_deref() == Some("1") => "0",
                _ => "1",
            };
            let mut config = default.clone();
            config.set(name, other).expect(name);
            for named in DirectorConfig::names() {
                let expected = if named.name == *name { Some(other.to_string()) } else { default.get(named.name) };
                assert_eq!(config.get(named.name), expected, "{name}, {}", named.name);
            }
        }
    }

    #[test]
    fn what_does_not_exist_or_fit_is_refused() {
        let mut config = DirectorConfig::default();
        assert_eq!(config.set("no_such", "1"), Err(SetError::UnknownName("no_such".to_string())));
        for (name, value) in [("connections_max", "0"), ("timeout_udp", "8589935"), ("half_open_policy", "1")] {
            assert!(matches!(config.set(name, value), Err(SetError::WrongValue { .. })), "{name}={value}");
        }
        assert_eq!(config.get("no_such"), None);
    }
}
