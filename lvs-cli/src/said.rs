//! What a command prints and how it ends: collected first, so that tests read it and a reader that goes away is no panic.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Standard output, standard error, exit status.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit status.
    pub status: u8,
}

impl Said {
    /// A text, and success.
    pub fn text(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    /// A complaint.
    pub fn complaint(status: u8, complaint: impl Display) -> Self {
        Self { stderr: format!("{complaint}\n"), status, ..Self::default() }
    }

    /// Goes on with what another said: its status is the one that counts, as in `ipvsadm -R`.
    pub fn then(&mut self, next: Self) {
        self.stdout.push_str(&next.stdout);
        self.stderr.push_str(&next.stderr);
        self.status = next.status;
    }

    /// Prints it. A reader that has gone away is no failure; a full disk is (status 74, `EX_IOERR`).
    pub fn print(&self) -> ExitCode {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(self.stdout.as_bytes()).and_then(|()| stdout.flush());
        let _ = io::stderr().lock().write_all(self.stderr.as_bytes());
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = writeln!(io::stderr(), "lvsadm: cannot write: {error}");
                ExitCode::from(EX_IOERR)
            }
            _ => ExitCode::from(self.status),
        }
    }
}

/// sysexits(3).
const EX_IOERR: u8 = 74;
