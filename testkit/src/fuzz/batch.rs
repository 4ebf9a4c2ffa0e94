//! Batches against single packets: two directors of one seed, one of which is handed every packet by itself, are never
//! told apart. Creations, ends, commands and waiting come in between and in the middle of a batch.

use core::time::Duration;

use lvs_core::{Director, DropReason, Instant, Verdict};

use super::{Script, director, drain};
use crate::Storage;

/// A script: commands, waiting, and batches of packets, well-formed and broken.
pub fn batch_against_single(data: &[u8]) {
    let mut script = Script { bytes: data };
    let (mut single, mut batched) = (director(), director());
    let mut now = Instant::from_secs(1);
    for _ in 0..STEPS_MAX {
        let Some(step) = script.next() else { break };
        match step % 8 {
            0 => {
                let command = script.command();
                assert_eq!(single.apply(now, &command), batched.apply(now, &command), "{command:?}");
            }
            1 => now = now + Duration::from_millis(u64::from(script.byte()) * 40),
            2 => {
                now = now + Duration::from_secs(u64::from(script.byte()) * 4);
                single.handle_timeout(now);
                batched.handle_timeout(now);
            }
            _ => hand_over(&mut single, &mut batched, now, &packets(&mut script)),
        }
        compare(&mut single, &mut batched, now);
    }
    drain(&mut single);
    drain(&mut batched);
}

const STEPS_MAX: usize = 60;

/// Up to 70 packets, which is more than two batches of the director's; one of them again and again, as bulk comes.
fn packets(script: &mut Script<'_>) -> Vec<Storage> {
    let count = usize::from(script.byte()) % 71;
    let (repeated, every) = (script.packet(), 1 + usize::from(script.byte()) % 4);
    let packet = |index: usize, script: &mut Script<'_>| match index % every {
        0 if script.bytes.is_empty() => repeated.clone(),
        0 => script.packet(),
        _ => repeated.clone(),
    };
    (0..count)
        .map(|index| {
            let bytes = packet(index, script);
            Storage::with_room(&bytes, 64, 2048).mark(u32::from(script.byte() % 4))
        })
        .collect()
}

fn hand_over(single: &mut Director, batched: &mut Director, now: Instant, packets: &[Storage]) {
    let mut alone = packets.to_vec();
    let expected: Vec<_> = alone
        .iter_mut()
        .map(|storage| {
            let mut packet = storage.packet();
            let verdict = single.handle_packet(now, &mut packet);
            (verdict, packet.bytes().to_vec(), packet.offload)
        })
        .collect();
    let mut together = packets.to_vec();
    let mut lent: Vec<_> = together.iter_mut().map(Storage::packet).collect();
    let mut met = Vec::new();
    batched.handle_batch(now, &mut lent, |index, packet, verdict| {
        assert_eq!(index, met.len(), "in order, each once");
        met.push((verdict, packet.bytes().to_vec(), packet.offload));
    });
    assert_eq!(met, expected);
}

/// What there is to see of a director is the same.
fn compare(single: &mut Director, batched: &mut Director, now: Instant) {
    assert_eq!(owed(single), owed(batched));
    let told = |director: &mut Director| core::iter::from_fn(|| director.poll_event()).collect::<Vec<_>>();
    assert_eq!(told(single), told(batched));
    assert_eq!(single.poll_timeout(), batched.poll_timeout());
    assert_eq!(single.gauges(), batched.gauges());
    for reason in DropReason::ALL {
        assert_eq!(single.drops(*reason), batched.drops(*reason), "{reason}");
    }
    assert_eq!(single.services(now), batched.services(now));
    assert!(single.connections(now).eq(batched.connections(now)));
}

/// What the director has to send of its own.
fn owed(director: &mut Director) -> Vec<(Verdict, Vec<u8>)> {
    let mut owed = Vec::new();
    loop {
        assert!(owed.len() < 10_000, "poll_transmit ends");
        let mut storage = Storage::with_room(&[], 64, 65_535);
        let mut packet = storage.packet();
        let Some(verdict) = director.poll_transmit(&mut packet) else { return owed };
        owed.push((verdict, packet.bytes().to_vec()));
    }
}
