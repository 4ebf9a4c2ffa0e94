//! Stock ipvsadm, by the preload library, beside `lvsadm`: the same arguments put the same requests on the socket and
//! print the same.

mod grammar;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use lvs_cli::ipvsadm::{self, Surroundings};
use lvs_cli::said::Said;
use lvs_client::Running;
use lvs_testkit::served::Served;
use proptest::prelude::*;

/// The library as this build made it: beside this test's program.
fn library() -> PathBuf {
    let program = std::env::current_exe().expect("a test is a program");
    program.with_file_name("liblvs_preload.so")
}

/// Whether the stock program is here. Says so if it is not.
fn has_ipvsadm(test: &str) -> bool {
    let is_here = Command::new("ipvsadm").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is_here {
        println!("skipped: {test}: ipvsadm is not installed");
    }
    is_here
}

/// Runs the stock program against a director.
fn stock(served: &Served, words: &[String]) -> Said {
    let output = Command::new("ipvsadm")
        .args(words)
        .env("LD_PRELOAD", library())
        .env("LVS_CONTROL", served.path())
        .stdin(Stdio::null())
        .output()
        .expect("ipvsadm runs");
    Said {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code().and_then(|code| u8::try_from(code).ok()).expect("it is not killed"),
    }
}

/// Runs ours against a director.
fn ours(served: &Served, words: &[String]) -> Said {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let names = lvs_cli::verbs::system_names();
    let mut surroundings = Surroundings { names: &names, stdin: &mut &b""[..], json: false, thresholds: false };
    ipvsadm::run(&words, || Running::connect(&served.path()), &mut surroundings)
}

/// The requests of the IPVS family, without what differs from run to run: sequence number and port.
fn requests(served: &Served) -> Vec<Vec<u8>> {
    let ipvs = lvs_genl::ctrl::IPVS_ID.to_ne_bytes();
    let mut requests: Vec<Vec<u8>> = served.requests().into_iter().filter(|bytes| bytes[4..6] == ipvs).collect();
    for request in &mut requests {
        request[8..16].fill(0);
        clear_rest_of_address(request);
    }
    requests
}

/// Behind a server's IPv4 address stock ipvsadm leaves what stood there before: bytes of the service's IPv6 address.
fn clear_rest_of_address(request: &mut [u8]) {
    const HEADERS: usize = 20;
    const SERVER: u16 = 2;
    const ADDRESS: u16 = 1;
    const FAMILY: u16 = 11;
    const IPV4: u16 = 2;
    let inside = attributes(request, HEADERS, request.len()).into_iter().find(|(number, _)| *number == SERVER);
    let Some((_, server)) = inside else { return };
    let inside = attributes(request, server.start, server.end);
    let find = |wanted| inside.iter().find(|(number, _)| *number == wanted).map(|(_, value)| value.clone());
    if let (Some(address), Some(family)) = (find(ADDRESS), find(FAMILY))
        && request[family] == IPV4.to_ne_bytes()
    {
        request[address.start + 4..address.end].fill(0);
    }
}

/// Numbers and places of the attributes between two places.
fn attributes(bytes: &[u8], mut start: usize, end: usize) -> Vec<(u16, std::ops::Range<usize>)> {
    let mut all = Vec::new();
    while start + 4 <= end {
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let len = usize::from(half(start)).max(4);
        all.push((half(start + 2) & 0x3fff, start + 4..(start + len).min(end)));
        start += len.next_multiple_of(4);
    }
    all
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn stock_ipvsadm_adds_and_lists_in_a_director_of_ours() {
    if !has_ipvsadm("stock_ipvsadm_adds_and_lists_in_a_director_of_ours") {
        return;
    }
    let served = Served::start(Default::default());
    for line in ["-A -t 192.0.2.80:80 -s wrr", "-a -t 192.0.2.80:80 -r 10.0.0.2:8080 -m -w 3"] {
        assert_eq!(stock(&served, &words(line)), Said::default(), "{line}");
    }
    let listed = stock(&served, &words("-Ln"));
    assert!(
        listed.stdout.contains("  -> 10.0.0.2:8080                Masq    3      0          0         \n"),
        "{listed:?}"
    );
    assert_eq!(stock(&served, &words("-Lnc")).stdout, ours(&served, &words("-Lnc")).stdout);
}

/// Its comparison goes round in a circle for these networks, so that what it prints depends on what it is told first.
/// Recorded from Linux: `zug_sort` in `conformance/goldens`.
#[test]
fn stock_ipvsadm_lists_services_in_the_order_it_lists_those_of_linux() {
    if !has_ipvsadm("stock_ipvsadm_lists_services_in_the_order_it_lists_those_of_linux") {
        return;
    }
    let rising = ["10.0.0.1", "100.64.0.1", "172.16.0.1", "192.168.0.1", "203.0.113.1"];
    let falling = ["203.0.113.1", "100.64.0.1", "10.0.0.1", "192.168.0.1", "172.16.0.1"];
    let after_rising = ["172.16.0.1", "192.168.0.1", "203.0.113.1", "10.0.0.1", "100.64.0.1"];
    let after_falling = ["172.16.0.1", "192.168.0.1", "10.0.0.1", "100.64.0.1", "203.0.113.1"];
    for (added, listed) in [(rising, after_rising), (falling, after_falling)] {
        let served = Served::start(Default::default());
        for address in added {
            assert_eq!(stock(&served, &words(&format!("-A -t {address}:80 -s rr"))), Said::default());
        }
        let saved: String = listed.iter().map(|address| format!("-A -t {address}:80 -s rr\n")).collect();
        assert_eq!(stock(&served, &words("-Sn")).stdout, saved);
        assert_eq!(ours(&served, &words("-Sn")).stdout, saved);
        assert_eq!(stock(&served, &words("-Ln")).stdout, ours(&served, &words("-Ln")).stdout);
    }
}

#[test]
fn files_of_ipvs_below_proc_are_the_directors() {
    let served = Served::start(Default::default());
    assert_eq!(ours(&served, &words("-A -t 192.0.2.80:80 -s wrr")), Said::default());
    let cat = |path: &str| {
        let output = Command::new("cat")
            .arg(path)
            .env("LD_PRELOAD", library())
            .env("LVS_CONTROL", served.path())
            .output()
            .expect("cat runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(cat("/proc/net/ip_vs").contains("TCP  C0000250:0050 wrr"), "{}", cat("/proc/net/ip_vs"));
    assert!(cat("/proc/net/ip_vs_conn").starts_with("Pro FromIP"));
    assert!(cat("/proc/net/ip_vs_stats").starts_with("   Total Incoming Outgoing"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Argument lists made over the grammar, right ones and wrong ones, one after the other on the same table.
    #[test]
    fn the_same_arguments_ask_the_same_and_print_the_same(lines in prop::collection::vec(grammar::command_line(), 1..12)) {
        if has_ipvsadm("the_same_arguments_ask_the_same_and_print_the_same") {
            let (theirs, own) = (Served::start(Default::default()), Served::start(Default::default()));
            for line in &lines {
                let (said, answered) = (stock(&theirs, line), ours(&own, line));
                prop_assert_eq!(said, answered, "{:?}", line);
                prop_assert_eq!(requests(&theirs), requests(&own), "{:?}", line);
            }
        }
    }
}
