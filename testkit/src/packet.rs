//! The packet builder: what a test says of a packet, and its bytes by way of `etherparse`.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};
use lvs_core::{ChecksumOffload, Endpoint};

use crate::oracle;

/// One end of a packet: `"10.0.0.1:80"`, `"[fd00::1]:80"`, or an address alone where there are no ports.
pub trait End {
    /// Address and port; port 0 if there is none.
    fn end(self) -> SocketAddr;
}

impl End for SocketAddr {
    fn end(self) -> SocketAddr {
        self
    }
}

impl End for IpAddr {
    fn end(self) -> SocketAddr {
        SocketAddr::new(self, 0)
    }
}

impl End for Endpoint {
    fn end(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl End for &str {
    /// # Panics
    /// If it is neither an address nor an address with a port.
    fn end(self) -> SocketAddr {
        self.parse().unwrap_or_else(|_| self.parse::<IpAddr>().expect("an address, with or without port").end())
    }
}

/// A packet to be built. Everything has a default; checksums and lengths are right unless asked otherwise.
///
/// ```
/// use lvs_testkit::{describe, udp};
/// let packet = udp("[2001:db8::7]:5000", "[fd00::1]:53").payload(b"abc").hop_limit(2).build();
/// assert_eq!(describe(&packet), "2001:db8::7.5000 > fd00::1.53 UDP pl=3 ttl=2 len=51");
/// ```
#[derive(Clone, Debug)]
pub struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    transport: Transport,
    payload: Vec<u8>,
    hop_limit: u8,
    traffic_class: u8,
    identification: u32,
    dont_fragment: bool,
    fragment: Option<(u16, bool)>,
    ipv4_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    checksum: Checksum,
    bad_ip_checksum: bool,
    trailing: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp { flags: u8, sequence: u32, acknowledgment: u32, urgent: u16, window: u16, options: Vec<u8> },
    Udp,
    Sctp { tag: u32 },
    Icmp { icmp_type: u8, code: u8, rest: u32 },
    Raw(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Checksum {
    Right,
    Wrong,
    Zero,
    Partial,
}

/// A TCP segment without flags: sequence number 1000, window 8192.
pub fn tcp(source: impl End, destination: impl End) -> Packet {
    let (sequence, window, options) = (1000, 8192, vec![]);
    let transport = Transport::Tcp { flags: 0, sequence, acknowledgment: 0, urgent: 0, window, options };
    Packet::new(source.end(), destination.end(), transport)
}

/// A UDP datagram.
pub fn udp(source: impl End, destination: impl End) -> Packet {
    Packet::new(source.end(), destination.end(), Transport::Udp)
}

/// An SCTP packet without chunks (add them with [`Packet::chunk`]), verification tag 0.
pub fn sctp(source: impl End, destination: impl End) -> Packet {
    Packet::new(source.end(), destination.end(), Transport::Sctp { tag: 0 })
}

/// An ICMP or (between IPv6 addresses) ICMPv6 message; `rest` is the last four bytes of its header.
pub fn icmp(source: impl End, destination: impl End, icmp_type: u8, code: u8, rest: u32) -> Packet {
    Packet::new(source.end(), destination.end(), Transport::Icmp { icmp_type, code, rest })
}

/// An ICMP error from `source` to the sender of `quoted`, which it quotes whole.
///
/// # Panics
/// If `quoted` has no IP header.
pub fn icmp_error(source: impl End, icmp_type: u8, code: u8, rest: u32, quoted: &[u8]) -> Packet {
    let (destination, _) = oracle::addresses(quoted).expect("the quoted packet has an IP header");
    icmp(source, destination, icmp_type, code, rest).payload(quoted)
}

/// A packet of any protocol whose IP payload is the payload, as it is.
pub fn raw(source: impl End, destination: impl End, protocol: u8) -> Packet {
    Packet::new(source.end(), destination.end(), Transport::Raw(protocol))
}

/// What is said of the transport header.
impl Packet {
    /// TCP: sets flags, as in byte 13 of the header.
    #[must_use]
    pub fn flags(mut self, bits: u8) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags |= bits;
        }
        self
    }

    /// TCP: sets SYN.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(0x02)
    }

    /// TCP: sets ACK.
    #[must_use]
    pub fn ack(self) -> Self {
        self.flags(0x10)
    }

    /// TCP: sets FIN.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flags(0x01)
    }

    /// TCP: sets RST.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flags(0x04)
    }

    /// TCP: sets PSH.
    #[must_use]
    pub fn psh(self) -> Self {
        self.flags(0x08)
    }

    /// TCP: sequence and acknowledgment number.
    #[must_use]
    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        if let Transport::Tcp { sequence, acknowledgment, .. } = &mut self.transport {
            (*sequence, *acknowledgment) = (seq, ack);
        }
        self
    }

    /// TCP: sets URG, and where the urgent data ends.
    #[must_use]
    pub fn urgent(mut self, pointer: u16) -> Self {
        if let Transport::Tcp { urgent, .. } = &mut self.transport {
            *urgent = pointer;
        }
        self.flags(0x20)
    }

    /// TCP: options, padded with end-of-list to a multiple of four bytes.
    #[must_use]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = bytes.to_vec();
        }
        self
    }

    /// SCTP: the verification tag.
    #[must_use]
    pub fn tag(mut self, value: u32) -> Self {
        if let Transport::Sctp { tag } = &mut self.transport {
            *tag = value;
        }
        self
    }

    /// SCTP: adds a chunk, padded to a multiple of four bytes.
    #[must_use]
    pub fn chunk(self, chunk_type: u8, value: &[u8]) -> Self {
        self.flagged_chunk(chunk_type, 0, value)
    }

    /// The same with flags.
    #[must_use]
    pub fn flagged_chunk(mut self, chunk_type: u8, flags: u8, value: &[u8]) -> Self {
        let len = (value.len() + 4) as u16;
        self.payload.extend([chunk_type, flags]);
        self.payload.extend(len.to_be_bytes());
        self.payload.extend(value);
        self.payload.resize(self.payload.len().next_multiple_of(4), 0);
        self
    }

    /// What follows the transport header.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// A payload of `len` bytes that differ from their neighbours.
    #[must_use]
    pub fn payload_len(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|index| (index * 7 + index / 251) as u8).collect();
        self
    }

    /// The transport checksum is wrong: its first byte is off by 0x5a.
    #[must_use]
    pub fn bad_checksum(mut self) -> Self {
        self.checksum = Checksum::Wrong;
        self
    }

    /// The transport checksum is zero; for UDP: there is none.
    #[must_use]
    pub fn no_checksum(mut self) -> Self {
        self.checksum = Checksum::Zero;
        self
    }

    /// TCP and UDP: the checksum is left to the device, see [`Packet::offload`].
    #[must_use]
    pub fn partial_checksum(mut self) -> Self {
        self.checksum = Checksum::Partial;
        self
    }
}

/// What is said of the IP header.
impl Packet {
    /// TTL or hop limit; 64 otherwise.
    #[must_use]
    pub fn hop_limit(mut self, hops: u8) -> Self {
        self.hop_limit = hops;
        self
    }

    /// TOS or traffic class; 0 otherwise.
    #[must_use]
    pub fn traffic_class(mut self, class: u8) -> Self {
        self.traffic_class = class;
        self
    }

    /// Identification, of IPv4 or of the IPv6 fragment header; 4660 otherwise.
    #[must_use]
    pub fn identification(mut self, id: u32) -> Self {
        self.identification = id;
        self
    }

    /// IPv4: sets DF.
    #[must_use]
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// IPv4: options, padded with end-of-list to a multiple of four bytes.
    #[must_use]
    pub fn ipv4_options(mut self, bytes: &[u8]) -> Self {
        self.ipv4_options = bytes.to_vec();
        self.ipv4_options.resize(bytes.len().next_multiple_of(4), 0);
        self
    }

    /// IPv6: adds an extension header. `body` is what follows its next-header and length bytes, padded with zeros to a
    /// whole number of the units its length counts: eight bytes, AH (51) four.
    #[must_use]
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        let mut body = body.to_vec();
        body.resize((body.len() + 2).next_multiple_of(if kind == AH { 4 } else { 8 }) - 2, 0);
        self.extensions.push((kind, body));
        self
    }

    /// IPv6: adds a hop-by-hop header with a PadN option.
    #[must_use]
    pub fn hop_by_hop(self) -> Self {
        self.extension(0, &[1, 4, 0, 0, 0, 0])
    }

    /// IPv6: adds a destination-options header with a PadN option.
    #[must_use]
    pub fn destination_options(self) -> Self {
        self.extension(60, &[1, 4, 0, 0, 0, 0])
    }

    /// Says that the packet is one part of a fragmented datagram: its transport header and payload are what is at
    /// `offset` (bytes, a multiple of eight). The checksum is that of the part alone; see [`Packet::fragments`].
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// The IPv4 header checksum is wrong.
    #[must_use]
    pub fn bad_ip_checksum(mut self) -> Self {
        self.bad_ip_checksum = true;
        self
    }

    /// Bytes behind the packet, as padding on a link.
    #[must_use]
    pub fn trailing(mut self, bytes: &[u8]) -> Self {
        self.trailing = bytes.to_vec();
        self
    }
}

/// What comes of it.
impl Packet {
    /// The packet's bytes, from the IP header on.
    ///
    /// # Panics
    /// If it is longer than an IP packet can be, or its ends are of different families.
    pub fn build(&self) -> Vec<u8> {
        let mut packet = self.ip(&self.transport(), self.fragment);
        packet.extend(&self.trailing);
        packet
    }

    /// The offload context that goes with [`Packet::build`] after [`Packet::partial_checksum`].
    pub fn offload(&self) -> ChecksumOffload {
        let start = self.ip(&[], self.fragment).len() as u16;
        match (self.checksum, &self.transport) {
            (Checksum::Partial, Transport::Tcp { .. }) => ChecksumOffload::Partial { start, offset: 16 },
            (Checksum::Partial, Transport::Udp) => ChecksumOffload::Partial { start, offset: 6 },
            _ => ChecksumOffload::Full,
        }
    }

    /// The packet as fragments with `data_len` bytes of the datagram in each (a multiple of eight) but the last.
    ///
    /// # Panics
    /// If `data_len` is no multiple of eight.
    pub fn fragments(&self, data_len: usize) -> Vec<Vec<u8>> {
        assert!(data_len.is_multiple_of(8) && data_len > 0, "fragments carry multiples of eight bytes");
        let datagram = self.transport();
        let part = |(index, data): (usize, &[u8])| {
            let offset = index * data_len;
            self.ip(data, Some((offset as u16, offset + data.len() < datagram.len())))
        };
        datagram.chunks(data_len).enumerate().map(part).collect()
    }

    fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        Self {
            source,
            destination,
            transport,
            payload: vec![],
            hop_limit: 64,
            traffic_class: 0,
            identification: 4660,
            dont_fragment: false,
            fragment: None,
            ipv4_options: vec![],
            extensions: vec![],
            checksum: Checksum::Right,
            bad_ip_checksum: false,
            trailing: vec![],
        }
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp => 17,
            Transport::Sctp { .. } => 132,
            Transport::Icmp { .. } if self.source.is_ipv6() => 58,
            Transport::Icmp { .. } => 1,
            Transport::Raw(protocol) => protocol,
        }
    }

    /// IP header, extension headers, fragment header and `payload`.
    fn ip(&self, payload: &[u8], fragment: Option<(u16, bool)>) -> Vec<u8> {
        let (offset, more) = fragment.unwrap_or_default();
        let mut packet = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let protocol = IpNumber(self.protocol());
                let mut header =
                    Ipv4Header::new(0, self.hop_limit, protocol, source.octets(), destination.octets()).expect("fits");
                header.options = self.ipv4_options[..].try_into().expect("at most 40 bytes of options");
                header.set_payload_len(payload.len()).expect("an IPv4 packet has at most 65535 bytes");
                header.identification = self.identification as u16;
                header.dont_fragment = self.dont_fragment;
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new(offset / 8).expect("13 bits");
                let mut bytes = header.to_bytes().to_vec();
                bytes[1] = self.traffic_class;
                bytes[10..12].fill(0);
                let checksum = oracle::checksum(&bytes) ^ if self.bad_ip_checksum { 0x5a00 } else { 0 };
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (next_header, extensions) = self.extension_headers(fragment);
                let mut header = Ipv6Header {
                    traffic_class: self.traffic_class,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: IpNumber(next_header),
                    hop_limit: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                header.set_payload_length(extensions.len() + payload.len()).expect("at most 65535 bytes");
                [&header.to_bytes()[..], &extensions].concat()
            }
            _ => panic!("{} and {} are of different families", self.source, self.destination),
        };
        packet.extend(payload);
        packet
    }

    /// The IPv6 header's next-header value and all that comes before the transport header.
    fn extension_headers(&self, fragment: Option<(u16, bool)>) -> (u8, Vec<u8>) {
        let mut headers = self.extensions.clone();
        if let Some((offset, more)) = fragment {
            let body = [&(offset | u16::from(more)).to_be_bytes()[..], &self.identification.to_be_bytes()].concat();
            // Last, so that every fragment repeats the same headers.
            headers.push((44, body));
        }
        let kinds = headers.iter().map(|(kind, _)| *kind).chain([self.protocol()]).collect::<Vec<_>>();
        let mut bytes = vec![];
        for ((kind, body), next) in headers.iter().zip(&kinds[1..]) {
            // RFC 8200 §4.5: the fragment header has a reserved byte where the others have their length.
            let len = match *kind {
                44 => 0,
                AH => (body.len() + 2) / 4 - 2,
                _ => (body.len() + 2) / 8 - 1,
            };
            bytes.extend([*next, len as u8]);
            bytes.extend(body);
        }
        (kinds[0], bytes)
    }

    /// Transport header and payload, with the checksum that was asked for.
    fn transport(&self) -> Vec<u8> {
        let mut segment = self.transport_header();
        segment.extend(&self.payload);
        let (source, destination) = (self.source.ip(), self.destination.ip());
        let field = oracle::checksum_field(self.protocol());
        let Some(field) = field.filter(|_| !matches!(self.transport, Transport::Raw(_))) else { return segment };
        let checksum = match self.checksum {
            Checksum::Zero => return segment,
            Checksum::Partial => {
                oracle::pseudo_header(source, destination, self.protocol(), segment.len()).to_be_bytes().to_vec()
            }
            Checksum::Right | Checksum::Wrong => {
                oracle::transport_checksum(source, destination, self.protocol(), &segment).expect("has a checksum")
            }
        };
        segment[field..field + checksum.len()].copy_from_slice(&checksum);
        if self.checksum == Checksum::Wrong {
            segment[field] ^= 0x5a;
        }
        segment
    }

    fn transport_header(&self) -> Vec<u8> {
        let (source, destination) = (self.source.port(), self.destination.port());
        match &self.transport {
            Transport::Tcp { flags, sequence, acknowledgment, urgent, window, options } => {
                let mut header = TcpHeader::new(source, destination, *sequence, *window);
                header.acknowledgment_number = *acknowledgment;
                header.urgent_pointer = *urgent;
                header.set_options_raw(options).expect("at most 40 bytes of options");
                let mut bytes = header.to_bytes().to_vec();
                bytes[13] = *flags;
                bytes
            }
            Transport::Udp => {
                let length = (8 + self.payload.len()) as u16;
                let header = UdpHeader { source_port: source, destination_port: destination, length, checksum: 0 };
                header.to_bytes().to_vec()
            }
            Transport::Sctp { tag } => {
                let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
                [&ports, &tag.to_be_bytes()[..], &[0; 4]].concat()
            }
            Transport::Icmp { icmp_type, code, rest } => [&[*icmp_type, *code, 0, 0], &rest.to_be_bytes()[..]].concat(),
            Transport::Raw(_) => vec![],
        }
    }
}

/// The authentication header (RFC 4302), which has a unit of length of its own.
const AH: u8 = 51;
