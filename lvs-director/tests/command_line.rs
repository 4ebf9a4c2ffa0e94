//! What `lvsd` says and how it exits, whatever this machine allows.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{fs, io};

use serde_json::Value;

/// What a run of `lvsd` came to.
#[derive(Debug)]
struct Run {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn lvsd(words: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_lvsd")).args(words).output().expect("lvsd starts");
    Run {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A file of rules that is gone when the test is.
struct Rules(PathBuf);

impl Rules {
    fn new(name: &str, text: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}.rules", std::process::id()));
        fs::write(&path, text).expect("the directory for temporary files can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs `lvsd run` with these rules; it must fail with this complaint.
fn check_refused(name: &str, rules: &str, complaint: &str) {
    let rules = Rules::new(name, rules);
    let run = lvsd(&["run", rules.path(), "--tun", "lvsd-test"]);
    assert_eq!(run.status, Some(1), "{run:?}");
    assert_eq!(run.stderr, format!("lvsd: {}, {complaint}\n", rules.path()));
    assert_eq!(run.stdout, "");
}

#[test]
fn the_demo_answers_every_request_by_weight_and_says_so_in_json() {
    let run = lvsd(&["demo", "--json", "--requests", "120"]);
    assert_eq!(run.status, Some(0), "{run:?}");
    let json: Value = serde_json::from_str(&run.stdout).expect("one JSON object");
    assert_eq!((json["requests"].as_u64(), json["failed"].as_u64()), (Some(120), Some(0)), "{json}");
    let servers = json["per_server"].as_array().expect("a list");
    let answered: Vec<_> = servers.iter().map(|server| server["requests"].as_u64()).collect();
    assert_eq!(answered, [Some(60), Some(40), Some(20)], "weights 3, 2 and 1");
    assert!(json["latency_ms"]["p50"].as_f64() <= json["latency_ms"]["max"].as_f64(), "{json}");
    assert!(json["stats"].as_str().is_some_and(|stats| stats.starts_with("IP Virtual Server version")), "{json}");
    assert!(json["explain"].as_str().is_some_and(|text| text.contains("scheduler wrr chooses")), "{json}");
    match json["mode"].as_str() {
        Some("tun") => assert_eq!((&json["denied"], run.stderr.as_str()), (&Value::Null, "")),
        Some("simulated") => {
            let denied = json["denied"].as_str().expect("the reason");
            assert!(run.stderr.contains(denied), "{run:?}");
            println!("simulated: {denied}");
        }
        mode => panic!("{mode:?} is no mode"),
    }
}

#[test]
fn the_demo_ends_with_counters_shares_latencies_and_an_explanation() {
    let run = lvsd(&["demo", "--requests", "12"]);
    assert_eq!(run.status, Some(0), "{run:?}");
    for part in [
        "12 of 12 HTTP requests answered",
        "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes",
        "  TCP  192.0.2.80:80                       6",
        "  TCP  [2001:db8::80]:80                   6",
        "  ant          3       3       3         6       6.0",
        "p50",
        "verdict: forward to 10.2.0.",
    ] {
        assert!(run.stdout.contains(part), "{part:?} is missing in\n{}", run.stdout);
    }
    assert!(!run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'), "no terminal, no escape sequences");
}

#[test]
fn help_and_version_are_asked_for_and_answered() {
    let help = lvsd(&["--help"]);
    assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
    for part in ["Usage: lvsd <COMMAND>", "  demo ", "  run ", "  realserver ", "Exit status: 0 all went well;"] {
        assert!(help.stdout.contains(part), "{part:?} is missing in\n{}", help.stdout);
    }
    let help = lvsd(&["run", "--help"]);
    assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("-a -t 192.0.2.80:80 -r 10.2.0.11:8080 -m -w 3\n"), "{}", help.stdout);
    assert!(help.stdout.lines().all(|line| line.chars().count() <= 100), "{}", help.stdout);
    let version = lvsd(&["--version"]);
    assert_eq!((version.status, version.stdout), (Some(0), format!("lvsd {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_is_answered_by_the_usage_and_status_2() {
    for words in [&["fly"][..], &[], &["demo", "--requests", "0"], &["run"]] {
        let run = lvsd(words);
        assert_eq!((run.status, run.stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(run.stderr.starts_with("lvsd: "), "{words:?}: {run:?}");
        assert!(run.stderr.contains("Usage: lvsd ") || run.stderr.contains("--help"), "{words:?}: {run:?}");
    }
}

/// Runs `lvsd` with standard output and standard error as they are given.
fn status_with(words: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Option<i32> {
    let status = Command::new(env!("CARGO_BIN_EXE_lvsd")).args(words).stdout(stdout).stderr(stderr).status();
    status.expect("lvsd starts").code()
}

/// A pipe that nobody reads.
fn unread_pipe() -> io::PipeWriter {
    io::pipe().expect("a pipe can be had").1
}

#[test]
fn a_reader_that_has_gone_away_changes_no_exit_status() {
    let rules = Rules::new("unread", "-L -n\n");
    let refused = ["run", rules.path(), "--tun", "lvsd-test"];
    let no_service = ["realserver", "start", "--vip", "127.0.0.1"];
    for (words, status) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["fly"], 2),
        (&refused, 1),
        (&no_service, 1),
        (&["demo", "--requests", "3"], 0),
    ] {
        assert_eq!(status_with(words, unread_pipe(), unread_pipe()), Some(status), "{words:?}");
    }
}

#[test]
fn what_a_full_device_does_not_take_is_a_failure() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    for words in [&["--help"][..], &["--version"], &["run", "--help"], &["demo", "--requests", "3"]] {
        assert_eq!(status_with(words, full(), Stdio::null()), Some(1), "{words:?}");
    }
    // Where not even the complaint is taken, its status is.
    assert_eq!(status_with(&["fly"], full(), full()), Some(2));
}

#[test]
fn a_missing_file_of_rules_is_named() {
    let run = lvsd(&["run", "no/such/rules", "--tun", "lvsd-test"]);
    assert_eq!(run.status, Some(1));
    assert_eq!(run.stderr, "lvsd: cannot read no/such/rules: No such file or directory (os error 2)\n");
}

#[test]
fn a_line_that_is_no_command_is_named_in_ipvsadms_words() {
    check_refused(
        "grammar",
        "-A -t 192.0.2.80:80 -s wrr\n\n-a -t 192.0.2.80:80 -s rr -r 10.2.0.11:8080 -m\n",
        "line 3: Illegal 'scheduler' option with the 'add-server' command\n  \
         -a -t 192.0.2.80:80 -s rr -r 10.2.0.11:8080 -m",
    );
}

#[test]
fn a_line_the_director_refuses_is_named_in_ipvsadms_words() {
    check_refused(
        "twice",
        "-A -t 192.0.2.80:80 -s wrr\n-A -t 192.0.2.80:80 -s rr\n",
        "line 2: Service already exists\n  -A -t 192.0.2.80:80 -s rr",
    );
}

#[test]
fn a_line_that_is_no_rule_at_all_is_answered_with_what_a_rule_looks_like() {
    for line in ["hello world", "add 192.0.2.1", "-X", "--", "{\"json\": true}", "-R"] {
        let complaint = "line 1: no rule begins like this; one begins with -A for a service or -a for a server, as \
                         ipvsadm-save writes them";
        check_refused("gibberish", &format!("{line}\n"), &format!("{complaint}\n  {line}"));
    }
}

#[test]
fn a_line_that_starts_synchronisation_is_refused() {
    let line = "--start-daemon master --mcast-interface eth0";
    let complaint = "lvsd does not synchronise connections: take the line out";
    check_refused("daemon", &format!("{line}\n"), &format!("line 1: {complaint}\n  {line}"));
}

#[test]
fn a_line_that_changes_nothing_is_refused() {
    check_refused("listing", "-L -n\n", "line 1: this does not change any rules\n  -L -n");
}

#[test]
fn a_device_that_cannot_be_had_is_named_with_a_remedy() {
    let rules = Rules::new("denied", "-A -t 192.0.2.80:80 -s wrr\n");
    // `lo` exists everywhere and is no TUN device; where not even /dev/net/tun may be opened, that is said instead.
    let run = lvsd(&["run", rules.path(), "--tun", "lo"]);
    assert_eq!((run.status, run.stdout.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.stderr.starts_with("lvsd: cannot ") && run.stderr.contains("'lo': "), "{run:?}");
    assert!(run.stderr.contains("; "), "a remedy follows: {run:?}");
}
