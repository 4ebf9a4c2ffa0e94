//! Putting one fragmented datagram together as its parts come, in whatever order. Parts that touch become one piece at
//! once, so that no step costs more than copying one datagram. Which datagrams are collected, how many and how long, is
//! not this file's business. Sources: RFC 791 §3.2, RFC 8200 §4.5, RFC 5722.

use alloc::vec::Vec;

use crate::drop_reason::DropReason;
use crate::flow::AddressFamily;
use crate::wire::parse::{FragmentPart, Headers};
use crate::wire::{ipv4, ipv6, write_u16};

/// How a part goes with those that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// It lies in a gap.
    Fits,
    /// All of it is there already, byte for byte: the network may duplicate.
    Repeats,
    /// It overlaps others, or one of them says that the datagram ends elsewhere: they are not of one datagram, or not
    /// to be trusted (RFC 5722).
    Contradicts,
    /// There are [`PIECES_MAX`] pieces already, and it joins none of them.
    TooManyPieces,
}

/// A datagram in progress.
///
/// ```
/// use lvs_core::wire::parse::parse;
/// use lvs_core::wire::reassembly::{Assembly, Fit};
/// // 10.0.0.1 > 10.0.0.2, UDP, identification 7: the last twelve bytes, then the first eight.
/// let parts: [&[u8]; 2] = [
///     &[69, 0, 0, 32, 0, 7, 0, 1, 64, 17, 0x66, 0xc3, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
///     &[69, 0, 0, 28, 0, 7, 0x20, 0, 64, 17, 0x46, 0xc8, 10, 0, 0, 1, 10, 0, 0, 2, 4, 0, 0, 80, 0, 20, 0, 0],
/// ];
/// let mut assembly = Assembly::default();
/// for bytes in parts {
///     let headers = parse(bytes).unwrap();
///     assert_eq!(assembly.fit(bytes, &headers), Fit::Fits);
///     assembly.add(bytes, &headers);
/// }
/// assert!(assembly.is_complete());
/// let mut whole = vec![];
/// assembly.join(&mut whole).unwrap();
/// assert_eq!(parse(&whole).unwrap().packet_len, 40);
/// ```
#[derive(Default, Debug)]
pub struct Assembly {
    family: Option<AddressFamily>,
    /// What comes before the datagram's data, from its first part; with IPv6's fragment header.
    head: Vec<u8>,
    /// Disjoint, in order, no two of them touching.
    pieces: Vec<Piece>,
    /// Length of the data, once the last part has come.
    end: Option<usize>,
    /// Length of the longest part, with its headers.
    longest: usize,
    /// How many parts have come.
    parts: u32,
    held: usize,
}

#[derive(Debug)]
struct Piece {
    start: usize,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    fn held(&self) -> usize {
        held(self.bytes.len())
    }
}

/// Most pieces of one datagram that do not touch. Parts that come in order, or the other way round, make one.
pub const PIECES_MAX: usize = 64;

impl Assembly {
    /// Whether a part may be added. `headers` are its own; a packet that is no fragment contradicts everything.
    pub fn fit(&self, bytes: &[u8], headers: &Headers) -> Fit {
        let Some((part, data)) = data_of(bytes, headers) else { return Fit::Contradicts };
        let (start, end) = (usize::from(part.offset), usize::from(part.offset) + data.len());
        let at = self.place_of(start);
        let around = [at.checked_sub(1).and_then(|before| self.pieces.get(before)), self.pieces.get(at)];
        let reach = self.pieces.last().map_or(0, Piece::end);
        let ends_elsewhere = match self.end {
            Some(known) => end > known || (!part.more && end != known),
            None => !part.more && reach > end,
        };
        if ends_elsewhere {
            return Fit::Contradicts;
        }
        let overlapped = around.into_iter().flatten().find(|piece| piece.start < end && start < piece.end());
        if let Some(piece) = overlapped {
            let is_inside = piece.start <= start && end <= piece.end();
            let is_same = is_inside && piece.bytes[start - piece.start..end - piece.start] == *data;
            return if is_same { Fit::Repeats } else { Fit::Contradicts };
        }
        let touches = around.into_iter().flatten().any(|piece| piece.start == end || piece.end() == start);
        if touches || self.pieces.len() < PIECES_MAX { Fit::Fits } else { Fit::TooManyPieces }
    }

    /// How many more bytes of memory are held once this part has been added.
    pub fn growth(&self, bytes: &[u8], headers: &Headers) -> usize {
        let Some((part, data)) = data_of(bytes, headers) else { return 0 };
        let (start, end) = (usize::from(part.offset), usize::from(part.offset) + data.len());
        let head = if part.offset == 0 { headers.packet_len - data.len() } else { 0 };
        let touching = self.pieces.iter().filter(|piece| piece.end() == start || piece.start == end);
        let (before, len) = touching.fold((0, data.len()), |(held, len), piece| {
            // What is merged was held twice.
            (held + piece.held(), len + piece.bytes.len())
        });
        head + held(len).saturating_sub(before)
    }

    /// Adds a part that [`Self::fit`] found to fit.
    pub fn add(&mut self, bytes: &[u8], headers: &Headers) {
        let Some((part, data)) = data_of(bytes, headers) else { return };
        let (start, end) = (usize::from(part.offset), usize::from(part.offset) + data.len());
        self.family = Some(headers.family);
        self.longest = self.longest.max(headers.packet_len);
        self.parts += 1;
        if !part.more {
            self.end = Some(end);
        }
        if part.offset == 0 {
            self.head = bytes[..headers.packet_len - data.len()].to_vec();
        }
        let at = self.place_of(start);
        let joins_before = at > 0 && self.pieces[at - 1].end() == start;
        let joins_after = self.pieces.get(at).is_some_and(|piece| piece.start == end);
        let after = if joins_after { self.pieces.remove(at).bytes } else { Vec::new() };
        let len = data.len() + after.len();
        if joins_before {
            let piece = &mut self.pieces[at - 1].bytes;
            if piece.capacity() < piece.len() + len {
                piece.reserve_exact(capacity(piece.len() + len) - piece.len());
            }
            piece.extend_from_slice(data);
            piece.extend_from_slice(&after);
        } else {
            let mut piece = Vec::with_capacity(capacity(len));
            piece.extend_from_slice(data);
            piece.extend_from_slice(&after);
            self.pieces.insert(at, Piece { start, bytes: piece });
        }
        self.held = self.head.len() + self.pieces.iter().map(Piece::held).sum::<usize>();
    }

    /// Whether every part is there.
    pub fn is_complete(&self) -> bool {
        let [piece] = self.pieces.as_slice() else { return false };
        piece.start == 0 && self.end == Some(piece.end()) && !self.head.is_empty()
    }

    /// Bytes of memory that the parts hold, the allocator's included.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Length of the longest part so far, with its headers.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// How many parts have come.
    pub fn parts(&self) -> u32 {
        self.parts
    }

    /// Appends the complete datagram to `into`.
    ///
    /// An IPv6 datagram keeps its fragment header as an atomic one (RFC 6946), so that its identification survives and
    /// whoever sends it may split it again; [`ipv6::remove_fragment_header`] takes it out.
    ///
    /// # Errors
    /// `into` is as it was. [`DropReason::TooBig`]: longer than an IP packet can be. [`DropReason::MalformedIp`]: parts
    /// are missing.
    pub fn join(&self, into: &mut Vec<u8>) -> Result<(), DropReason> {
        let (Some(family), true) = (self.family, self.is_complete()) else { return Err(DropReason::MalformedIp) };
        let data = &self.pieces[0].bytes;
        let len = self.head.len() + data.len();
        let counted = match family {
            AddressFamily::Ipv4 => len,
            AddressFamily::Ipv6 => len - ipv6::HEADER_LEN,
        };
        let counted = u16::try_from(counted).map_err(|_| DropReason::TooBig)?;
        let start = into.len();
        into.reserve_exact(len);
        into.extend_from_slice(&self.head);
        into.extend_from_slice(data);
        let packet = &mut into[start..];
        match family {
            AddressFamily::Ipv4 => {
                write_u16(packet, 2, counted);
                packet[6] &= DONT_FRAGMENT;
                packet[7] = 0;
                ipv4::recompute_checksum(packet, self.head.len());
            }
            AddressFamily::Ipv6 => {
                write_u16(packet, 4, counted);
                write_u16(packet, self.head.len() - ipv6::FRAGMENT_HEADER_LEN + 2, 0);
            }
        }
        Ok(())
    }

    /// Where a piece that starts here would be inserted.
    fn place_of(&self, start: usize) -> usize {
        self.pieces.partition_point(|piece| piece.start < start)
    }
}

/// A part's place, and its share of the datagram's data. Headers behind an IPv6 fragment header belong to it.
fn data_of<'a>(bytes: &'a [u8], headers: &Headers) -> Option<(FragmentPart, &'a [u8])> {
    let part = headers.fragment?;
    let data = bytes.get(headers.packet_len - headers.part_len(&part)..headers.packet_len)?;
    Some((part, data))
}

/// What is reserved for a piece of so many bytes: it need not move with each part that is added.
fn capacity(len: usize) -> usize {
    len.next_multiple_of(if len <= SHORT { 64 } else { LONG_STEP })
}

/// Memory that a piece of so many bytes holds.
fn held(len: usize) -> usize {
    capacity(len) + PIECE_COST
}

const SHORT: usize = 2_048;
const LONG_STEP: usize = 8_192;
/// What a piece needs beside its bytes: its place in the list, and the allocator's own.
const PIECE_COST: usize = size_of::<Piece>() + 16;

/// The DF bit in the first byte of flags and fragment offset.
const DONT_FRAGMENT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fragment::fragment;
    use crate::wire::parse::parse;

    /// 10.0.0.1 > 10.0.0.2, UDP, `len` bytes in all.
    fn datagram(len: u16) -> Vec<u8> {
        let mut packet = alloc::vec![0; usize::from(len)];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        write_u16(&mut packet, 2, len);
        ipv4::recompute_checksum(&mut packet, 20);
        for (index, byte) in packet[20..].iter_mut().enumerate() {
            *byte = (index * 7 / 3) as u8;
        }
        packet
    }

    fn parts(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        fragment(packet, mtu, 0, &mut alloc::vec![0; mtu], |part| parts.push(part.to_vec())).unwrap();
        parts
    }

    /// Adds the parts in this order; what they make.
    fn assemble<'a>(parts: impl Iterator<Item = &'a Vec<u8>>) -> Option<Vec<u8>> {
        let mut assembly = Assembly::default();
        for part in parts {
            let headers = parse(part).unwrap();
            assert_eq!(assembly.fit(part, &headers), Fit::Fits);
            let (before, growth) = (assembly.held(), assembly.growth(part, &headers));
            assembly.add(part, &headers);
            assert!(assembly.held() <= before + growth && growth <= part.len() + LONG_STEP + PIECE_COST, "{growth}");
            let really: usize = assembly.pieces.iter().map(|piece| piece.bytes.capacity()).sum();
            assert!(really <= assembly.held());
        }
        let mut joined = Vec::new();
        assembly.join(&mut joined).ok().map(|()| joined)
    }

    #[test]
    fn what_was_split_is_put_together_again_in_any_order() {
        for (len, mtu) in [(1_000, 300), (60_000, 1_500), (3_000, 60)] {
            let packet = datagram(len);
            let parts = parts(&packet, mtu);
            let middle = parts.len() / 2;
            assert_eq!(assemble(parts.iter()), Some(packet.clone()));
            assert_eq!(assemble(parts.iter().rev()), Some(packet.clone()));
            assert_eq!(assemble(parts[middle..].iter().chain(&parts[..middle])), Some(packet.clone()));
            let (even, odd) = (parts.iter().step_by(2), parts.iter().skip(1).step_by(2));
            assert_eq!(assemble(even.chain(odd)), Some(packet));
            assert_eq!(assemble(parts[1..].iter()), None, "without its first");
            assert_eq!(assemble(parts[..middle].iter()), None, "without its last");
        }
    }

    #[test]
    fn what_came_already_is_told_from_what_contradicts_it() {
        let (packet, other) = (datagram(1_000), datagram(900));
        let coarse = parts(&packet, 300);
        let mut assembly = Assembly::default();
        assembly.add(&coarse[1], &parse(&coarse[1]).unwrap());
        let fit = |assembly: &Assembly, part: &Vec<u8>| assembly.fit(part, &parse(part).unwrap());
        assert_eq!(fit(&assembly, &coarse[1]), Fit::Repeats);
        let mut changed = coarse[1].clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(fit(&assembly, &changed), Fit::Contradicts);
        assert_eq!(fit(&assembly, &parts(&packet, 308)[1]), Fit::Contradicts, "it begins later and reaches further");
        assert_eq!(fit(&assembly, &packet), Fit::Contradicts, "no fragment at all");
        assembly.add(&coarse[3], &parse(&coarse[3]).unwrap());
        assert_eq!(fit(&assembly, &parts(&other, 300)[3]), Fit::Contradicts, "a shorter end");
        assert_eq!(fit(&assembly, &coarse[0]), Fit::Fits);
    }

    #[test]
    fn pieces_that_do_not_touch_are_bounded() {
        let parts = parts(&datagram(4_000), 28);
        let mut assembly = Assembly::default();
        for part in parts.iter().step_by(2).take(PIECES_MAX) {
            assembly.add(part, &parse(part).unwrap());
        }
        let far = parts.last().unwrap();
        assert_eq!(assembly.fit(far, &parse(far).unwrap()), Fit::TooManyPieces);
        assert_eq!(assembly.fit(&parts[1], &parse(&parts[1]).unwrap()), Fit::Fits, "it closes a gap");
    }
}
