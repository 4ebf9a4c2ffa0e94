//! Emitted packets: same number, same order, same destination, same bytes outside the volatile ones, checksums as good.
//! Fragments are compared as the datagram they make, at the step where it completes.

use lvs_testkit::oracle;

use super::Difference;
use crate::datagram::Datagrams;
use crate::describe;
use crate::golden::Emission;

/// Compares the emissions of a recording with those of its replay, step by step.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    recorded: Datagrams,
    replayed: Datagrams,
}

impl Packets {
    /// Compares what one step emitted. Fragments that do not complete a datagram yet are remembered.
    pub fn compare(&mut self, expected: &[Emission], got: &[Emission]) -> Option<Difference> {
        let expected: Vec<_> = expected.iter().cloned().filter_map(|one| self.recorded.complete(one)).collect();
        let got: Vec<_> = got.iter().cloned().filter_map(|one| self.replayed.complete(one)).collect();
        if expected.len() != got.len() {
            return Some(Difference::new(describe::emissions(&expected), describe::emissions(&got)));
        }
        expected.iter().zip(&got).find_map(|(expected, got)| compare_one(expected, got))
    }
}

fn compare_one(expected: &Emission, got: &Emission) -> Option<Difference> {
    let masked = mask(expected, &got.bytes);
    if (expected.to, expected.server) == (got.to, got.server) && masked == got.bytes {
        return lost_checksum(&expected.bytes, got);
    }
    let mut difference = Difference::new(describe::emission(expected), describe::emission(got));
    difference.detail = describe::difference(&masked, &got.bytes);
    Some(difference)
}

/// The expected bytes with the volatile ones taken over from `got` (if the lengths agree, else their places do not).
fn mask(expected: &Emission, got: &[u8]) -> Vec<u8> {
    let mut masked = expected.bytes.clone();
    if masked.len() == got.len() {
        for &(offset, len) in &expected.volatile {
            let range = offset..(offset + len).min(masked.len());
            masked[range.clone()].copy_from_slice(&got[range]);
        }
    }
    masked
}

/// A volatile checksum still has to be there and right wherever Linux's was.
fn lost_checksum(expected: &[u8], got: &Emission) -> Option<Difference> {
    let linux = oracle::checksum_errors(expected);
    let is_wrong = oracle::checksum_errors(&got.bytes).iter().any(|error| !linux.contains(error));
    let is_missing = !has_zero_udp_checksum(expected) && has_zero_udp_checksum(&got.bytes);
    (is_wrong || is_missing).then(|| Difference::new("correct checksums", describe::emission(got)))
}

fn has_zero_udp_checksum(packet: &[u8]) -> bool {
    let udp = oracle::parse(packet).filter(|parsed| parsed.protocol == 17);
    udp.is_some_and(|parsed| parsed.segment.get(6..8) == Some(&[0, 0]))
}

#[cfg(test)]
mod tests {
    use lvs_testkit::oracle::checksum;

    use super::*;

    /// UDP 10.0.0.1:1 > 10.0.0.2:2 with four bytes of payload.
    fn packet() -> Emission {
        let mut bytes = vec![0x45, 0, 0, 32, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend([0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4]);
        Emission::new(Some(0), bytes)
    }

    fn compare(expected: &[Emission], got: &[Emission]) -> Option<Difference> {
        Packets::default().compare(expected, got)
    }

    fn changed(change: impl FnOnce(&mut Emission)) -> Emission {
        let mut emission = packet();
        change(&mut emission);
        emission
    }

    #[test]
    fn the_same_packet_is_the_same() {
        assert_eq!(compare(&[packet()], &[packet()]), None);
        assert_eq!(compare(&[], &[]), None);
    }

    #[test]
    fn a_changed_byte_is_reported_with_its_place() {
        let difference = compare(&[packet()], &[changed(|emission| emission.bytes[29] ^= 0x10)]).expect("reported");
        assert!(difference.summary.starts_with("expected to server 0: 10.0.0.1.1 > 10.0.0.2.2 UDP"));
        assert_eq!(difference.detail[2].find('^'), Some(14 + 3 * 13));
    }

    #[test]
    fn another_destination_is_reported() {
        assert!(compare(&[packet()], &[changed(|emission| emission.server = Some(1))]).is_some());
        let to_client = Emission::new(None, packet().bytes);
        assert!(compare(&[packet()], &[to_client]).is_some());
    }

    #[test]
    fn missing_additional_and_swapped_packets_are_reported() {
        let other = changed(|emission| emission.bytes[31] = 9);
        assert!(compare(&[packet()], &[]).is_some_and(|difference| difference.summary.ends_with("got nothing")));
        assert!(compare(&[], &[packet()]).is_some_and(|difference| difference.summary.starts_with("expected nothing")));
        assert!(compare(&[packet(), other.clone()], &[other, packet()]).is_some());
    }

    #[test]
    fn volatile_bytes_may_differ_but_not_their_neighbours() {
        let expected = changed(|emission| emission.volatile = vec![(30, 2)]);
        assert_eq!(compare(std::slice::from_ref(&expected), &[changed(|emission| emission.bytes[31] = 9)]), None);
        assert!(compare(std::slice::from_ref(&expected), &[changed(|emission| emission.bytes[29] = 9)]).is_some());
        let longer = changed(|emission| emission.bytes.push(0));
        assert!(compare(&[expected], &[longer]).is_some());
    }

    #[test]
    fn a_volatile_header_checksum_must_still_be_right() {
        let expected = changed(|emission| emission.volatile = vec![(4, 2), (10, 2)]);
        let wrong = changed(|emission| emission.bytes[5] = 8);
        let difference = compare(&[expected], &[wrong]).expect("reported");
        assert!(difference.summary.starts_with("expected correct checksums"));
    }

    #[test]
    fn a_volatile_transport_checksum_must_still_be_there_and_right() {
        let with_port = |port: u16| {
            let bytes = lvs_testkit::udp(format!("10.0.0.1:{port}").as_str(), "10.0.0.2:6080").payload(b"abcd").build();
            Emission { volatile: vec![(20, 2), (26, 2)], ..Emission::new(Some(0), bytes) }
        };
        assert_eq!(compare(&[with_port(1)], &[with_port(2)]), None);
        for checksum in [[0, 0], [0x12, 0x34]] {
            let mut wrong = with_port(2);
            wrong.bytes[26..28].copy_from_slice(&checksum);
            let difference = compare(&[with_port(1)], &[wrong]).expect("reported");
            assert!(difference.summary.starts_with("expected correct checksums"));
        }
    }

    #[test]
    fn a_datagram_is_compared_at_the_step_where_it_completes() {
        let fragment = |offset: u8, has_more: bool, payload: [u8; 8]| {
            let mut emission = packet();
            emission.bytes.truncate(20);
            emission.bytes[3] = 28;
            emission.bytes[6..8].copy_from_slice(&[u8::from(has_more) << 5, offset]);
            emission.bytes[10..12].fill(0);
            let sum = checksum(&emission.bytes);
            emission.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            emission.bytes.extend(payload);
            emission
        };
        let (first, second) = (fragment(0, true, [1; 8]), fragment(1, false, [2; 8]));

        let mut packets = Packets::default();
        assert_eq!(packets.compare(&[], std::slice::from_ref(&first)), None);
        assert_eq!(packets.compare(&[first.clone(), second.clone()], &[second]), None);

        let mut packets = Packets::default();
        assert_eq!(packets.compare(&[], std::slice::from_ref(&first)), None);
        let wrong = fragment(1, false, [3; 8]);
        assert!(packets.compare(&[first, fragment(1, false, [2; 8])], &[wrong]).is_some());
    }
}
