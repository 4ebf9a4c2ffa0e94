//! The configuration file: TOML (<https://toml.io>) in, values out. A key is called as the option of `lvsd run` that says
//! the same; `packaging/lvsd.toml` has all of them with what each is for. A key that is not known, and a value that is not
//! taken, is told with its line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use lvs_io_afpacket::Delivery;
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::address_owner::AddressOwner;
use crate::args::{OnDeviceLoss, WORKERS_MAX, device_name};
use crate::capacity::Assignment;
use crate::devices::Devices;
use crate::log::Format;
use crate::web::HttpAt;

/// What a file says. What it does not say is left to the command line, and then to the defaults.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct File {
    /// The file of rules.
    pub rules: Option<PathBuf>,
    /// The devices; none is right.
    pub devices: Option<Devices>,
    /// How many threads share the work.
    pub workers: Option<u16>,
    /// What happens without a device.
    pub on_device_loss: Option<OnDeviceLoss>,
    /// Whose the virtual addresses are.
    pub addresses: Option<AddressOwner>,
    /// The control socket.
    pub control: Option<PathBuf>,
    /// Who may read at the second socket beside it.
    pub control_group: Option<String>,
    /// Where HTTP is served.
    pub http: Vec<HttpAt>,
    /// Where the token is that HTTP over TCP asks for.
    pub http_token: Option<PathBuf>,
    /// Where the secret is that hashes begin with.
    pub seed_file: Option<PathBuf>,
    /// Where connections outlive a restart.
    pub state: Option<PathBuf>,
    /// Every how many seconds they are saved.
    pub state_every: Option<u32>,
    /// How what happens is told.
    pub log: Option<Format>,
    /// Settings and bounds by their names.
    pub settings: Vec<Assignment>,
}

/// What is wrong with a file, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileError {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub complaint: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.complaint)
    }
}

impl std::error::Error for FileError {}

/// The keys as they stand in the file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Keys {
    rules: Option<PathBuf>,
    workers: Option<Spanned<u16>>,
    on_device_loss: Option<OnDeviceLoss>,
    addresses: Option<AddressOwner>,
    control: Option<PathBuf>,
    control_group: Option<String>,
    http: Vec<Spanned<String>>,
    http_token: Option<PathBuf>,
    seed_file: Option<PathBuf>,
    state: Option<PathBuf>,
    state_every: Option<Spanned<u32>>,
    log: Option<Format>,
    device: Vec<Spanned<Device>>,
    settings: BTreeMap<Spanned<String>, Spanned<Value>>,
}

/// A table `[[device]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Device {
    name: Spanned<String>,
    kind: Kind,
    #[serde(default)]
    side: Side,
    #[serde(default)]
    in_blocks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Tun,
    Afpacket,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Side {
    #[default]
    Both,
    Clients,
    Servers,
}

/// Reads a configuration file.
///
/// # Errors
/// The first thing that is wrong, with its line.
///
/// ```
/// let file = lvs_director::configuration::file::parse("workers = 2\n[settings]\ndrop_entry = 1\n").unwrap();
/// assert_eq!((file.workers, file.settings.len()), (Some(2), 1));
///
/// let error = lvs_director::configuration::file::parse("workers = 2\nwrokers = 3\n").unwrap_err();
/// assert_eq!(error.line, 2);
/// ```
pub fn parse(text: &str) -> Result<File, FileError> {
    let at = |span: Range<usize>, complaint: String| FileError { line: line_at(text, span.start), complaint };
    let keys: Keys = toml::from_str(text)
        .map_err(|error| at(error.span().unwrap_or(0..0), error.message().trim_end().replace('\n', "; ")))?;
    if let Some(workers) = &keys.workers
        && !(1..=WORKERS_MAX).contains(&i64::from(*workers.get_ref()))
    {
        return Err(at(workers.span(), format!("workers is a number from 1 to {WORKERS_MAX}")));
    }
    if let Some(every) = &keys.state_every
        && !(1..=STATE_EVERY_MAX_S).contains(every.get_ref())
    {
        let complaint = format!("state-every is a number of seconds from 1 to {STATE_EVERY_MAX_S}");
        return Err(at(every.span(), complaint));
    }
    let settings = keys.settings.iter().map(|(name, value)| assignment(name, value)).collect::<Result<_, _>>();
    let settings = settings.map_err(|(span, complaint)| at(span, complaint))?;
    let devices = devices(&keys.device).map_err(|(span, complaint)| at(span, complaint))?;
    let http =
        keys.http.iter().map(|place| HttpAt::parse(place.get_ref()).map_err(|complaint| at(place.span(), complaint)));
    let http = http.collect::<Result<_, _>>()?;
    Ok(File {
        rules: keys.rules,
        devices,
        workers: keys.workers.map(Spanned::into_inner),
        on_device_loss: keys.on_device_loss,
        addresses: keys.addresses,
        control: keys.control,
        control_group: keys.control_group,
        http,
        http_token: keys.http_token,
        seed_file: keys.seed_file,
        state: keys.state,
        state_every: keys.state_every.map(Spanned::into_inner),
        log: keys.log,
        settings,
    })
}

/// The longest time between two saves: a day.
const STATE_EVERY_MAX_S: u32 = 86_400;

/// What is wrong, with the place in the text.
type Wrong = (Range<usize>, String);

fn assignment(name: &Spanned<String>, value: &Spanned<Value>) -> Result<Assignment, Wrong> {
    let text = match value.get_ref() {
        Value::Integer(number) => number.to_string(),
        Value::Boolean(is_on) => u8::from(*is_on).to_string(),
        Value::String(word) => word.clone(),
        other => {
            let what = other.type_str();
            let complaint = format!("{} takes a number, true, false or a word, no {what}", name.get_ref());
            return Err((value.span(), complaint));
        }
    };
    // A name with `=` in it is nobody's.
    Assignment::parse(&format!("{}={text}", name.get_ref())).map_err(|complaint| (name.span(), complaint))
}

/// The devices: one for both sides, or the clients' and the servers', of one kind.
fn devices(tables: &[Spanned<Device>]) -> Result<Option<Devices>, Wrong> {
    let Some(first) = tables.first() else { return Ok(None) };
    let (kind, in_blocks) = (first.get_ref().kind, first.get_ref().in_blocks);
    let mut names = BTreeSet::new();
    for table in tables {
        let device = table.get_ref();
        let name = &device.name;
        device_name(name.get_ref()).map_err(|complaint| (name.span(), complaint))?;
        if !names.insert(name.get_ref()) {
            let complaint = format!("{:?} is there twice; with side = \"both\" one device serves both", name.get_ref());
            return Err((name.span(), complaint));
        }
        if device.in_blocks && device.kind == Kind::Tun {
            return Err((table.span(), "in-blocks is for devices of kind = \"afpacket\"".to_owned()));
        }
        if device.kind != kind || device.in_blocks != in_blocks {
            return Err((table.span(), "all devices are of one kind, and all in blocks or none".to_owned()));
        }
    }
    let mut sorted: Vec<&Device> = tables.iter().map(Spanned::get_ref).collect();
    sorted.sort_by_key(|device| device.side);
    let sides: Vec<Side> = sorted.iter().map(|device| device.side).collect();
    if !matches!(sides[..], [Side::Both] | [Side::Clients, Side::Servers]) {
        let complaint =
            "one device with side = \"both\" is meant, or one with side = \"clients\" and one with \"servers\"";
        return Err((tables.last().unwrap_or(first).span(), complaint.to_owned()));
    }
    let names = sorted.iter().map(|device| device.name.get_ref().clone()).collect();
    Ok(Some(match (kind, in_blocks) {
        (Kind::Tun, _) => Devices::Tun(names),
        (Kind::Afpacket, false) => Devices::AfPacket(names, Delivery::AtOnce),
        (Kind::Afpacket, true) => Devices::AfPacket(names, Delivery::BLOCKS),
    }))
}

/// The number of the line that this byte is in, from 1.
fn line_at(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(text: &str, line: usize, complaint: &str) {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.complaint.contains(complaint), "{text}: {complaint:?} is missing in {error}");
        assert!(!error.complaint.contains('\n'), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, complaint) in [
            ("workers = 2\n\nwrokers = 3\n", 3, "unknown field `wrokers`, expected one of `rules`"),
            ("workers = 0\n", 1, "workers is a number from 1 to 64"),
            ("\nworkers = 65\n", 2, "workers is a number from 1 to 64"),
            ("workers = -1\n", 1, "invalid value"),
            ("workers = \"two\"\n", 1, "invalid type"),
            ("\n\nrules = [\n", 3, ""),
            ("rules = \"a\"\nrules = \"b\"\n", 2, "duplicate key"),
            ("on-device-loss = \"cry\"\n", 1, "expected `wait` or `end`"),
            ("addresses = \"mine\"\n", 1, "expected `lvsd` or `host`"),
            ("http = [\n\"unix:a\",\n\"10.0.0.1:80\"]\n", 3, "10.0.0.1 is no loopback address"),
            ("log = \"xml\"\n", 1, "expected `human` or `json`"),
            ("[settings]\ndrop_entry = 1\ndrop_entri = 1\n", 3, "there is no setting drop_entri; near are drop_entry"),
            ("[settings]\n\ndrop_entry = 9\n", 3, "drop_entry takes a number from 0 to 3, not \"9\""),
            ("[settings]\ndrop_entry = 1.5\n", 2, "a number, true, false or a word, no float"),
            ("[settings]\ndrop_entry = [1]\n", 2, "no array"),
            ("[settings]\n\"drop_entry=1\" = 2\n", 2, "drop_entry takes"),
            ("[setings]\n", 1, "unknown field `setings`"),
            ("[[device]]\nname = \"a/b\"\nkind = \"tun\"\n", 2, "cannot name a device"),
            ("[[device]]\nname = \"a\"\n", 1, "missing field `kind`"),
            ("[[device]]\nname = \"a\"\nkind = \"dpdk\"\n", 3, "expected `tun` or `afpacket`"),
            (
                "[[device]]\nname = \"a\"\nkind = \"tun\"\nside = \"left\"\n",
                4,
                "expected one of `both`, `clients`, `servers`",
            ),
            ("[[device]]\nname = \"a\"\nkind = \"tun\"\nin-blocks = true\n", 1, "in-blocks is for"),
            (
                "[[device]]\nname = \"a\"\nkind = \"tun\"\nside = \"clients\"\n",
                1,
                "one with side = \"clients\" and one",
            ),
            (
                "[[device]]\nname = \"a\"\nkind = \"tun\"\n[[device]]\nname = \"a\"\nkind = \"tun\"\n",
                5,
                "is there twice",
            ),
            (
                "[[device]]\nname = \"a\"\nkind = \"tun\"\n[[device]]\nname = \"b\"\nkind = \"afpacket\"\n",
                4,
                "of one kind",
            ),
            (
                "[[device]]\nname = \"a\"\nkind = \"tun\"\n[[device]]\nname = \"b\"\nkind = \"tun\"\n",
                4,
                "one device with",
            ),
        ] {
            check_refused(text, line, complaint);
        }
    }

    #[test]
    fn devices_are_ordered_by_their_sides() {
        let text = "[[device]]\nname = \"in\"\nkind = \"afpacket\"\nside = \"servers\"\n\
                    [[device]]\nname = \"out\"\nkind = \"afpacket\"\nside = \"clients\"\n";
        let names = vec!["out".to_owned(), "in".to_owned()];
        assert_eq!(parse(text).unwrap().devices, Some(Devices::AfPacket(names, Delivery::AtOnce)));
        let one = "[[device]]\nname = \"eth0\"\nkind = \"afpacket\"\nin-blocks = true\n";
        assert_eq!(parse(one).unwrap().devices, Some(Devices::AfPacket(vec!["eth0".to_owned()], Delivery::BLOCKS)));
        let tun = "[[device]]\nname = \"lvs0\"\nkind = \"tun\"\n";
        assert_eq!(parse(tun).unwrap().devices, Some(Devices::Tun(vec!["lvs0".to_owned()])));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(parse(""), Ok(File::default()));
        assert_eq!(parse("# nothing\n"), Ok(File::default()));
    }
}
