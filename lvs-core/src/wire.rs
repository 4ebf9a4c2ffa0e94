//! Bytes on the wire: parsing with offsets kept, rewriting in place, checksums. Knows nothing of load balancing.
//!
//! [`parse::parse`] reads a packet once; everything else takes its [`parse::Headers`] and the bytes. Changes are made
//! in place, and each function checks all it needs before its first write: on `Err` the bytes are as they came.

pub mod checksum;
pub(crate) mod damage;
pub(crate) mod family;
pub mod fragment;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod mss;
pub mod parse;
pub(crate) mod plain;
pub mod reassembly;
pub mod reset;
pub mod rewrite;
pub mod sctp;
pub mod segment;
pub(crate) mod stream;
pub mod tcp;
pub(crate) mod tcp_options;
pub mod udp;

/// The 16 bits at `offset`, most significant byte first, if they are there.
pub(crate) fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

/// Writes the 16 bits at `offset`, most significant byte first; nothing happens if they are not there.
pub(crate) fn write_u16(bytes: &mut [u8], offset: usize, value: u16) {
    if let Some(field) = bytes.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}
