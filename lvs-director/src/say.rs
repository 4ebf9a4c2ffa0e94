//! What `lvsd` says: results on standard output, all else on standard error, in the way [`crate::log`] was told. A reader
//! that has gone away (`lvsd demo | head`) is no reason to fail or to panic; a result that is lost otherwise (a full disk)
//! is.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Prints a result to standard output, and returns the exit status that follows from that: success, unless standard
/// output takes nothing though somebody reads it, which is said on standard error.
pub fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            self::error(format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// As [`print()`], but a standard output that takes nothing is waited for `patience` only.
pub fn print_for(text: String, patience: Duration) -> ExitCode {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(print(&text)));
    wait.recv_timeout(patience).unwrap_or_else(|_| {
        self::error("standard output takes nothing: what was to be printed is lost");
        ExitCode::FAILURE
    })
}

/// Says what goes on.
pub fn note(text: impl fmt::Display) {
    tracing::info!("{text}");
}

/// Says what may not be as it was meant.
pub fn warning(text: impl fmt::Display) {
    tracing::warn!("{text}");
}

/// Says why something was not done.
pub fn error(text: impl fmt::Display) {
    tracing::error!("{text}");
}
