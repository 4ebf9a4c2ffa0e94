//! TCP options (RFC 9293 §3.1), taken out of a segment, edited, and put back: which there are, blanking one, adding
//! one. Options are read as receivers read them: up to the end of the list, or up to the first that makes no sense.

use core::ops::Range;

use crate::wire::tcp::HEADER_LEN;
use crate::wire::{read_u16, write_u16};

/// Most bytes of options a TCP header holds.
pub(crate) const OPTIONS_LEN_MAX: usize = 40;

/// Maximum segment size (RFC 9293 §3.7.1).
pub(crate) const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Selective acknowledgment (RFC 2018).
pub(crate) const SACK: u8 = 5;
/// Timestamps (RFC 7323).
pub(crate) const TIMESTAMPS: u8 = 8;
/// Fast Open (RFC 7413).
pub(crate) const FAST_OPEN: u8 = 34;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;

/// The options of one segment: a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TcpOptions {
    bytes: [u8; OPTIONS_LEN_MAX],
    len: usize,
}

impl TcpOptions {
    /// The options of a segment that starts with its TCP header; `None` if its data offset makes no sense.
    pub fn read(segment: &[u8]) -> Option<Self> {
        let header_len = usize::from(*segment.get(12)? >> 4) * 4;
        let options = segment.get(HEADER_LEN..header_len)?;
        let mut bytes = [0; OPTIONS_LEN_MAX];
        bytes.get_mut(..options.len())?.copy_from_slice(options);
        Some(Self { bytes, len: options.len() })
    }

    /// As they are on the wire; a multiple of four bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Overwrites every option of these kinds with no-operations.
    pub fn blank(&mut self, kinds: &[u8]) {
        let mut at = 0;
        while let Some(range) = self.next_from(at) {
            at = range.end;
            if kinds.contains(&self.bytes[range.start]) {
                self.bytes[range].fill(NO_OPERATION);
            }
        }
    }

    /// Lowers the maximum segment size by `count`, if it is announced; not below one byte.
    pub fn lower_maximum_segment_size(&mut self, count: u16) {
        self.change_maximum_segment_size(|size| size.saturating_sub(count).max(1.min(size)));
    }

    /// Lowers the maximum segment size to `most`, if it is announced.
    pub fn clamp_maximum_segment_size(&mut self, most: u16) {
        self.change_maximum_segment_size(|size| size.min(most));
    }

    fn change_maximum_segment_size(&mut self, change: impl Fn(u16) -> u16) {
        let Some(Range { start, .. }) = self.find(MAXIMUM_SEGMENT_SIZE, 4) else { return };
        let size = read_u16(&self.bytes, start + 2).unwrap_or(0);
        write_u16(&mut self.bytes, start + 2, change(size));
    }

    /// Replaces every edge of the selective acknowledgments.
    pub fn map_sack_edges(&mut self, map: impl Fn(u32) -> u32) {
        let mut at = 0;
        while let Some(range) = self.next_from(at) {
            at = range.end;
            if self.bytes[range.start] == SACK {
                for edge in self.bytes[range.start + 2..range.end].chunks_exact_mut(4) {
                    let old = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]);
                    edge.copy_from_slice(&map(old).to_be_bytes());
                }
            }
        }
    }

    /// Puts `option` before all others. Where there is too little room, padding goes, and if that is not enough
    /// everything but the timestamps. Returns whether it is in; if not, nothing has changed.
    pub fn prepend(&mut self, option: &[u8]) -> bool {
        let kept = [self.kept(|_| true), self.kept(|kind| kind == TIMESTAMPS)];
        let with_padding = (self.len + option.len() <= OPTIONS_LEN_MAX).then_some(*self);
        let without_padding = kept.into_iter().find(|kept| kept.len + option.len() <= OPTIONS_LEN_MAX);
        let Some(rest) = with_padding.or(without_padding) else { return false };
        let mut bytes = [END; OPTIONS_LEN_MAX];
        let len = option.len() + rest.len;
        bytes[..option.len()].copy_from_slice(option);
        bytes[option.len()..len].copy_from_slice(rest.as_bytes());
        *self = Self { bytes, len: len.next_multiple_of(4) };
        true
    }

    /// The options of these kinds, one behind the other. Not padded.
    fn kept(&self, is_kept: impl Fn(u8) -> bool) -> Self {
        let (mut bytes, mut len, mut at) = ([END; OPTIONS_LEN_MAX], 0, 0);
        while let Some(range) = self.next_from(at) {
            at = range.end;
            if is_kept(self.bytes[range.start]) {
                bytes[len..len + range.len()].copy_from_slice(&self.bytes[range.clone()]);
                len += range.len();
            }
        }
        Self { bytes, len }
    }

    fn find(&self, kind: u8, len: usize) -> Option<Range<usize>> {
        let mut at = 0;
        while let Some(range) = self.next_from(at) {
            at = range.end;
            if self.bytes[range.start] == kind && range.len() == len {
                return Some(range);
            }
        }
        None
    }

    /// Where the first option from `at` on lies, padding skipped.
    fn next_from(&self, mut at: usize) -> Option<Range<usize>> {
        let bytes = self.as_bytes();
        while bytes.get(at) == Some(&NO_OPERATION) {
            at += 1;
        }
        let len = match bytes.get(at..)? {
            [] | [END, ..] | [_] => return None,
            [_, len, ..] => usize::from(*len),
        };
        (len >= 2 && at + len <= bytes.len()).then_some(at..at + len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(bytes: &[u8]) -> TcpOptions {
        let mut segment = [0; 60];
        segment[12] = (5 + bytes.len() as u8 / 4) << 4;
        segment[20..20 + bytes.len()].copy_from_slice(bytes);
        TcpOptions::read(&segment).unwrap()
    }

    /// MSS 1460, SACK permitted, timestamps, a no-operation, window scale 7: what Linux sends in a SYN.
    const SYN: [u8; 20] = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];

    #[test]
    fn blanking_leaves_the_others_where_they_are() {
        let mut options = options(&SYN);
        options.blank(&[TIMESTAMPS]);
        assert_eq!(options.as_bytes(), [2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7]);
    }

    #[test]
    fn a_prepended_option_comes_first() {
        let mut options = options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert!(options.prepend(&[254, 8, 4, 0, 203, 0, 113, 7]));
        assert_eq!(options.as_bytes(), [254, 8, 4, 0, 203, 0, 113, 7, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn padding_goes_before_options_and_other_options_before_timestamps() {
        let timestamps = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let sack = [5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
        let padded = [&[1, 1][..], &timestamps, &[1, 1], &sack, &[1, 1, 1, 1]].concat();
        let mut first = options(&padded);
        assert!(first.prepend(&[254, 8, 0, 0, 0, 0, 0, 0]));
        assert_eq!(first.as_bytes(), [&[254, 8, 0, 0, 0, 0, 0, 0][..], &timestamps, &sack].concat());
        let mut second = options(&padded);
        let long = [&[254, 20][..], &[9; 18]].concat();
        assert!(second.prepend(&long));
        assert_eq!(second.as_bytes(), [&long[..], &timestamps, &[0, 0]].concat());
    }

    #[test]
    fn what_makes_no_sense_ends_the_list() {
        for bytes in [[2, 0, 9, 9], [2, 9, 9, 9], [0, 2, 4, 9], [1, 1, 1, 2]] {
            let mut options = options(&bytes);
            options.blank(&[2]);
            options.lower_maximum_segment_size(8);
            assert_eq!(options.as_bytes(), bytes);
        }
        assert_eq!(TcpOptions::read(&[0; 20]), None);
        assert_eq!(TcpOptions::read(&[0xff; 40]), None);
    }

    #[test]
    fn edges_of_an_unaligned_sack_move_too() {
        let mut options = options(&[1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 20, 1]);
        options.map_sack_edges(|edge| edge.wrapping_sub(10));
        assert_eq!(options.as_bytes(), [1, 5, 10, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 10, 1]);
    }
}
