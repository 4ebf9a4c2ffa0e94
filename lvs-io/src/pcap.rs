//! Classic pcap files (draft-ietf-opsawg-pcap) of raw IP packets: written with nanosecond times, read in either byte
//! order and resolution. No link headers: `LINKTYPE_RAW`.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use lvs_core::{Instant, PacketBuf};

use crate::clock::Clock;
use crate::tap::{Seen, Tap};

/// `LINKTYPE_RAW`: the packet starts with its IPv4 or IPv6 header.
const LINKTYPE_RAW: u32 = 101;
/// The same, one version only.
const LINKTYPE_IPV4: u32 = 228;
const LINKTYPE_IPV6: u32 = 229;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// Longest packet a file may claim: any super-packet fits; more is a damaged file.
const PACKET_MAX: u32 = 262_144;

/// Writes a pcap file.
#[derive(Debug)]
pub struct PcapWriter<W> {
    into: W,
}

impl<W: Write> PcapWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// What writing says.
    pub fn new(mut into: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NANOSECONDS.to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.extend(4u16.to_le_bytes());
        header.extend([0; 8]);
        header.extend(PACKET_MAX.to_le_bytes());
        header.extend(LINKTYPE_RAW.to_le_bytes());
        into.write_all(&header)?;
        Ok(Self { into })
    }

    /// Adds a packet seen at `time`. Times past the year 2106 are written as that.
    ///
    /// # Errors
    /// What writing says.
    pub fn write(&mut self, time: Instant, packet: &[u8]) -> io::Result<()> {
        let since_epoch = time.duration_since(Instant::ZERO);
        let seconds = u32::try_from(since_epoch.as_secs()).unwrap_or(u32::MAX);
        let packet = &packet[..packet.len().min(PACKET_MAX as usize)];
        let mut record = Vec::with_capacity(16 + packet.len());
        record.extend(seconds.to_le_bytes());
        record.extend(since_epoch.subsec_nanos().to_le_bytes());
        record.extend((packet.len() as u32).to_le_bytes());
        record.extend((packet.len() as u32).to_le_bytes());
        record.extend(packet);
        self.into.write_all(&record)
    }

    /// Ends the file; what it was written into comes back.
    ///
    /// # Errors
    /// What flushing says.
    pub fn finish(mut self) -> io::Result<W> {
        self.into.flush()?;
        Ok(self.into)
    }
}

/// Reads a pcap file of IP packets.
///
/// ```
/// use lvs_core::Instant;
/// use lvs_io::pcap::{PcapReader, PcapWriter};
///
/// let mut writer = PcapWriter::new(Vec::new())?;
/// writer.write(Instant::from_millis(1500), &[0x45, 0, 0, 20])?;
/// let file = writer.finish()?;
/// let packets: Vec<_> = PcapReader::new(&file[..])?.collect::<Result<_, _>>()?;
/// assert_eq!(packets, [(Instant::from_millis(1500), vec![0x45, 0, 0, 20])]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PcapReader<R> {
    from: R,
    is_big_endian: bool,
    nanos_per_tick: u64,
}

impl<R: Read> PcapReader<R> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// `InvalidData` if it is no classic pcap file or its packets have link headers; else what reading says.
    pub fn new(mut from: R) -> io::Result<Self> {
        let mut header = [0; 24];
        from.read_exact(&mut header)?;
        let magic: [u8; 4] = [header[0], header[1], header[2], header[3]];
        let resolution = |magic| match magic {
            MAGIC_MICROSECONDS => Some(1000),
            MAGIC_NANOSECONDS => Some(1),
            _ => None,
        };
        let little = resolution(u32::from_le_bytes(magic)).map(|nanos| (false, nanos));
        let big = resolution(u32::from_be_bytes(magic)).map(|nanos| (true, nanos));
        let (is_big_endian, nanos_per_tick) = little.or(big).ok_or_else(|| damaged("not a classic pcap file"))?;
        let reader = Self { from, is_big_endian, nanos_per_tick };
        // The upper bits say how long the checksum is that Ethernet adds.
        let link_type = reader.number(&header, 20) & 0xffff;
        if !matches!(link_type, LINKTYPE_RAW | LINKTYPE_IPV4 | LINKTYPE_IPV6) {
            return Err(damaged("the packets in the file have link headers"));
        }
        Ok(reader)
    }

    fn number(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn read_packet(&mut self) -> io::Result<Option<(Instant, Vec<u8>)>> {
        let mut header = [0; 16];
        if self.from.read(&mut header[..1])? == 0 {
            return Ok(None);
        }
        self.from.read_exact(&mut header[1..])?;
        let len = self.number(&header, 8);
        if len > PACKET_MAX {
            return Err(damaged("a packet in the file is impossibly long"));
        }
        let mut packet = vec![0; len as usize];
        self.from.read_exact(&mut packet)?;
        let since_epoch = Duration::from_secs(self.number(&header, 0).into())
            + Duration::from_nanos(u64::from(self.number(&header, 4)) * self.nanos_per_tick);
        Ok(Some((Instant::ZERO + since_epoch, packet)))
    }
}

/// The packets with their times, the clock's epoch being 1970. Ends after the first error.
impl<R: Read> Iterator for PcapReader<R> {
    type Item = io::Result<(Instant, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_packet().transpose()
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A tap that writes every packet into a pcap file. Super-packets are written as they are; packets with a partial
/// checksum look damaged to who reads the file, as in any capture on the sending machine.
pub struct PcapTap<W> {
    writer: PcapWriter<W>,
    clock: Box<dyn Clock>,
}

impl<W: Write> PcapTap<W> {
    /// Writes into `writer`, with the times of `clock`.
    pub fn new(writer: PcapWriter<W>, clock: impl Clock + 'static) -> Self {
        Self { writer, clock: Box::new(clock) }
    }
}

impl<W: Write + Send> Tap for PcapTap<W> {
    fn packet(&mut self, _seen: Seen, packet: &PacketBuf<'_>) {
        // A full disk must not stop the traffic.
        let _ = self.writer.write(self.clock.now(), packet.bytes());
    }
}

impl<W> fmt::Debug for PcapTap<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PcapTap")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Big-endian, microseconds, one packet of four bytes at 1.000002 s: by hand from the format's description.
    const BIG_ENDIAN: [u8; 44] = [
        0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 101, // file
        0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4, // record
        0x60, 1, 2, 3, // packet
    ];

    #[test]
    fn a_big_endian_file_with_microseconds_is_read() {
        let packets: Vec<_> = PcapReader::new(&BIG_ENDIAN[..]).unwrap().map(Result::unwrap).collect();
        assert_eq!(packets, [(Instant::from_micros(1_000_002), vec![0x60, 1, 2, 3])]);
    }

    #[test]
    fn the_header_is_as_the_format_says() {
        let file = PcapWriter::new(Vec::new()).unwrap().finish().unwrap();
        let wanted = [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0];
        assert_eq!(file, wanted);
    }

    #[test]
    fn damaged_files_are_errors_not_panics() {
        let mut with_ethernet = BIG_ENDIAN;
        with_ethernet[23] = 1;
        let mut with_endless_packet = BIG_ENDIAN;
        with_endless_packet[32] = 0xff;
        assert!(PcapReader::new(&with_ethernet[..]).is_err());
        assert!(PcapReader::new(&[0; 24][..]).is_err());
        for file in [&with_endless_packet[..], &BIG_ENDIAN[..43], &BIG_ENDIAN[..30]] {
            let last = PcapReader::new(file).unwrap().next().expect("something is there");
            assert!(last.is_err());
        }
    }
}
