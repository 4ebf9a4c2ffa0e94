//! Tunnels (ipvsadm: `-i`, printed `Tunnel`): the packet stays as it is, hop limit apart, and travels inside another
//! one to the real server. What the outside looks like is in [`crate::tunnel`]; here is what may go in.
//! Source: Linux IPVS, as recorded in `conformance/`.

use core::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::{Path, check_way_out, pass_through};
use crate::packet::{ChecksumOffload, Offload, PacketBuf};
use crate::rng::Seed;
use crate::service::TunnelConfig;
use crate::tunnel::{self, Tunnel};
use crate::verdict::{Direction, Verdict};
use crate::wire::ipv6;
use crate::wire::parse::Headers;
use crate::wire::segment::{self, keep_first};

/// What a path through a tunnel adds to [`Path`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TunnelPath {
    pub config: TunnelConfig,
    /// Where the tunnel starts; `None` where the director has no address of the server's family.
    pub source: Option<IpAddr>,
    /// UDP source port of this flow, for GUE.
    pub source_port: u16,
    /// See [`Tunnel::proof`].
    pub proof: u32,
    /// Whether an IPv6 packet of 1280 bytes goes in over any way (`tunnel_least_mtu`).
    pub lets_least_in: bool,
    /// Whether DF is copied outside and longer packets are refused (`pmtu_disc`).
    pub discovers_mtu: bool,
}

impl TunnelPath {
    /// The tunnel to a real server, over a way that takes packets of `mtu` bytes.
    #[inline(always)]
    pub fn towards(&self, destination: IpAddr, mtu: u16, identification: u32) -> Option<Tunnel> {
        Some(Tunnel {
            config: self.config,
            source: self.source?,
            destination,
            source_port: self.source_port,
            identification,
            mtu,
            copies_dont_fragment: self.discovers_mtu,
            proof: self.proof,
        })
    }

    /// Longest packet of this family that may go inside. An IPv6 packet of 1280 bytes always may: no sender makes it
    /// shorter, so what is longer outside than the way takes is fragmented there (RFC 2473 §7.1, RFC 4213 §3.2). `None`
    /// if there is no room for what every IPv4 link must take (68 bytes, RFC 791); in Linux, over IPv6, 1280.
    #[inline]
    pub fn inner_mtu(&self, offload: Offload, tunnel: &Tunnel, inner: AddressFamily) -> Option<u16> {
        let room = tunnel.mtu.checked_sub(tunnel.overhead(offload.checksum) as u16)?;
        if !self.lets_least_in {
            let least = if tunnel.destination.is_ipv4() { 68 } else { ipv6::LEAST_MTU };
            return (room >= least).then_some(room);
        }
        let mtu = if inner == AddressFamily::Ipv6 { room.max(ipv6::LEAST_MTU) } else { room };
        (room >= 68).then_some(mtu)
    }
}

/// Encapsulates the packet towards the path's real server.
pub(crate) fn request(packet: &mut PacketBuf<'_>, headers: &Headers, path: &Path) -> Verdict {
    let Some(tunnel) = path.tunnel.towards(path.real.address, path.mtu, path.identification) else {
        return Verdict::Drop(DropReason::NotForwardable);
    };
    // What of the packet is encapsulated: of a super-packet its first segment.
    let (offload, len) = match packet.offload.gso {
        None => (packet.offload, headers.packet_len),
        Some(gso) => match segment::first_len(packet.bytes(), headers, gso) {
            Ok(len) => (Offload::default(), len),
            Err(reason) => return Verdict::Drop(reason),
        },
    };
    let Some(mtu) = path.tunnel.inner_mtu(offload, &tunnel, headers.family) else {
        return Verdict::Drop(DropReason::NotForwardable);
    };
    let is_any_length = headers.family == AddressFamily::Ipv4 && !path.tunnel.discovers_mtu;
    let inner_path = Path { mtu: if is_any_length { u16::MAX } else { mtu }, ..*path };
    if let Err(verdict) = check_way_out(packet, headers, Direction::Request, &inner_path) {
        return verdict;
    }
    let inner = Headers { packet_len: len, ..*headers };
    if let Err(reason) = tunnel::check(packet, offload, &inner, &tunnel).and_then(|()| keep_first(packet, headers)) {
        return Verdict::Drop(reason);
    }
    packet.set_len(len);
    let headers = remove_fragment_header(packet, &inner);
    pass_through(packet, &headers, path);
    match tunnel::encapsulate(packet, &headers, &tunnel) {
        Ok(()) => Verdict::Forward { next_hop: path.real.address, direction: Direction::Request, mtu: path.mtu },
        Err(reason) => Verdict::Drop(reason),
    }
}

/// The UDP source port of a flow's GUE packets: one of Linux's local ports (`ip_local_port_range`), spread by a hash of
/// the flow under a secret seed, so that routers that hash ports see as many flows as there are.
pub(crate) fn source_port(seed: Seed, (protocol, client, virtual_endpoint): (Protocol, Endpoint, Endpoint)) -> u16 {
    let ports = u64::from(client.port) << 32 | u64::from(virtual_endpoint.port) << 16 | u64::from(protocol.number());
    let halves = |address| match address {
        IpAddr::V4(address) => (0, u64::from(address.to_bits())),
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, address.to_bits() as u64),
    };
    let (client, virtual_address) = (halves(client.address), halves(virtual_endpoint.address));
    let words = [ports, client.0, client.1, virtual_address.0, virtual_address.1];
    let hash = words.iter().fold(seed, |seed, word| seed.derive(*word)).value() >> 32;
    FIRST_PORT + ((hash * u64::from(LAST_PORT - FIRST_PORT)) >> 32) as u16
}

/// Linux's default `ip_local_port_range`.
const FIRST_PORT: u16 = 32_768;
const LAST_PORT: u16 = 60_999;

/// A datagram that was put together travels without the fragment header it came with (`tun6_frag`).
fn remove_fragment_header(packet: &mut PacketBuf<'_>, headers: &Headers) -> Headers {
    let Some(part) = headers.fragment.filter(|part| part.header != 0 && part.offset == 0 && !part.more) else {
        return *headers;
    };
    ipv6::remove_fragment_header(packet.bytes_mut(), part.header);
    packet.shrink_front(ipv6::FRAGMENT_HEADER_LEN);
    if let ChecksumOffload::Partial { start, .. } = &mut packet.offload.checksum {
        *start = start.saturating_sub(ipv6::FRAGMENT_HEADER_LEN as u16);
    }
    Headers {
        transport: headers.transport - ipv6::FRAGMENT_HEADER_LEN,
        packet_len: headers.packet_len - ipv6::FRAGMENT_HEADER_LEN,
        fragment: None,
        ..*headers
    }
}
