//! Whatever is said on the link, the edge holds: arbitrary scripts, and the fuzz target's committed corpus.

mod hostile_link;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn arbitrary_scripts_break_no_bound_and_lose_no_packet_uncounted(script in vec(any::<u8>(), 0..2000)) {
        hostile_link::play(&script);
    }
}

#[test]
fn the_committed_corpus_breaks_no_bound_and_loses_no_packet_uncounted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/l2_edge");
    let mut count = 0;
    for file in fs::read_dir(folder).expect("the corpus is committed") {
        hostile_link::play(&fs::read(file.expect("a file").path()).expect("it is readable"));
        count += 1;
    }
    assert!(count > 0);
}
