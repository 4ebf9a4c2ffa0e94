//! Classic pcap files (draft-ietf-opsawg-pcap) of raw IP packets: written with nanosecond times, read in either byte
//! order and resolution. No link headers: `LINKTYPE_RAW`. What is written ends with a whole record, whatever happens to
//! the medium: what a failed write has left of a record is taken back, and nothing is written after it.

mod tap;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use lvs_core::Instant;

pub use tap::{CaptureCounters, CaptureCountersHandle, PcapTap};

/// `LINKTYPE_RAW`: the packet starts with its IPv4 or IPv6 header.
const LINKTYPE_RAW: u32 = 101;
/// The same, one version only.
const LINKTYPE_IPV4: u32 = 228;
const LINKTYPE_IPV6: u32 = 229;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// Longest packet a file may claim: any super-packet fits; more is a damaged file.
const PACKET_MAX: u32 = 262_144;

/// Where a capture goes: a writer from whose end bytes can be taken back.
pub trait CaptureFile: Write {
    /// Takes the last `count` bytes back that were written.
    ///
    /// # Errors
    /// It cannot: the medium is a pipe, say. The file then ends with a part of a record.
    fn take_back(&mut self, count: u64) -> io::Result<()>;
}

impl CaptureFile for File {
    fn take_back(&mut self, count: u64) -> io::Result<()> {
        let end = self.stream_position()?.saturating_sub(count);
        self.set_len(end)?;
        self.seek(SeekFrom::Start(end)).map(drop)
    }
}

impl CaptureFile for Vec<u8> {
    fn take_back(&mut self, count: u64) -> io::Result<()> {
        self.truncate(self.len() - count as usize);
        Ok(())
    }
}

impl<W: CaptureFile + ?Sized> CaptureFile for &mut W {
    fn take_back(&mut self, count: u64) -> io::Result<()> {
        (**self).take_back(count)
    }
}

impl<W: CaptureFile + ?Sized> CaptureFile for Box<W> {
    fn take_back(&mut self, count: u64) -> io::Result<()> {
        (**self).take_back(count)
    }
}

/// Writes a pcap file.
///
/// The first write that fails ends the file: at a whole record, if the medium takes back what it was given of the next
/// one. Each record is one write, without a buffer in between, so that no record is half on its way.
#[derive(Debug)]
pub struct PcapWriter<W> {
    into: W,
    record: Vec<u8>,
    /// Why nothing is written any more.
    ended_by: Option<io::ErrorKind>,
}

impl<W: CaptureFile> PcapWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// What writing says.
    pub fn new(into: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NANOSECONDS.to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.extend(4u16.to_le_bytes());
        header.extend([0; 8]);
        header.extend(PACKET_MAX.to_le_bytes());
        header.extend(LINKTYPE_RAW.to_le_bytes());
        let mut writer = Self { into, record: header, ended_by: None };
        writer.put()?;
        Ok(writer)
    }

    /// Adds a packet seen at `time`. Times past the year 2106 are written as that.
    ///
    /// # Errors
    /// What writing says. The file has ended with the packet before; every further packet is refused with the same
    /// kind of error.
    pub fn write(&mut self, time: Instant, packet: &[u8]) -> io::Result<()> {
        if let Some(kind) = self.ended_by {
            return Err(kind.into());
        }
        let since_epoch = time.duration_since(Instant::ZERO);
        let seconds = u32::try_from(since_epoch.as_secs()).unwrap_or(u32::MAX);
        let kept = &packet[..packet.len().min(PACKET_MAX as usize)];
        self.record.clear();
        self.record.extend(seconds.to_le_bytes());
        self.record.extend(since_epoch.subsec_nanos().to_le_bytes());
        self.record.extend((kept.len() as u32).to_le_bytes());
        self.record.extend((packet.len() as u32).to_le_bytes());
        self.record.extend(kept);
        self.put()
    }

    /// Writes the record, or nothing.
    fn put(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.record.len() {
            let error = match self.into.write(&self.record[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.ended_by = Some(error.kind());
            if written > 0
                && let Err(kept) = self.into.take_back(written as u64)
            {
                let text =
                    format!("{error}; the file ends with a part of a record, which cannot be taken back: {kept}");
                return Err(io::Error::new(error.kind(), text));
            }
            return Err(error);
        }
        Ok(())
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
    has_failed: bool,
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
        let reader = Self { from, is_big_endian, nanos_per_tick, has_failed: false };
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
        if self.has_failed {
            return None;
        }
        let packet = self.read_packet();
        self.has_failed = packet.is_err();
        packet.transpose()
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
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
            let mut packets = PcapReader::new(file).unwrap();
            assert!(packets.next().expect("something is there").is_err());
            assert!(packets.next().is_none(), "what follows damage is no packet");
        }
    }
}
