//! Why a packet was refused: one variant for each cause an operator could act on.
//! The name ([`DropReason::name`]) is also the metric label and the anchor in the docs.

use core::fmt;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident => $name:literal, $text:literal;)+) => {
        /// The cause of a [`crate::Verdict::Drop`]. The packet's bytes are as they came.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name: metric label and documentation anchor.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for the operator: what happened and, where something helps, what to do.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

drop_reasons! {
    /// The IP header is cut short, claims more bytes than there are, or has a wrong version or header length.
    MalformedIp => "malformed_ip", "the IP header is truncated or its lengths contradict the packet";
    /// The IPv4 header checksum is wrong.
    BadIpChecksum => "bad_ip_checksum", "the IPv4 header checksum is wrong: the packet was damaged on its way";
    /// The transport header of a packet that needs one is cut short.
    TruncatedTransport => "truncated_transport", "the TCP, UDP or SCTP header is cut short";
    /// Loose or strict source routing (RFC 791 §3.1) on a packet for a virtual service.
    SourceRouted => "source_routed", "source-routed packets are refused, as Linux does by default";
    /// A packet that would open a connection, or an ICMP error about one, comes from where no other host can be: 0/8,
    /// loopback, multicast, 255.255.255.255, an IPv4-mapped address, or (without `accept_local`) one of the director's
    /// own addresses, virtual ones included.
    MartianSource => "martian_source", "the source is no other host's address; accept_local lets the director's own addresses pass";
    /// Another connection of the same client endpoint, to another virtual endpoint, has the server that this one would
    /// have, and the service asks that no two share replies (`--on-reply-conflict`).
    ReplyConflict => "reply_conflict", "the client's port already has a connection to that server by another virtual address; add servers, or use FullNAT";
    /// The connection's real server was deleted and `expire_nodest_conn` is off.
    ServerGone => "server_gone", "the connection's real server was deleted; add it back, or set expire_nodest_conn";
    /// The connection's real server was drained and its deadline has passed.
    ServerDrained => "server_drained", "the connection's real server was drained; edit it to put it back into service";
    /// The packet arrived with a TTL or hop limit too low to forward and no error may be sent about it.
    TtlExceeded => "ttl_exceeded", "the hop limit was used up";
    /// Longer than the way out takes, and no error may be sent about it.
    TooBig => "too_big", "longer than the MTU and may not be fragmented";
    /// An ICMP error about a tracked flow with a wrong ICMP checksum.
    BadIcmpChecksum => "bad_icmp_checksum", "the ICMP checksum is wrong: the error was damaged on its way";
    /// An ICMP error about a tracked flow that quotes too little of it to be translated.
    TruncatedIcmp => "truncated_icmp", "the ICMP message is too short to be used";
    /// No real server could be chosen and no answer may be sent (the packet is itself an ICMP error, or rate limits).
    NoServer => "no_server", "no real server is available for the service";
    /// The connection table is full.
    ConnectionTableFull => "connection_table_full", "the connection table is full; raise connections_max";
    /// The persistence template table is full.
    TemplateTableFull => "template_table_full", "the persistence template table is full; raise templates_max";
    /// The client has as many persistence templates as one may have, all of them proven.
    ClientTemplatesFull => "client_templates_full", "one client (an IPv6 network) uses up its share of persistence templates; raise client_templates_max";
    /// Too many connections share one client address and port.
    ClientEndpointFull => "client_endpoint_full", "one client address and port opened too many connections";
    /// Too many half-open TCP and SCTP connections.
    HalfOpenFull => "half_open_full", "too many half-open connections; raise half_open_max, or let the oldest make room";
    /// The memory for fragments is full: this one found no room, or had to make room for others. Or too many parts of one
    /// datagram wait for its first.
    FragmentTableFull => "fragment_table_full", "the fragment memory is full; raise fragments_max or fragment_bytes_max";
    /// Fragments overlap, or have come already (RFC 5722, RFC 8200 §4.5).
    OverlappingFragment => "overlapping_fragment", "fragments of one datagram overlap";
    /// A fragment whose first part did not come in time.
    FragmentTimeout => "fragment_timeout", "the rest of a fragmented datagram did not arrive in time";
    /// The first fragment of this datagram was answered or refused, so the rest is of no use.
    FirstFragmentRefused => "first_fragment_refused", "the datagram's first fragment was refused";
    /// The packet's buffer has too little headroom for the encapsulation.
    NoHeadroom => "no_headroom", "the packet's buffer has too little headroom; lend HEADROOM bytes before each packet";
    /// The packet's buffer is too small for the answer that should be written into it.
    NoTailroom => "no_tailroom", "the packet's buffer is too small for the answer";
    /// `drop_packet` defence: one in so many new connections is refused.
    DropPacketDefence => "drop_packet_defence", "the drop_packet defence refused a new connection";
    /// The persistence engine found no key in the packet.
    NoPersistenceKey => "no_persistence_key", "the persistence engine (--pe) found no Call-ID in the packet";
    /// FullNAT: every local address and port towards this server is in use, or the service has no local address of the
    /// server's family.
    LocalPortsExhausted => "local_ports_exhausted", "no local address and port is free; add (more) local addresses of the server's family";
    /// FullNAT: the client has as many local ports towards this server as one may have, none of them half-open.
    ClientPortsFull => "client_ports_full", "one client (an IPv6 network) uses up its share of local ports towards a server; raise client_max of the local ports";
    /// A client's segment could bring its server something in the place of a PROXY header: it begins before the first
    /// byte of data, acknowledges what the server has not sent, comes before the server's SYN|ACK or on a connection of
    /// which no SYN was seen, or after a RST or both sides' FINs.
    OutOfSequence => "out_of_sequence", "a client sent what could have passed for the PROXY header of its connection";
    /// A super-packet's offload context contradicts its bytes.
    BadOffload => "bad_offload", "the offload context contradicts the packet";
    /// The headers of a tunnel that ends here are cut off or contradict each other.
    MalformedTunnel => "malformed_tunnel", "the GRE or GUE header of a tunnel packet is malformed";
    /// The GRE checksum or the UDP checksum around GUE is wrong.
    BadTunnelChecksum => "bad_tunnel_checksum", "the checksum of a tunnel packet is wrong: it was damaged on its way";
    /// A packet of a tunnel that ends here comes from an address that is not one of its peers.
    UnknownTunnelPeer => "unknown_tunnel_peer", "a tunnel packet came from an address that is not one of the peers; name it with --peer, or find out who sends";
    /// Congestion was marked on the outside of a tunnel packet whose inside cannot carry the mark (RFC 6040 §4.2).
    CongestionLost => "congestion_lost", "a router marked congestion on a tunnel packet whose sender does not know ECN";
    /// A router told the path MTU of a tunnel: it was remembered, and the client, whose packets may be fragmented, is
    /// told nothing.
    PathMtuLearned => "path_mtu_learned", "an ICMP error told the path MTU of a tunnel, which is remembered for 10 minutes";
    /// An ICMP error tells the path MTU of a tunnel and quotes nothing that only the path knows, or too many such errors
    /// came in a second (`tunnel_mtu_proof`).
    UnprovenPathMtu => "unproven_path_mtu", "an ICMP error about a tunnel's path MTU that may come from anybody; see tunnel_mtu_proof";
    /// Too many bytes wait for [`crate::Director::poll_transmit`].
    TransmitQueueFull => "transmit_queue_full", "packets wait for poll_transmit; poll it more often, or raise fragment_bytes_max";
    /// The forward method cannot carry this packet (for example a tunnel without a server).
    NotForwardable => "not_forwardable", "the forward method cannot carry this packet";
    /// The worker loop was told to drop what is not ours.
    NotOurs => "not_ours", "no virtual service matches and the device leads nowhere else";
    /// An IPv6 extension-header chain is endless or malformed.
    MalformedExtensionHeader => "malformed_extension_header", "the IPv6 extension headers are malformed";
    /// A protocol helper needed to change the payload and could not: too little room in the packet's buffer.
    HelperFailed => "helper_failed", "the protocol helper had no room to rewrite the segment";
    /// The packet would be answered by an ICMP error or a RST, and enough of them have been sent for now
    /// (`icmp_ratelimit`, `icmp_msgs_per_sec`, `icmpv6_ratelimit`, `resets_per_sec`).
    AnswerLimited => "answer_limited", "too many packets were answered by ICMP errors or RSTs; see icmp_ratelimit and icmp_msgs_per_sec";
    /// A segment that a protocol helper would read has a wrong TCP checksum, or a packet that would open a connection or
    /// bring one about has a wrong one (`drop_damaged_openings`), or an SCTP packet that would leave with a
    /// right CRC32c came with a wrong one (FullNAT; NAT with `drop_damaged_sctp`).
    BadTransportChecksum => "bad_transport_checksum", "the transport checksum is wrong: the packet was damaged on its way";
    /// The length of a UDP datagram that is to get a PROXY header or a checksum (NAT64) is not inside its packet.
    BadLength => "bad_length", "the UDP length contradicts the packet";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
