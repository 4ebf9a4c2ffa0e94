//! What `lvsd realserver` remembers between its runs: what it changed, and who needs it. One file for each network
//! namespace, a line for each fact, locked while somebody works with it.
//!
//! ```text
//! setting net/ipv4/conf/all/arp_ignore 0 1    it had the first value and was given the second
//! address 192.0.2.80                          it was put on lo
//! host 192.0.2.80                             needed until `stop`
//! process 4711 88120 192.0.2.80               needed by a tunnel end: process, and when that started
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What was changed, and who needs it.
#[derive(Default, Debug)]
pub(super) struct Memory {
    pub changes: Vec<Change>,
    pub needs: Vec<Need>,
}

/// One thing that was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// `lo` has the address now.
    Address(IpAddr),
    /// A kernel setting has another value now.
    Setting { name: String, before: String, after: String },
}

/// Somebody needs an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Need {
    pub owner: Owner,
    pub vip: IpAddr,
}

/// Who needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The machine, from `start` to `stop`.
    Host,
    /// A running tunnel end. The kernel gives process ids again, but not with the same start (proc(5), `starttime`).
    Process { id: u32, started: u64 },
}

impl Change {
    pub fn is_about_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Setting { name: one, .. }, Self::Setting { name: other, .. }) => one == other,
            _ => false,
        }
    }
}

impl Owner {
    /// This process.
    pub fn this_process() -> Self {
        let id = std::process::id();
        Self::Process { id, started: started(id).unwrap_or_default() }
    }

    /// Whether it is still there.
    pub fn is_alive(self) -> bool {
        match self {
            Self::Host => true,
            Self::Process { id, started: then } => started(id) == Some(then),
        }
    }
}

/// When a process started, in clock ticks since the machine did; `None` if there is none with this id.
fn started(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field, a name in parentheses, may hold anything; the starting time is the 20th behind it.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Where the calling thread's network namespace is remembered: gone after a restart, as the changes are.
pub fn default_path() -> PathBuf {
    // Without /proc nothing else would work either.
    let inode = fs::metadata("/proc/thread-self/ns/net").map_or(0, |namespace| namespace.ino());
    PathBuf::from(format!("/run/lvsd-realserver.{inode}"))
}

/// The memory while nobody else reads or changes it.
pub(super) struct Locked<'a> {
    path: &'a Path,
    file: File,
    pub memory: Memory,
}

impl<'a> Locked<'a> {
    /// Waits until nobody else works with it, and reads it.
    pub fn open(path: &'a Path) -> Result<Self, String> {
        let error = |error| cannot("change", path, error);
        loop {
            let mut options = File::options();
            let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(error)?;
            file.lock().map_err(error)?;
            // Whoever had it before may have removed it.
            let is_the_same = |there: fs::Metadata| file.metadata().is_ok_and(|here| here.ino() == there.ino());
            if !fs::metadata(path).is_ok_and(is_the_same) {
                continue;
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(error)?;
            let memory =
                Memory::read(&text).map_err(|line| format!("{}: {line:?} is not understood", path.display()))?;
            return Ok(Self { path, file, memory });
        }
    }

    /// Writes it down.
    pub fn remember(&mut self) -> Result<(), String> {
        let text = self.memory.to_string();
        let mut write = || {
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
            self.file.set_len(text.len() as u64)
        };
        write().map_err(|error| cannot("write", self.path, error))
    }
}

impl Drop for Locked<'_> {
    /// Nothing to remember needs no file. One that cannot be removed says the same.
    fn drop(&mut self) {
        if self.memory.changes.is_empty() && self.memory.needs.is_empty() {
            let _ = fs::remove_file(self.path);
        }
    }
}

fn cannot(what: &str, path: &Path, error: io::Error) -> String {
    let remedy = if error.kind() == io::ErrorKind::PermissionDenied { "; run as root" } else { "" };
    format!("cannot {what} {}: {error}{remedy}", path.display())
}

impl Memory {
    /// Reads it without changing anything.
    pub fn load(path: &Path) -> Result<Self, String> {
        match File::open(path).and_then(|file| file.lock_shared().map(|()| file)) {
            Ok(mut file) => Self::read_from(&mut file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(cannot("read", path, error)),
        }
    }

    fn read_from(file: &mut File, path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| cannot("read", path, error))?;
        Self::read(&text).map_err(|line| format!("{}: {line:?} is not understood", path.display()))
    }

    /// Reads what [`fmt::Display`] wrote; an error is the line that is not understood.
    fn read(text: &str) -> Result<Self, String> {
        let mut memory = Self::default();
        for line in text.lines() {
            memory.read_line(line).ok_or_else(|| line.to_owned())?;
        }
        Ok(memory)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["address", vip] => self.changes.push(Change::Address(vip.parse().ok()?)),
            ["setting", name, before, after] => self.changes.push(Change::Setting {
                name: (*name).to_owned(),
                before: (*before).to_owned(),
                after: (*after).to_owned(),
            }),
            ["host", vip] => self.needs.push(Need { owner: Owner::Host, vip: vip.parse().ok()? }),
            ["process", id, started, vip] => {
                let owner = Owner::Process { id: id.parse().ok()?, started: started.parse().ok()? };
                self.needs.push(Need { owner, vip: vip.parse().ok()? });
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether anybody needs the address.
    pub fn is_needed(&self, vip: IpAddr) -> bool {
        self.needs.iter().any(|need| need.vip == vip)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            match change {
                Change::Address(vip) => writeln!(f, "address {vip}")?,
                Change::Setting { name, before, after } => writeln!(f, "setting {name} {before} {after}")?,
            }
        }
        for Need { owner, vip } in &self.needs {
            match owner {
                Owner::Host => writeln!(f, "host {vip}")?,
                Owner::Process { id, started } => writeln!(f, "process {id} {started} {vip}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back() {
        let text = "setting net/ipv4/conf/all/arp_ignore 0 1\naddress 192.0.2.80\naddress 2001:db8::80\n\
                    host 192.0.2.80\nprocess 4711 88120 192.0.2.80\n";
        assert_eq!(Memory::read(text).expect("understood").to_string(), text);
        for line in ["address", "setting a b", "host x", "process 1 192.0.2.80", "rubbish"] {
            assert_eq!(Memory::read(line).err(), Some(line.to_owned()));
        }
    }

    #[test]
    fn this_process_is_alive_and_one_that_started_at_another_time_is_not() {
        let this = Owner::this_process();
        assert!(this.is_alive());
        let Owner::Process { id, started } = this else { panic!("it is one") };
        assert!(!Owner::Process { id, started: started + 1 }.is_alive());
    }
}
