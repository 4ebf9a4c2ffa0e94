//! `lvsadm`'s own words on the command line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

use lvs_testkit::served::Served;

fn lvsadm(served: &Served, words: &[&OsStr]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lvsadm"));
    command.args(words).env("LVS_CONTROL", served.path()).output().expect("it runs")
}

/// What it would flush is not what is meant.
#[test]
fn control_without_a_value_is_a_usage_error_and_reaches_nobody() {
    let served = Served::start(Default::default());
    for words in [&["-C", "--control"][..], &["--control", "", "-C"], &["--control=", "-C"], &["-L", "--control", ""]] {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let output = lvsadm(&served, &words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--control"), "{output:?}");
    }
    assert!(served.requests().is_empty());
    let joined = format!("--control={}", served.path().display());
    let output = Command::new(env!("CARGO_BIN_EXE_lvsadm")).args([&joined, "-Ln"]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn words_that_are_no_text_are_refused_or_reach_their_verb_unchanged() {
    let served = Served::start(Default::default());
    let odd = OsStr::from_bytes(b"\xff");
    let output = lvsadm(&served, &[OsStr::new("-A"), OsStr::new("-t"), odd]);
    assert_eq!(output.status.code(), Some(2));
    assert!(served.requests().is_empty());
    let path = std::env::temp_dir().join(OsStr::from_bytes(b"lvsadm-\xff.rules"));
    std::fs::write(&path, "-A -t 192.0.2.80:80 -s rr\n").expect("a file");
    let output = lvsadm(&served, &[OsStr::new("check"), path.as_os_str()]);
    std::fs::remove_file(&path).expect("it was made");
    assert!(output.status.success(), "{output:?}");
}
