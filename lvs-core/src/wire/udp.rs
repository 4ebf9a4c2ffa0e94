//! UDP as far as a director reads and writes it (RFC 768).

/// Length of the UDP header, in bytes.
pub const HEADER_LEN: usize = 8;

/// Offset of the checksum in the UDP header.
pub const CHECKSUM: usize = 6;

/// A computed checksum as it is sent.
pub const fn sent_checksum(computed: u16) -> u16 {
    // RFC 768: a computed checksum of zero is sent as all ones; zero means that there is none.
    if computed == 0 { 0xffff } else { computed }
}

/// The length that a datagram's header gives it, if the datagram is at least a header long and lies inside `segment`,
/// which begins with it.
pub fn datagram_len(segment: &[u8]) -> Option<usize> {
    let len = usize::from(crate::wire::read_u16(segment, 4)?);
    (HEADER_LEN..=segment.len()).contains(&len).then_some(len)
}

/// Writes a UDP header with checksum zero (none). `len` counts header and payload.
pub fn write_header(header: &mut [u8; HEADER_LEN], source_port: u16, destination_port: u16, len: u16) {
    let [source_high, source_low] = source_port.to_be_bytes();
    let [destination_high, destination_low] = destination_port.to_be_bytes();
    let [len_high, len_low] = len.to_be_bytes();
    *header = [source_high, source_low, destination_high, destination_low, len_high, len_low, 0, 0];
}
