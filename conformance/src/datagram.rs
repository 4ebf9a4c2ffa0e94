//! Puts fragments together again, so that recordings can be compared as datagrams. Linux reassembles and cuts anew,
//! the director passes fragments on as they are: same datagram, other cuts (and for IPv6 another identification).
//! Volatile bytes keep their places. RFC 791 §3.2, RFC 8200 §4.5.

use lvs_testkit::oracle::checksum;

use crate::golden::{Emission, Link};

/// Fragments seen so far, of one side (what was recorded, or what was replayed).
#[derive(Clone, Debug, Default)]
pub struct Datagrams {
    incomplete: Vec<Incomplete>,
}

/// What fragments of one datagram have in common. Two servers never share one.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Key {
    to: Link,
    server: Option<usize>,
    /// Both addresses, the protocol and the identification, as they stand in the packet.
    identity: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Incomplete {
    key: Key,
    pieces: Vec<Piece>,
}

/// One fragment: its header, and the part of the datagram it carries.
#[derive(Clone, Debug)]
struct Piece {
    header: Bytes,
    payload: Bytes,
    offset: usize,
    is_last: bool,
    header_is_intact: bool,
}

/// Bytes that know which of them are volatile.
#[derive(Clone, Debug, Default)]
struct Bytes {
    bytes: Vec<u8>,
    is_volatile: Vec<bool>,
}

impl Datagrams {
    /// Takes one emitted packet: gives back whole packets as they are, keeps fragments, and gives back the datagram
    /// with the fragment that completes it.
    pub fn complete(&mut self, emission: Emission) -> Option<Emission> {
        let Some((key, piece)) = split(&emission) else { return Some(emission) };
        let index = match self.incomplete.iter().position(|incomplete| incomplete.key == key) {
            Some(index) => index,
            None => {
                self.incomplete.push(Incomplete { key, pieces: Vec::new() });
                self.incomplete.len() - 1
            }
        };
        self.incomplete[index].pieces.push(piece);
        let whole = self.incomplete[index].join()?;
        self.incomplete.swap_remove(index);
        Some(Emission { is_quirk: emission.is_quirk, ..whole })
    }
}

impl Incomplete {
    fn join(&mut self) -> Option<Emission> {
        self.pieces.sort_by_key(|piece| piece.offset);
        let mut payload = Bytes::default();
        for piece in &self.pieces {
            if piece.offset > payload.bytes.len() {
                return None;
            }
            let known = payload.bytes.len() - piece.offset;
            payload.extend(&piece.payload, known);
            if piece.is_last {
                let header_is_intact = self.pieces.iter().all(|piece| piece.header_is_intact);
                let mut whole = self.pieces[0].header.clone();
                let header_len = whole.bytes.len();
                whole.extend(&payload, 0);
                finish_header(&mut whole.bytes, header_len, header_is_intact);
                let volatile = whole.ranges();
                let Key { to, server, .. } = self.key;
                return Some(Emission { to, server, bytes: whole.bytes, volatile, is_quirk: false });
            }
        }
        None
    }
}

impl Bytes {
    fn extend(&mut self, more: &Self, from: usize) {
        self.bytes.extend(more.bytes.iter().skip(from));
        self.is_volatile.extend(more.is_volatile.iter().skip(from));
    }

    fn ranges(&self) -> Vec<(usize, usize)> {
        let places = self.is_volatile.iter().enumerate().filter(|(_, is_volatile)| **is_volatile);
        places.map(|(offset, _)| (offset, 1)).collect()
    }
}

/// The fragment's datagram and place in it; `None` for a whole packet.
fn split(emission: &Emission) -> Option<(Key, Piece)> {
    let (identity, piece) = match emission.bytes.first()? >> 4 {
        4 => split_v4(emission)?,
        6 => split_v6(emission)?,
        _ => return None,
    };
    Some((Key { to: emission.to, server: emission.server, identity }, piece))
}

fn split_v4(emission: &Emission) -> Option<(Vec<u8>, Piece)> {
    let bytes = &emission.bytes;
    let header_len = usize::from(bytes.first()? & 15) * 4;
    let end = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    if header_len < 20 || end < header_len || bytes.len() < end {
        return None;
    }
    let flags = u16::from_be_bytes([bytes[6], bytes[7]]);
    let (offset, has_more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
    if offset == 0 && !has_more {
        return None;
    }
    let identity = [&bytes[12..20], &bytes[9..10], &bytes[4..6]].concat();
    let piece = Piece {
        header: part(emission, 0, header_len),
        payload: part(emission, header_len, end),
        offset,
        is_last: !has_more,
        header_is_intact: checksum(&bytes[..header_len]) == 0,
    };
    Some((identity, piece))
}

fn split_v6(emission: &Emission) -> Option<(Vec<u8>, Piece)> {
    let bytes = &emission.bytes;
    if bytes.len() < 40 {
        return None;
    }
    let (mut next_header_at, mut at) = (6, 40);
    while matches!(bytes[next_header_at], 0 | 43 | 60) {
        let len = (usize::from(*bytes.get(at + 1)?) + 1) * 8;
        (next_header_at, at) = (at, at + len);
        bytes.get(at)?;
    }
    let fragment: [u8; 8] = *(bytes[next_header_at] == 44).then(|| bytes.get(at..)?.first_chunk())??;
    let field = u16::from_be_bytes([fragment[2], fragment[3]]);
    let (offset, has_more) = (usize::from(field & 0xfff8), field & 1 != 0);
    // An atomic fragment (RFC 6946) is a datagram cut into one part: Linux sends one around what it put together.
    let mut header = part(emission, 0, at);
    header.bytes[next_header_at] = fragment[0];
    let identity = [&bytes[8..40], &fragment[4..8]].concat();
    let payload = part(emission, at + 8, bytes.len());
    Some((identity, Piece { header, payload, offset, is_last: !has_more, header_is_intact: true }))
}

fn part(emission: &Emission, from: usize, to: usize) -> Bytes {
    let is_volatile = |at| emission.volatile.iter().any(|&(offset, len)| (offset..offset + len).contains(&at));
    Bytes { bytes: emission.bytes[from..to].to_vec(), is_volatile: (from..to).map(is_volatile).collect() }
}

/// Turns the first fragment's header into the datagram's. A damaged fragment header leaves a damaged checksum.
fn finish_header(bytes: &mut [u8], header_len: usize, is_intact: bool) {
    if bytes[0] >> 4 == 6 {
        let len = (bytes.len() - 40) as u16;
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
        return;
    }
    let len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes[6] &= 0xc0; // no longer "more fragments", offset 0
    bytes[7] = 0;
    bytes[10..12].fill(0);
    let sum = checksum(&bytes[..header_len]);
    bytes[10..12].copy_from_slice(&(if is_intact { sum } else { !sum }).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment_v4(offset: usize, has_more: bool, payload: &[u8]) -> Emission {
        let mut bytes = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let field = (offset / 8) as u16 | u16::from(has_more) << 13;
        bytes[6..8].copy_from_slice(&field.to_be_bytes());
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(payload);
        Emission::new(Some(0), bytes)
    }

    fn fragment_v6(id: u8, offset: usize, has_more: bool, payload: &[u8]) -> Emission {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 8 + payload.len() as u8, 44, 64];
        bytes.extend([0xfd; 32]);
        let field = offset as u16 | u16::from(has_more);
        bytes.extend([17, 0, (field >> 8) as u8, field as u8, 0, 0, 0, id]);
        bytes.extend_from_slice(payload);
        Emission::new(None, bytes)
    }

    #[test]
    fn other_cuts_give_the_same_datagram() {
        let mut coarse = Datagrams::default();
        assert_eq!(coarse.complete(fragment_v4(0, true, &[1; 16])), None);
        let one = coarse.complete(fragment_v4(16, false, &[2; 8])).expect("complete");

        let mut fine = Datagrams::default();
        assert_eq!(fine.complete(fragment_v4(16, false, &[2; 8])), None);
        assert_eq!(fine.complete(fragment_v4(8, true, &[1; 8])), None);
        let other = fine.complete(fragment_v4(0, true, &[1; 8])).expect("complete");

        assert_eq!(one, other);
        assert_eq!(one.bytes.len(), 44);
        assert_eq!(checksum(&one.bytes[..20]), 0);
    }

    #[test]
    fn the_identification_of_ipv6_fragments_does_not_count() {
        let whole = |id| {
            let mut datagrams = Datagrams::default();
            assert_eq!(datagrams.complete(fragment_v6(id, 0, true, &[1; 8])), None);
            datagrams.complete(fragment_v6(id, 8, false, &[2; 3])).expect("complete")
        };
        assert_eq!(whole(1), whole(2));
        assert_eq!(whole(1).bytes.len(), 51);
        assert_eq!((whole(1).bytes[5], whole(1).bytes[6]), (11, 17));
    }

    #[test]
    fn a_datagram_in_one_fragment_is_compared_without_its_fragment_header() {
        let whole = Datagrams::default().complete(fragment_v6(1, 0, false, &[1; 5])).expect("complete");
        assert_eq!((whole.bytes.len(), whole.bytes[5], whole.bytes[6]), (45, 5, 17));
    }

    #[test]
    fn a_damaged_fragment_header_damages_the_datagram() {
        let mut datagrams = Datagrams::default();
        let mut damaged = fragment_v4(0, true, &[1; 8]);
        damaged.bytes[10] ^= 1;
        assert_eq!(datagrams.complete(damaged), None);
        let whole = datagrams.complete(fragment_v4(8, false, &[2; 8])).expect("complete");
        assert_ne!(checksum(&whole.bytes[..20]), 0);
    }

    #[test]
    fn volatile_bytes_keep_their_places() {
        let mut datagrams = Datagrams::default();
        let mut second = fragment_v4(8, false, &[2; 8]);
        second.volatile = vec![(22, 2)];
        assert_eq!(datagrams.complete(fragment_v4(0, true, &[1; 8])), None);
        let whole = datagrams.complete(second).expect("complete");
        assert_eq!(whole.volatile, [(30, 1), (31, 1)]);
    }

    #[test]
    fn fragments_for_different_servers_never_meet() {
        let mut datagrams = Datagrams::default();
        let mut elsewhere = fragment_v4(8, false, &[2; 8]);
        elsewhere.server = Some(1);
        assert_eq!(datagrams.complete(fragment_v4(0, true, &[1; 8])), None);
        assert_eq!(datagrams.complete(elsewhere), None);
    }
}
