//! Sending all fragments of a datagram the same way, where only the first one tells which.

use alloc::vec::Vec;

use super::{DatagramKey, Decision, Fit, FragmentMemory, Part};
use crate::drop_reason::DropReason;
use crate::packet::{HEADROOM, PacketBuf};
use crate::rng::Seed;
use crate::time::Instant;
use crate::wire::parse::Headers;

/// The ways of fragmented datagrams, and copies of fragments that came before their first: bounded in datagrams and
/// bytes of memory, of which no source has more than an eighth. When it is full, the oldest gives way.
///
/// ```
/// use lvs_core::fragment::Follower;
/// use lvs_core::wire::parse::parse;
/// use lvs_core::{Instant, PacketBuf, Seed};
/// // 10.0.0.1 > 10.0.0.2, UDP, identification 7: the first eight bytes, and the other twelve.
/// let mut first = [69, 0, 0, 28, 0, 7, 0x20, 0, 64, 17, 0x46, 0xc8, 10, 0, 0, 1, 10, 0, 0, 2, 4, 0, 0, 80, 0, 20, 0, 0];
/// let other = parse(&[
///     69, 0, 0, 32, 0, 7, 0, 1, 64, 17, 0x66, 0xc3, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
/// ]).unwrap();
/// let mut follower = Follower::new(64, 4 << 20, Seed::new(1));
/// assert_eq!(follower.follow(Instant::ZERO, &other), None);
/// follower.learn(Instant::ZERO, &parse(&first).unwrap(), "left");
/// assert_eq!(follower.follow(Instant::ZERO, &other), Some("left"));
/// ```
#[derive(Debug)]
pub struct Follower<T> {
    memory: FragmentMemory<T>,
}

/// A fragment that waited for its datagram's first.
#[derive(Debug)]
pub struct Waited(Part);

impl Waited {
    /// The packet, with [`HEADROOM`] bytes before it.
    pub fn packet(&mut self) -> PacketBuf<'_> {
        let len = self.0.storage.len() - HEADROOM;
        let mut packet = PacketBuf::new(&mut self.0.storage, HEADROOM, len);
        (packet.mark, packet.link_priority) = (self.0.mark, self.0.link_priority);
        packet
    }
}

impl<T: Copy> Follower<T> {
    /// Room for so many datagrams at once, whose waiting parts hold at most `bytes_max` bytes of memory together.
    pub fn new(datagrams_max: u32, bytes_max: u32, seed: Seed) -> Self {
        Self { memory: FragmentMemory::new(datagrams_max, bytes_max, seed) }
    }

    /// The way of a later fragment, if its datagram's first one has told it.
    pub fn follow(&mut self, now: Instant, headers: &Headers) -> Option<T> {
        let part = headers.fragment?;
        let id = self.memory.find(now, &DatagramKey::of(headers, &part))?;
        let Decision::Follow(way) = self.memory.decision(id) else { return None };
        if self.memory.note(id, headers, &part) {
            self.memory.forget(id);
        }
        Some(way)
    }

    /// Notes the way a first fragment tells. Returns those that waited for it, in the order they came.
    pub fn learn(&mut self, now: Instant, headers: &Headers, way: T) -> Vec<Waited> {
        let Some(part) = headers.fragment.filter(|part| part.more) else { return Vec::new() };
        let key = DatagramKey::of(headers, &part);
        let known = self.memory.find(now, &key);
        let is_waited_for = |id: &_| matches!(self.memory.decision(*id), Decision::Open);
        let id = match (known.filter(is_waited_for), known) {
            (Some(id), _) => Some(id),
            (None, old) => {
                // Another datagram of the same number.
                old.map(|id| self.memory.forget(id));
                self.memory.remember(now, (key, false), Decision::Open)
            }
        };
        let Some(id) = id else { return Vec::new() };
        self.memory.decide(id, Decision::Follow(way), false);
        let is_complete = self.memory.note(id, headers, &part);
        let waited = self.memory.take_waiting(id).into_iter().map(Waited).collect();
        if is_complete {
            self.memory.forget(id);
        }
        waited
    }

    /// Lets a copy of a later fragment wait for its datagram's first.
    ///
    /// # Errors
    /// Nothing has been kept of it. [`DropReason::FragmentTableFull`]: it finds no room, or too many wait for this
    /// first one. [`DropReason::OverlappingFragment`]: it has come already. [`DropReason::MalformedIp`]: it is no
    /// fragment.
    pub fn wait(&mut self, now: Instant, packet: &PacketBuf<'_>, headers: &Headers) -> Result<(), DropReason> {
        let part = headers.fragment.ok_or(DropReason::MalformedIp)?;
        let key = DatagramKey::of(headers, &part);
        let known = match self.memory.find(now, &key) {
            Some(id) => match self.memory.fit(id, packet.bytes(), headers, &part) {
                Fit::Fits => Some(id),
                Fit::Repeats | Fit::TooManyPieces => return Err(DropReason::OverlappingFragment),
                Fit::Contradicts => {
                    self.memory.forget(id);
                    None
                }
            },
            None => None,
        };
        let id = known.or_else(|| self.memory.remember(now, (key, false), Decision::Open));
        let id = id.ok_or(DropReason::FragmentTableFull)?;
        let kept = self.memory.wait(id, packet, headers, &part);
        match kept {
            Ok(()) => {
                self.memory.note(id, headers, &part);
            }
            Err(_) if known.is_none() => {
                self.memory.forget(id);
            }
            Err(_) => {}
        }
        kept
    }

    /// How many parts that waited have made room for others since this was last asked for.
    pub fn take_given_up(&mut self) -> u32 {
        self.memory.take_given_up().parts
    }
}
