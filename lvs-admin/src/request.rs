//! What an ipvsadm command line asks for, and how it is refused when it asks for nothing sensible.

use std::net::IpAddr;

use lvs_core::{Command, ServiceKey};

/// What one ipvsadm command line asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Change the configuration: `-A -E -D -C -a -e -d -Z --set`.
    Apply(Command),
    /// Read rules from standard input and do each: `-R`. See [`crate::restore`].
    Restore,
    /// Print something: `-L`. See [`crate::list`] and its neighbours.
    List(ListOptions),
    /// Print the rules: `-S`. See [`crate::save`].
    Save {
        /// Numbers instead of names: `-n`.
        numeric: bool,
    },
    /// Start connection synchronisation: `--start-daemon`.
    StartDaemon(SyncDaemon),
    /// Stop connection synchronisation: `--stop-daemon`.
    StopDaemon(SyncRole),
    /// Print the usage: `-h`. See [`crate::usage`].
    Help,
    /// Print the version: `--version`. See [`crate::version`].
    Version,
}

impl Request {
    /// Why this is no rule to read from a file, to be said to whoever wrote it; `None` for a change of configuration.
    pub const fn why_no_rule(&self) -> Option<&'static str> {
        match self {
            Self::Apply(_) => None,
            Self::StartDaemon(_) | Self::StopDaemon(_) => {
                Some("there is no connection synchronisation to start or stop")
            }
            Self::Restore | Self::List(_) | Self::Save { .. } | Self::Help | Self::Version => {
                Some("it changes nothing")
            }
        }
    }
}

/// What to list and how: the options of `-L`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListOptions {
    /// Which text.
    pub listing: Listing,
    /// Only this service; the first header line is then left out, as ipvsadm does.
    pub service: Option<ServiceKey>,
    /// Numbers instead of names: `-n`.
    pub numeric: bool,
    /// Every digit of a counter instead of a K, M, G or T: `--exact`.
    pub exact: bool,
    /// In the order given instead of sorted: `--nosort`.
    pub unsorted: bool,
}

/// Which text `-L` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// Services and servers. See [`crate::list`].
    Services(Columns),
    /// Connections: `-c`. See [`crate::list_connections`].
    Connections {
        /// With persistence engine data: `--persistent-conn`.
        persistence_data: bool,
    },
    /// The timeouts: `--timeout`. See [`crate::list_timeouts`].
    Timeouts,
    /// The synchronisation daemons: `--daemon`. See [`crate::list_daemons`].
    Daemons,
}

impl Default for Listing {
    fn default() -> Self {
        Self::Services(Columns::default())
    }
}

/// What a listing of services shows of each server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Columns {
    /// Forward method, weight, connections.
    #[default]
    Load,
    /// Counters as last published: `--stats`.
    Statistics,
    /// Rates per second: `--rate`.
    Rates,
    /// Thresholds and connections: `--thresholds`.
    Thresholds,
    /// Persistence templates and connections: `--persistent-conn`.
    PersistentConnections,
    /// As [`Columns::Load`], with the tunnel's kind: `--tun-info`.
    Tunnels,
}

/// Sender or receiver of connection synchronisation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncRole {
    /// Sends.
    Master,
    /// Receives.
    Backup,
}

/// A synchronisation daemon's configuration: `--start-daemon`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncDaemon {
    /// Sends or receives.
    pub role: SyncRole,
    /// Interface, at most 15 bytes. `--mcast-interface`, default `eth0`.
    pub interface: String,
    /// 0 to 255; a backup with 0 takes every sender's. `--syncid`, default 0.
    pub sync_id: u8,
    /// Longest message in bytes, 1 to 65507; `None` follows from the interface's MTU. `--sync-maxlen`.
    pub max_len: Option<u16>,
    /// Multicast group. `--mcast-group`, default 224.0.0.81.
    pub group: IpAddr,
    /// UDP port. `--mcast-port`, default 8848.
    pub port: u16,
    /// TTL of the datagrams. `--mcast-ttl`, default 1.
    pub ttl: u8,
}

/// A command line ipvsadm refuses before it asks the kernel.
///
/// ```
/// let error = lvs_admin::parse(&["-A", "-t", "192.0.2.80:80", "-w", "1"]).unwrap_err();
/// assert_eq!(error.to_string(), "Illegal 'weight' option with the 'add-service' command");
/// assert_eq!(error.exit_status, 2);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageError {
    /// ipvsadm's words, for standard error, without the last newline.
    pub message: String,
    /// 255 where options cannot be told apart, 2 where they make no sense.
    pub exit_status: u8,
}

impl UsageError {
    /// One of ipvsadm's own checks.
    pub(crate) fn check(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_status: 2 }
    }

    /// popt's complaint about `word`.
    pub(crate) fn option(word: &str, complaint: &str) -> Self {
        Self { message: format!("{word}: {complaint}"), exit_status: 255 }
    }

    /// The arguments do not begin with a command.
    pub(crate) fn no_command() -> Self {
        Self { message: NO_COMMAND.to_owned(), exit_status: 255 }
    }

    /// Whether the arguments do not begin with a command. ipvsadm's message then points to its help, which is of no use
    /// where no command line was typed.
    ///
    /// ```
    /// assert!(lvs_admin::parse(&["gibberish"]).unwrap_err().is_no_command());
    /// ```
    pub fn is_no_command(&self) -> bool {
        self.message == NO_COMMAND
    }
}

const NO_COMMAND: &str = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.";

impl core::fmt::Display for UsageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for UsageError {}
