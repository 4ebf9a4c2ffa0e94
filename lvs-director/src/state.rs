//! What outlives the process: connections, templates, where schedulers stand, what was counted (`lvsd run --state`). Saved
//! at the end and, if asked for, every few seconds; loaded at the start, on top of the rules. Decides which worker gets
//! what; what a snapshot holds is said in `lvs_core::snapshot`, where the file lies in `state/folder.rs`.

mod folder;
mod periodic;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lvs_core::snapshot::{Entry, Restore, Restored, Saved, Snapshot};
use lvs_core::{Director, Instant};
use lvs_io::Steering;

use crate::denied::Denied;
use crate::say;
use folder::Folder;
pub(crate) use periodic::Periodic;

/// The directory, for as long as this `lvsd` runs.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: Folder,
}

impl State {
    /// Opens the directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be had, is somebody else's, or others may write in it.
    pub fn open(path: &Path) -> Result<Self, Denied> {
        Folder::open(path).map(|folder| Self { folder })
    }

    /// Gives these directors, which have their rules, what was saved. Says what came of it; a file that is broken is put
    /// aside, and the start goes on without.
    pub fn load(&self, directors: &mut [Director], steering: &Steering, now: Instant) {
        let path = self.folder.file_path();
        let file = match self.folder.read() {
            Ok(Some(file)) => file,
            Ok(None) => return,
            Err(complaint) => return say::warning(format_args!("{complaint}; connections begin anew")),
        };
        match read(file) {
            Ok((header, parts)) => {
                let away = header.age();
                let restored = share_out(directors, steering, now, (&header, &parts), away);
                say::note(told(&restored, away, &path));
            }
            Err(complaint) => {
                let aside = self.folder.put_aside().map_or_else(
                    |error| format!("it stays there: {error}"),
                    |to| format!("it is kept as {}", to.display()),
                );
                say::warning(format_args!("{}: {complaint}; {aside}; connections begin anew", path.display()));
            }
        }
    }

    /// Saves these directors. Says what came of it; where it fails, what was saved before stays.
    pub fn save<'a>(&self, directors: impl Iterator<Item = &'a Director>, steering: &Steering, now: Instant) {
        let mut connections = 0;
        let outcome = self.folder.write(|file| {
            file.write_all(&Header::now(steering).bytes())?;
            let mut chunk = vec![0; Snapshot::CHUNK];
            for director in directors {
                connections += director.connection_count(now);
                let mut snapshot = Snapshot::new();
                loop {
                    match director.save(now, &mut snapshot, &mut chunk) {
                        0 => break,
                        len => file.write_all(&chunk[..len])?,
                    }
                }
            }
            Ok(())
        });
        match outcome {
            Ok(()) => {
                say::note(format_args!("{connections} connections saved in {}", self.folder.file_path().display()))
            }
            Err(error) => say::warning(self.failed(&error)),
        }
    }

    fn failed(&self, error: &io::Error) -> String {
        let path = self.folder.file_path();
        format!("cannot save connections in {}: {error}; what was saved before stays", path.display())
    }
}

/// Gives each director what is its own by now.
fn share_out(
    directors: &mut [Director],
    steering: &Steering,
    now: Instant,
    (header, parts): (&Header, &[Saved]),
    away: Duration,
) -> Restored {
    let count = directors.len();
    // The same workers share the same clients: then a template of a whole network is its old worker's.
    let is_same = parts.len() == count && header.probe == probe(steering);
    let mut all = Restored::default();
    for (shard, director) in directors.iter_mut().enumerate() {
        for (part, saved) in parts.iter().enumerate() {
            let restored = director.restore(now, saved, away, |entry| match entry {
                Entry::Connection(client) => steering.owner(client) == shard,
                Entry::Template(_) if is_same => part == shard,
                Entry::Template(_) => true,
                Entry::Counts => part % count == shard,
            });
            all = all.plus(restored);
        }
    }
    all
}

fn told(restored: &Restored, away: Duration, path: &Path) -> String {
    let reasons = [
        (restored.ended, "ended meanwhile"),
        (restored.no_room, "have no room"),
        (restored.no_port, "have no local port in their worker"),
        (restored.no_server, "have no server"),
    ];
    let reasons: Vec<String> =
        reasons.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
    let left_out = if reasons.is_empty() { String::new() } else { format!("; {}", reasons.join(", ")) };
    format!(
        "{} connections and {} templates go on from {}, saved {} s ago{left_out}",
        restored.connections + restored.replaced,
        restored.templates,
        path.display(),
        away.as_secs()
    )
}

/// What stands before the workers' snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    /// How many snapshots follow.
    workers: u32,
    saved_at: Duration,
    /// What the hash made of an address: whether clients are shared in the same way.
    probe: u32,
}

impl Header {
    const LEN: usize = 56;

    fn now(steering: &Steering) -> Self {
        let saved_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { workers: steering.shards() as u32, saved_at, probe: probe(steering) }
    }

    /// How long ago it was saved, by the wall clock: the process' own stands still between two lives.
    fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(self.saved_at)
    }

    /// Magic; version and workers, time, probe; these again with all bits the other way, which tells damage.
    fn bytes(&self) -> [u8; Self::LEN] {
        let millis = u64::try_from(self.saved_at.as_millis()).unwrap_or(u64::MAX);
        let words = [VERSION | u64::from(self.workers) << 32, millis, self.probe.into()];
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        for (place, word) in bytes[8..].chunks_exact_mut(8).zip(words.into_iter().chain(words.map(|word| !word))) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn of(bytes: &[u8; Self::LEN]) -> Result<Self, String> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * at + byte]));
        if bytes[..8] != MAGIC {
            return Err("this is no state of lvsd".to_owned());
        }
        if (1..4).any(|at| word(at) != !word(at + 3)) {
            return Err("damaged at its beginning".to_owned());
        }
        match word(1) & u64::from(u32::MAX) {
            VERSION => {}
            other => return Err(format!("state of format {other}; this lvsd reads format {VERSION}")),
        }
        let (workers, saved_at) = ((word(1) >> 32) as u32, Duration::from_millis(word(2)));
        Ok(Self { workers, saved_at, probe: word(3) as u32 })
    }
}

fn probe(steering: &Steering) -> u32 {
    steering.hash().of(std::net::Ipv4Addr::new(203, 0, 113, 77).into())
}

/// Reads header and snapshots. All of it is right, or none of it is given out.
fn read(mut file: File) -> Result<(Header, Vec<Saved>), String> {
    let mut header = [0; Header::LEN];
    file.read_exact(&mut header).map_err(|error| format!("cut off at its beginning: {error}"))?;
    let header = Header::of(&header)?;
    let mut parts = Vec::new();
    let mut restore = Restore::new();
    let mut has_begun = false;
    let mut buffer = vec![0; Snapshot::CHUNK];
    loop {
        let len = file.read(&mut buffer).map_err(|error| format!("cannot be read: {error}"))?;
        if len == 0 {
            break;
        }
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            let taken = restore.feed(rest).map_err(|broken| broken.to_string())?;
            has_begun = true;
            rest = &rest[taken..];
            if restore.is_whole() {
                parts.push(std::mem::take(&mut restore).finish().map_err(|broken| broken.to_string())?);
                has_begun = false;
            }
        }
    }
    if has_begun || parts.len() != header.workers as usize {
        return Err("cut off, or longer than it was".to_owned());
    }
    Ok((header, parts))
}

const MAGIC: [u8; 8] = *b"LVSSTATE";
/// The only version there is.
const VERSION: u64 = 1;

#[cfg(test)]
mod tests;
