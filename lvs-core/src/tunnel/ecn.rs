//! Congestion marks on the outside and the inside of a tunnel: what goes out, and what comes of both at the end.
//! RFC 6040, with one exception of Linux's.

use crate::flow::AddressFamily;
use crate::wire::ipv4;

/// The ECN bits of a TOS or traffic class (RFC 3168 §5).
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The outer traffic class for an inner one.
pub(super) const fn outer(inner: u8) -> u8 {
    // RFC 3168 §9.1.1 ("full functionality"): Linux starts a new ECT(0) outside where the inside is marked already
    // (`tun_ipip`: 03 → 02); RFC 6040 §4.1 would copy the mark. The far end comes to the same either way.
    if inner & ECN == CE { inner & !ECN | ECT_0 } else { inner }
}

/// The inner traffic class at the tunnel's end; `None` if the packet must be dropped (RFC 6040 §4.2).
pub(super) const fn inner(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (CE, _) | (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Some(inner & !ECN | ecn)
}

/// Writes the traffic class into a packet whose header was parsed, IPv4 header checksum included.
pub(super) fn write(bytes: &mut [u8], family: AddressFamily, traffic_class: u8) {
    match family {
        AddressFamily::Ipv4 => {
            bytes[1] = traffic_class;
            let header_len = usize::from(bytes[0] & 0x0f) * 4;
            ipv4::recompute_checksum(bytes, header_len);
        }
        AddressFamily::Ipv6 => {
            bytes[0] = bytes[0] & 0xf0 | traffic_class >> 4;
            bytes[1] = bytes[1] & 0x0f | traffic_class << 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_end_follows_the_table_of_rfc_6040() {
        // RFC 6040 §4.2, figure 4: rows are the inner mark, columns the outer Not-ECT, ECT(0), ECT(1), CE.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inside, row) in table {
            for (outside, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                let expected = expected.map(|ecn| 0xb8 | ecn);
                assert_eq!(inner(0xb8 | inside, outside), expected, "{inside:02b} in {outside:02b}");
            }
        }
    }

    #[test]
    fn only_a_mark_is_not_copied_outside() {
        // Goldens tun_ipip and tun_gre: 28 → 28, 01 → 01, 03 → 02; seen too: ba → ba.
        for (inner, expected) in [(0x28, 0x28), (0x01, 0x01), (0x03, 0x02), (0xba, 0xba), (0x2b, 0x2a)] {
            assert_eq!(outer(inner), expected, "{inner:02x}");
        }
    }
}
