//! The fuzz targets `capture`, `steering` and `host`, as ordinary tests on any toolchain: arbitrary bytes, and the
//! committed corpora.

mod hostile_capture;
mod hostile_host;
mod hostile_steering;

use std::fs;
use std::path::Path;

use lvs_testkit::strategy::config;
use proptest::collection::vec;
use proptest::prelude::*;

/// Runs every file of a corpus through its target.
fn check(target: &str, play: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    for file in fs::read_dir(folder).expect("the corpus is committed") {
        play(&fs::read(file.expect("a file").path()).expect("it is readable"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn every_seed_of_capture_passes() {
    check("capture", hostile_capture::play);
}

#[test]
fn every_seed_of_steering_passes() {
    check("steering", hostile_steering::play);
}

#[test]
fn every_seed_of_host_passes() {
    check("host", hostile_host::play);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_a_capture_or_an_error_and_any_disk_leaves_whole_records(script in vec(any::<u8>(), 0..400)) {
        hostile_capture::play(&script);
        let header = [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0];
        hostile_capture::play(&[&header[..], &script].concat());
    }

    #[test]
    fn any_packets_reach_one_shard_each(script in vec(any::<u8>(), 0..600)) {
        hostile_steering::play(&script);
    }

    #[test]
    fn any_packets_are_answered_as_a_host_answers(script in vec(any::<u8>(), 0..600)) {
        hostile_host::play(&script);
    }
}
