//! What stations say to each other about the link, ARP and Neighbor Discovery alike: they ask for an address, or say
//! who has one.

use std::net::IpAddr;

use super::address::MacAddress;

/// A message about the link, read from a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkMessage {
    /// Somebody asks who has an address: ARP request, neighbour solicitation.
    Solicitation(Solicitation),
    /// Somebody says who has one: ARP reply or announcement, neighbour advertisement.
    Advertisement(Advertisement),
}

/// A question: who has `target`?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// The address asked for.
    pub target: IpAddr,
    /// Who asks; `None` where somebody checks whether an address is free (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
    pub sender: Option<IpAddr>,
    /// Where the answer goes.
    pub sender_mac: MacAddress,
}

/// A statement: `address` is at `mac`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// The address it is about.
    pub address: IpAddr,
    /// Who has it; a neighbour advertisement may leave that out.
    pub mac: Option<MacAddress>,
    /// Whether it answers a question.
    pub is_solicited: bool,
    /// Whether it replaces what was known (RFC 4861 §4.4). ARP always does (RFC 826).
    pub overrides: bool,
}
