//! AF_PACKET sockets for LVS in Rust. Not yet: TPACKET_V3 receive rings, fanout and `PACKET_VNET_HDR` super-packets are
//! coming; until then use `lvs-io-tun`.
#![deny(missing_docs)]
