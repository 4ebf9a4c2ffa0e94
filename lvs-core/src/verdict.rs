//! What becomes of a packet. One value says it all; the bytes are in the packet's own buffer.

use core::net::IpAddr;

use crate::DropReason;

/// Which way a packet of a connection travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the client towards a real server.
    Request,
    /// From a real server towards the client.
    Reply,
}

/// What the caller does with the packet it handed in.
///
/// Every kind is to be handled, so this list is closed: a new kind of verdict is a new major version. Fields of a kind may
/// be added: match them with `..`, and make them by [`Verdict::forward`] and [`Verdict::reply`].
#[must_use = "a verdict says what to do with the packet"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not ours: the bytes are untouched. The worker loop's `on_pass` says what happens (to the host, routed, dropped).
    Pass,
    /// Rewritten in place; send it to `next_hop`. A packet longer than `mtu` may be fragmented (it is IPv4 without DF,
    /// or IPv6 with a fragment header that gives its identification): whoever sends it does so first, see
    /// [`crate::wire::fragment`] (in `lvs-io`, `Egress`). Of a super-packet that is not longer which its segments come to.
    #[non_exhaustive]
    Forward {
        /// Whom to hand the packet to on the link (not always the packet's own destination: direct routing).
        next_hop: IpAddr,
        /// Which way it travels, hence which side's device it leaves by.
        direction: Direction,
        /// Longest packet the way out takes, in bytes, IP header included.
        mtu: u16,
    },
    /// Rewritten in place, for the host's own stack.
    Local,
    /// The buffer now holds our answer (an ICMP error or a RST) to the packet's sender; send it to `next_hop`.
    #[non_exhaustive]
    Reply {
        /// The sender of the packet that is answered.
        next_hop: IpAddr,
    },
    /// Kept by the director (a fragment whose first part is still missing); leaves later through `poll_transmit`.
    Held,
    /// Refused; the bytes are untouched and the reason has been counted.
    Drop(DropReason),
}

impl Verdict {
    /// A packet to send on: for loops and tests that speak of packets of their own.
    pub const fn forward(next_hop: IpAddr, direction: Direction, mtu: u16) -> Self {
        Self::Forward { next_hop, direction, mtu }
    }

    /// An answer to the sender of a packet.
    pub const fn reply(next_hop: IpAddr) -> Self {
        Self::Reply { next_hop }
    }
}
