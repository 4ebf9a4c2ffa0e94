//! `lvsadm`: ipvsadm's command lines, and verbs of its own. Called as `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore` it is
//! that program. Reads its words and hands over to the library beside it.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use lvs_cli::ipvsadm::{self, Surroundings};
use lvs_cli::said::Said;
use lvs_cli::verbs::{Verbs, system_names};
use lvs_client::Running;
use lvs_client::socket;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let said = match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("ipvsadm") => run_ipvsadm(&words, &Ours::default()),
        Some("ipvsadm-save") => run_ipvsadm(&[&["-S".to_owned()], &words[..]].concat(), &Ours::default()),
        Some("ipvsadm-restore") => run_ipvsadm(&[&["-R".to_owned()], &words[..]].concat(), &Ours::default()),
        _ => run(&program, words),
    };
    said.print()
}

/// What `lvsadm` takes beside ipvsadm's words.
#[derive(Default)]
struct Ours {
    control: Option<std::path::PathBuf>,
    json: bool,
    thresholds: bool,
}

/// `lvsadm`: a verb of its own, or ipvsadm's command line, which begins with an option or is empty.
fn run(program: &str, words: Vec<String>) -> Said {
    let mut ours = Ours::default();
    let mut rest = Vec::new();
    let mut words = words.into_iter().peekable();
    let is_verb = |word: &String| !word.starts_with('-') || word == "--help";
    while let Some(word) = words.next() {
        if rest.is_empty() && is_verb(&word) {
            return verb(program, &ours, word, words);
        }
        match word.as_str() {
            "--json" => ours.json = true,
            "--with-thresholds" => ours.thresholds = true,
            "--control" => ours.control = words.next().map(Into::into),
            _ => rest.push(word),
        }
    }
    run_ipvsadm(&rest, &ours)
}

fn verb(program: &str, ours: &Ours, word: String, words: impl Iterator<Item = String>) -> Said {
    let mut all = vec![program.to_owned()];
    if let Some(control) = &ours.control {
        all.extend(["--control".to_owned(), control.display().to_string()]);
    }
    if ours.json {
        all.push("--json".to_owned());
    }
    all.push(word);
    all.extend(words);
    match Verbs::try_parse_from(all) {
        Ok(verbs) => verbs.run(),
        Err(error) if error.use_stderr() => Said { stderr: error.to_string(), status: 2, ..Said::default() },
        Err(help) => Said::text(help.to_string()),
    }
}

fn run_ipvsadm(words: &[String], ours: &Ours) -> Said {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut surroundings = Surroundings {
        names: &system_names(),
        stdin: &mut std::io::stdin(),
        json: ours.json,
        thresholds: ours.thresholds,
    };
    ipvsadm::run(&words, || Running::connect(&socket::path(ours.control.as_deref())), &mut surroundings)
}
