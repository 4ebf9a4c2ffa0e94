//! What the control socket has set, kept in a file while the machine runs: an `lvsd` that is started again brings it back,
//! because programs such as keepalived remember what they said and do not say it again.
//!
//! The file holds ipvsadm's command lines, and `setting NAME=VALUE`, in the order in which they were carried out; each is
//! there before it is acknowledged. They count on top of the rules file. A file that has grown is written anew with what
//! is left of it: the last word about each thing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lvs_admin::{Names, Request};
use lvs_core::{Command, ControlError, Director, Instant, ServiceKey, Settings};

use super::overlay::Overlay;

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
        let text: String = lines(command, settings).iter().map(|line| line.text() + "\n").collect();
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
            let of_command = lines(command, &settings);
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

    /// The command was carried out: it counts from now on. `settings` are those it found.
    pub fn keep(&mut self, command: &Command, settings: &Settings) {
        lines(command, settings).iter().for_each(|line| self.overlay.note(line));
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
/// fit them any more is left out.
pub fn replay(director: &mut Director, text: &str) {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    for line in text[..end].lines().filter_map(line) {
        let command = match line {
            Line::Command(command) => command,
            Line::Setting(name, value) => {
                let mut settings = director.settings().clone();
                if settings.set(&name, &value).is_err() {
                    continue;
                }
                Command::SetSettings(settings)
            }
        };
        let again = match (director.apply(Instant::ZERO, &command), command) {
            (Err(ControlError::ServiceExists(_)), Command::AddService(key, config)) => {
                Command::EditService(key, config)
            }
            (Err(ControlError::ServerExists(_)), Command::AddServer(key, config)) => Command::EditServer(key, config),
            _ => continue,
        };
        let _ = director.apply(Instant::ZERO, &again);
    }
}

/// One line of the file.
#[derive(Clone, PartialEq, Debug)]
pub enum Line {
    /// What has words in ipvsadm.
    Command(Command),
    /// A setting's name and value.
    Setting(String, String),
}

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Command(command) => lvs_admin::command_line(command).unwrap_or_default(),
            Self::Setting(name, value) => format!("{SETTING}{name}={value}"),
        }
    }
}

fn line(text: &str) -> Option<Line> {
    if let Some((name, value)) = text.strip_prefix(SETTING).and_then(|rest| rest.split_once('=')) {
        return Some(Line::Setting(name.to_owned(), value.to_owned()));
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
        command if lvs_admin::command_line(command).is_some() => vec![Line::Command(command.clone())],
        _ => Vec::new(),
    }
}

const SETTING: &str = "setting ";
/// A file shorter than this is not written anew.
const REWRITE_MIN: u64 = 1 << 20;
/// A symbolic link in the file's place is not followed.
const NO_LINKS: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
