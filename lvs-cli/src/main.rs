//! `lvsadm`: ipvsadm's command lines, and verbs of its own. Called as `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore` it is
//! that program. Reads its words and hands over to the library beside it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lvs_cli::ipvsadm::{self, Surroundings};
use lvs_cli::said::Said;
use lvs_cli::verbs::{Verbs, system_names};
use lvs_client::Running;
use lvs_client::socket;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    let before = |option: &str| [&[OsString::from(option)], &words[..]].concat();
    let said = match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("ipvsadm") => run_ipvsadm(&words, &Ours::default()),
        Some("ipvsadm-save") => run_ipvsadm(&before("-S"), &Ours::default()),
        Some("ipvsadm-restore") => run_ipvsadm(&before("-R"), &Ours::default()),
        _ => run(&program, words),
    };
    said.print()
}

/// What `lvsadm` takes beside ipvsadm's words.
#[derive(Default)]
struct Ours {
    control: Option<PathBuf>,
    json: bool,
    thresholds: bool,
}

/// `lvsadm`: a verb of its own, or ipvsadm's command line, which begins with an option or is empty.
fn run(program: &OsStr, words: Vec<OsString>) -> Said {
    let mut ours = Ours::default();
    let mut rest = Vec::new();
    let mut words = words.into_iter();
    let is_verb = |word: &OsStr| !word.as_encoded_bytes().starts_with(b"-") || word == "--help";
    while let Some(word) = words.next() {
        if rest.is_empty() && is_verb(&word) {
            return verb(program, &ours, word, words);
        }
        let joined = word.as_encoded_bytes().strip_prefix(CONTROL_IS).map(|path| OsStr::from_bytes(path).to_owned());
        match word.to_str() {
            Some("--json") => ours.json = true,
            Some("--with-thresholds") => ours.thresholds = true,
            // Without its value another lvsd than the one that is meant would hear the rest.
            _ if word == "--control" || joined.is_some() => match joined.or_else(|| words.next()) {
                Some(path) if !path.is_empty() => ours.control = Some(path.into()),
                _ => return Said::complaint(USAGE, "lvsadm: --control takes the path of a control socket"),
            },
            _ => rest.push(word),
        }
    }
    run_ipvsadm(&rest, &ours)
}

fn verb(program: &OsStr, ours: &Ours, word: OsString, words: impl Iterator<Item = OsString>) -> Said {
    let mut all = vec![program.to_owned()];
    if let Some(control) = &ours.control {
        all.extend(["--control".into(), control.as_os_str().to_owned()]);
    }
    if ours.json {
        all.push("--json".into());
    }
    all.push(word);
    all.extend(words);
    match Verbs::try_parse_from(all) {
        Ok(verbs) => verbs.run(),
        Err(error) if error.use_stderr() => Said { stderr: error.to_string(), status: USAGE, ..Said::default() },
        Err(help) => Said::text(help.to_string()),
    }
}

fn run_ipvsadm(words: &[OsString], ours: &Ours) -> Said {
    let mut texts = Vec::with_capacity(words.len());
    for word in words {
        match word.to_str() {
            Some(text) => texts.push(text),
            None => return Said::complaint(USAGE, format!("ipvsadm: {} is no text", word.display())),
        }
    }
    let mut surroundings = Surroundings {
        names: &system_names(),
        stdin: &mut std::io::stdin(),
        json: ours.json,
        thresholds: ours.thresholds,
    };
    ipvsadm::run(&texts, || Running::connect(&socket::path(ours.control.as_deref())), &mut surroundings)
}

const CONTROL_IS: &[u8] = b"--control=";
/// Exit status of a wrong command line.
const USAGE: u8 = 2;
