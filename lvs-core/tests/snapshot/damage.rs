//! Bytes that are no snapshot, or were one: refused whole, with a reason, and never with a panic.

use lvs_core::snapshot::{Broken, Restore};
use lvs_testkit::{Desk, strategy, tcp};
use proptest::prelude::*;

use super::{RULES, read, save};

fn bytes() -> Vec<u8> {
    let mut desk = Desk::new(RULES);
    for port in 1024..1030 {
        desk.send(&tcp(format!("198.51.100.7:{port}").as_str(), "192.0.2.1:80").syn().build());
    }
    save(&desk)
}

#[test]
fn one_that_is_cut_anywhere_is_refused() {
    let bytes = bytes();
    for len in 0..bytes.len() {
        assert_eq!(read(&bytes[..len]).err(), Some(Broken::Cut { at: len as u64 }));
    }
    assert!(read(&bytes).is_ok());
}

#[test]
fn one_with_any_bit_changed_is_refused() {
    let bytes = bytes();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_block_that_is_left_out_or_said_twice_is_noticed() {
    let bytes = bytes();
    let len = u32::from_le_bytes(bytes[9..13].try_into().unwrap()) as usize + 9;
    let without = [&bytes[..8], &bytes[8 + len..]].concat();
    let twice = [&bytes[..8 + len], &bytes[8..]].concat();
    assert!(matches!(read(&without), Err(Broken::Damaged { .. })));
    assert!(matches!(read(&twice), Err(Broken::Damaged { .. })));
}

#[test]
fn another_version_and_another_file_are_told_apart() {
    let mut newer = bytes();
    newer[6] = 2;
    assert_eq!(read(&newer).err(), Some(Broken::Version(2)));
    assert_eq!(read(b"-A -t 192.0.2.1:80 -s rr").err(), Some(Broken::NotOne));
}

#[test]
fn bytes_behind_the_end_are_left_to_the_caller() {
    let bytes = bytes();
    let mut restore = Restore::new();
    assert_eq!(restore.feed(&[&bytes[..], b"more"].concat()), Ok(bytes.len()));
    assert!(restore.is_whole());
}

#[test]
fn a_length_that_lies_costs_no_memory() {
    let mut bytes = bytes()[..14].to_vec();
    bytes[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&bytes), Err(Broken::Damaged { at: 8 })));
}

proptest! {
    #![proptest_config(strategy::config())]

    #[test]
    fn it_may_come_in_pieces_of_any_size(sizes in prop::collection::vec(1..200usize, 1..20)) {
        let bytes = bytes();
        let (mut restore, mut rest) = (Restore::new(), &bytes[..]);
        for size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            prop_assert_eq!(restore.feed(piece), Ok(piece.len()));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(restore.is_whole());
    }

    /// Real rows, some bytes of which were changed by somebody who can make checksums.
    #[test]
    fn rows_that_were_edited_break_nothing(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let seeds = [
            &include_bytes!("../../../fuzz/corpus/snapshot/format-1-0")[..],
            include_bytes!("../../../fuzz/corpus/snapshot/format-1-1"),
            include_bytes!("../../../fuzz/corpus/snapshot/format-1-2"),
            include_bytes!("../../../fuzz/corpus/snapshot/format-1-3"),
        ];
        let mut all = seeds.concat();
        for (place, byte) in edits {
            let place = place.index(all.len());
            all[place] = byte;
        }
        lvs_testkit::fuzz::snapshot(&all);
    }

    /// The fuzz target's law, for any rows with a right checksum.
    #[test]
    fn rows_of_any_bytes_break_nothing(rows in prop::collection::vec(any::<u8>(), 0..400)) {
        lvs_testkit::fuzz::snapshot(&rows);
    }
}
