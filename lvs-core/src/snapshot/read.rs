//! Reading a snapshot: bytes come in pieces, and nothing of them is believed. All of it is checked before any of it is
//! given out. Memory grows with the bytes that came, never with what they claim.

use alloc::vec::Vec;

use crate::snapshot::codec::Reader;
use crate::snapshot::rows::{ConnectionRow, ServerRow, ServiceRow, TemplateRow, TotalsRow};
use crate::snapshot::{AROUND, BLOCK_MAX, HEAD, Kind, MAGIC, TAIL, VERSION};
use crate::time::Instant;
use crate::wire::sctp::crc32c;

/// Why bytes are no snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// They begin otherwise.
    #[error("this is no snapshot")]
    NotOne,
    /// They are of a version that this one does not know.
    #[error("a snapshot of format {0}; this version reads format 1")]
    Version(u16),
    /// They were changed or cut.
    #[error("damaged behind byte {at}")]
    Damaged {
        /// Where the block begins that is damaged.
        at: u64,
    },
    /// They end before the snapshot does.
    #[error("cut off after byte {at}")]
    Cut {
        /// How many there are.
        at: u64,
    },
    /// There is no memory for it.
    #[error("too little memory to read the snapshot")]
    Memory,
}

/// A snapshot that is being read.
#[derive(Debug, Default)]
pub struct Restore {
    bytes: Vec<u8>,
    /// How far they were checked.
    checked: usize,
    blocks: u32,
    unknown_blocks: u32,
    is_whole: bool,
    broken: Option<Broken>,
}

impl Restore {
    /// One of which nothing has come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. Returns how many of them were the snapshot's: fewer than all once it is whole.
    ///
    /// # Errors
    /// What is wrong with them; from then on always the same.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let mut taken = 0;
        while !self.is_whole && taken < bytes.len() {
            let wanted = self.wanted().map_err(|broken| self.refuse(broken))?;
            let step = (wanted - (self.bytes.len() - self.checked)).min(bytes.len() - taken);
            self.bytes.try_reserve(step).map_err(|_| self.refuse(Broken::Memory))?;
            self.bytes.extend_from_slice(&bytes[taken..taken + step]);
            taken += step;
            if self.bytes.len() - self.checked == wanted {
                self.check(wanted).map_err(|broken| self.refuse(broken))?;
            }
        }
        Ok(taken)
    }

    fn refuse(&mut self, broken: Broken) -> Broken {
        self.bytes = Vec::new();
        *self.broken.insert(broken)
    }

    /// Whether the whole of it has come.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What has come, once it is whole.
    ///
    /// # Errors
    /// It is not whole, or broken.
    pub fn finish(self) -> Result<Saved, Broken> {
        match self.broken {
            Some(broken) => Err(broken),
            None if self.is_whole => Ok(Saved { bytes: self.bytes, unknown_blocks: self.unknown_blocks }),
            None => Err(Broken::Cut { at: self.bytes.len() as u64 }),
        }
    }

    /// How many bytes the unit that is under way has, as far as is known.
    fn wanted(&self) -> Result<usize, Broken> {
        if self.checked == 0 {
            return Ok(BEGINNING);
        }
        let block = &self.bytes[self.checked..];
        match block.get(1..HEAD).and_then(|len| len.try_into().ok()).map(u32::from_le_bytes) {
            None => Ok(HEAD),
            Some(len) if len as usize <= BLOCK_MAX => Ok(AROUND + len as usize),
            Some(_) => Err(self.damaged()),
        }
    }

    fn damaged(&self) -> Broken {
        Broken::Damaged { at: self.checked as u64 }
    }

    /// Checks the unit that has come.
    fn check(&mut self, len: usize) -> Result<(), Broken> {
        let unit = &self.bytes[self.checked..];
        if self.checked == 0 {
            let mut unit = Reader(unit);
            if unit.bytes(MAGIC.len()) != Some(&MAGIC) {
                return Err(Broken::NotOne);
            }
            match unit.u16() {
                Some(VERSION) => self.checked = BEGINNING,
                version => return Err(Broken::Version(version.unwrap_or_default())),
            }
            return Ok(());
        }
        if len == HEAD {
            // Its length was known only now.
            return Ok(());
        }
        let (content, sum) = unit.split_at(len - TAIL);
        if crc32c(content).to_le_bytes() != *sum {
            return Err(self.damaged());
        }
        let kind = content[0];
        let rows = Reader(&content[HEAD..]);
        if kind == Kind::End as u8 {
            if rows.clone().u32() != Some(self.blocks) {
                return Err(self.damaged());
            }
            self.is_whole = true;
        } else if kind_of(kind).is_none() {
            self.unknown_blocks += 1;
        } else if rows_of(kind, rows, Instant::ZERO).any(|row| row.is_none()) {
            return Err(self.damaged());
        }
        self.blocks += 1;
        self.checked += len;
        Ok(())
    }
}

/// A snapshot that was read and found right.
#[derive(Debug)]
pub struct Saved {
    bytes: Vec<u8>,
    unknown_blocks: u32,
}

impl Saved {
    /// Blocks of kinds that only newer versions know: they are passed over.
    pub fn unknown_blocks(&self) -> u32 {
        self.unknown_blocks
    }

    /// Its rows, in order. Times inside are counted from `now`.
    pub(crate) fn rows(&self, now: Instant) -> impl Iterator<Item = Row<'_>> {
        let mut rest = Reader(&self.bytes[BEGINNING..]);
        let blocks = core::iter::from_fn(move || {
            let (kind, len) = (rest.u8()?, rest.u32()?);
            let rows = rest.bytes(len as usize)?;
            rest.u32()?;
            Some((kind, Reader(rows)))
        });
        blocks.flat_map(move |(kind, rows)| rows_of(kind, rows, now)).flatten()
    }
}

/// A row of any kind.
pub(crate) enum Row<'a> {
    Totals(TotalsRow),
    Server(ServerRow),
    Service(ServiceRow<'a>),
    Template(TemplateRow),
    Connection(ConnectionRow),
}

/// The rows of a block; `None` for one that is not right.
fn rows_of(kind: u8, mut rows: Reader<'_>, now: Instant) -> impl Iterator<Item = Option<Row<'_>>> {
    core::iter::from_fn(move || {
        let kind = kind_of(kind).filter(|_| !rows.is_empty())?;
        let row = next_row(kind, &mut rows, now);
        if row.is_none() {
            rows = Reader(&[]);
        }
        Some(row)
    })
}

fn next_row<'a>(kind: Kind, rows: &mut Reader<'a>, now: Instant) -> Option<Row<'a>> {
    match kind {
        Kind::Totals => TotalsRow::read(rows.long_row()?).map(Row::Totals),
        Kind::Servers => ServerRow::read(rows.long_row()?).map(Row::Server),
        Kind::Services => ServiceRow::read(rows.long_row()?).map(Row::Service),
        Kind::Templates => TemplateRow::read(rows.long_row()?).map(Row::Template),
        Kind::Connections => ConnectionRow::read(rows.row()?, now).map(Row::Connection),
        Kind::End => None,
    }
}

/// The kind with this number, if it has rows.
fn kind_of(number: u8) -> Option<Kind> {
    [Kind::Totals, Kind::Servers, Kind::Services, Kind::Templates, Kind::Connections]
        .into_iter()
        .find(|kind| *kind as u8 == number)
}

/// Magic and version.
const BEGINNING: usize = MAGIC.len() + 2;
