//! A link on which anybody may say anything, for the fuzz target `l2_edge` and for the properties beside it: a script
//! of frames, packets to send and waiting, read from bytes. Nothing panics, everything stays within its bounds, and
//! every packet leaves or is counted.

use std::net::IpAddr;
use std::time::Duration;

use lvs_core::{HEADROOM, Instant, PacketBuf};
use lvs_io::l2::{
    Edge, EdgeConfig, FrameReader, LINK_HEADER_MAX, MacAddress, NEIGHBOURS_MAX, Read, SendError, Sending, Tag,
    WAITING_MAX,
};

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const VLAN: u16 = 7;
/// What packets of the script are made of: no message of the edge's own begins like this.
const MARK: [u8; 20] = [0x4f; 20];

/// Plays the script that `data` is, outside any VLAN and in one.
pub fn play(data: &[u8]) {
    for vlan in [None, Some(VLAN)] {
        play_on(Link::new(vlan), data);
    }
}

fn play_on(mut link: Link, data: &[u8]) {
    let mut script = data;
    while let Some((&step, rest)) = script.split_first() {
        script = rest;
        match step % 6 {
            0 | 1 => {
                let len = take(&mut script, 1).first().map_or(0, |len| usize::from(*len));
                let bytes = take(&mut script, len);
                link.receive(bytes, step);
            }
            2 | 3 => {
                let octets = take(&mut script, 2);
                link.send(address(octets, step & 8 != 0));
            }
            4 => link.wait(Duration::from_millis(u64::from(step) * 20)),
            _ if step & 128 != 0 => link.change_address(address(&[step], step & 64 == 0), step & 32 == 0),
            _ => link.now = Instant::from_secs(u64::from(step)),
        }
        link.transmit();
    }
    link.end();
}

fn take<'a>(script: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = script.split_at(len.min(script.len()));
    *script = rest;
    taken
}

/// A frame with a Multicast Listener Query of these bytes, its checksum right: nobody guesses that.
fn query(bytes: &[u8], is_version_1: bool) -> Vec<u8> {
    let mut message = [&[130, 0, 0, 0][..], bytes].concat();
    message.resize(if is_version_1 { 24 } else { message.len().max(28) }, 0);
    let [source, destination] =
        ["fe80::9", "ff02::1"].map(|text| text.parse::<std::net::Ipv6Addr>().expect("constant"));
    let checksum =
        lvs_core::wire::checksum::transport_checksum(source.into(), destination.into(), 58, &message).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    let len = (8 + message.len() as u16).to_be_bytes();
    let ethernet = [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x86, 0xdd];
    let header = [&[0x60, 0, 0, 0], &len[..], &[0, 1], &source.octets(), &destination.octets()].concat();
    [&ethernet[..], &header, &[58, 0, 5, 2, 0, 0, 1, 0], &message].concat()
}

/// A few addresses, so that they meet.
fn address(octets: &[u8], is_ipv6: bool) -> IpAddr {
    let low = octets.first().copied().unwrap_or(1);
    let high = octets.get(1).copied().unwrap_or(0) % 4;
    if is_ipv6 { [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low].into() } else { [10, 0, high, low].into() }
}

struct Link {
    vlan: Option<u16>,
    reader: FrameReader,
    edge: Edge,
    now: Instant,
    storage: Vec<u8>,
    /// Packets the edge kept, and those that came out again.
    kept: u64,
    released: u64,
    /// Packets it refused at once, which its counters include.
    refused: u64,
}

impl Link {
    fn new(vlan: Option<u16>) -> Self {
        let mut config = EdgeConfig { vlan, ..EdgeConfig::new(OWN) };
        config.answers_for = vec![address(&[80], false), address(&[80], true)];
        config.static_neighbours = vec![(address(&[2], false), MacAddress([2, 0, 0, 0, 0, 2]))];
        let mut edge = Edge::new(config);
        edge.announce(Instant::ZERO);
        Self {
            vlan,
            reader: FrameReader::new(OWN, vlan),
            edge,
            now: Instant::ZERO,
            storage: vec![0; LINK_HEADER_MAX + 2048],
            kept: 0,
            released: 0,
            refused: 0,
        }
    }

    /// `step` says what the bytes are: a whole frame, or an ARP or Neighbor Discovery message for this station.
    fn receive(&mut self, bytes: &[u8], step: u8) {
        if step & 128 != 0 {
            let tag = self.vlan.map(|control| Tag { protocol: 0x8100, control });
            return self.receive_frame(&mut query(bytes, step & 16 == 0), tag);
        }
        let kind = if step & 16 == 0 { [8, 6] } else { [0x86, 0xdd] };
        let mut frame = match step & 32 {
            0 => bytes.to_vec(),
            _ => [&OWN.0[..], &[2, 0, 0, 0, 0, 9], &kind, bytes].concat(),
        };
        let other = (step & 64 != 0).then_some(u16::from(step));
        // The upper bits are a priority.
        let control = other.or(self.vlan.map(|vlan| vlan | u16::from(step) << 8 & 0xf000));
        let protocol = if step & 72 == 72 { 0x88a8 } else { 0x8100 };
        self.receive_frame(&mut frame, control.map(|control| Tag { protocol, control }));
    }

    fn receive_frame(&mut self, frame: &mut [u8], tag: Option<Tag>) {
        let len = frame.len();
        let mut frame = PacketBuf::new(frame, 0, len);
        if let Read::Message(message) = self.reader.read(&mut frame, tag) {
            self.edge.handle_message(self.now, &message);
        }
    }

    fn change_address(&mut self, address: IpAddr, is_ours: bool) {
        if is_ours { self.edge.add_address(self.now, address) } else { self.edge.remove_address(address) }
    }

    fn send(&mut self, next_hop: IpAddr) {
        let mut storage = [[0; HEADROOM].as_slice(), &MARK].concat();
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, MARK.len());
        match self.edge.send(self.now, &mut packet, next_hop) {
            Ok(Sending::Ready) => check_frame(self.vlan, packet.bytes()),
            Ok(Sending::Waits) => self.kept += 1,
            Err(SendError::WaitingFull | SendError::Unreachable) => self.refused += 1,
            Err(error) => assert_eq!(error, SendError::NoRoute),
        }
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.edge.handle_timeout(self.now);
    }

    fn transmit(&mut self) {
        loop {
            let mut frame = PacketBuf::new(&mut self.storage, LINK_HEADER_MAX, 0);
            if self.edge.poll_transmit(&mut frame).is_none() {
                break;
            }
            check_frame(self.vlan, frame.bytes());
            self.released += u64::from(frame.bytes().ends_with(&MARK));
        }
        assert!(self.edge.neighbour_count() <= NEIGHBOURS_MAX);
        let counters = self.edge.counters();
        let lost = counters.waiting_full + counters.unreachable - self.refused;
        assert!(self.kept - self.released - lost <= WAITING_MAX as u64);
    }

    /// Left alone, it forgets everybody, and no packet is unaccounted for.
    fn end(&mut self) {
        for _ in 0..10_000 {
            let Some(due) = self.edge.poll_timeout() else { break };
            self.now = self.now.max(due);
            self.edge.handle_timeout(self.now);
            self.transmit();
        }
        assert_eq!(self.edge.poll_timeout(), None);
        assert_eq!(self.edge.neighbour_count(), 1, "the static one");
        let counters = self.edge.counters();
        let lost = counters.waiting_full + counters.unreachable - self.refused;
        assert_eq!((counters.too_long, self.kept), (0, self.released + lost), "{counters:?}");
    }
}

fn check_frame(vlan: Option<u16>, frame: &[u8]) {
    assert!(frame.len() >= 14 && frame[6..12] == OWN.0, "{frame:02x?}");
    let tag = (frame[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([frame[14], frame[15]]));
    assert_eq!(tag, vlan, "{frame:02x?}");
}
