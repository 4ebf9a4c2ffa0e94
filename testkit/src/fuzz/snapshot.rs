//! Any rows of a snapshot, with right lengths and checksums around them.

use core::time::Duration;

use lvs_core::snapshot::{Restore, Snapshot};
use lvs_core::{Instant, PacketBuf, Seed};

use crate::{Desk, Storage, sctp, tcp, udp};

const RULES: &str = "-A -t 192.0.2.1:80 -s rr -p 60\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n\
    -A -t 192.0.2.1:21 -s wrr --helper ftp\n-a -t 192.0.2.1:21 -r 10.0.0.2:21 -m\n\
    -A -u 192.0.2.1:80 -s rr\n--add-laddr -u 192.0.2.1:80 --local-address 10.0.0.200\n\
    -a -u 192.0.2.1:80 -r 10.0.0.2:8080 --fullnat\n\
    -A -t [2001:db8::1]:80 -s rr\n--add-laddr -t [2001:db8::1]:80 --local-address 10.0.0.200\n\
    -a -t [2001:db8::1]:80 -r 10.0.0.2:8080 --fullnat\n";

/// Blocks of any rows (kind, length, rows, again and again) after those of a real snapshot: reading never panics, and
/// what is loaded of it is a director that works, saves itself and comes to an end.
pub fn snapshot(data: &[u8]) {
    let bytes = framed(data);
    let mut restore = Restore::new();
    // In two pieces, cut somewhere.
    let cut = data.len() * 7 % (bytes.len() + 1);
    if restore.feed(&bytes[..cut]).is_err() || restore.feed(&bytes[cut..]).is_err() {
        assert!(restore.finish().is_err(), "what is broken stays so");
        return;
    }
    let Ok(saved) = restore.finish() else { return };
    let config = Desk::config().with(|config| {
        (config.connections_max, config.templates_max, config.servers_max) = (64, 64, 64);
    });
    let mut desk = Desk::seeded(config, Seed::new(1), RULES);
    desk.director.restore(desk.now, &saved, Duration::ZERO, |_| true);
    use_it(&mut desk);
    let again = written(&desk);
    let mut restore = Restore::new();
    restore.feed(&again).expect("its own snapshot is right");
    assert!(restore.is_whole());
    let mut now = desk.now;
    for _ in 0..20 {
        now = now + Duration::from_secs(86_400 * 60);
        desk.director.handle_timeout(now);
    }
}

/// Packets of flows that there may be.
fn use_it(desk: &mut Desk) {
    let connections = desk.connections();
    for connection in connections.iter().take(64) {
        let (client, asked, real) = (connection.client, connection.virtual_endpoint, connection.real);
        let at_server = connection.local.unwrap_or(client);
        let mut pairs = vec![(client, asked)];
        if real.address.is_ipv4() == at_server.address.is_ipv4() {
            pairs.push((real, at_server));
        }
        for (from, to) in pairs {
            for packet in [
                tcp(from, to).ack().payload(b"227 Entering Passive Mode (10,0,0,2,195,80).\r\n").build(),
                tcp(from, to).syn().build(),
                udp(from, to).payload(b"data").build(),
                sctp(from, to).chunk(0, b"data").build(),
            ] {
                let mut storage = Storage::with_room(&packet, 128, 2048);
                hand(desk, &mut storage.packet());
            }
        }
    }
    let now: Instant = desk.now;
    desk.director.handle_timeout(now);
}

fn hand(desk: &mut Desk, packet: &mut PacketBuf<'_>) {
    let now = desk.now;
    let _ = desk.director.handle_packet(now, packet);
    desk.transmits();
}

fn written(desk: &Desk) -> Vec<u8> {
    let (mut snapshot, mut chunk, mut all) = (Snapshot::new(), vec![0; Snapshot::CHUNK], Vec::new());
    loop {
        match desk.director.save(desk.now, &mut snapshot, &mut chunk) {
            0 => return all,
            len => all.extend_from_slice(&chunk[..len]),
        }
    }
}

/// The blocks that `data` asks for, behind the servers of a real snapshot, with what frames them.
fn framed(data: &[u8]) -> Vec<u8> {
    let real = written(&Desk::new(RULES));
    let (mut blocks, mut at) = (Vec::new(), 8);
    while at < real.len() {
        let len = u32::from_le_bytes(real[at + 1..at + 5].try_into().expect("four bytes")) as usize;
        blocks.push((real[at], real[at + 5..at + 5 + len].to_vec()));
        at += len + 9;
    }
    blocks.pop();
    let mut rest = data;
    while let [kind, low, high, after @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (rows, after) = after.split_at(len);
        blocks.push((kind % 8, rows.to_vec()));
        rest = after;
    }
    let count = blocks.len() as u32;
    blocks.push((255, count.to_le_bytes().to_vec()));
    let mut bytes = real[..8].to_vec();
    for (kind, rows) in blocks {
        let start = bytes.len();
        bytes.push(kind);
        bytes.extend((rows.len() as u32).to_le_bytes());
        bytes.extend(rows);
        let sum = crc32c(&bytes[start..]);
        bytes.extend(sum.to_le_bytes());
    }
    bytes
}

/// RFC 3720, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}
