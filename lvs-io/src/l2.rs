//! The Ethernet edge of a director, sans I/O: [`FrameReader`] turns frames into packets for the director and messages
//! about the link (ARP, RFC 826; Neighbor Discovery, RFC 4861; Multicast Listener Discovery, RFC 3810), [`Edge`] turns
//! packets and those messages into frames. Two values, so that a device's receiving half can own the one and its
//! sending half the other.
//!
//! Frames lie in a [`lvs_core::PacketBuf`] whose window begins at the destination MAC address; packets in one that
//! begins at the IP header, as everywhere. The `offload` context moves along. Messages are read and written by
//! `smoltcp::wire`, whose types stay inside.

mod address;
mod arp;
mod edge;
mod frame;
mod listener;
mod message;
mod mld;
mod ndp;
mod neighbour;
mod reader;
mod responder;
mod routes;
mod writer;

pub use address::MacAddress;
pub use edge::{Edge, EdgeConfig, EdgeCounters, SendError, Sending};
pub use frame::{LINK_HEADER_MAX, Tag};
pub use message::{Advertisement, GroupQuery, LinkMessage, Solicitation};
pub use neighbour::{NEIGHBOURS_MAX, WAITING_BYTES_MAX, WAITING_EACH_MAX, WAITING_MAX};
pub use reader::{FrameReader, Read, ReaderCounters};
pub use routes::Routes;
