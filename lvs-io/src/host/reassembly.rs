//! Fragments for the host itself, put together (RFC 791 §3.2, RFC 8200 §4.5). Bounded: a fixed number of datagrams at
//! once, of which the oldest gives way to a new one; a fixed time for each; any overlap abandons the datagram.

use std::net::IpAddr;
use std::time::Duration;

use lvs_core::wire::ipv4;
use lvs_core::{HEADROOM, Instant};

/// Most datagrams in progress. With 64 KiB each, at most 4 MiB are held.
const DATAGRAMS_MAX: usize = 64;

/// Linux `ipfrag_time`.
const TIMEOUT_V4: Duration = Duration::from_secs(30);

/// RFC 8200 §4.5.
const TIMEOUT_V6: Duration = Duration::from_secs(60);

/// What became of a fragment.
pub(super) enum Collected {
    /// The datagram is whole: it lies in this storage, behind [`HEADROOM`] bytes.
    Complete(Vec<u8>),
    /// The fragment waits for the others.
    Kept,
    /// The fragment is malformed, or overlaps another.
    Refused,
}

/// Which datagram a fragment belongs to (RFC 791 §3.2; over IPv6 `protocol` is 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub source: IpAddr,
    pub target: IpAddr,
    pub protocol: u8,
    pub identification: u32,
}

/// One fragment, its headers taken off.
pub(super) struct Fragment<'a> {
    pub key: Key,
    /// In bytes.
    pub offset: usize,
    pub more: bool,
    pub payload: &'a [u8],
    /// What comes before the datagram's payload, if this is the first fragment: the IPv4 header, or the IPv6 header
    /// and extension headers without the fragment header, naming what follows it.
    pub headers: &'a [u8],
}

/// Datagrams in progress, oldest first.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    datagrams: Vec<Datagram>,
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    deadline: Instant,
    headers: Vec<u8>,
    payload: Vec<u8>,
    /// Which bytes of `payload` are there: start and end, in order, never touching.
    present: Vec<(usize, usize)>,
    /// Known once the last fragment is there.
    total_len: Option<usize>,
}

impl Reassembly {
    /// Takes one fragment.
    pub(super) fn collect(&mut self, now: Instant, fragment: &Fragment<'_>) -> Collected {
        self.datagrams.retain(|datagram| datagram.deadline > now);
        let end = fragment.offset + fragment.payload.len();
        let is_misaligned = fragment.more && !fragment.payload.len().is_multiple_of(8);
        if fragment.payload.is_empty() || is_misaligned || end > usize::from(u16::MAX) {
            return Collected::Refused;
        }
        let index = self.datagram(now, fragment.key);
        match self.datagrams[index].add(fragment) {
            Added::Complete => {
                let datagram = self.datagrams.remove(index);
                datagram.assemble().map_or(Collected::Refused, Collected::Complete)
            }
            Added::Incomplete => Collected::Kept,
            Added::Contradiction => {
                self.datagrams.remove(index);
                Collected::Refused
            }
        }
    }

    /// The place of the fragment's datagram, made if need be.
    fn datagram(&mut self, now: Instant, key: Key) -> usize {
        if let Some(index) = self.datagrams.iter().position(|datagram| datagram.key == key) {
            return index;
        }
        if self.datagrams.len() == DATAGRAMS_MAX {
            self.datagrams.remove(0);
        }
        let timeout = if key.source.is_ipv4() { TIMEOUT_V4 } else { TIMEOUT_V6 };
        self.datagrams.push(Datagram {
            key,
            deadline: now + timeout,
            headers: Vec::new(),
            payload: Vec::new(),
            present: Vec::new(),
            total_len: None,
        });
        self.datagrams.len() - 1
    }
}

enum Added {
    Complete,
    Incomplete,
    /// Overlap, or two different ends: the datagram cannot be trusted (RFC 5722).
    Contradiction,
}

impl Datagram {
    fn add(&mut self, fragment: &Fragment<'_>) -> Added {
        let (start, end) = (fragment.offset, fragment.offset + fragment.payload.len());
        if self.present.contains(&(start, end)) && self.payload[start..end] == *fragment.payload {
            // The network may duplicate.
            return Added::Incomplete;
        }
        let overlaps = self.present.iter().any(|&(from, to)| start < to && from < end);
        let is_past_end = self.total_len.is_some_and(|total| end > total || !fragment.more);
        let ends_too_early = !fragment.more && self.payload.len() > end;
        if overlaps || is_past_end || ends_too_early {
            return Added::Contradiction;
        }
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload[start..end].copy_from_slice(fragment.payload);
        self.present.push((start, end));
        if !fragment.more {
            self.total_len = Some(end);
        }
        if start == 0 {
            self.headers = fragment.headers.to_vec();
        }
        let there: usize = self.present.iter().map(|(from, to)| to - from).sum();
        if self.total_len == Some(there) { Added::Complete } else { Added::Incomplete }
    }

    /// The whole datagram with its headers corrected; `None` if it is longer than a packet can be.
    fn assemble(self) -> Option<Vec<u8>> {
        let len = self.headers.len() + self.payload.len();
        let mut storage = vec![0; HEADROOM];
        storage.extend_from_slice(&self.headers);
        storage.extend_from_slice(&self.payload);
        let header = &mut storage[HEADROOM..HEADROOM + self.headers.len()];
        if self.key.source.is_ipv4() {
            header[2..4].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
            header[6..8].fill(0);
            ipv4::recompute_checksum(header, self.headers.len());
        } else {
            header[4..6].copy_from_slice(&u16::try_from(len - 40).ok()?.to_be_bytes());
        }
        Some(storage)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn fragment(offset: usize, more: bool, payload: &[u8]) -> Fragment<'_> {
        let key = Key {
            source: Ipv4Addr::new(198, 51, 100, 7).into(),
            target: Ipv4Addr::new(192, 0, 2, 80).into(),
            protocol: 17,
            identification: 7,
        };
        Fragment { key, offset, more, payload, headers: &[0x45; 20] }
    }

    fn payload(collected: Collected) -> Option<Vec<u8>> {
        match collected {
            Collected::Complete(storage) => Some(storage[HEADROOM + 20..].to_vec()),
            Collected::Kept | Collected::Refused => None,
        }
    }

    #[test]
    fn fragments_in_any_order_give_the_datagram() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let parts = [fragment(0, true, &[1; 8]), fragment(8, true, &[2; 16]), fragment(24, false, &[3; 5])];
            let mut reassembly = Reassembly::default();
            let mut whole = None;
            for index in order {
                whole = whole.or(payload(reassembly.collect(Instant::ZERO, &parts[index])));
            }
            assert_eq!(whole.expect("all parts came"), [[1; 8].as_slice(), &[2; 16], &[3; 5]].concat(), "{order:?}");
            assert!(reassembly.datagrams.is_empty());
        }
    }

    #[test]
    fn a_repeated_fragment_changes_nothing() {
        let mut reassembly = Reassembly::default();
        for _ in 0..2 {
            assert!(matches!(reassembly.collect(Instant::ZERO, &fragment(0, true, &[1; 8])), Collected::Kept));
        }
        assert!(payload(reassembly.collect(Instant::ZERO, &fragment(8, false, &[2; 3]))).is_some());
    }

    #[test]
    fn overlapping_fragments_abandon_the_datagram() {
        let mut reassembly = Reassembly::default();
        assert!(matches!(reassembly.collect(Instant::ZERO, &fragment(0, true, &[1; 16])), Collected::Kept));
        assert!(matches!(reassembly.collect(Instant::ZERO, &fragment(8, false, &[2; 9])), Collected::Refused));
        assert!(reassembly.datagrams.is_empty());
    }

    #[test]
    fn a_datagram_that_stays_incomplete_is_forgotten_after_30_seconds() {
        let mut reassembly = Reassembly::default();
        assert!(matches!(reassembly.collect(Instant::ZERO, &fragment(0, true, &[1; 8])), Collected::Kept));
        let late = Instant::from_secs(30);
        assert!(matches!(reassembly.collect(late, &fragment(8, false, &[2; 3])), Collected::Kept));
        assert_eq!(reassembly.datagrams.len(), 1);
    }

    #[test]
    fn the_oldest_datagram_gives_way_when_there_are_too_many() {
        let mut reassembly = Reassembly::default();
        for identification in 0..=DATAGRAMS_MAX as u32 {
            let mut first = fragment(0, true, &[1; 8]);
            first.key.identification = identification;
            reassembly.collect(Instant::ZERO, &first);
        }
        assert_eq!(reassembly.datagrams.len(), DATAGRAMS_MAX);
        assert_eq!(reassembly.datagrams[0].key.identification, 1);
    }
}
