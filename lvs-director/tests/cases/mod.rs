//! A test runner for cases that each need a process of their own: what is printed looks like the usual runner's, with
//! one difference: a case can find out that it cannot run here, and is then counted as ignored, with the reason.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

/// A case: its name, and what it does.
pub struct Case {
    pub name: String,
    /// Run only if asked for, by `--ignored` or `--include-ignored`.
    pub is_extra: bool,
    /// Fails by a panic; an error says what was denied.
    pub run: Box<dyn Fn() -> Result<(), Box<dyn Display>>>,
}

/// What every test program's `main` does with its words: `--list` names the cases; `--case NAME` runs one here;
/// anything else runs those whose names contain a given word, `at_once` at a time, each in a process that `prepare` has
/// seen. `extras` says who runs the extra ones.
pub fn main(cases: &[Case], at_once: usize, extras: &str, prepare: impl Fn(&mut Command) + Sync) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| words.iter().any(|word| word == option);
    if has("--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    if let [option, name] = words.as_slice()
        && option == "--case"
    {
        return run_here(cases.iter().find(|case| case.name == *name).expect("one of the cases"));
    }
    let filters: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let is_named = |case: &&Case| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| if has("--exact") { case.name == **filter } else { case.name.contains(*filter) })
    };
    let is_wanted = |case: &&Case| has("--include-ignored") || case.is_extra == has("--ignored");
    let (chosen, others): (Vec<_>, Vec<_>) = cases.iter().filter(is_named).partition(is_wanted);
    let began = Instant::now();
    println!("\nrunning {} tests", chosen.len());
    let names: Vec<&str> = chosen.iter().map(|case| case.name.as_str()).collect();
    let (waiting, counts) = (Mutex::new(names.into_iter()), Mutex::new(Counts::default()));
    let next = || locked(&waiting).next();
    let work = || {
        while let Some(name) = next() {
            let ended = run_apart(name, &prepare);
            locked(&counts).add(name, ended);
        }
    };
    thread::scope(|scope| (0..at_once).for_each(|_| _ = scope.spawn(work)));
    if others.iter().any(|case| case.is_extra) {
        println!("and {} more, which are {extras}", others.len());
    }
    let Counts { passed, failed, ignored } = *locked(&counts);
    let (verdict, left_out) = (if failed == 0 { "ok" } else { "FAILED" }, cases.len() - passed - failed - ignored);
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {left_out} filtered \
         out; finished in {:.2}s\n",
        began.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics with it")
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    fn add(&mut self, name: &str, ended: Ended) {
        match ended {
            Ended::Well => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Ended::Denied(reason) => {
                self.ignored += 1;
                println!("test {name} ... ignored, {reason}");
            }
            Ended::Badly(said) => {
                self.failed += 1;
                println!("test {name} ... FAILED\n{said}");
            }
        }
    }
}

enum Ended {
    Well,
    Denied(String),
    Badly(String),
}

fn run_apart(name: &str, prepare: impl Fn(&mut Command)) -> Ended {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--case", name]);
    prepare(&mut command);
    let output = match command.output() {
        Ok(output) => output,
        Err(denied) => return Ended::Denied(format!("new namespaces cannot be made: {denied}")),
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Ended::Badly(format!("{}\n{said}", output.status));
    }
    match said.lines().find_map(|line| line.strip_prefix(SKIPPED)) {
        Some(reason) => Ended::Denied(reason.to_owned()),
        None => Ended::Well,
    }
}

fn run_here(case: &Case) -> ExitCode {
    if let Err(denied) = (case.run)() {
        println!("{SKIPPED}{denied}");
    }
    // Threads that wait for ever are no reason to stay.
    let _ = io::stdout().flush();
    std::process::exit(0)
}

const SKIPPED: &str = "skipped: ";
