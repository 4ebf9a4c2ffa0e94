//! Any bytes as a capture, and any disk under one, for the fuzz target `capture` and for the properties beside it. The
//! reader ends, what it read can be written and read again, and a capture whose disk fails under way can be read to its
//! end and counts what it lacks.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use lvs_core::{Instant, PacketBuf};
use lvs_io::ManualClock;
use lvs_io::pcap::{CaptureFile, PcapReader, PcapTap, PcapWriter};
use lvs_io::tap::{Seen, Tap};

/// Plays the file, or the script, that `data` is.
pub fn play(data: &[u8]) {
    read(data);
    record(data);
}

fn read(file: &[u8]) {
    let Ok(mut packets) = PcapReader::new(file) else { return };
    let mut whole = Vec::new();
    let mut errors = 0;
    for packet in packets.by_ref() {
        match packet {
            Ok(packet) => whole.push(packet),
            Err(_) => errors += 1,
        }
        assert!(whole.len() <= file.len() / 16, "each record takes bytes of the file");
    }
    assert!(errors <= 1 && packets.next().is_none(), "nothing comes after damage");
    let mut writer = PcapWriter::new(Vec::new()).expect("memory takes it");
    for (time, packet) in &whole {
        writer.write(*time, packet).expect("memory takes it");
    }
    let written = writer.finish().expect("memory takes it");
    let again: Result<Vec<_>, _> = PcapReader::new(&written[..]).expect("its header is right").collect();
    let latest = Instant::from_secs(u64::from(u32::MAX));
    for ((time, packet), again) in whole.iter().zip(again.expect("it is whole")) {
        assert_eq!(*packet, again.1);
        assert!(*time == again.0 || *time >= latest, "times are kept, but those after 2106");
    }
}

/// A disk of which some parts are full: writes take at most so many bytes, and some of them fail.
struct Disk {
    content: Arc<Mutex<Vec<u8>>>,
    script: Vec<u8>,
    step: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = self.script.get(self.step).copied().unwrap_or(255);
        self.step += 1;
        let taken = match step {
            0..4 => return Err(io::ErrorKind::StorageFull.into()),
            4..8 => return Err(io::ErrorKind::Interrupted.into()),
            8..12 => 0,
            _ => usize::from(step).min(bytes.len()),
        };
        self.content.lock().expect("nobody panics").extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl CaptureFile for Disk {
    fn take_back(&mut self, count: u64) -> io::Result<()> {
        let mut content = self.content.lock().expect("nobody panics");
        let len = content.len() - count as usize;
        content.truncate(len);
        Ok(())
    }
}

/// A capture on such a disk: the script is what the disk does, and the packets.
fn record(data: &[u8]) {
    let (script, packets) = data.split_at(data.len() / 2);
    let content = Arc::new(Mutex::new(Vec::new()));
    let disk = Disk { content: Arc::clone(&content), script: script.to_vec(), step: 0 };
    let Ok(writer) = PcapWriter::new(disk) else {
        assert!(content.lock().expect("nobody panics").is_empty(), "no file without a header");
        return;
    };
    let mut tap = PcapTap::new(writer, ManualClock::new());
    let counters = tap.counters();
    let mut shown = Vec::new();
    for packet in packets.chunks(7) {
        let mut packet = packet.to_vec();
        let len = packet.len();
        tap.packet(Seen::Received, &PacketBuf::new(&mut packet, 0, len));
        shown.push(packet);
    }
    let file = content.lock().expect("nobody panics").clone();
    let kept: Result<Vec<_>, _> = PcapReader::new(&file[..]).expect("its header is whole").collect();
    let kept: Vec<Vec<u8>> = kept.expect("every record is whole").into_iter().map(|(_, packet)| packet).collect();
    let counted = counters.get();
    assert_eq!(kept, shown[..kept.len()], "the first packets, in order");
    assert_eq!((counted.written, counted.missed), (kept.len() as u64, (shown.len() - kept.len()) as u64));
    assert_eq!(counted.ended_by.is_some(), counted.missed > 0);
}
