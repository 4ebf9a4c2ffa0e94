//! What changes in a segment or datagram behind its ports: sequence numbers, options, bytes put in. Decided first
//! ([`Edit::plan`], which sees to every check), done later ([`Edit::apply`], which cannot fail).
//! Source: the published behaviour of DPVS and Alibaba LVS.

use crate::drop_reason::DropReason;
use crate::flow::{AddressFamily, Protocol};
use crate::forward::full_nat::client_address::{self, Inserted, TOA_KINDS};
use crate::forward::full_nat::sequence::{SegmentNumbers, Translation};
use crate::forward::full_nat::uoa;
use crate::forward::{Path, segment_len};
use crate::packet::{ChecksumOffload, PacketBuf};
use crate::service::ClientAddress;
use crate::verdict::Direction;
use crate::wire::checksum::{self, Delta};
use crate::wire::parse::Headers;
use crate::wire::tcp::TcpFlags;
use crate::wire::tcp_options::{FAST_OPEN, TIMESTAMPS, TcpOptions};
use crate::wire::{read_u16, tcp, udp, write_u16};

/// Changes to one packet.
pub(crate) enum Edit {
    Nothing,
    Tcp(Segment),
    /// Bytes between the UDP header and its payload.
    Udp(Inserted),
    /// Bytes between the IP and the UDP header.
    Uoa(Inserted),
}

/// A TCP segment as it is to become.
pub(crate) struct Segment {
    sequence: u32,
    acknowledgment: u32,
    /// The urgent pointer.
    urgent: u16,
    old_options_len: usize,
    options: TcpOptions,
    preamble: Option<Inserted>,
    /// There was no room for the client's address.
    pub omits_client_address: bool,
}

impl Edit {
    /// What changes in this packet.
    ///
    /// # Errors
    /// A preamble cannot be put in: [`DropReason::NotForwardable`] in a fragment, a super-packet of datagrams, or
    /// behind a SYN with data; something would take its place: [`DropReason::OutOfSequence`];
    /// [`DropReason::BadLength`] where a datagram's length is not inside its packet;
    /// [`DropReason::TooBig`] where the packet would pass 65,535 bytes; [`DropReason::NoHeadroom`]. A TCP header is not
    /// whole: [`DropReason::TruncatedTransport`].
    pub fn plan(
        packet: &PacketBuf<'_>,
        headers: &Headers,
        direction: Direction,
        path: &Path,
    ) -> Result<Self, DropReason> {
        if headers.is_later_fragment() {
            return Ok(Self::Nothing);
        }
        let Some(translation) = path.full_nat.translation else {
            // Every TCP connection has one: without, there is no saying what may pass.
            let is_tcp = headers.protocol == Protocol::Tcp.number();
            return if is_tcp { Err(DropReason::NotForwardable) } else { Ok(Self::Nothing) };
        };
        let edit = match (Protocol::from_number(headers.protocol), direction) {
            (Some(Protocol::Tcp), Direction::Request) => Self::client_segment(packet, headers, &translation, path)?,
            (Some(Protocol::Tcp), Direction::Reply) => Self::server_segment(packet, headers, &translation, path)?,
            (Some(Protocol::Udp), Direction::Request) if translation.tells_client() => {
                let has_room = uoa::has_room(packet, headers, path);
                if has_room { Self::Uoa(client_address::uoa_header(path.client)) } else { Self::Nothing }
            }
            (Some(Protocol::Udp), Direction::Request) => {
                let preamble = preamble(Protocol::Udp, &translation, path);
                if preamble.as_bytes().is_empty() { Self::Nothing } else { Self::Udp(preamble) }
            }
            _ => Self::Nothing,
        };
        edit.check(packet, headers)?;
        Ok(edit)
    }

    fn client_segment(
        packet: &PacketBuf<'_>,
        headers: &Headers,
        translation: &Translation,
        path: &Path,
    ) -> Result<Self, DropReason> {
        let mut segment = Segment::read(packet, headers)?;
        let flags = headers.tcp_flags(packet.bytes()).unwrap_or_default();
        let (old_sequence, is_syn) = (segment.sequence, flags.syn());
        let payload_len = headers.payload(packet.bytes()).len() - tcp::HEADER_LEN - segment.old_options_len;
        segment.sequence = translation.to_server(old_sequence, is_syn);
        // What a client says here of itself would pass for what we say of it.
        segment.options.blank(&TOA_KINDS);
        if is_syn && !flags.ack() && translation.options.remove_timestamps {
            segment.options.blank(&[TIMESTAMPS]);
        }
        if is_syn && translation.options.client_address != ClientAddress::None {
            // RFC 7413: the server would hand data to its program before we have said whose it is. Without the option
            // it leaves data in a SYN alone, and the client sends it again.
            segment.options.blank(&[FAST_OPEN]);
        }
        let numbers = SegmentNumbers {
            sequence: old_sequence,
            acknowledgment: flags.ack().then_some(segment.acknowledgment),
            len: payload_len as u32,
            fin: flags.fin(),
        };
        segment.guard_preamble(headers, flags, &numbers, translation)?;
        segment.clamp_segment_size(flags, path);
        let may_carry = !is_syn && !flags.rst();
        let is_early = flags.ack() && translation.is_before_server_data(segment.acknowledgment);
        if may_carry && is_early && translation.options.client_address == ClientAddress::Toa {
            segment.carry_client_address(packet, headers, path);
        }
        if may_carry && translation.needs_preamble(old_sequence) {
            segment.preamble = Some(preamble(Protocol::Tcp, translation, path));
        }
        Ok(Self::Tcp(segment))
    }

    fn server_segment(
        packet: &PacketBuf<'_>,
        headers: &Headers,
        translation: &Translation,
        path: &Path,
    ) -> Result<Self, DropReason> {
        let mut segment = Segment::read(packet, headers)?;
        let flags = headers.tcp_flags(packet.bytes()).unwrap_or_default();
        if flags.ack() {
            segment.acknowledgment = translation.to_client(segment.acknowledgment);
            segment.options.map_sack_edges(|edge| translation.to_client(edge));
        }
        if flags.syn() {
            segment.options.lower_maximum_segment_size(inserted_len(translation, path));
        }
        segment.clamp_segment_size(flags, path);
        Ok(Self::Tcp(segment))
    }

    /// How many bytes the packet grows by in front of its payload; what a super-packet's segments all repeat not
    /// counted.
    pub fn preamble_len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Tcp(segment) => segment.preamble.map_or(0, |preamble| preamble.as_bytes().len()),
            Self::Udp(inserted) | Self::Uoa(inserted) => inserted.as_bytes().len(),
        }
    }

    fn options_growth(&self) -> isize {
        match self {
            Self::Tcp(segment) => segment.options.as_bytes().len() as isize - segment.old_options_len as isize,
            _ => 0,
        }
    }

    fn growth(&self) -> isize {
        self.options_growth() + self.preamble_len() as isize
    }

    fn check(&self, packet: &PacketBuf<'_>, headers: &Headers) -> Result<(), DropReason> {
        let has_preamble = self.preamble_len() > 0;
        let is_many_datagrams = matches!(self, Self::Udp(_)) && packet.offload.gso.is_some();
        if has_preamble && (headers.fragment.is_some() || is_many_datagrams) {
            return Err(DropReason::NotForwardable);
        }
        // One that is too short or too long for its packet could come out right, with something else in it.
        let has_length = || udp::datagram_len(headers.payload(packet.bytes())).is_some();
        if matches!(self, Self::Udp(_)) && !has_length() {
            return Err(DropReason::BadLength);
        }
        let len = headers.packet_len.saturating_add_signed(self.growth());
        if len > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        let room = packet.headroom() + packet.tailroom() + packet.len();
        if len > room { Err(DropReason::NoHeadroom) } else { Ok(()) }
    }

    /// Changes a packet whose transport header, at `transport`, is the one planned for; its addresses, family and ports
    /// may have changed since.
    pub fn apply(&self, packet: &mut PacketBuf<'_>, family: AddressFamily, transport: usize) {
        match self {
            Self::Nothing => {}
            Self::Tcp(segment) => segment.apply(packet, family, transport, self.growth()),
            Self::Udp(preamble) => insert_before_datagram(packet, family, transport, preamble.as_bytes()),
            Self::Uoa(header) => uoa::insert(packet, family, transport, header.as_bytes()),
        }
    }
}

impl Segment {
    /// The segment as it is.
    ///
    /// # Errors
    /// `TruncatedTransport`: not all of its header is here. A client could put into the next fragment what must not
    /// pass.
    fn read(packet: &PacketBuf<'_>, headers: &Headers) -> Result<Self, DropReason> {
        let truncated = DropReason::TruncatedTransport;
        let segment = headers.payload(packet.bytes());
        let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, _, _, _, _, _, u0, u1] =
            segment.first_chunk::<{ tcp::HEADER_LEN }>().ok_or(truncated)?;
        let options = TcpOptions::read(segment).ok_or(truncated)?;
        Ok(Self {
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            acknowledgment: u32::from_be_bytes([a0, a1, a2, a3]),
            urgent: u16::from_be_bytes([u0, u1]),
            old_options_len: options.as_bytes().len(),
            options,
            preamble: None,
            omits_client_address: false,
        })
    }

    /// Lets nothing of the client take the place of a preamble that is still to come.
    fn guard_preamble(
        &mut self,
        headers: &Headers,
        flags: TcpFlags,
        numbers: &SegmentNumbers,
        translation: &Translation,
    ) -> Result<(), DropReason> {
        if translation.preamble_len == 0 || flags.rst() {
            return Ok(());
        }
        // A SYN may open the connection anew, whatever came before; with an ACK it answers a server that has opened
        // none.
        if flags.syn() && flags.ack() {
            return Err(DropReason::OutOfSequence);
        }
        // A fragment's data may be in the next one.
        let is_fragment = headers.fragment.is_some();
        if (is_fragment && (flags.syn() || translation.has_preamble_to_come())) || (flags.syn() && numbers.len > 0) {
            return Err(DropReason::NotForwardable);
        }
        let reaches_program = numbers.len > 0 || flags.fin() && translation.has_preamble_to_come() || flags.urg();
        if !flags.syn() && translation.refuses(numbers, reaches_program || is_fragment) {
            return Err(DropReason::OutOfSequence);
        }
        if flags.urg() && translation.needs_preamble(numbers.sequence) {
            // RFC 9293 §3.1: counted from the segment's own number, which will be that of the preamble. 0 stands for 1.
            self.urgent = self.urgent.max(1).saturating_add(translation.preamble_len as u16);
        }
        Ok(())
    }

    fn clamp_segment_size(&mut self, flags: TcpFlags, path: &Path) {
        if let Some(most) = path.mss_clamp.filter(|_| flags.syn()) {
            self.options.clamp_maximum_segment_size(most);
        }
    }

    /// Puts the client's address in, if header, MTU and buffer have room for it.
    fn carry_client_address(&mut self, packet: &PacketBuf<'_>, headers: &Headers, path: &Path) {
        let option = client_address::option(path.client);
        let mut options = self.options;
        let is_in = options.prepend(option.as_bytes());
        let growth = options.as_bytes().len() as isize - self.old_options_len as isize;
        let mtu = usize::from(path.mtu).saturating_add_signed(path.header_growth(headers).saturating_neg());
        let fits = segment_len(packet, headers).saturating_add_signed(growth) <= mtu
            && headers.packet_len.saturating_add_signed(growth) <= usize::from(u16::MAX)
            && growth <= (packet.headroom() + packet.tailroom()) as isize
            && headers.fragment.is_none();
        if is_in && fits {
            self.options = options;
        } else {
            self.omits_client_address = true;
        }
    }

    fn apply(&self, packet: &mut PacketBuf<'_>, family: AddressFamily, transport: usize, growth: isize) {
        let old_header_len = tcp::HEADER_LEN + self.old_options_len;
        let preamble = self.preamble.as_ref().map_or(&[][..], Inserted::as_bytes);
        // An odd number of bytes in front of the data changes which half of a word each of them is.
        let is_shifted = preamble.len() % 2 != 0;
        let old_end = if is_shifted { packet.len() } else { transport + old_header_len };
        let old_sum = checksum::sum(packet.bytes().get(transport..old_end).unwrap_or(&[]));

        if growth != 0 {
            move_front(packet, transport + tcp::HEADER_LEN, old_header_len - tcp::HEADER_LEN, growth);
        }
        let options = self.options.as_bytes();
        let header_len = tcp::HEADER_LEN + options.len();
        let bytes = packet.bytes_mut();
        let Some(segment) = bytes.get_mut(transport..).filter(|segment| segment.len() >= header_len + preamble.len())
        else {
            return;
        };
        segment[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        segment[12] = segment[12] & 0x0f | (header_len as u8 / 4) << 4;
        segment[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        segment[tcp::HEADER_LEN..header_len].copy_from_slice(options);
        segment[header_len..header_len + preamble.len()].copy_from_slice(preamble);

        let end = if is_shifted { segment.len() } else { header_len + preamble.len() };
        let new_sum = checksum::sum(&segment[..end]);
        update_lengths(packet, family, transport, tcp::CHECKSUM, growth, (old_sum, new_sum));
    }
}

/// Puts bytes between the UDP header at `transport` and its payload.
fn insert_before_datagram(packet: &mut PacketBuf<'_>, family: AddressFamily, transport: usize, inserted: &[u8]) {
    let header_end = transport + udp::HEADER_LEN;
    let old_sum = checksum::sum(packet.bytes().get(transport..header_end).unwrap_or(&[]));
    move_front(packet, header_end, 0, inserted.len() as isize);
    let bytes = packet.bytes_mut();
    let len = read_u16(bytes, transport + 4).unwrap_or(0).saturating_add(inserted.len() as u16);
    write_u16(bytes, transport + 4, len);
    let Some(segment) = bytes.get_mut(transport..).filter(|s| s.len() >= udp::HEADER_LEN + inserted.len()) else {
        return;
    };
    segment[udp::HEADER_LEN..udp::HEADER_LEN + inserted.len()].copy_from_slice(inserted);
    let new_sum = checksum::sum(&segment[..udp::HEADER_LEN + inserted.len()]);
    update_lengths(packet, family, transport, udp::CHECKSUM, inserted.len() as isize, (old_sum, new_sum));
}

/// Makes the gap of `old_len` bytes at `at` `growth` bytes longer (or shorter). What is before it moves into the
/// headroom as far as that goes, what is behind it into the tailroom for the rest.
pub(super) fn move_front(packet: &mut PacketBuf<'_>, at: usize, old_len: usize, growth: isize) {
    if growth < 0 {
        let count = growth.unsigned_abs();
        packet.bytes_mut().copy_within(..at, count);
        packet.shrink_front(count);
        return;
    }
    let front = growth.unsigned_abs().min(packet.headroom());
    let back = growth.unsigned_abs() - front;
    let len = packet.len();
    if back > 0 && packet.set_len(len + back).is_some() {
        packet.bytes_mut().copy_within(at + old_len..len, at + old_len + back);
    }
    if packet.grow_front(front).is_some() {
        packet.bytes_mut().copy_within(front..front + at, 0);
    }
}

/// Brings the IP header's length and the transport checksum up to date, after the summed bytes went from one sum to
/// another and the packet grew.
fn update_lengths(
    packet: &mut PacketBuf<'_>,
    family: AddressFamily,
    transport: usize,
    checksum_offset: usize,
    growth: isize,
    (old_sum, new_sum): (u32, u32),
) {
    let offload = packet.offload.checksum;
    let bytes = packet.bytes_mut();
    let len_field = if family == AddressFamily::Ipv4 { 2 } else { 4 };
    let old_len = read_u16(bytes, len_field).unwrap_or(0);
    let new_len = old_len.wrapping_add_signed(growth as i16);
    let mut length = Delta::new();
    length.replace_u16(old_len, new_len);
    write_u16(bytes, len_field, new_len);
    if family == AddressFamily::Ipv4 {
        let field = crate::wire::ipv4::CHECKSUM;
        let before = read_u16(bytes, field).unwrap_or(0);
        write_u16(bytes, field, length.apply(before));
    }
    // The pseudo header's length grows by as much as the packet's.
    let field = transport + checksum_offset;
    let before = read_u16(bytes, field).unwrap_or(0);
    let after = match offload {
        ChecksumOffload::Partial { start, .. } if usize::from(start) == transport => length.apply_partial(before),
        _ => {
            let mut delta = length;
            delta.replace_u16(checksum::fold(old_sum), checksum::fold(new_sum));
            let after = delta.apply(before);
            match checksum_offset {
                // RFC 768: there is none.
                udp::CHECKSUM if before == 0 => 0,
                udp::CHECKSUM => udp::sent_checksum(after),
                _ => after,
            }
        }
    };
    write_u16(bytes, field, after);
}

fn preamble(protocol: Protocol, translation: &Translation, path: &Path) -> Inserted {
    client_address::preamble(translation.options.client_address, protocol, path.client, path.virtual_endpoint)
}

/// What may still be put into segments of the client.
pub(crate) fn still_inserted_len(translation: &Translation, path: &Path) -> u16 {
    let is_toa = translation.options.client_address == ClientAddress::Toa;
    if is_toa || translation.has_preamble_to_come() { inserted_len(translation, path) } else { 0 }
}

/// What the client's full segments must leave room for.
fn inserted_len(translation: &Translation, path: &Path) -> u16 {
    match translation.options.client_address {
        ClientAddress::Toa => client_address::option(path.client).as_bytes().len() as u16,
        _ => translation.preamble_len as u16,
    }
}
