//! Something the operating system refused: what was tried, what it said, and what helps, in one sentence.

use std::fmt;
use std::io;

use lvs_io_afpacket::AfPacketError;
use lvs_io_tun::TunError;

/// A refusal by the operating system. Displays as `cannot ATTEMPT: CAUSE; REMEDY`.
///
/// ```
/// use lvs_director::denied::Denied;
/// let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
/// let denied = Denied::new("open the door", cause).remedy("ask for the key");
/// assert_eq!(denied.to_string(), "cannot open the door: permission denied; ask for the key");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denied(String);

impl Denied {
    /// A refusal: `attempt` completes "cannot …".
    pub fn new(attempt: impl fmt::Display, cause: io::Error) -> Self {
        Self(format!("cannot {attempt}: {cause}"))
    }

    /// A refusal whose `error` says by itself what was tried.
    pub fn described(error: &io::Error) -> Self {
        Self(error.to_string())
    }

    /// A refusal in words that need no others.
    pub fn said(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }

    /// Adds what an operator can do about it.
    #[must_use]
    pub fn remedy(self, remedy: &str) -> Self {
        Self(format!("{}; {remedy}", self.0))
    }
}

impl From<TunError> for Denied {
    fn from(error: TunError) -> Self {
        Self(error.to_string())
    }
}

impl From<AfPacketError> for Denied {
    fn from(error: AfPacketError) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Denied {}
