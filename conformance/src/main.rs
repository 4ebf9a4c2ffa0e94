//! `lvs-conformance [--topic T] [--all] [--dir FOLDER] [FILE.json…]`: replays recordings, one line a file, differences
//! below it. Without files, folder or topic: the whole corpus, and the recorded conversations of the control plane. Exit
//! status 1 if any failed, 2 for a wrong command line or an unreadable corpus.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lvs_conformance::corpus;
use lvs_conformance::golden::Golden;
use lvs_conformance::netlink;
use lvs_conformance::replay::{Failure, replay};

const USAGE: &str = "usage: lvs-conformance [--topic TOPIC] [--all] [--dir FOLDER] [FILE.json...]
  --topic TOPIC  only recordings of this topic (nat, nat6, sched, ...)
  --all          every failing step, not only the first
  --dir FOLDER   every recording in this folder
  without files or folders the whole corpus is replayed";

struct Options {
    topic: Option<String>,
    shows_all: bool,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

/// How many files ended how.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let files = match wanted(&options) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("the corpus cannot be read: {error}");
            return ExitCode::from(2);
        }
    };
    let mut out = io::stdout().lock();
    let conversations = match options.is_whole() {
        true => conversations(&mut out),
        false => Ok(true),
    };
    match conversations.and_then(|passed| Ok((passed, run(&files, &options, &mut out)?))) {
        Ok((passed, tally)) => ExitCode::from(u8::from(tally.failed > 0 || !passed)),
        // Nobody reads on.
        Err(_) => ExitCode::from(1),
    }
}

impl Options {
    /// Whether everything there is was asked for.
    fn is_whole(&self) -> bool {
        self.topic.is_none() && self.folders.is_empty() && self.files.is_empty()
    }
}

/// A line for each end of the recorded conversations of the control plane, and whether both are as recorded.
fn conversations(out: &mut impl Write) -> io::Result<bool> {
    let mut passed = true;
    for (what, report) in [("answers", netlink::check_answers()), ("requests", netlink::check_requests())] {
        match report {
            Ok(report) => {
                passed &= report.surprises.is_empty();
                let word = if report.surprises.is_empty() { "ok" } else { "FAIL" };
                writeln!(out, "{word} netlink {what}: {report}")?;
                for surprise in &report.surprises {
                    writeln!(out, "      {surprise}")?;
                }
            }
            Err(error) => {
                passed = false;
                writeln!(out, "FAIL netlink {what}: {error}")?;
            }
        }
    }
    Ok(passed)
}

/// The recordings asked for; all of the corpus if none was.
fn wanted(options: &Options) -> io::Result<Vec<PathBuf>> {
    if options.files.is_empty() && options.folders.is_empty() {
        return corpus::files();
    }
    let mut files = options.files.clone();
    for folder in &options.folders {
        files.extend(corpus::files_in(folder)?);
    }
    Ok(files)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { topic: None, shows_all: false, folders: Vec::new(), files: Vec::new() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--topic" => options.topic = Some(arguments.next().ok_or("--topic needs a name")?),
            "--all" => options.shows_all = true,
            "--dir" => options.folders.push(arguments.next().ok_or("--dir needs a folder")?.into()),
            "-h" | "--help" => return Err(USAGE.into()),
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}\n{USAGE}")),
            file => options.files.push(file.into()),
        }
    }
    Ok(options)
}

/// Replays the files of the wanted topic.
fn run(files: &[PathBuf], options: &Options, out: &mut impl Write) -> io::Result<Tally> {
    let mut tally = Tally::default();
    for file in files {
        match Golden::load(file) {
            Ok(golden) if options.topic.as_ref().is_some_and(|topic| *topic != golden.topic) => {}
            Ok(golden) => run_one(&golden, options, &mut tally, out)?,
            Err(error) => {
                tally.failed += 1;
                writeln!(out, "FAIL {}: {error}", name_of(file))?;
            }
        }
    }
    let Tally { passed, failed, skipped } = tally;
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    Ok(tally)
}

fn run_one(golden: &Golden, options: &Options, tally: &mut Tally, out: &mut impl Write) -> io::Result<()> {
    let name = &golden.name;
    if golden.steps.is_empty() {
        tally.skipped += 1;
        return writeln!(out, "skip {name}: it has no steps");
    }
    match replay(golden) {
        Ok(failures) if failures.is_empty() => {
            tally.passed += 1;
            writeln!(out, "ok {name}")
        }
        Ok(failures) => {
            tally.failed += 1;
            report(name, &failures, options.shows_all, out)
        }
        Err(error) => {
            tally.failed += 1;
            writeln!(out, "FAIL {name}: {error}")
        }
    }
}

fn report(name: &str, failures: &[Failure], shows_all: bool, out: &mut impl Write) -> io::Result<()> {
    let shown = if shows_all { failures } else { &failures[..1] };
    for (index, failure) in shown.iter().enumerate() {
        let start = if index == 0 { format!("FAIL {name}") } else { "   ".to_owned() };
        writeln!(out, "{start} step {}: {}", failure.step, failure.difference.summary)?;
        for line in &failure.difference.detail {
            writeln!(out, "      {line}")?;
        }
    }
    if shown.len() < failures.len() {
        writeln!(out, "    and {} more (--all shows them)", failures.len() - shown.len())?;
    }
    Ok(())
}

fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}
