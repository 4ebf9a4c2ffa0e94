//! Rules as `ipvsadm-save` writes them, carried out on a director that has none yet, line by line.
//! Whatever is wrong is told in ipvsadm's words, with the line it stands in.

use std::fmt;
use std::fs;
use std::path::Path;

use lvs_admin::{Names, Request};
use lvs_core::{Director, Instant};

/// A line that could not be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    /// Its number, from 1.
    pub line: usize,
    /// The line itself.
    pub text: String,
    /// What is wrong with it, in ipvsadm's words.
    pub complaint: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}\n  {}", self.line, self.complaint, self.text)
    }
}

impl std::error::Error for RuleError {}

const NO_RULE: &str = "no rule begins like this; one begins with -A for a service or -a for a server, as ipvsadm-save \
                       writes them";

/// What a file of rules is called in complaints, and what it holds; without one, nothing.
///
/// # Errors
/// A sentence: it cannot be read.
pub fn read(path: Option<&Path>) -> Result<(String, String), String> {
    let Some(path) = path else { return Ok(("no rules".to_owned(), String::new())) };
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// Has `director` carry out every line of `text`. Blank lines are skipped; there are no comments, as in ipvsadm.
///
/// # Errors
/// The first line that is no command or that the director refuses. Lines before it have been carried out.
///
/// ```
/// use lvs_core::{Director, DirectorConfig, Seed};
///
/// let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
/// let error = lvs_director::rules::load(&mut director, "\n-A -t 192.0.2.80 -s wrr\n").unwrap_err();
/// assert_eq!(error.line, 2);
/// ```
pub fn load(director: &mut Director, text: &str) -> Result<(), RuleError> {
    // As ipvsadm does, service and host names are looked up in the machine's own files; there is no DNS.
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    let names = Names::from_files(&file("/etc/services"), &file("/etc/hosts"));
    for (index, line) in text.lines().enumerate() {
        let wrong = |complaint| RuleError { line: index + 1, text: line.trim().to_owned(), complaint };
        if line.trim_start().starts_with('#') {
            return Err(wrong("comments are not understood, as in ipvsadm: take the line out".to_owned()));
        }
        match lvs_admin::restore(line, &names).next() {
            None => {}
            Some(Ok(Request::Apply(command))) => {
                director.apply(Instant::ZERO, &command).map_err(|error| wrong(error.to_string()))?;
            }
            Some(Ok(Request::StartDaemon(_) | Request::StopDaemon(_))) => {
                return Err(wrong("lvsd does not synchronise connections: take the line out".to_owned()));
            }
            Some(Ok(_)) => return Err(wrong("this does not change any rules".to_owned())),
            Some(Err(error)) if error.error.is_no_command() => {
                return Err(wrong(NO_RULE.to_owned()));
            }
            Some(Err(error)) => return Err(wrong(error.error.message)),
        }
    }
    Ok(())
}
