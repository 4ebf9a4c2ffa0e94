//! Something the operating system refused: what was tried, what it said, and what helps.
//! Decides the remedies; every message an operator sees about permissions comes from here.

use std::fmt;
use std::io;

/// A refusal by the operating system, with a remedy.
#[derive(Debug)]
pub struct Denied {
    /// What was tried: completes "cannot …".
    pub attempt: String,
    /// What the system said.
    pub cause: io::Error,
    /// What an operator can do about it, in a sentence; empty if the cause says it all.
    pub remedy: String,
}

impl Denied {
    /// A refusal without a remedy of its own.
    pub fn new(attempt: impl Into<String>, cause: io::Error) -> Self {
        Self { attempt: attempt.into(), cause, remedy: String::new() }
    }

    /// Adds what helps.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.attempt, self.cause)?;
        if !self.remedy.is_empty() {
            write!(f, "\n{}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Denied {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}
