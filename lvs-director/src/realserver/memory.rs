//! What `lvsd realserver` remembers between its runs: what it changed, and who needs it. One file for each network
//! namespace, a line for each fact, locked while somebody works with it. It is replaced, never overwritten: what cannot
//! be written whole leaves the old one.
//!
//! ```text
//! namespace 3dc6c8f4-d4bd-4c26-99b9-32d9a6622bc9 3
//!                                             the machine's run and the network namespace that all the rest is about
//! setting net/ipv4/conf/all/arp_ignore 0 1    it had the first value and is given the second
//! address 192.0.2.80                          it was or is to be put on lo
//! host 192.0.2.80                             needed until `stop`
//! process 4711 88120 192.0.2.80               needed by a tunnel end: process, and when that started
//! ```

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::settings;
use crate::say;

/// What was changed or is about to be, and who needs it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
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
    PathBuf::from(format!("/run/lvsd-realserver.{}", inode()))
}

/// The number of the network namespace's file. The kernel gives it to another one as soon as this one has gone.
fn inode() -> u64 {
    // Without /proc nothing else would work either.
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |namespace| namespace.ino())
}

/// Which run of the machine this is, and which network namespace the calling thread is in: two words that no other run
/// or namespace has. Before Linux 5.14 namespaces have no such number, and their file's has to do.
fn namespace() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = Some(boot.trim()).filter(|boot| !boot.is_empty()).unwrap_or("-");
    match lvs_io_afpacket::netns_cookie() {
        Ok(cookie) => format!("{boot} {cookie}"),
        Err(_) => format!("{boot} inode-{}", inode()),
    }
}

/// The memory while nobody else reads or changes it.
pub(super) struct Locked<'a> {
    path: &'a Path,
    file: File,
    pub memory: Memory,
}

impl<'a> Locked<'a> {
    /// Waits until nobody else works with it, and reads it. What is about another network namespace, or the time before
    /// the machine's start, is forgotten: it has gone with them.
    pub fn open(path: &'a Path) -> Result<Self, String> {
        let mut options = File::options();
        let file = open_alone(path, options.read(true).write(true).create(true), File::lock)
            .map_err(|error| cannot("change", path, error))?;
        let memory = Memory::read_from(&file, path)?.unwrap_or_else(|| {
            say::note(format_args!("forgets what {} says of a network namespace that is not this one", path.display()));
            Memory::default()
        });
        Ok(Self { path, file, memory })
    }

    /// Changes it, here and in the file. Where that cannot be written, it stays as it was in both; nothing to remember
    /// needs no room.
    pub fn change(&mut self, change: impl FnOnce(&mut Memory)) -> Result<(), String> {
        let mut memory = self.memory.clone();
        change(&mut memory);
        if memory == self.memory {
            return Ok(());
        }
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".new");
        let beside = Path::new(&beside);
        if !memory.is_empty() {
            self.replace(beside, &memory).map_err(|error| {
                let _ = fs::remove_file(beside);
                cannot("write", self.path, error)
            })?;
        }
        self.memory = memory;
        Ok(())
    }

    /// Writes it to a file `beside`, which nobody else touches while this one is locked, and puts that in its place.
    fn replace(&mut self, beside: &Path, memory: &Memory) -> io::Result<()> {
        match fs::remove_file(beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().read(true).write(true).create_new(true).open(beside)?;
        // Before anybody can find it.
        file.lock()?;
        write!(file, "namespace {}\n{memory}", namespace())?;
        fs::rename(beside, self.path)?;
        self.file = file;
        Ok(())
    }
}

/// Opens it and waits for the lock until the file that is locked is the one that is there: whoever had it before may
/// have removed or replaced it.
fn open_alone(path: &Path, options: &OpenOptions, lock: fn(&File) -> io::Result<()>) -> io::Result<File> {
    loop {
        let file = options.open(path)?;
        lock(&file)?;
        let here = file.metadata()?;
        if fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())) {
            return Ok(file);
        }
    }
}

impl Drop for Locked<'_> {
    /// Nothing to remember needs no file. One that cannot be removed says the same.
    fn drop(&mut self) {
        if self.memory.is_empty() {
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
        match open_alone(path, File::options().read(true), File::lock_shared) {
            Ok(file) => Ok(Self::read_from(&file, path)?.unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(cannot("read", path, error)),
        }
    }

    /// `None` if it is about another network namespace.
    fn read_from(mut file: &File, path: &Path) -> Result<Option<Self>, String> {
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| cannot("read", path, error))?;
        let facts = match text.strip_prefix("namespace ").map(|rest| rest.split_once('\n').unwrap_or((rest, ""))) {
            Some((written_in, _)) if written_in != namespace() => return Ok(None),
            Some((_, facts)) => facts,
            // It is new, or does not say: then its name has to do.
            None => &text,
        };
        Self::read(facts).map(Some).map_err(|complaint| format!("{}: {complaint}; see what it is", path.display()))
    }

    /// Reads what [`fmt::Display`] wrote; an error says which line is not understood.
    fn read(text: &str) -> Result<Self, String> {
        let mut memory = Self::default();
        for line in text.lines() {
            memory.read_line(line).ok_or_else(|| format!("{line:?} is nothing lvsd remembers"))?;
        }
        Ok(memory)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["address", vip] => self.changes.push(Change::Address(vip.parse().ok()?)),
            ["setting", name, before, after] if settings::is_ours(name) => {
                let [before, after] = [before, after].map(|value| Some(value.parse::<i32>().ok()?.to_string()));
                self.changes.push(Change::Setting { name: (*name).to_owned(), before: before?, after: after? });
            }
            ["host", vip] => self.needs.push(Need { owner: Owner::Host, vip: vip.parse().ok()? }),
            ["process", id, started, vip] => {
                let owner = Owner::Process { id: id.parse().ok()?, started: started.parse().ok()? };
                self.needs.push(Need { owner, vip: vip.parse().ok()? });
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether there is nothing to undo, and nobody who needs anything.
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.needs.is_empty()
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
            assert_eq!(Memory::read(line).err(), Some(format!("{line:?} is nothing lvsd remembers")));
        }
    }

    #[test]
    fn only_settings_that_are_ever_changed_are_read() {
        let is_read = |line: &str| Memory::read(line).is_ok();
        for name in ["all/arp_ignore", "eth0/arp_announce", "eth0.7/arp_ignore", "...a/arp_ignore", "all/rp_filter"] {
            assert!(is_read(&format!("setting net/ipv4/conf/{name} -1 2147483647")), "{name}");
        }
        for name in [
            "../../tmp/x",
            "/tmp/x",
            "kernel/core_pattern",
            "net/ipv4/ip_forward",
            "net/ipv4/conf/arp_ignore",
            "net/ipv4/conf//arp_ignore",
            "net/ipv4/conf/./arp_ignore",
            "net/ipv4/conf/../arp_ignore",
            "net/ipv4/conf/a/../arp_ignore",
            "net/ipv4/conf/../../../../tmp/arp_ignore",
            "net/ipv4/conf/a\0/arp_ignore",
            "net/ipv4/conf/all/arp_ignore/",
            "net/ipv4/conf/all/arp_ignore\0",
            "net/ipv4/conf/all/forwarding",
            "net/ipv6/conf/all/arp_ignore",
        ] {
            assert!(!is_read(&format!("setting {name} 0 1")), "{name:?}");
        }
        for values in ["x 1", "0 x", " 1", "0 ", "0 2147483648", "0x1 1", "1.5 1"] {
            assert!(!is_read(&format!("setting net/ipv4/conf/all/arp_ignore {values}")), "{values:?}");
        }
    }

    #[test]
    fn nobody_who_works_with_it_at_the_same_time_is_forgotten() {
        let path = &std::env::temp_dir().join(format!("lvsd-memory-test.{}", std::process::id()));
        let add = |id| {
            for started in 0..50 {
                let mut locked = Locked::open(path).expect("readable");
                // The lock outlasts what is written under it.
                for started in [started, started + 100] {
                    let vip = IpAddr::from([192, 0, 2, 80]);
                    let need = Need { owner: Owner::Process { id, started }, vip };
                    locked.change(|memory| memory.needs.push(need)).expect("room for it");
                }
            }
        };
        std::thread::scope(|scope| {
            for id in 0..4 {
                scope.spawn(move || add(id));
            }
        });
        let mut locked = Locked::open(path).expect("readable");
        assert_eq!(locked.memory.needs.len(), 4 * 50 * 2);
        locked.change(|memory| memory.needs.clear()).expect("nothing needs no room");
        drop(locked);
        assert!(!path.exists());
    }

    #[test]
    fn this_process_is_alive_and_one_that_started_at_another_time_is_not() {
        let this = Owner::this_process();
        assert!(this.is_alive());
        let Owner::Process { id, started } = this else { panic!("it is one") };
        assert!(!Owner::Process { id, started: started + 1 }.is_alive());
    }
}
