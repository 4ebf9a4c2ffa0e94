//! A recorded conversation: what programs asked, what the kernel answered, and what happened meanwhile. Reads the files
//! that `netlink/convert.py` writes; decides nothing about how they are replayed.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

/// One recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its name: the file's, without `.jsonl.gz`.
    pub name: String,
    /// The number of the IPVS family in it.
    pub family: u16,
    /// Whether its kernel was user-mode-linux, which pads 64-bit values by attributes of their own.
    pub is_padded: bool,
    /// What happened, in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it happened.
    pub at: Duration,
    /// What happened.
    pub action: Action,
    /// Each datagram that was asked, with those that were answered.
    pub exchanges: Vec<Exchange>,
}

/// What a step is.
#[derive(Clone, Debug)]
pub enum Action {
    /// ipvsadm ran.
    Program(Program),
    /// Datagrams made by hand, from one socket.
    Raw {
        /// What they try.
        note: String,
        /// The socket's port id.
        port: u32,
        /// Whether the socket asked for short errors.
        caps_errors: bool,
    },
    /// keepalived asked something.
    Keepalived,
    /// A packet came to the director.
    Packet(Vec<u8>),
    /// An interface was set up: the words after `ip`.
    Interface(String),
    /// Nothing the director notices, but that time passed.
    Nothing,
}

/// A run of ipvsadm.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its arguments, without its own name.
    pub arguments: Vec<String>,
    /// What it read.
    pub stdin: String,
    /// Whether an ordinary user ran it.
    pub is_ordinary_user: bool,
    /// What it printed.
    pub stdout: String,
    /// Whether the lines it printed have no defined order.
    pub is_unordered: bool,
    /// Its exit status.
    pub status: i64,
}

/// A datagram that was asked and what was answered to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exchange {
    /// The datagram with requests.
    pub asked: Vec<u8>,
    /// The datagrams with answers, as far as the program read them.
    pub answered: Vec<Vec<u8>>,
}

/// Every recording, by name.
pub fn all() -> Result<Vec<Recording>, String> {
    let folder = super::folder();
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gz"));
    files.sort();
    files.iter().map(|file| Recording::load(file).map_err(|error| format!("{}: {error}", file.display()))).collect()
}

impl Recording {
    /// Reads a recording from a file. The error says what is wrong with it.
    pub fn load(file: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).map_err(|error| error.to_string())?;
        let mut lines = text.lines().map(|line| serde_json::from_str(line).map_err(|error| error.to_string()));
        let head: Map<String, Value> = lines.next().ok_or("it is empty")??;
        let number = |key: &str| head.get(key).and_then(Value::as_u64);
        Ok(Self {
            name: head.get("name").and_then(Value::as_str).ok_or("name is missing")?.to_owned(),
            family: number("family_id").and_then(|id| id.try_into().ok()).unwrap_or(lvs_genl::ctrl::IPVS_ID),
            is_padded: number("hz") == Some(100),
            steps: (lines.enumerate())
                .map(|(index, line)| step(&line?).map_err(|error| format!("step {index}: {error}")))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Step {
    /// What happened, in a few words.
    pub fn what(&self) -> String {
        match &self.action {
            Action::Program(program) => format!("ipvsadm {}", program.arguments.join(" ")),
            Action::Raw { note, .. } => note.clone(),
            Action::Keepalived => "keepalived".to_owned(),
            Action::Packet(_) => "a packet".to_owned(),
            Action::Interface(words) => format!("ip {words}"),
            Action::Nothing => "nothing".to_owned(),
        }
    }
}

fn step(step: &Map<String, Value>) -> Result<Step, String> {
    let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let at = step.get("t_ms").and_then(Value::as_f64).ok_or("t_ms is missing")?;
    let action = if let Some(arguments) = step.get("argv").and_then(Value::as_array) {
        let arguments = arguments.iter().skip(1).filter_map(Value::as_str).map(str::to_owned).collect();
        Action::Program(Program {
            arguments,
            stdin: text("stdin"),
            is_ordinary_user: step.contains_key("uid"),
            stdout: text("stdout"),
            is_unordered: step.contains_key("unordered"),
            status: step.get("rc").and_then(Value::as_i64).unwrap_or(0),
        })
    } else if step.contains_key("raw") {
        let options = step.get("opts").and_then(Value::as_array).into_iter().flatten();
        let caps = |option: &Value| option.get(1).and_then(Value::as_u64) == Some(NETLINK_CAP_ACK);
        Action::Raw {
            note: text("note"),
            port: step.get("port").and_then(Value::as_u64).unwrap_or(0) as u32,
            caps_errors: options.into_iter().any(caps),
        }
    } else if step.contains_key("keepalived") {
        Action::Keepalived
    } else if step.contains_key("packet") {
        Action::Packet(bytes(&text("packet"))?)
    } else if step.contains_key("ip") {
        Action::Interface(text("ip"))
    } else {
        Action::Nothing
    };
    Ok(Step { at: Duration::from_secs_f64(at.max(0.0) / 1000.0), action, exchanges: exchanges(step)? })
}

fn exchanges(step: &Map<String, Value>) -> Result<Vec<Exchange>, String> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    let messages = step.get("messages").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for message in messages {
        match (message.split_at_checked(1), exchanges.last_mut()) {
            (Some((">", asked)), _) => {
                exchanges.push(Exchange { asked: bytes(asked)?, answered: Vec::new() });
            }
            (Some(("<", answered)), Some(exchange)) => exchange.answered.push(bytes(answered)?),
            _ => return Err(format!("{message} is neither asked nor answered")),
        }
    }
    Ok(exchanges)
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.map(|pair| u8::from_str_radix(pair, 16).map_err(|_| format!("{hex} is not hexadecimal"))).collect()
}

/// Linux's number of the socket option.
const NETLINK_CAP_ACK: u64 = 10;
