//! What a director remembers, as bytes: connections, templates, deleted servers, where schedulers stand, what was counted.
//! A new director that is given the same rules and these bytes goes on where the old one was: connections keep their
//! servers, their local endpoints and their time.
//!
//! ```
//! use core::time::Duration;
//! use lvs_core::snapshot::{Restore, Snapshot};
//! use lvs_core::{Director, DirectorConfig, Instant, Seed};
//!
//! let old = Director::new(DirectorConfig::default(), Seed::new(1));
//! let (mut snapshot, mut saved) = (Snapshot::new(), Vec::new());
//! let mut chunk = [0; Snapshot::CHUNK];
//! loop {
//!     // Packets may be handled between two steps.
//!     match old.save(Instant::from_secs(9), &mut snapshot, &mut chunk) {
//!         0 => break,
//!         len => saved.extend_from_slice(&chunk[..len]),
//!     }
//! }
//!
//! let mut restore = Restore::new();
//! restore.feed(&saved)?;
//! let mut new = Director::new(DirectorConfig::default(), Seed::new(2));
//! let restored = new.restore(Instant::ZERO, &restore.finish()?, Duration::from_secs(1), |_| true);
//! assert_eq!(restored.connections, 0);
//! # Ok::<(), lvs_core::snapshot::Broken>(())
//! ```
//!
//! # What is in it, and what is not
//!
//! Rules and settings are not: the operator's file says them, and a snapshot only adds to what it says. A server that the
//! rules do not name any more is a deleted one. Fragments and packets that wait are not either, nor what only defends
//! (drop modes, the order in which others give way), lblc's and lblcr's memories, numbers that `check_window` follows, and
//! ports of FullNAT that rest. Clocks differ: times are said as time left, in milliseconds, rounded up.
//!
//! # While packets go on
//!
//! A snapshot is taken in steps of [`Snapshot::ENTRIES_PER_STEP`] entries, and packets may be handled between them. Each
//! row is right for the moment of its step. What begins behind the step is not in it; what ends is, and times out in the
//! new director. A connection that was opened anew meanwhile is in it twice, and the later row counts. One whose template
//! or parent is not in it goes on without. Servers are said again when some came or went.
//!
//! # Format 1
//!
//! `LVSSNP` and the version (2 bytes), then blocks: kind (1 byte), length (4), rows, CRC-32C of all that (4). Numbers are
//! little-endian. A block of an unknown kind is passed over and counted; so is what a row has behind what is known. The
//! last block says how many blocks there were. A snapshot of another version is refused.

pub(crate) mod codec;
mod read;
pub(crate) mod rows;

use core::time::Duration;

use crate::snapshot::codec::Writer;
use crate::wire::sctp;
pub(crate) use read::Row;
pub use read::{Broken, Restore, Saved};

/// A snapshot under way: how far it is. See [`crate::Director::save`].
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) stage: Stage,
    /// The place that comes next.
    pub(crate) place: u32,
    /// Which servers were said.
    pub(crate) servers: Option<u64>,
    /// Entries come next, whatever became of servers meanwhile: so it comes to an end.
    pub(crate) goes_on: bool,
    blocks: u32,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Stage {
    #[default]
    Beginning,
    Totals,
    Servers {
        /// What follows: connections may name servers that came only now.
        again: Option<(Resumed, u32)>,
    },
    Services,
    Templates,
    Connections,
    End,
    Over,
}

/// What goes on when servers were said again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resumed {
    Templates,
    Connections,
}

impl Snapshot {
    /// A buffer of this size holds what a step writes.
    pub const CHUNK: usize = 64 << 10;
    /// Entries that one step looks at: some 100 µs.
    pub const ENTRIES_PER_STEP: u32 = 1_024;

    /// One that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the beginning; returns how long it is.
    pub(crate) fn begin(&mut self, into: &mut [u8]) -> usize {
        let mut to = Writer::new(into);
        to.bytes(&MAGIC);
        to.u16(VERSION);
        self.stage = Stage::Totals;
        to.len()
    }

    /// Writes a block around its rows; returns how long it is.
    pub(crate) fn block(&mut self, kind: Kind, into: &mut [u8], rows: impl FnOnce(&mut Writer<'_>)) -> usize {
        let Some(room) = into.len().checked_sub(AROUND).map(|room| room.min(BLOCK_MAX)) else { return 0 };
        let mut to = Writer::new(&mut into[HEAD..HEAD + room]);
        rows(&mut to);
        let len = to.len();
        into[0] = kind as u8;
        into[1..HEAD].copy_from_slice(&(len as u32).to_le_bytes());
        let sum = sctp::crc32c(&into[..HEAD + len]);
        into[HEAD + len..][..TAIL].copy_from_slice(&sum.to_le_bytes());
        self.blocks += 1;
        len + AROUND
    }

    /// Writes the end.
    pub(crate) fn end(&mut self, into: &mut [u8]) -> usize {
        let blocks = self.blocks;
        self.stage = Stage::Over;
        self.block(Kind::End, into, |to| to.u32(blocks))
    }
}

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Totals = 1,
    Servers = 2,
    Services = 3,
    Templates = 4,
    Connections = 5,
    End = 255,
}

/// What [`crate::Director::restore`] asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A connection of this client.
    Connection(core::net::IpAddr),
    /// A template of this client, or network of clients.
    Template(core::net::IpAddr),
    /// What was counted, and where schedulers stand.
    Counts,
}

/// What became of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Connections that go on.
    pub connections: u32,
    /// Templates that go on.
    pub templates: u32,
    /// Entries whose time was over meanwhile.
    pub ended: u32,
    /// Entries for which a table, or their client's share of it, had no room.
    pub no_room: u32,
    /// FullNAT connections whose local port this director does not have, or somebody else has.
    pub no_port: u32,
    /// Entries whose server the snapshot does not say, or that cannot be as it says them.
    pub no_server: u32,
    /// Entries that were not wanted.
    pub left_out: u32,
    /// Entries that were opened anew while the snapshot was taken, or are there already.
    pub replaced: u32,
}

impl Restored {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            templates: self.templates + other.templates,
            ended: self.ended + other.ended,
            no_room: self.no_room + other.no_room,
            no_port: self.no_port + other.no_port,
            no_server: self.no_server + other.no_server,
            left_out: self.left_out + other.left_out,
            replaced: self.replaced + other.replaced,
        }
    }
}

/// How much of its time an entry has left after being away, if any.
pub(crate) fn left(remaining: Duration, away: Duration) -> Option<Duration> {
    remaining.checked_sub(away).filter(|left| !left.is_zero())
}

const MAGIC: [u8; 6] = *b"LVSSNP";
/// The only version there is.
const VERSION: u16 = 1;
/// Before the rows of a block: kind and length.
const HEAD: usize = 5;
/// Behind them: the checksum.
const TAIL: usize = 4;
const AROUND: usize = HEAD + TAIL;
/// The longest block.
const BLOCK_MAX: usize = 1 << 20;
