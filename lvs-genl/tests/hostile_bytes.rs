//! Bytes that no honest program sends: no panic, no read beyond them, and an answer to each request. The fuzz targets'
//! committed corpora run here too, on any toolchain.

use std::fs;
use std::path::Path;

use lvs_genl::ipvs::{ServiceMessage, command};
use lvs_genl::wire::{Attributes, GenericHeader, Header, Messages, NESTED, Writer};
use lvs_testkit::fuzz_control::{answers, requests};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// The committed seeds of a fuzz target, most of them recorded datagrams.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).expect("it is committed").map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no seeds", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn every_seed_passes() {
    corpus("control_requests").iter().for_each(|seed| requests(seed));
    corpus("control_answers").iter().for_each(|seed| answers(seed));
}

/// A seed with some bytes changed, cut or grown somewhere.
fn damaged(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let seeds = corpus(target);
    let changes = vec((any::<Index>(), any::<u8>()), 0..6);
    (proptest::sample::select(seeds), changes, any::<Index>(), vec(any::<u8>(), 0..9), any::<bool>()).prop_map(
        |(mut bytes, changes, at, more, is_cut)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let at = at.index(bytes.len());
            if is_cut {
                bytes.truncate(at);
            } else {
                bytes.splice(at..at, more);
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(lvs_testkit::strategy::config())]

    #[test]
    fn damaged_requests_are_answered(bytes in damaged("control_requests")) {
        requests(&bytes);
    }

    #[test]
    fn damaged_answers_are_read_or_refused(bytes in damaged("control_answers")) {
        answers(&bytes);
    }

    #[test]
    fn any_bytes_are_answered_and_read(bytes in vec(any::<u8>(), 0..200)) {
        requests(&bytes);
        answers(&bytes);
    }

    #[test]
    fn attributes_never_reach_beyond_their_bytes(bytes in vec(any::<u8>(), 0..80)) {
        let range = bytes.as_ptr_range();
        for found in Attributes::new(&bytes) {
            let inside = found.value.as_ptr_range();
            prop_assert!(range.start <= inside.start && inside.end <= range.end);
            prop_assert!(found.nested().count() <= found.value.len() / 4);
        }
    }
}

/// A request whose only attribute is written by `attribute`.
fn request(attribute: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut datagram = vec![0];
    let header = Header { length: 0, kind: lvs_genl::ctrl::IPVS_ID, flags: 5, sequence: 1, port: 1 };
    let generic = GenericHeader { command: command::NEW_SERVICE, version: 1 };
    let mut message = Writer::generic(&mut datagram, header, generic);
    attribute(&mut message);
    message.finish();
    datagram
}

#[test]
fn attributes_in_attributes_without_end_cost_no_stack() {
    fn nest(out: &mut Writer<'_>, depth: u32) {
        if depth > 0 {
            out.nested(1 | NESTED, |out| nest(out, depth - 1));
        }
    }
    requests(&request(|out| nest(out, 4000)));
}

#[test]
fn the_longest_attribute_and_one_beyond_it_are_taken_for_what_they_are() {
    requests(&request(|out| out.nested(1 | NESTED, |out| out.bytes(6, &[b'a'; 65_000]))));
    // Beyond 65,535 bytes no attribute can say how long it is: what is inside is left out.
    let datagram = request(|out| {
        out.nested(1 | NESTED, |out| {
            out.bytes(6, &[b'a'; 40_000]);
            out.bytes(6, &[b'b'; 40_000]);
        });
    });
    let message = Messages::new(&datagram[1..]).next().unwrap();
    let (_, mut attributes) = message.generic().unwrap();
    assert_eq!(attributes.next().map(|found| found.value.len()), Some(0));
    requests(&datagram);
}

#[test]
fn a_thousand_requests_in_one_datagram_are_all_answered() {
    let mut many = vec![0];
    for _ in 0..1000 {
        many.extend_from_slice(
            &request(|out| ServiceMessage::default().write(out, 1, lvs_genl::ipvs::Side::Client))[1..],
        );
    }
    requests(&many);
}
