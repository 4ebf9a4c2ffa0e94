//! Putting fragmented datagrams together for whoever needs them whole: ends of tunnels, a host.

use alloc::vec::Vec;

use super::{DatagramKey, Decision, Fit, FragmentMemory};
use crate::drop_reason::DropReason;
use crate::packet::{HEADROOM, PacketBuf};
use crate::rng::Seed;
use crate::time::Instant;
use crate::wire::parse::Headers;

/// What became of a fragment.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Collected {
    /// The datagram is whole: it lies in this storage, behind [`HEADROOM`] bytes. An IPv6 one keeps its fragment header
    /// ([`crate::wire::reassembly::Assembly::join`]).
    Whole(Vec<u8>),
    /// It waits for the others.
    Kept,
    /// Its datagram is not wanted ([`Reassembler::decline`]).
    Declined,
}

/// Fragmented datagrams in progress: bounded in datagrams and bytes of memory, of which no source has more than an
/// eighth; for 30 s each (Linux `ipfrag_time`), in IPv6 60 s (RFC 8200 §4.5). When it is full, the oldest gives way.
///
/// A part that contradicts those that came before (it overlaps them with other bytes, or names another end) begins
/// another datagram of the same number, and what was there is given up (RFC 5722).
///
/// ```
/// use lvs_core::fragment::{Collected, Reassembler};
/// use lvs_core::wire::parse::parse;
/// use lvs_core::{HEADROOM, Instant, PacketBuf, Seed};
/// // 10.0.0.1 > 10.0.0.2, UDP, identification 7: the last twelve bytes, then the first eight.
/// let parts: [&[u8]; 2] = [
///     &[69, 0, 0, 32, 0, 7, 0, 1, 64, 17, 0x66, 0xc3, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
///     &[69, 0, 0, 28, 0, 7, 0x20, 0, 64, 17, 0x46, 0xc8, 10, 0, 0, 1, 10, 0, 0, 2, 4, 0, 0, 80, 0, 20, 0, 0],
/// ];
/// let mut reassembler = Reassembler::new(64, 4 << 20, Seed::new(1));
/// let mut collected = parts.map(|bytes| {
///     let mut storage = bytes.to_vec();
///     let packet = PacketBuf::new(&mut storage, 0, bytes.len());
///     reassembler.collect(Instant::ZERO, &packet, &parse(bytes).unwrap())
/// });
/// assert_eq!(collected[0], Ok(Collected::Kept));
/// let Ok(Collected::Whole(storage)) = &collected[1] else { panic!("all of it is there") };
/// assert_eq!(parse(&storage[HEADROOM..]).unwrap().packet_len, 40);
/// ```
#[derive(Debug)]
pub struct Reassembler {
    memory: FragmentMemory<()>,
}

impl Reassembler {
    /// Room for so many datagrams at once, whose parts hold at most `bytes_max` bytes of memory together.
    pub fn new(datagrams_max: u32, bytes_max: u32, seed: Seed) -> Self {
        Self { memory: FragmentMemory::new(datagrams_max, bytes_max, seed) }
    }

    /// Takes a copy of a fragment. `headers` are its own.
    ///
    /// # Errors
    /// Nothing has been kept of it. [`DropReason::MalformedIp`]: it is no fragment, or cannot be one.
    /// [`DropReason::OverlappingFragment`]: it has come already, or its datagram is in too many pieces.
    /// [`DropReason::FragmentTableFull`]: it finds no room. [`DropReason::TooBig`]: it completes a datagram that is
    /// longer than an IP packet can be.
    pub fn collect(
        &mut self,
        now: Instant,
        packet: &PacketBuf<'_>,
        headers: &Headers,
    ) -> Result<Collected, DropReason> {
        let part = headers.fragment.ok_or(DropReason::MalformedIp)?;
        let len = headers.part_len(&part);
        if len == 0 || part.more && len % 8 != 0 {
            return Err(DropReason::MalformedIp);
        }
        let key = DatagramKey::of(headers, &part);
        let known = self.memory.find(now, &key);
        let known = match known.map(|id| (id, self.memory.decision(id))) {
            // The first part of a datagram that is not wanted may be another datagram's.
            Some((id, decision)) if !matches!(decision, Decision::Collecting) => {
                if part.offset != 0 {
                    return Ok(Collected::Declined);
                }
                self.memory.forget(id);
                None
            }
            Some((id, _)) => match self.memory.fit(id, packet.bytes(), headers, &part) {
                Fit::Fits => Some(id),
                Fit::Repeats | Fit::TooManyPieces => return Err(DropReason::OverlappingFragment),
                Fit::Contradicts => {
                    self.memory.forget(id);
                    None
                }
            },
            None => None,
        };
        let id = known.or_else(|| self.memory.remember(now, (key, false), Decision::Collecting));
        let id = id.ok_or(DropReason::FragmentTableFull)?;
        let is_whole = self.memory.collect(id, packet, headers);
        if is_whole != Ok(true) {
            if known.is_none() && is_whole.is_err() {
                self.memory.forget(id);
            }
            return is_whole.map(|_| Collected::Kept);
        }
        let (assembly, _) = self.memory.take_assembly(id);
        self.memory.forget(id);
        let mut storage = alloc::vec![0; HEADROOM];
        assembly.join(&mut storage)?;
        Ok(Collected::Whole(storage))
    }

    /// The datagram that this fragment belongs to is not wanted: what was kept of it is given up, its later parts are
    /// not kept.
    pub fn decline(&mut self, now: Instant, headers: &Headers) {
        let Some(part) = headers.fragment else { return };
        let key = DatagramKey::of(headers, &part);
        if let Some(id) = self.memory.find(now, &key) {
            self.memory.forget(id);
        }
        self.memory.remember(now, (key, false), Decision::Pass);
    }

    /// Gives up datagrams whose parts did not come in time: a bounded number at each call, the rest at the next.
    /// Returns how many parts were kept of them.
    pub fn handle_timeout(&mut self, now: Instant) -> u32 {
        let (mut budget, mut parts) = (EXPIRED_AT_ONCE, 0);
        while let Some(id) = self.memory.pop_expired(now, &mut budget) {
            parts += self.memory.forget(id);
        }
        parts
    }

    /// How many parts have been given up to make room for others since this was last asked for.
    pub fn take_given_up(&mut self) -> u32 {
        self.memory.take_given_up().parts
    }

    /// Datagrams in progress.
    pub fn len(&self) -> u32 {
        self.memory.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.memory.len() == 0
    }
}

/// Steps of one call that gives up late datagrams.
const EXPIRED_AT_ONCE: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse::parse;
    use crate::wire::{ipv4, write_u16};
    use core::time::Duration;

    /// Eight or three bytes of a datagram from 10.0.`source`.
    fn part(source: u16, id: u16, offset: u16, more: bool, byte: u8) -> Vec<u8> {
        let data = if more { 8 } else { 3 };
        let mut packet = alloc::vec![byte; 20 + data];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 20 + data as u8, 0, 0, 0, 0, 64, 17, 0, 0]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 0, 192, 0, 2, 1]);
        write_u16(&mut packet, 4, id);
        write_u16(&mut packet, 6, (offset / 8) | (u16::from(more) << 13));
        write_u16(&mut packet, 14, source);
        ipv4::recompute_checksum(&mut packet, 20);
        packet
    }

    fn collect(reassembler: &mut Reassembler, now: Instant, mut bytes: Vec<u8>) -> Result<Collected, DropReason> {
        let headers = parse(&bytes).unwrap();
        let len = bytes.len();
        reassembler.collect(now, &PacketBuf::new(&mut bytes, 0, len), &headers)
    }

    fn data(collected: Result<Collected, DropReason>) -> Option<Vec<u8>> {
        match collected {
            Ok(Collected::Whole(storage)) => Some(storage[HEADROOM + 20..].to_vec()),
            _ => None,
        }
    }

    const T0: Instant = Instant::ZERO;

    #[test]
    fn what_does_not_complete_is_forgotten_in_time() {
        let mut reassembler = Reassembler::new(64, 1 << 20, Seed::new(1));
        assert_eq!(collect(&mut reassembler, T0, part(1, 7, 0, true, 1)), Ok(Collected::Kept));
        let late = T0 + Duration::from_secs(30);
        assert_eq!(collect(&mut reassembler, late, part(1, 7, 8, false, 2)), Ok(Collected::Kept));
        assert_eq!(reassembler.handle_timeout(late), 1);
        assert_eq!(reassembler.len(), 1);
    }

    #[test]
    fn a_part_that_contradicts_begins_another_datagram() {
        let mut reassembler = Reassembler::new(64, 1 << 20, Seed::new(1));
        assert_eq!(collect(&mut reassembler, T0, part(1, 7, 0, true, 1)), Ok(Collected::Kept));
        assert_eq!(
            collect(&mut reassembler, T0, part(1, 7, 0, true, 1)),
            Err(DropReason::OverlappingFragment),
            "the same"
        );
        assert_eq!(collect(&mut reassembler, T0, part(1, 7, 0, true, 9)), Ok(Collected::Kept), "another first");
        let whole = data(collect(&mut reassembler, T0, part(1, 7, 8, false, 2)));
        assert_eq!(whole, Some([[9; 8].as_slice(), &[2; 3]].concat()));
        assert!(reassembler.is_empty());
    }

    #[test]
    fn the_oldest_gives_way_and_of_a_greedy_source_its_own() {
        let mut reassembler = Reassembler::new(256, 1 << 20, Seed::new(1));
        assert_eq!(collect(&mut reassembler, T0, part(1, 7, 0, true, 1)), Ok(Collected::Kept));
        for id in 0..1_000 {
            assert_eq!(collect(&mut reassembler, T0, part(2, id, 0, true, 1)), Ok(Collected::Kept));
        }
        assert_eq!(reassembler.len(), 1 + 256 / 8);
        assert!(data(collect(&mut reassembler, T0, part(1, 7, 8, false, 2))).is_some());
        assert_eq!(collect(&mut reassembler, T0, part(1, 8, 0, true, 1)), Ok(Collected::Kept));
        for source in 10..1_000 {
            assert_eq!(collect(&mut reassembler, T0, part(source, 7, 0, true, 1)), Ok(Collected::Kept));
        }
        assert_eq!(reassembler.len(), 256);
        assert!(reassembler.take_given_up() > 1_000);
        assert_eq!(data(collect(&mut reassembler, T0, part(1, 8, 8, false, 2))), None, "it was the oldest");
        assert!(data(collect(&mut reassembler, T0, part(999, 7, 8, false, 2))).is_some());
    }

    #[test]
    fn parts_of_what_is_declined_are_not_kept_until_another_begins() {
        let mut reassembler = Reassembler::new(64, 1 << 20, Seed::new(1));
        assert_eq!(collect(&mut reassembler, T0, part(1, 7, 8, false, 2)), Ok(Collected::Kept));
        reassembler.decline(T0, &parse(&part(1, 7, 0, true, 1)).unwrap());
        assert_eq!(collect(&mut reassembler, T0, part(1, 7, 8, false, 2)), Ok(Collected::Declined));
        assert_eq!(collect(&mut reassembler, T0, part(1, 7, 0, true, 3)), Ok(Collected::Kept));
        assert!(data(collect(&mut reassembler, T0, part(1, 7, 8, false, 4))).is_some());
    }
}
