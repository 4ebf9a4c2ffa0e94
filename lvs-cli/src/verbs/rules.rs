//! Files of rules: read whole before anything is done.

use std::fs;
use std::io::Read;
use std::path::Path;

use lvs_admin::{Names, Request};
use lvs_core::Command;

use super::FAILED;
use crate::said::Said;
use lvs_client::{Running, Trouble};

/// `lvsadm check`: every wrong line with its number; nothing is applied.
pub fn check(file: &Path) -> Said {
    let text = match read(file) {
        Ok(text) => text,
        Err(said) => return said,
    };
    match commands(&text, &system_names()) {
        Ok(commands) => Said::text(format!("{}: {} rules, none wrong\n", file.display(), commands.len())),
        Err(wrong) => Said { stderr: wrong, status: FAILED, ..Said::default() },
    }
}

/// `lvsadm restore`: line by line, if every line can be read.
pub fn restore(file: &Path, running: &mut Running) -> Result<Said, Trouble> {
    let text = match read(file) {
        Ok(text) => text,
        Err(said) => return Ok(said),
    };
    let commands = match commands(&text, &system_names()) {
        Ok(commands) => commands,
        Err(wrong) => return Ok(Said { stderr: wrong, status: FAILED, ..Said::default() }),
    };
    let mut said = Said::default();
    running.apply_all(commands.iter().map(|(_, command)| command), |index, outcome| {
        if let Err(refusal) = outcome {
            said.stderr.push_str(&format!("line {}: {refusal}\n", commands[index].0));
            said.status = FAILED;
        }
    })?;
    Ok(said)
}

/// `lvsadm restore --atomic`: every line or none.
pub fn restore_together(file: &Path, running: &mut Running) -> Result<Said, Trouble> {
    let text = match read(file) {
        Ok(text) => text,
        Err(said) => return Ok(said),
    };
    let lines = match commands(&text, &system_names()) {
        Ok(lines) => lines,
        Err(wrong) => return Ok(Said { stderr: wrong, status: FAILED, ..Said::default() }),
    };
    let commands: Vec<Command> = lines.iter().map(|(_, command)| command.clone()).collect();
    let Err(trouble) = running.apply_together(&commands) else { return Ok(Said::default()) };
    let line = match &trouble {
        Trouble::Refused(refusal) => refusal.at.and_then(|at| lines.get(at as usize)).map(|(line, _)| *line),
        _ => None,
    };
    match (trouble, line) {
        (Trouble::Refused(refusal), Some(line)) => {
            let text = text.lines().nth(line - 1).unwrap_or_default().trim();
            Ok(Said::complaint(FAILED, format!("line {line}: {refusal}; nothing is applied\n  {text}")))
        }
        (trouble, _) => Err(trouble),
    }
}

/// The machine's own names: as ipvsadm does, without asking a name server.
pub fn system_names() -> Names {
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    Names::from_files(&file("/etc/services"), &file("/etc/hosts"))
}

/// The commands with the numbers of their lines, or a line of complaint for every wrong one.
fn commands(text: &str, names: &Names) -> Result<Vec<(usize, Command)>, String> {
    let (mut commands, mut wrong) = (Vec::new(), String::new());
    for (index, line) in text.lines().enumerate() {
        let complaint = match lvs_admin::restore(line, names).next() {
            None => continue,
            Some(Ok(Request::Apply(command))) => {
                commands.push((index + 1, command));
                continue;
            }
            Some(Ok(_)) => "this does not change any rules".to_owned(),
            Some(Err(error)) => error.error.to_string(),
        };
        wrong.push_str(&format!("line {}: {complaint}\n  {}\n", index + 1, line.trim()));
    }
    if wrong.is_empty() { Ok(commands) } else { Err(wrong) }
}

fn read(file: &Path) -> Result<String, Said> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    text.map_err(|error| Said::complaint(FAILED, format!("lvsadm: cannot read {}: {error}", file.display())))
}
