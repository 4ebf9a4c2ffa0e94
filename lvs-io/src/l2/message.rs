//! What stations say to each other about the link, ARP and Neighbor Discovery alike: they ask for an address, or say
//! who has one. And what routers and switches ask all of them: who hears which group.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::address::MacAddress;

/// A message about the link, read from a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkMessage {
    /// Somebody asks who has an address: ARP request, neighbour solicitation.
    Solicitation(Solicitation),
    /// Somebody says who has one: ARP reply or announcement, neighbour advertisement.
    Advertisement(Advertisement),
    /// Somebody asks who hears which group: Multicast Listener Query.
    GroupQuery(GroupQuery),
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

/// A question: who hears `group`? (RFC 3810 §5.1)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupQuery {
    /// The group asked for; `None` asks for all.
    pub group: Option<Ipv6Addr>,
    /// By when every listener has answered; each waits for some part of it.
    pub answer_within: Duration,
    /// Whether it came from one who understands version 1 only (RFC 2710).
    pub is_version_1: bool,
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
