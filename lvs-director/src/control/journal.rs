//! What the control socket has set, kept in a file while the machine runs: an `lvsd` that is started again brings it back,
//! because programs such as keepalived remember what they said and do not say it again.
//!
//! The file holds ipvsadm's command lines, `setting NAME=VALUE`, drains and load factors (`drains.rs`), in the order in which they were carried out; each is
//! there before it is acknowledged. They count on top of the rules file. A file that has grown is written anew with what
//! is left of it: the last word about each thing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lvs_admin::{Names, Request};
use lvs_core::service::DrainConfig;
use lvs_core::{Command, ControlError, Director, Instant, ServerConfig, ServiceKey, Settings};

use super::drains::{self, Drain};
use super::overlay::Overlay;
use crate::say;

/// The file, open for what comes next.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    len: u64,
    /// Its length when it was last written anew.
    base: u64,
    overlay: Overlay,
}

/// A place in the file, to go back to.
#[derive(Debug)]
pub struct Mark(u64);

impl Journal {
    /// Opens or makes the file beside a control socket, for its owner alone. What it holds is to be carried out first:
    /// [`read`] and [`replay`].
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let text = read(path)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(NO_LINKS).open(path)?;
        let mut overlay = Overlay::default();
        text.lines().filter_map(line).for_each(|line| overlay.note(&line));
        // A last line that was cut off is taken out.
        let len = text.rfind('\n').map_or(0, |end| end + 1) as u64;
        file.set_len(len)?;
        Ok(Self { path: path.to_owned(), file, len, base: len, overlay })
    }

    /// Writes down a command that is about to be carried out, on a director with these settings.
    ///
    /// # Errors
    /// The disk is full: the file is as it was.
    pub fn write(&mut self, command: &Command, settings: &Settings) -> io::Result<Mark> {
        let mark = Mark(self.len);
        let text: String = self.lines(command, settings).iter().map(|line| line.text() + "\n").collect();
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.len += text.len() as u64;
                Ok(mark)
            }
            Err(error) => {
                self.take_back(&mark);
                Err(error)
            }
        }
    }

    /// Writes down commands that are all accepted, and will be carried out. `settings` are those that the first one finds.
    ///
    /// # Errors
    /// The disk is full: the file is as it was.
    pub fn write_all(&mut self, commands: &[Command], settings: &Settings) -> io::Result<()> {
        let mark = Mark(self.len);
        let mut settings = settings.clone();
        let mut all = Vec::new();
        for command in commands {
            let of_command = self.lines(command, &settings);
            let text: String = of_command.iter().map(|line| line.text() + "\n").collect();
            if let Err(error) = self.file.write_all(text.as_bytes()) {
                self.take_back(&mark);
                return Err(error);
            }
            self.len += text.len() as u64;
            all.extend(of_command);
            if let Command::SetSettings(after) = command {
                settings = after.clone();
            }
        }
        all.iter().for_each(|line| self.overlay.note(line));
        self.shorten();
        Ok(())
    }

    /// As [`lines`]; an edit that leaves a running drain alone leaves its end.
    fn lines(&self, command: &Command, settings: &Settings) -> Vec<Line> {
        let mut lines = lines(command, settings);
        if let Command::EditServer(key, config) = command
            && let Some(running) = self.overlay.drain(key, &config.key).filter(|drain| drain.is(config.drain.as_ref()))
        {
            lines
                .iter_mut()
                .filter(|line| matches!(line, Line::Drain(_)))
                .for_each(|line| *line = Line::Drain(*running));
        }
        lines
    }

    /// The command was carried out: it counts from now on. `settings` are those it found.
    pub fn keep(&mut self, command: &Command, settings: &Settings) {
        self.lines(command, settings).iter().for_each(|line| self.overlay.note(line));
        self.shorten();
    }

    /// Writes a file anew that has grown long.
    fn shorten(&mut self) {
        if self.len > REWRITE_MIN && self.len > 2 * self.base {
            // Where it cannot be written anew, it goes on growing, and the next command tries again.
            let _ = self.rewrite();
        }
    }

    /// The command was refused: it is as if it had not been written.
    pub fn take_back(&mut self, mark: &Mark) {
        if self.file.set_len(mark.0).is_ok() {
            self.len = mark.0;
        }
    }

    /// The rules, which had these services, have the last word about what these commands are about: what was set of it is
    /// forgotten. The file is written anew if that leaves anything out.
    ///
    /// # Errors
    /// It cannot be written: everything is as it was.
    pub fn yield_to(&mut self, commands: &[Command], services: impl Iterator<Item = ServiceKey>) -> io::Result<()> {
        let mut overlay = self.overlay.clone();
        overlay.yield_to(commands, services);
        if overlay == self.overlay {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.overlay, overlay);
        self.rewrite().inspect_err(|_| self.overlay = before)
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let text: String = self.overlay.lines().iter().map(|line| line.text() + "\n").collect();
        let aside = self.path.with_extension("new");
        let _ = fs::remove_file(&aside);
        let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&aside, &self.path)?;
        (self.file, self.len, self.base) = (file, text.len() as u64, text.len() as u64);
        Ok(())
    }
}

/// What the file holds; nothing if there is none.
///
/// # Errors
/// What the system says; `InvalidData` if it belongs to somebody else, others may write it, or it is no plain file.
pub fn read(path: &Path) -> io::Result<String> {
    let mut file = match OpenOptions::new().read(true).custom_flags(NO_LINKS).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        outcome => outcome?,
    };
    let is = file.metadata()?;
    let owner_is_right = is.uid() == rustix::process::geteuid().as_raw() || is.uid() == 0;
    if !is.is_file() || !owner_is_right || is.mode() & 0o022 != 0 {
        let what = "it is no plain file that its owner alone may write";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Carries out what a file holds, on a director that has the rules. What the rules have already is changed; what does not
/// fit them any more, or `complaint` has something against, is left out: the sentences that are returned say what and why.
pub fn replay(director: &mut Director, text: &str, complaint: impl Fn(&Command) -> Option<String>) -> Vec<String> {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    let mut left_out = Vec::new();
    for words in text[..end].lines() {
        let Some(line) = line(words) else {
            left_out.push(format!("lvsd does not know what it means: {words}"));
            continue;
        };
        if let Err(reason) = replay_line(director, line, &complaint) {
            left_out.push(format!("{reason}: {words}"));
        }
    }
    left_out
}

fn replay_line(
    director: &mut Director,
    line: Line,
    complaint: &impl Fn(&Command) -> Option<String>,
) -> Result<(), String> {
    let command = match line {
        Line::Command(command) => command,
        Line::Setting(name, value) => {
            let mut settings = director.settings().clone();
            settings.set(&name, &value).map_err(|error| error.to_string())?;
            Command::SetSettings(settings)
        }
        Line::Drain(drain) => drain.command(SystemTime::now()),
    };
    if let Some(complaint) = complaint(&command) {
        return Err(complaint);
    }
    let again = match (director.apply(Instant::ZERO, &command), command) {
        (Ok(()), _) => return Ok(()),
        (Err(ControlError::ServiceExists(_)), Command::AddService(key, config)) => Command::EditService(key, config),
        (Err(ControlError::ServerExists(_)), Command::AddServer(key, config)) => Command::EditServer(key, config),
        (Err(error), _) => return Err(error.to_string()),
    };
    director.apply(Instant::ZERO, &again).map_err(|error| error.to_string())
}

/// Says what of the file at `path` was left out.
pub fn tell_left_out(path: &Path, left_out: &[String]) {
    for sentence in left_out.iter().take(TOLD_MAX) {
        say::warning(format_args!("left out of what the control socket had set ({}): {sentence}", path.display()));
    }
    if left_out.len() > TOLD_MAX {
        say::warning(format_args!("{} more lines of {} are left out", left_out.len() - TOLD_MAX, path.display()));
    }
}

/// One line of the file.
#[derive(Clone, PartialEq, Debug)]
pub enum Line {
    /// What has words in ipvsadm.
    Command(Command),
    /// A setting's name and value.
    Setting(String, String),
    /// A drain, with its end as the clock on the wall has it.
    Drain(Drain),
}

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Command(Command::SetServerFactor { service, server, factor }) => {
                format!("{FACTOR}{}", drains::factor(service, server, *factor))
            }
            Self::Command(command) => lvs_admin::command_line(command).unwrap_or_default(),
            Self::Setting(name, value) => format!("{SETTING}{name}={value}"),
            Self::Drain(drain) => format!("{DRAIN}{drain}"),
        }
    }
}

fn line(text: &str) -> Option<Line> {
    if let Some((name, value)) = text.strip_prefix(SETTING).and_then(|rest| rest.split_once('=')) {
        return Some(Line::Setting(name.to_owned(), value.to_owned()));
    }
    if let Some(rest) = text.strip_prefix(DRAIN) {
        return Drain::read(rest).map(Line::Drain);
    }
    if let Some(rest) = text.strip_prefix(FACTOR) {
        return drains::read_factor(rest).map(Line::Command);
    }
    match lvs_admin::restore(text, &Names::none()).next()? {
        Ok(Request::Apply(command)) => Some(Line::Command(command)),
        _ => None,
    }
}

/// The lines that stand for a command; none for what does not outlive its moment, such as counters set to zero.
fn lines(command: &Command, before: &Settings) -> Vec<Line> {
    match command {
        Command::SetSettings(after) => {
            let changed = Settings::names().filter(|named| before.get(named.name) != after.get(named.name));
            changed.filter_map(|named| Some(Line::Setting(named.name.to_owned(), after.get(named.name)?))).collect()
        }
        Command::Zero(_) => Vec::new(),
        // A drain's end is a moment, whoever tells of it.
        Command::AddServer(key, config) if config.drain.is_some() => {
            let line = Command::AddServer(*key, without_drain(config));
            [Line::Command(line)].into_iter().chain(drain_of(key, config)).collect()
        }
        Command::EditServer(key, config) if config.drain.is_some() => {
            let line = Command::EditServer(*key, without_drain(config));
            [Line::Command(line)].into_iter().chain(drain_of(key, config)).collect()
        }
        Command::Drain { service, server, deadline, then } => {
            vec![Line::Drain(Drain::new(*service, *server, *deadline, *then, SystemTime::now()))]
        }
        Command::SetServerFactor { .. } => vec![Line::Command(command.clone())],
        command if lvs_admin::command_line(command).is_some() => vec![Line::Command(command.clone())],
        _ => Vec::new(),
    }
}

fn without_drain(config: &ServerConfig) -> ServerConfig {
    let mut config = config.clone();
    config.drain = None;
    config
}

fn drain_of(service: &ServiceKey, config: &ServerConfig) -> Option<Line> {
    let DrainConfig { deadline, then } = config.drain?;
    Some(Line::Drain(Drain::new(*service, config.key, deadline, then, SystemTime::now())))
}

const SETTING: &str = "setting ";
const DRAIN: &str = "drain ";
const FACTOR: &str = "factor ";
/// Lines left out that are told one by one.
const TOLD_MAX: usize = 16;
/// A file shorter than this is not written anew.
const REWRITE_MIN: u64 = 1 << 20;
/// A symbolic link in the file's place is not followed.
const NO_LINKS: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
