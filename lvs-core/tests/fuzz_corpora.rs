//! The fuzz targets' committed corpora, as ordinary tests on any toolchain.

use std::fs;
use std::path::Path;

/// Runs every file of a corpus through its target; how many there were.
fn check(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the corpus is committed").map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no seeds", folder.display());
    for file in files {
        run(&fs::read(&file).unwrap());
    }
}

#[test]
fn every_seed_of_handle_packet_passes() {
    check("handle_packet", lvs_testkit::fuzz::handle_packet);
}

#[test]
fn every_seed_of_decapsulate_passes() {
    check("decapsulate", lvs_testkit::fuzz::decapsulate);
}

#[test]
fn every_seed_of_commands_and_packets_passes() {
    check("commands_and_packets", lvs_testkit::fuzz::commands_and_packets);
}

#[test]
fn every_seed_of_batch_passes() {
    check("batch", lvs_testkit::fuzz::batch_against_single);
}

#[test]
fn every_seed_of_proxy_conversation_passes() {
    check("proxy_conversation", lvs_testkit::conversation::play);
}

#[test]
fn every_seed_of_fragments_passes() {
    check("fragments", lvs_testkit::fuzz::fragments);
}

#[test]
fn every_seed_of_arguments_passes() {
    check("arguments", lvs_testkit::fuzz::arguments);
}

#[test]
fn every_seed_of_snapshot_passes() {
    check("snapshot", lvs_testkit::fuzz::snapshot);
}

#[test]
fn every_seed_of_rules_passes() {
    check("rules", lvs_testkit::fuzz::rules);
}
