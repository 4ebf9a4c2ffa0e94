//! What is left of a capture whose medium fails under way: a file that can be read to its end, and true counts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use lvs_core::{Instant, PacketBuf};
use lvs_io::pcap::{CaptureCounters, CaptureFile, PcapReader, PcapTap, PcapWriter};
use lvs_io::tap::{Seen, Tap};
use lvs_io::{ManualClock, MemoryPort};

/// A disk with room for so many bytes, which takes what fits and refuses the rest; and, if it has recovered by then,
/// anything later.
#[derive(Clone, Debug)]
struct Disk {
    content: Arc<Mutex<Vec<u8>>>,
    room: usize,
    /// After the first refusal there is room again.
    recovers: bool,
}

impl Disk {
    fn new(room: usize, recovers: bool) -> Self {
        Self { content: Arc::default(), room, recovers }
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut content = self.content.lock().unwrap();
        let fits = bytes.len().min(self.room - content.len());
        if fits == 0 {
            if self.recovers {
                self.room = usize::MAX;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl CaptureFile for Disk {
    fn take_back(&mut self, count: u64) -> io::Result<()> {
        let mut content = self.content.lock().unwrap();
        let len = content.len() - count as usize;
        content.truncate(len);
        Ok(())
    }
}

fn packets() -> Vec<Vec<u8>> {
    [1, 20, 0, 7, 33].into_iter().enumerate().map(|(number, len)| vec![number as u8; len]).collect()
}

/// How long the file is that holds the first `count` packets.
fn len_of(count: usize) -> usize {
    24 + packets()[..count].iter().map(|packet| 16 + packet.len()).sum::<usize>()
}

#[test]
fn a_capture_on_a_full_disk_ends_with_a_whole_record_whichever_byte_did_not_fit() {
    for recovers in [false, true] {
        for room in len_of(0)..=len_of(5) {
            let disk = Disk::new(room, recovers);
            let content = Arc::clone(&disk.content);
            let told = Arc::new(Mutex::new(Vec::new()));
            let teller = Arc::clone(&told);
            let mut tap = PcapTap::new(PcapWriter::new(disk).expect("the header fits"), ManualClock::new())
                .with_on_end(move |error| teller.lock().unwrap().push(error.kind()));
            for packet in &mut packets() {
                let len = packet.len();
                tap.packet(Seen::Sent, &PacketBuf::new(packet, 0, len));
            }
            let fits = (0..=5).rev().find(|count| len_of(*count) <= room).expect("the header fits");
            let file = content.lock().unwrap().clone();
            let read: Result<Vec<_>, _> = PcapReader::new(&file[..]).expect("a file").collect();
            let read: Vec<Vec<u8>> = read.expect("whole records").into_iter().map(|(_, packet)| packet).collect();
            assert_eq!(read, packets()[..fits], "room for {room} bytes");
            let ended_by = (fits < 5).then_some(io::ErrorKind::StorageFull);
            let counted = CaptureCounters { written: fits as u64, missed: 5 - fits as u64, ended_by };
            assert_eq!(tap.counters().get(), counted, "room for {room} bytes");
            assert_eq!(*told.lock().unwrap(), Vec::from_iter(ended_by), "it is said once");
        }
    }
}

#[test]
fn a_file_without_room_for_its_header_is_an_error_and_stays_empty() {
    for room in 0..24 {
        let disk = Disk::new(room, false);
        assert_eq!(PcapWriter::new(disk.clone()).map(drop).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(disk.content.lock().unwrap().is_empty());
    }
}

#[test]
fn the_traffic_goes_on_when_its_capture_has_ended() {
    let tap = PcapTap::new(PcapWriter::new(Disk::new(30, false)).unwrap(), ManualClock::new());
    let counters = tap.counters();
    let (test, device) = MemoryPort::pair(16);
    let mut arm = device.into_arm().with_tap(tap);
    for number in 0..3 {
        test.push([0x45, number]);
    }
    assert_eq!(arm.source.receive(&mut |packets| assert_eq!(packets.len(), 3)).unwrap(), 3);
    assert_eq!(counters.get().missed, 3);
}

#[test]
fn a_file_takes_back_what_it_was_given_of_a_record() {
    let path = std::env::temp_dir().join(format!("lvs-capture-{}", std::process::id()));
    let mut file = File::create_new(&path).expect("a file of this process alone");
    file.write_all(b"whole").unwrap();
    file.write_all(b" and a part").unwrap();
    file.take_back(11).unwrap();
    file.write_all(b"!").unwrap();
    let content = fs::read(&path);
    fs::remove_file(&path).unwrap();
    assert_eq!(content.unwrap(), b"whole!");
}

#[test]
fn a_packet_longer_than_any_file_takes_keeps_its_true_length_beside_it() {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    writer.write(Instant::ZERO, &vec![7; 300_000]).unwrap();
    let file = writer.finish().unwrap();
    let lengths = [&file[32..36], &file[36..40]].map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()));
    assert_eq!(lengths, [262_144, 300_000]);
}
