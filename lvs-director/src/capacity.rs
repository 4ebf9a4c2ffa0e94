//! How much the directors of `lvsd` hold, and how they defend it: bounds from the machine's memory, half-open
//! connections that give way to new ones, defences that begin by themselves. A library's director takes Linux's values
//! (`DirectorConfig::default`); a daemon that strangers reach must withstand them as it comes. What an operator sets by
//! name stands above all of it.

use std::fmt;
use std::fs;

use lvs_core::settings::SetError;
use lvs_core::{DirectorConfig, HalfOpenPolicy};

/// A value that the operator sets by its name: `--set NAME=VALUE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    name: String,
    value: String,
}

impl Assignment {
    /// Reads `NAME=VALUE`.
    ///
    /// # Errors
    /// What is wrong with it; where nothing has this name, which names are near.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("NAME=VALUE is meant")?;
        match DirectorConfig::default().set(name, value) {
            Ok(()) => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            Err(error @ SetError::UnknownName(_)) => match &nearest(name)[..] {
                [] => Err(format!("{error}; 'lvsd run --help' names all")),
                near => Err(format!("{error}; near are {}", near.join(", "))),
            },
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The names that somebody who wrote `name` may have meant, the nearest first.
fn nearest(name: &str) -> Vec<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let mut names: Vec<_> = DirectorConfig::names().map(|named| named.name).collect();
    names.retain(|known| likeness(known) >= ALIKE);
    names.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
    names.truncate(NEAREST_MAX);
    names
}

/// What `lvsd` gives each of `workers` directors on a machine with so many bytes of `memory`. Sides and shard are left
/// to the caller.
///
/// | bound | value |
/// |---|---|
/// | `connections_max` | what an eighth of the memory holds, together with as many templates; at most 2,097,152 |
/// | `templates_max` | as many: each client of a persistent service needs one |
/// | `half_open_max` | a quarter of that; the oldest makes room (`half_open_policy=evict_oldest`) |
/// | `local_ports_remembered_max` | as many as connections, at least 262,144 |
/// | `fragments_max`, `fragment_bytes_max` | a connection in 16, at most 65,536; 4 MiB and 2 KiB for each above 2,048 |
/// | `drop_entry`, `drop_packet`, `secure_tcp` | 1: they begin when places are scarce, and end by themselves |
/// | `amemthresh` | scarce is less than a sixteenth of all places |
///
/// ```
/// let config = lvs_director::capacity::config(1 << 30, 1);
/// assert_eq!((config.connections_max, config.half_open_max, config.settings.amemthresh), (262_144, 65_536, 16_384));
/// ```
pub fn config(memory: u64, workers: u16) -> DirectorConfig {
    let places = memory / SHARE / BYTES_PER_PLACE;
    let places = places.min(PLACES_MAX) / u64::from(workers.max(1));
    let places = u32::try_from(places.max(PLACES_MIN)).unwrap_or(u32::MAX);
    DirectorConfig::default().with(|config| {
        config.connections_max = places;
        config.templates_max = places;
        config.half_open_max = places / 4;
        config.half_open_policy = HalfOpenPolicy::EvictOldest;
        config.fragments_max = (places / 16).clamp(config.fragments_max, 65_536);
        config.fragment_bytes_max = config.fragment_bytes_max.max(config.fragments_max * 2048);
        config.local_ports.remembered_max = config.local_ports.remembered_max.max(places);
        config.settings.drop_entry = AUTOMATIC;
        config.settings.drop_packet = AUTOMATIC;
        config.settings.secure_tcp = AUTOMATIC;
        config.settings.amemthresh = places / 16;
    })
}

/// The same with what the operator wants otherwise.
///
/// # Errors
/// A sentence: the directors would not fit into the memory.
pub fn configured(memory: u64, workers: u16, wanted: &[Assignment]) -> Result<DirectorConfig, String> {
    let mut config = config(memory, workers);
    for Assignment { name, value } in wanted {
        config.set(name, value).map_err(|error| error.to_string())?;
    }
    let places = u64::from(config.connections_max.max(config.templates_max));
    let needed = places * BYTES_PER_PLACE * u64::from(workers.max(1));
    if needed > memory {
        return Err(format!(
            "{} connections and {} templates in each of {workers} workers take {} MiB, and this machine has {} MiB; \
             lower connections_max or templates_max",
            config.connections_max,
            config.templates_max,
            needed >> 20,
            memory >> 20
        ));
    }
    Ok(config)
}

/// What a director holds and how it defends it, for an operator to read.
pub struct Described<'a>(pub &'a DirectorConfig);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |name| self.0.get(name).unwrap_or_default();
        for (index, name) in TOLD.into_iter().enumerate() {
            write!(f, "{}{name}={}", if index == 0 { "" } else { " " }, value(name))?;
        }
        Ok(())
    }
}

/// The memory this process may use, in bytes: the machine's, or less if its control group is given less. Where neither
/// is said, as much as a small machine has.
pub fn memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text)).unwrap_or(SMALL_MACHINE);
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A group has no more than the ones it is in.
    let groups = group.split('/').scan("/sys/fs/cgroup".to_owned(), |path, name| {
        *path = format!("{path}/{name}");
        Some(path.clone())
    });
    let limits = std::iter::once("/sys/fs/cgroup".to_owned())
        .chain(groups)
        .filter_map(|path| fs::read_to_string(format!("{path}/memory.max")).ok()?.trim().parse().ok());
    limits.fold(machine, u64::min)
}

/// `MemTotal` of /proc/meminfo (proc(5)), which counts in KiB.
fn total(meminfo: &str) -> Option<u64> {
    let words = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    words.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What is told at the start: what a flood meets.
const TOLD: [&str; 8] = [
    "connections_max",
    "templates_max",
    "half_open_max",
    "half_open_policy",
    "amemthresh",
    "drop_entry",
    "drop_packet",
    "secure_tcp",
];

/// The part of the memory that directors take: one in so many bytes.
const SHARE: u64 = 8;
/// What a connection and a template take together, measured (some 500) and rounded up. Memory that is reserved and not
/// used yet costs nothing but 20 of these bytes.
const BYTES_PER_PLACE: u64 = 512;
/// More than this are for the operator to ask for.
const PLACES_MAX: u64 = 1 << 21;
/// Fewer than this do not make a director, however small the machine.
const PLACES_MIN: u64 = 1 << 12;
/// Off until places are scarce.
const AUTOMATIC: u8 = 1;
const SMALL_MACHINE: u64 = 256 << 20;
/// Names less alike than this are not meant.
const ALIKE: f64 = 0.8;
const NEAREST_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_have_been_meant_are_told() {
        for (text, complaint) in [
            ("drop_entrys=1", "there is no setting drop_entrys; near are drop_entry"),
            ("connection_max=9", "there is no setting connection_max; near are connections_max"),
            ("qqq=1", "there is no setting qqq; 'lvsd run --help' names all"),
            ("drop_entry", "NAME=VALUE is meant"),
            ("drop_entry=9", "drop_entry takes a number from 0 to 3, not \"9\""),
        ] {
            let error = Assignment::parse(text).expect_err(text);
            assert!(error.starts_with(complaint), "{text}: {error}");
        }
        for named in DirectorConfig::names() {
            assert_eq!(nearest(named.name)[0], named.name);
        }
    }

    #[test]
    fn bounds_grow_with_the_memory_and_are_shared_by_the_workers() {
        let places = |memory: u64, workers| config(memory, workers).connections_max;
        assert_eq!([places(0, 1), places(64 << 20, 1), places(1 << 30, 1)], [4_096, 16_384, 262_144]);
        assert_eq!([places(1 << 30, 4), places(1 << 40, 1), places(1 << 40, 4)], [65_536, 2_097_152, 524_288]);
        for (memory, workers) in [(0, 64), (1 << 26, 1), (1 << 34, 8), (u64::MAX, 1), (1 << 30, 0)] {
            let config = config(memory, workers);
            assert!(config.half_open_max < config.connections_max && config.settings.amemthresh > 0, "{config:?}");
        }
    }

    #[test]
    fn what_the_operator_sets_stands_above_the_defaults_and_the_last_word_counts() {
        let wanted = ["drop_entry=0", "timeout_udp=30", "half_open_max=7", "half_open_max=9"];
        let wanted = wanted.map(|text| Assignment::parse(text).expect("right"));
        let config = configured(1 << 30, 1, &wanted).expect("it fits");
        assert_eq!((config.settings.drop_entry, config.half_open_max), (0, 9));
        assert_eq!(config.get("timeout_udp").as_deref(), Some("30"));
    }

    #[test]
    fn what_the_machine_cannot_hold_is_refused() {
        let wanted = [Assignment::parse("connections_max=2147483647").expect("a number")];
        let complaint = configured(1 << 30, 2, &wanted).expect_err("it does not fit");
        assert!(complaint.contains("this machine has 1024 MiB; lower connections_max"), "{complaint}");
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(total("MemTotal:        2048 kB\nMemFree:  1 kB\n"), Some(2 << 20));
        assert_eq!(total("MemFree:  1 kB\n"), None);
        assert!(memory() > 1 << 20);
    }

    #[test]
    fn what_is_told_at_the_start_can_be_set_as_it_stands() {
        let told = Described(&config(1 << 30, 1)).to_string();
        assert!(told.starts_with("connections_max=262144 templates_max=262144 half_open_max=65536"), "{told}");
        for word in told.split(' ') {
            Assignment::parse(word).expect(word);
        }
    }
}
