//! The Internet checksum: summed over bytes (RFC 1071), over the pseudo headers of IPv4 (RFC 9293 §3.1) and IPv6
//! (RFC 8200 §8.1), and updated for a few changed fields (RFC 1624). SCTP's CRC32c is in `sctp.rs`.

use core::net::{IpAddr, Ipv6Addr};

/// One's complement sum of the 16-bit words in `bytes`, folded to 16 bits. An odd last byte is followed by a zero one.
///
/// Sums may be added (as `u32`) and folded again with [`fold`]. A range that contains its own correct checksum
/// sums to `0xffff`.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // RFC 1071 §2(B): the sum may be made in either byte order and swapped at the end, so the loop needs no swaps.
    let (words, tail) = bytes.split_at(bytes.len() & !3);
    let mut total: u64 = 0;
    for word in words.chunks_exact(4) {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    for pair in tail.chunks(2) {
        total += u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    u32::from(u16::from_be(fold64(total)))
}

/// The Internet checksum of `bytes`, whose own checksum field holds zero (RFC 1071).
///
/// ```
/// use lvs_core::wire::checksum::checksum;
/// // RFC 1071 §3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
/// assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
/// ```
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Adds the carries of a sum back into its low 16 bits.
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Sum of the pseudo header in front of a transport segment of `len` bytes, folded to 16 bits.
///
/// Addresses of different families have no pseudo header; their words are summed all the same.
pub fn pseudo_header_sum(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u32 {
    // The length field has 16 bits in IPv4 and 32 in IPv6; summed by words both come to this.
    let len = (len as u32 & 0xffff) + (len as u32 >> 16);
    let sum = address_sum(source) + address_sum(destination) + u32::from(protocol) + len;
    u32::from(fold(sum))
}

/// The checksum of a transport segment, whose checksum field holds zero, behind its pseudo header.
///
/// For UDP a result of zero is sent as `0xffff` (RFC 768); that is left to the caller.
pub fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    !fold(pseudo_header_sum(source, destination, protocol, segment.len()) + sum(segment))
}

/// What a checksum must change by, gathered over the fields that change (RFC 1624, equation 3).
///
/// A checksum that was wrong stays wrong by the same amount.
///
/// ```
/// use lvs_core::wire::checksum::Delta;
/// // RFC 1624 §4: a field 5555 becomes 3285 under the checksum dd2f.
/// let mut delta = Delta::new();
/// delta.replace_u16(0x5555, 0x3285);
/// assert_eq!(delta.apply(0xdd2f), 0x0000);
/// ```
// Summed in the byte order of memory and swapped at the end (RFC 1071 §2(B)), in words of up to 32 bits, whose halves
// are added when it is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// Nothing has changed yet.
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit field, at an even offset of the summed bytes, changes from `old` to `new`.
    #[inline]
    pub fn replace_u16(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old.to_be()) + u64::from(new.to_be());
    }

    /// Four bytes, at an even offset of the summed bytes, change from `old` to `new`: an IPv4 address, or both ports.
    #[inline]
    pub fn replace_bytes(&mut self, old: [u8; 4], new: [u8; 4]) {
        self.0 += u64::from(!u32::from_ne_bytes(old)) + u64::from(u32::from_ne_bytes(new));
    }

    /// An address changes, perhaps to one of the other family.
    #[inline]
    pub fn replace_address(&mut self, old: IpAddr, new: IpAddr) {
        match (old, new) {
            (IpAddr::V4(old), IpAddr::V4(new)) => self.replace_bytes(old.octets(), new.octets()),
            (IpAddr::V6(old), IpAddr::V6(new)) => self.replace_ipv6(old, new),
            (old, new) => self.replace_u16(fold(address_sum(old)), fold(address_sum(new))),
        }
    }

    /// An IPv6 address changes.
    #[inline]
    pub fn replace_ipv6(&mut self, old: Ipv6Addr, new: Ipv6Addr) {
        let (old, new) = (old.octets(), new.octets());
        for (old, new) in old.chunks_exact(4).zip(new.chunks_exact(4)) {
            self.replace_bytes([old[0], old[1], old[2], old[3]], [new[0], new[1], new[2], new[3]]);
        }
    }

    /// The checksum field after the changes, where it was `field` before.
    #[inline]
    pub fn apply(self, field: u16) -> u16 {
        u16::from_be(!fold64(u64::from(!field.to_be()) + self.0))
    }

    /// The same for a field that holds an un-complemented sum, as left to the device by
    /// [`crate::ChecksumOffload::Partial`].
    #[inline]
    pub fn apply_partial(self, field: u16) -> u16 {
        u16::from_be(fold64(u64::from(field.to_be()) + self.0))
    }
}

impl core::ops::Add for Delta {
    type Output = Self;

    /// Both changes.
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// Sum of an address's words; at most 8 · 0xffff.
fn address_sum(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            (bits >> 16) + (bits & 0xffff)
        }
        IpAddr::V6(address) => address.segments().iter().map(|&segment| u32::from(segment)).sum(),
    }
}

/// Folds a wide sum: 64 bits to 32, to 16. A half added to the other, turned around, carries into itself.
#[inline]
const fn fold64(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One 16-bit word after the other, carries added at once: RFC 1071 read literally.
    fn naive_sum(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0u16, |sum, pair| {
            let word = u16::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u16::from(low));
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    #[test]
    fn every_length_and_alignment_sums_like_the_rfc() {
        let bytes: [u8; 67] = core::array::from_fn(|index| (index * 151 + 89) as u8);
        for start in 0..4 {
            for end in start..=bytes.len() {
                assert_eq!(sum(&bytes[start..end]), u32::from(naive_sum(&bytes[start..end])), "{start}..{end}");
            }
        }
    }

    #[test]
    fn all_ones_sum_to_all_ones_however_many() {
        assert_eq!(sum(&[0xff; 65535]), u32::from(naive_sum(&[0xff; 65535])));
        assert_eq!(sum(&[]), 0);
    }

    #[test]
    fn a_long_ipv6_segment_counts_the_high_word_of_its_length() {
        let any = IpAddr::from([0u16; 8]);
        assert_eq!(pseudo_header_sum(any, any, 6, 0x1_0002), 6 + 1 + 2);
    }

    #[test]
    fn folding_adds_the_carries_back_in() {
        // Beside the plain way: add the four words and, as long as there are any, the carries.
        let plain = |sum: u64| {
            let mut rest = (0..4).map(|word| sum >> (16 * word) & 0xffff).sum::<u64>();
            while rest > 0xffff {
                rest = (rest & 0xffff) + (rest >> 16);
            }
            rest as u16
        };
        let words = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];
        for sum in words.iter().flat_map(|a| words.iter().map(move |b| a << 48 | b << 32 | b << 16 | a)) {
            for sum in words.iter().map(|word| sum ^ word) {
                assert_eq!(fold64(sum), plain(sum), "{sum:#x}");
            }
        }
    }

    #[test]
    fn an_address_is_replaced_as_its_words_are() {
        for (old, new) in [("198.51.100.7", "0.0.255.255"), ("2001:db8::1:ffff", "fe80::ffff:0:8000:7")] {
            let (old, new): (IpAddr, IpAddr) = (old.parse().unwrap(), new.parse().unwrap());
            let words = |address| match address {
                IpAddr::V4(address) => address.octets().chunks(2).map(|w| u16::from_be_bytes([w[0], w[1]])).collect(),
                IpAddr::V6(address) => alloc::vec::Vec::from(address.segments()),
            };
            let (mut by_words, mut at_once) = (Delta::new(), Delta::new());
            words(old).into_iter().zip(words(new)).for_each(|(old, new)| by_words.replace_u16(old, new));
            at_once.replace_address(old, new);
            for field in [0, 1, 0x1234, 0xfffe, 0xffff] {
                assert_eq!(at_once.apply(field), by_words.apply(field));
                assert_eq!(at_once.apply_partial(field), by_words.apply_partial(field));
            }
        }
    }

    #[test]
    fn an_update_equals_summing_anew() {
        let mut packet: [u8; 40] = core::array::from_fn(|index| (index * 37) as u8);
        packet[10..12].fill(0);
        let before = checksum(&packet);
        let mut delta = Delta::new();
        for (offset, new) in [(4, 0xffff_u16), (6, 0x0000), (20, 0x1234)] {
            delta.replace_u16(u16::from_be_bytes([packet[offset], packet[offset + 1]]), new);
            packet[offset..offset + 2].copy_from_slice(&new.to_be_bytes());
        }
        assert_eq!(delta.apply(before), checksum(&packet));
        assert_eq!(delta.apply_partial(!before), !checksum(&packet));
    }
}
