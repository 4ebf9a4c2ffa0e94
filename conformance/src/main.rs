//! `lvs-conformance [--topic T] [--all] [FILE.json…]`: replays recordings, one line a file.
//! Without files: the whole corpus. Exit status 1 if any failed, 2 for a wrong command line.

use std::path::PathBuf;
use std::process::ExitCode;

use lvs_conformance::corpus;
use lvs_conformance::golden::Golden;
use lvs_conformance::replay::{Failure, replay};

const USAGE: &str = "usage: lvs-conformance [--topic TOPIC] [--all] [FILE.json...]
  --topic TOPIC  only recordings of this topic (nat, nat6, sched, ...)
  --all          every failing step, not only the first
  without files the whole corpus is replayed";

struct Options {
    topic: Option<String>,
    shows_all: bool,
    files: Vec<PathBuf>,
}

enum Outcome {
    Passed,
    Failed,
    Skipped,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let files = if options.files.is_empty() { corpus::files() } else { Ok(options.files.clone()) };
    let files = match files {
        Ok(files) => files,
        Err(error) => {
            eprintln!("the corpus cannot be read: {error}");
            return ExitCode::from(2);
        }
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for file in &files {
        match run(file, &options) {
            Some(Outcome::Passed) => passed += 1,
            Some(Outcome::Failed) => failed += 1,
            Some(Outcome::Skipped) => skipped += 1,
            None => {}
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { topic: None, shows_all: false, files: Vec::new() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--topic" => options.topic = Some(arguments.next().ok_or("--topic needs a name")?),
            "--all" => options.shows_all = true,
            "-h" | "--help" => return Err(USAGE.into()),
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}\n{USAGE}")),
            file => options.files.push(file.into()),
        }
    }
    Ok(options)
}

/// Replays one file and prints its line; `None` if the topic is not the one asked for.
fn run(file: &std::path::Path, options: &Options) -> Option<Outcome> {
    let golden = match Golden::load(file) {
        Ok(golden) => golden,
        Err(error) => {
            println!("FAIL {}: {error}", file.display());
            return Some(Outcome::Failed);
        }
    };
    if options.topic.as_ref().is_some_and(|topic| *topic != golden.topic) {
        return None;
    }
    let name = &golden.name;
    if golden.steps.is_empty() {
        println!("skip {name}: it has no steps");
        return Some(Outcome::Skipped);
    }
    match replay(&golden) {
        Ok(failures) if failures.is_empty() => {
            println!("ok {name}");
            Some(Outcome::Passed)
        }
        Ok(failures) => {
            report(name, &failures, options.shows_all);
            Some(Outcome::Failed)
        }
        Err(error) => {
            println!("FAIL {name}: {error}");
            Some(Outcome::Failed)
        }
    }
}

fn report(name: &str, failures: &[Failure], shows_all: bool) {
    let shown = if shows_all { failures } else { &failures[..1] };
    for (index, failure) in shown.iter().enumerate() {
        let start = if index == 0 { format!("FAIL {name}") } else { "   ".to_owned() };
        println!("{start} step {}: {}", failure.step, failure.difference.summary);
        for line in &failure.difference.detail {
            println!("      {line}");
        }
    }
    if shown.len() < failures.len() {
        println!("    and {} more (--all shows them)", failures.len() - shown.len());
    }
}
