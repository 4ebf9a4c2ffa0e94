//! What a session asks of the tables behind it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use lvs_core::service::ServicePlace;
use lvs_core::service::stats::Statistics;
use lvs_core::settings::SetError;
use lvs_core::view::{ConnectionView, ServerView, ServiceView, TimeoutsView};
use lvs_core::{Command, ControlError, ServerConfig, ServerKey, ServiceConfig, ServiceKey};

use crate::errno::Errno;
use crate::ipvs::{DaemonMessage, DaemonRole};
use crate::lvs::State;

/// Why a request is refused: the number every program understands, and where there is more to say, a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The number.
    pub errno: Errno,
    /// The sentence, for programs that know our additions. The kernel says none.
    pub text: Option<String>,
    /// Of a transaction: which of its requests this is about, from 0.
    pub at: Option<u32>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, text: None, at: None }
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let text = match &error {
            ControlError::Invalid(what) | ControlError::OutOfRange(what) | ControlError::TableFull(what) => {
                alloc::format!("{error}: {what}")
            }
            _ => error.to_string(),
        };
        Self { errno: Errno::from(&error), text: Some(text), at: None }
    }
}

impl From<SetError> for Refusal {
    fn from(error: SetError) -> Self {
        let errno = match error {
            SetError::UnknownName(_) => Errno::NO_ENTRY,
            SetError::WrongValue { .. } => Errno::INVALID,
        };
        Self { errno, text: Some(error.to_string()), at: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.errno.fmt(f),
        }
    }
}

impl core::error::Error for Refusal {}

/// How far a listing of servers is: behind `last` where it is still there, else at `position`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerCursor {
    /// How many were listed.
    pub position: usize,
    /// The last one that was listed.
    pub last: Option<ServerKey>,
}

impl ServerCursor {
    /// Where `servers` goes on.
    pub fn index(&self, servers: &[ServerView]) -> usize {
        let last = self.last.and_then(|last| servers.iter().position(|server| server.config.key == last));
        last.map_or(self.position.min(servers.len()), |index| index + 1)
    }

    /// Moves on behind `listed`.
    pub fn advance(&mut self, listed: &[ServerView]) {
        self.position += listed.len();
        if let Some(server) = listed.last() {
            self.last = Some(server.config.key);
        }
    }
}

/// The tables behind a session: a director, or many that act as one.
///
/// Listings are asked for in pieces, so that no answer holds the tables for long and none has to be kept whole. Between
/// two pieces anything may change: a row is right as of its piece.
pub trait Table {
    /// Carries a command out, or changes nothing.
    ///
    /// # Errors
    /// Why it was refused.
    fn apply(&mut self, command: &Command) -> Result<(), Refusal>;

    /// At most `most` services behind `after`, in the order of their places, which is what stock programs sort; none at
    /// the end. Their servers may be left out.
    fn services(&mut self, after: Option<&ServicePlace>, most: usize) -> Vec<ServiceView>;

    /// One service. Its servers may be left out.
    fn service(&mut self, key: &ServiceKey) -> Option<ServiceView>;

    /// At most `most` servers of a service from `from` on, newest first; none at the end, or where the service is not
    /// there.
    fn servers(&mut self, service: &ServiceKey, from: &ServerCursor, most: usize) -> Vec<ServerView>;

    /// A service's configuration.
    fn service_config(&mut self, key: &ServiceKey) -> Option<ServiceConfig> {
        self.service(key).map(|view| view.config)
    }

    /// One server's configuration.
    fn server(&mut self, service: &ServiceKey, server: &ServerKey) -> Option<ServerConfig>;

    /// Some connections and templates from `cursor` on, which is 0 at first, and the next cursor; `None` at the end.
    /// Looks at `most` places at most: a piece may be empty though more follow.
    fn connections(&mut self, cursor: u64, most: usize) -> (Vec<ConnectionView>, Option<u64>);

    /// The counters of everything together.
    fn statistics(&mut self) -> Statistics;

    /// The timeouts.
    fn timeouts(&mut self) -> TimeoutsView;

    /// The synchronisation daemons, the master first, every value filled in.
    fn daemons(&mut self) -> Vec<DaemonMessage>;

    /// Starts a synchronisation daemon.
    ///
    /// # Errors
    /// Why it was refused: [`SyncDaemons::start`](super::SyncDaemons::start) has the kernel's reasons.
    fn start_daemon(&mut self, daemon: &DaemonMessage) -> Result<(), Refusal>;

    /// Stops a synchronisation daemon.
    ///
    /// # Errors
    /// [`Errno::NO_SUCH`] if none of this role runs.
    fn stop_daemon(&mut self, role: DaemonRole) -> Result<(), Refusal>;

    /// Every setting with its value, by name.
    fn settings(&mut self) -> Vec<(String, String)>;

    /// Sets a setting by its name.
    ///
    /// # Errors
    /// [`Errno::NO_ENTRY`] if there is none of this name, [`Errno::INVALID`] for another value than it takes.
    fn set_setting(&mut self, name: &str, value: &str) -> Result<(), Refusal>;

    /// Whether packets flow, and how full the tables are.
    fn state(&mut self) -> State;

    /// From now on commands are tried one after the other, and none counts until [`Self::commit`].
    ///
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`] where there are no transactions, which is the default.
    fn begin(&mut self) -> Result<(), Refusal> {
        Err(Errno::NOT_SUPPORTED.into())
    }

    /// Carries out what was tried since [`Self::begin`].
    ///
    /// # Errors
    /// Why none of it was carried out.
    fn commit(&mut self) -> Result<(), Refusal> {
        Err(Errno::NOT_SUPPORTED.into())
    }

    /// Forgets what was tried since [`Self::begin`].
    fn abort(&mut self) {}

    /// The answer to a request with this identifier, if it was carried out before: a program whose connection broke
    /// sends it again. The default remembers nothing.
    fn first_answer(&mut self, _request_id: &[u8; 16]) -> Option<Result<(), Refusal>> {
        None
    }

    /// Remembers an answer for [`Table::first_answer`].
    fn remember(&mut self, _request_id: &[u8; 16], _answer: &Result<(), Refusal>) {}
}
