//! What commands cost, and what packets feel of them: a list of rules restored, listed and deleted by `lvsadm`, by turns
//! with an idle control plane, while a stream of packets goes through the director; and stock `ipvsadm -R`, by turns
//! with a server that does nothing. Ratios are those of one and the same minute.
//!
//! `cargo build --release -p lvs-cli -p lvs-preload && cargo bench -p lvs-director --bench control -- [ROUNDS] [--small]`
//! (3 rounds by default; `--small`: without the list of 10,000 services). Needs user namespaces and `/dev/net/tun`; says
//! what is missing and ends with status 0.

mod director;
mod nothing;
mod stream;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use director::{Failure, Lvsd, Programs};
use lvs_director::demo::namespaces;
use nothing::Nothing;
use stream::{Span, Stream};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs this too, without `--bench`: then only to see that it works.
    let is_bench = words.iter().any(|word| word == "--bench");
    let rounds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(if is_bench { 3 } else { 1 });
    let sizes: &[usize] = match (is_bench, words.iter().any(|word| word == "--small")) {
        (false, _) => &[10],
        (true, true) => &[1000],
        (true, false) => &[1000, 10_000],
    };
    let entered = namespaces::enter_user_namespace().and_then(|()| namespaces::enter_network_namespace());
    if let Err(denied) = entered {
        println!("not run: {denied}");
        return;
    }
    if let Err(failure) = Programs::find().and_then(|programs| measure(&programs, sizes, rounds)) {
        println!("not run: {failure}");
    }
}

fn measure(programs: &Programs, sizes: &[usize], rounds: usize) -> Result<(), Failure> {
    let lvsd = Lvsd::start(programs)?;
    let stream = Stream::start()?;
    println!("packets: one each {:?} at least; gaps are those between arrivals", stream::PACE);
    for services in sizes {
        lists(&lvsd, &stream, *services, rounds)?;
    }
    stock(&lvsd, sizes[0], rounds)
}

/// One thing that is done, again and again.
struct Action {
    name: &'static str,
    words: &'static [&'static str],
    /// What it reads.
    input: Option<String>,
    busy: Vec<Span>,
    idle: Vec<Span>,
}

/// Restores, lists, saves and deletes, each behind a while of idling that lasts as long.
fn lists(lvsd: &Lvsd, stream: &Stream, services: usize, rounds: usize) -> Result<(), Failure> {
    let action = |name, words, input| Action { name, words, input, busy: Vec::new(), idle: Vec::new() };
    let mut actions = [
        action("restore", &["-R"][..], Some(rules(services))),
        action("list", &["-L", "-n"][..], None),
        action("save", &["-S", "-n"][..], None),
        action("delete", &["-R"][..], Some(deletions(services))),
    ];
    for _ in 0..rounds {
        for action in &mut actions {
            let busy = Span::of(|| lvsd.lvsadm(action.words, action.input.as_deref()))?;
            let taken = busy.end - busy.start;
            action.idle.push(Span::of(|| {
                thread::sleep(taken.max(IDLE_MIN));
                Ok(())
            })?);
            action.busy.push(busy);
        }
    }
    println!("{services} services x {SERVERS} servers, {rounds} rounds");
    for Action { name, busy, idle, .. } in &actions {
        let slowest = busy.iter().map(|span| span.end - span.start).max().unwrap_or_default();
        let (busy, idle) = (stream.gaps(busy), stream.gaps(idle));
        println!(
            "  {name:8} {:7.3} s at most; 99.9 % of gaps: {:9.1?}, idle {:9.1?}, ratio {:5.2} ({} gaps, {} idle); \
             longest {:9.1?}, idle {:9.1?}",
            slowest.as_secs_f64(),
            busy.most_of(0.999),
            idle.most_of(0.999),
            busy.most_of(0.999).as_secs_f64() / idle.most_of(0.999).as_secs_f64().max(1e-9),
            busy.len(),
            idle.len(),
            busy.most_of(1.0),
            idle.most_of(1.0),
        );
    }
    Ok(())
}

/// Stock `ipvsadm -R`, against `lvsd` and against nothing.
fn stock(lvsd: &Lvsd, services: usize, rounds: usize) -> Result<(), Failure> {
    if Command::new("ipvsadm").arg("-h").output().is_err() {
        println!("stock ipvsadm: not run: it is not installed");
        return Ok(());
    }
    let nothing = Nothing::start(&lvsd.folder.join("nothing.sock"))?;
    let words = ["exec", "--", "ipvsadm", "-R"];
    let rules = rules(services);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        without.push(timed(|| lvsd.lvsadm_at(&nothing.path, &words, Some(&rules)))?);
        with.push(timed(|| lvsd.lvsadm(&words, Some(&rules)))?);
        lvsd.lvsadm(&["-R"], Some(&deletions(services)))?;
    }
    let [with, without] = [with, without].map(|mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    });
    let lines = rules.lines().count();
    println!(
        "stock ipvsadm -R of {lines} lines: {with:.3} s, against nothing {without:.3} s, ratio {:.2}",
        with / without
    );
    Ok(())
}

fn timed(act: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}

fn rules(services: usize) -> String {
    let mut text = String::new();
    for index in 0..services {
        let service = service(index);
        let _ = writeln!(text, "-A -t {service} -s wrr");
        for server in 0..SERVERS {
            let _ =
                writeln!(text, "-a -t {service} -r 10.{}.{}.{}:80 -m -w 1", 20 + server, index / 250, index % 250 + 1);
        }
    }
    text
}

fn deletions(services: usize) -> String {
    (0..services).map(|index| format!("-D -t {}\n", service(index))).collect()
}

/// The endpoint of a service: some share an address.
fn service(index: usize) -> String {
    let address = index / PORTS;
    format!("198.18.{}.{}:{}", address / 250, address % 250 + 1, 1000 + index % PORTS)
}

const SERVERS: usize = 10;
/// Services of an address.
const PORTS: usize = 16;
const IDLE_MIN: Duration = Duration::from_millis(500);

/// What is written for `lvsd` to begin with: where the stream goes.
fn write_stream_rules(path: &std::path::Path) -> Result<(), Failure> {
    let (target, server) = (stream::VIRTUAL, stream::SERVER);
    Ok(fs::write(path, format!("-A -u {target} -s rr\n-a -u {target} -r {server} -m\n"))?)
}
