//! What `lvs-conformance` prints and how it ends.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the program; its standard output, and its exit status.
fn run(arguments: &[&str]) -> (String, Option<i32>) {
    let program = env!("CARGO_BIN_EXE_lvs-conformance");
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    (String::from_utf8(output.stdout).expect("text"), output.status.code())
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name).with_extension("json")
}

/// A copy of a recording with one word replaced.
fn altered(name: &str, from: &str, to: &str) -> PathBuf {
    let text = std::fs::read_to_string(golden(name)).expect("a recording of the corpus");
    assert!(text.contains(from), "{name} contains {from}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}_{to}.json"));
    std::fs::write(&path, text.replacen(from, to, 1)).expect("the copy is written");
    path
}

#[test]
fn a_passing_recording_is_one_line_and_the_tally_another() {
    let (text, status) = run(&[golden("nat_tcp").to_str().expect("a path")]);
    assert_eq!(text, "ok nat_tcp\n1 passed, 0 failed, 0 skipped\n");
    assert_eq!(status, Some(0));
}

#[test]
fn a_failing_recording_names_the_step_and_shows_both_packets() {
    // The first emission, sent to the second server.
    let file = altered("nat_tcp", "\"rs\":1", "\"rs\":0");
    let (text, status) = run(&[file.to_str().expect("a path")]);
    assert!(text.starts_with("FAIL nat_tcp step 0: expected to server 0: 203.0.113.31.38745 > "), "{text}");
    assert!(text.contains(" got to server 1: 203.0.113.31.38745 > "), "{text}");
    assert!(text.ends_with("\n0 passed, 1 failed, 0 skipped\n"), "{text}");
    assert_eq!(status, Some(1));
}

#[test]
fn only_the_wanted_topic_is_replayed() {
    let files = [golden("nat_tcp"), golden("nat6_tcp")];
    let [v4, v6] = files.each_ref().map(|path| path.to_str().expect("a path"));
    let (text, status) = run(&["--topic", "nat6", v4, v6]);
    assert_eq!(text, "ok nat6_tcp\n1 passed, 0 failed, 0 skipped\n");
    assert_eq!(status, Some(0));
}

#[test]
fn a_folder_stands_for_the_recordings_in_it() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("folder");
    std::fs::create_dir_all(&folder).expect("the folder is made");
    std::fs::copy(golden("nat_tcp"), folder.join("nat_tcp.json")).expect("the copy is written");
    std::fs::write(folder.join("notes.txt"), "no recording").expect("the note is written");
    let (text, status) = run(&["--dir", folder.to_str().expect("a path")]);
    assert_eq!(text, "ok nat_tcp\n1 passed, 0 failed, 0 skipped\n");
    assert_eq!(status, Some(0));
    assert_eq!(run(&["--dir"]), (String::new(), Some(2)));
}

#[test]
fn a_file_that_is_no_recording_fails_with_the_reason() {
    let file = altered("nat_tcp", "\"format\":1", "\"format\":9");
    let (text, status) = run(&[file.to_str().expect("a path"), "missing.json"]);
    assert!(text.contains("FAIL missing: "), "{text}");
    assert!(text.contains("unknown format"), "{text}");
    assert!(text.ends_with("\n0 passed, 2 failed, 0 skipped\n"), "{text}");
    assert_eq!(status, Some(1));
}

#[test]
fn a_wrong_command_line_ends_with_status_2() {
    assert_eq!(run(&["--nonsense"]), (String::new(), Some(2)));
    assert_eq!(run(&["--topic"]), (String::new(), Some(2)));
}
