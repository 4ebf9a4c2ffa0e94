//! The maximum segment size a TCP SYN announces (RFC 9293 §3.7.1), lowered where the way ahead takes less than the host
//! believes: "MSS clamping".

use crate::Protocol;
use crate::packet::{ChecksumOffload, PacketBuf};
use crate::wire::checksum::Delta;
use crate::wire::parse::Headers;
use crate::wire::{read_u16, tcp, write_u16};

/// Lowers the MSS option of a SYN or SYN|ACK to `most` bytes and updates the TCP checksum. Nothing happens to any other
/// packet, to an option that is low enough, or where there is none: the host then keeps to 536 bytes (1220 over IPv6).
///
/// `headers` are those of the packet; its addresses and ports may have changed since.
///
/// ```
/// use lvs_core::wire::{mss, parse::parse};
/// use lvs_core::{HEADROOM, PacketBuf};
/// // SYN 198.51.100.7:1024 > 192.0.2.80:80, MSS 1460
/// let syn: [u8; 44] = [
///     0x45, 0, 0, 44, 0, 1, 0, 0, 64, 6, 0x8e, 0x40, 198, 51, 100, 7, 192, 0, 2, 80,
///     4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0xa7, 0x4a, 0, 0, 2, 4, 5, 180,
/// ];
/// let mut storage = [0; HEADROOM + 44];
/// storage[HEADROOM..].copy_from_slice(&syn);
/// let mut packet = PacketBuf::new(&mut storage, HEADROOM, syn.len());
/// let headers = parse(packet.bytes()).unwrap();
/// mss::clamp(&mut packet, &headers, 1400);
/// assert_eq!(packet.bytes()[42..], 1400u16.to_be_bytes());
/// ```
pub fn clamp(packet: &mut PacketBuf<'_>, headers: &Headers, most: u16) {
    let Some(value) = find(packet.bytes(), headers) else { return };
    let Some(announced) = read_u16(packet.bytes(), value).filter(|announced| *announced > most) else { return };
    let offload = packet.offload.checksum;
    let bytes = packet.bytes_mut();
    let field = headers.transport + tcp::CHECKSUM;
    let before = read_u16(bytes, field).unwrap_or(0);
    write_u16(bytes, value, most);
    // A checksum that is left to the device will be summed over the new bytes.
    if offload == ChecksumOffload::Full {
        let mut delta = Delta::new();
        if (value - headers.transport) % 2 == 0 {
            delta.replace_u16(announced, most);
        } else {
            // The value straddles two summed words, so that its bytes trade places in the sum.
            delta.replace_u16(announced.swap_bytes(), most.swap_bytes());
        }
        write_u16(bytes, field, delta.apply(before));
    }
}

/// Offset of the MSS a SYN announces.
fn find(bytes: &[u8], headers: &Headers) -> Option<usize> {
    if headers.protocol != Protocol::Tcp.number() || !headers.tcp_flags(bytes)?.syn() {
        return None;
    }
    let segment = headers.payload(bytes);
    let header_len = usize::from(segment.get(12)? >> 4) * 4;
    let options = segment.get(tcp::HEADER_LEN..header_len)?;
    let mut offset = 0;
    while let Some(&kind) = options.get(offset) {
        match kind {
            OPTION_END => return None,
            OPTION_NOP => offset += 1,
            _ => {
                let len = usize::from(*options.get(offset + 1)?);
                // RFC 9293 §3.1: an option is as long as it says, at least its own two bytes.
                let option = options.get(offset..offset + len).filter(|_| len >= 2)?;
                if kind == OPTION_MSS {
                    return (option.len() == OPTION_MSS_LEN)
                        .then_some(headers.transport + tcp::HEADER_LEN + offset + 2);
                }
                offset += len;
            }
        }
    }
    None
}

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: usize = 4;
