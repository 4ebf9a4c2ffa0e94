//! Parts of datagrams in hostile orders: late, twice, overlapping, with holes, with two ends, of strangers and of
//! servers, more than there is room for. However it was treated, the director still serves an honest client afterwards.

use core::time::Duration;
use std::net::SocketAddr;

use lvs_core::{Director, Instant, Offload, Verdict};

use super::{CLIENTS, SERVERS, Script, VIPS, config, director_of, hand_over, within_bounds};
use crate::{Packet, Storage, oracle, raw, sctp, tcp, udp};

/// A script of parts and of waiting.
pub fn fragments(data: &[u8]) {
    let mut script = Script { bytes: data };
    let mut config = config();
    config.fragments_max = u32::from(script.byte() % 9);
    config.fragment_bytes_max = 1024 * (1 + u32::from(script.byte() % 32));
    let (datagrams_max, bytes_max) = (config.fragments_max, config.fragment_bytes_max as usize);
    let mut director = director_of(config);
    let mut now = Instant::from_secs(1);
    let mut held = 0;
    for _ in 0..STEPS_MAX {
        let Some(step) = script.next() else { break };
        match step % 8 {
            0 => now = now + Duration::from_millis(u64::from(script.byte()) * 40),
            1 => {
                now = now + Duration::from_secs(u64::from(script.byte()));
                director.handle_timeout(now);
            }
            2 => held += offer(&mut director, now, &any_part(&mut script)),
            // What a flow has to be, for its server's parts to belong to it.
            3 => held += offer(&mut director, now, &datagram(&mut script).build()),
            _ => {
                for part in parts(&mut script) {
                    held += offer(&mut director, now, &part);
                }
            }
        }
        assert!(director.gauges().fragments <= datagrams_max, "{:?}", director.gauges());
        within_bounds(&director);
        let left: Vec<_> = transmits(&mut director).iter().map(|(_, bytes)| bytes.len()).collect();
        assert!(left.iter().sum::<usize>() <= 2 * bytes_max, "{left:?} of {bytes_max}");
        // What a datagram put together leaves in its pieces, answers included, is no more than came.
        assert!(left.len() <= held, "{left:?} of {held}");
        held -= left.len();
    }
    now = now + Duration::from_secs(1_000_000);
    // Each call does a bounded part of the work that is due.
    while director.poll_timeout().is_some_and(|due| due <= now) {
        director.handle_timeout(now);
    }
    assert_eq!((director.gauges().fragments, director.gauges().connections), (0, 0), "all runs out by itself");
    serves_the_honest(&mut director, now, &mut script, datagrams_max);
}

const STEPS_MAX: usize = 100;

/// Hands a packet over; 1 if it is held.
fn offer(director: &mut Director, now: Instant, bytes: &[u8]) -> usize {
    let storage = Storage::with_room(bytes, 64, 2048).offload(Offload::default());
    usize::from(hand_over(director, now, storage).verdict == Verdict::Held)
}

fn transmits(director: &mut Director) -> Vec<(Verdict, Vec<u8>)> {
    let next = || {
        let mut storage = Storage::with_room(&[], 64, 65_535);
        let mut packet = storage.packet();
        director.poll_transmit(&mut packet).map(|verdict| (verdict, packet.bytes().to_vec()))
    };
    core::iter::from_fn(next).collect()
}

/// A datagram in three parts, in some order, arrives once and whole, if datagrams in parts are taken at all.
fn serves_the_honest(director: &mut Director, now: Instant, script: &mut Script<'_>, datagrams_max: u32) {
    let (client, vip) = if script.byte().is_multiple_of(2) { (CLIENTS[0], VIPS[0]) } else { (CLIENTS[2], VIPS[2]) };
    let mut parts = udp(client, vip).payload_len(280).identification(99).fragments(96);
    let turn = usize::from(script.byte()) % parts.len();
    parts.rotate_left(turn);
    if script.byte().is_multiple_of(2) {
        parts.reverse();
    }
    let mut left = Vec::new();
    for part in parts {
        let sent = hand_over(director, now, Storage::with_room(&part, 64, 2048));
        left.push((sent.verdict, sent.bytes));
        left.extend(transmits(director));
    }
    if datagrams_max > 0 {
        left.retain(|(verdict, _)| matches!(verdict, Verdict::Forward { .. }));
        let whole = oracle::reassemble(left.iter().map(|(_, bytes)| &bytes[..])).expect("all parts arrive, each once");
        assert_eq!(whole.len(), 288, "a UDP header and the payload");
    }
}

/// Whose datagram: a client's, a server's answer, a stranger's to a stranger.
fn ends(script: &mut Script<'_>) -> (SocketAddr, SocketAddr) {
    let (client, vip, server) = (script.address(&CLIENTS), script.address(&VIPS), script.address(&SERVERS));
    let (source, destination) = match script.byte() % 8 {
        0 | 1 => (server, client),
        2 => (client, server),
        3 => (vip, client),
        _ => (client, vip),
    };
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    (CLIENTS[0].parse().expect("a constant"), VIPS[0].parse().expect("a constant"))
}

fn datagram(script: &mut Script<'_>) -> Packet {
    let (source, destination) = ends(script);
    let len = usize::from(script.byte()) * 8 + 1;
    let packet = match script.byte() % 8 {
        0 => tcp(source, destination).flags(script.byte()).payload_len(len),
        1 => sctp(source, destination).chunk(script.byte() % 16, &vec![7; len]),
        // A header behind the fragment header names the protocol.
        2 => raw(source, destination, 60).payload(&[[17, 0, 1, 4, 0, 0, 0, 0].as_slice(), &vec![9; len]].concat()),
        3 => raw(source, destination, script.byte()).payload(&vec![9; len]),
        _ => udp(source, destination).payload_len(len),
    };
    packet.identification(u32::from(script.byte() % 4)).hop_limit(1 + script.byte() % 4)
}

/// The parts of a datagram as an attacker, or a lossy network, lets them come.
fn parts(script: &mut Script<'_>) -> Vec<Vec<u8>> {
    let datagram = datagram(script);
    let len = script.pick(&[8, 64, 104, 400]);
    let mut parts = datagram.fragments(len);
    parts.truncate(PARTS_MAX);
    match script.byte() % 8 {
        0 => {}
        1 => parts.reverse(),
        // Twice, and turned.
        2 => parts = [parts.clone(), parts.into_iter().rev().collect()].concat(),
        // A first part alone, or one that is missing.
        3 => drop(parts.remove(usize::from(script.byte()) % parts.len())),
        4 => parts.truncate(1),
        // Two ways of cutting: they overlap, and say the same where they do.
        5 => parts.extend(datagram.fragments(len + 8).into_iter().take(PARTS_MAX)),
        // One of them says something else, of itself or of where it belongs.
        6 => {
            let index = usize::from(script.byte()) % parts.len();
            let at = usize::from(script.byte()) % parts[index].len();
            parts[index][at] ^= script.byte();
            crate::strategy::repair_ipv4_checksum(&mut parts[index]);
        }
        _ => {
            for index in 0..parts.len() {
                parts.swap(index, usize::from(script.byte()) % (index + 1));
            }
        }
    }
    parts
}

const PARTS_MAX: usize = 40;

/// A part from anywhere in a datagram, up to behind the longest there can be, with or without others behind it.
fn any_part(script: &mut Script<'_>) -> Vec<u8> {
    let (source, destination) = ends(script);
    let protocol = script.pick(&[17, 6, 132, 60, 0, 44, 58, 1, 51, 50]);
    let offset = u16::from_be_bytes([script.byte(), script.byte()]) & !7;
    let (more, id) = (script.byte().is_multiple_of(2), script.byte() % 4);
    let len = usize::from(script.byte());
    let packet = raw(source, destination, protocol).payload(script.take(len));
    packet.identification(u32::from(id)).fragment(offset, more).build()
}
