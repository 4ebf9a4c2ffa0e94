//! What would have to be done so that the director has what a file of rules says, and what of its connections each command
//! touches; and many commands carried out as one. Settings, and timeouts that the file says nothing of, stay as they are.

use lvs_admin::{Configured, difference};
use lvs_core::service::OnServerGone;
use lvs_core::{Command, Director, Instant, Seed, ServerKey, ServiceKey};
use lvs_genl::server::{Refusal, ServerCursor, Table};

use super::tables::{ROWS, Tables};
use crate::rules;

/// A list of commands that leads from what runs to what a file says.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// The commands, in the order in which they are carried out.
    pub commands: Vec<(Command, Touched)>,
    /// What was running when the plan was made.
    pub generation: u64,
}

/// What becomes of connections that a command concerns, as many as there are now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// They go to other servers with their next packet.
    pub moved: u64,
    /// They end, and who sends next is told.
    pub reset: u64,
    /// Their packets are dropped until they have timed out.
    pub dropped: u64,
    /// They go on as they are.
    pub left: u64,
}

/// A line of a file that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongLine {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub complaint: String,
}

impl Tables {
    /// What leads to the rules in `text`.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn plan(&mut self, text: &str) -> Result<Plan, WrongLine> {
        let before = Configured::of(&self.master);
        let mut wanted = Director::new(self.config.clone(), Seed::new(0));
        let timeouts = self.master.timeouts();
        let (tcp, tcp_fin, udp) = (Some(timeouts.tcp), Some(timeouts.tcp_fin), Some(timeouts.udp));
        for command in [Command::SetSettings(before.settings.clone()), Command::SetTimeouts { tcp, tcp_fin, udp }] {
            // The master has them.
            let _ = wanted.apply(Instant::ZERO, &command);
        }
        rules::load(&mut wanted, text).map_err(|error| WrongLine { line: error.line, complaint: error.to_string() })?;
        let commands = difference(&before, &Configured::of(&wanted));
        let commands = commands.into_iter().map(|command| {
            let touched = self.touched(&command);
            (command, touched)
        });
        Ok(Plan { commands: commands.collect(), generation: self.generation })
    }

    /// Carries commands out, all of them or none.
    ///
    /// # Errors
    /// Why one is refused, with its place; nothing has changed.
    pub fn apply_together(&mut self, commands: &[Command]) -> Result<(), Refusal> {
        self.begin()?;
        for (index, command) in commands.iter().enumerate() {
            if let Err(refusal) = self.apply(command) {
                self.abort();
                return Err(Refusal { at: u32::try_from(index).ok(), ..refusal });
            }
        }
        self.commit()
    }

    fn touched(&mut self, command: &Command) -> Touched {
        match command {
            Command::DeleteService(key) => Touched { dropped: self.open(key, None), ..Touched::default() },
            Command::DeleteServer(key, server) => {
                let open = self.open(key, Some(server));
                // What goes is carried out before the service is told otherwise.
                match self.master.service_config(key).map(|config| config.on_server_gone).unwrap_or_default() {
                    OnServerGone::Reschedule => Touched { moved: open, ..Touched::default() },
                    OnServerGone::Reset | OnServerGone::IcmpUnreachable => {
                        Touched { reset: open, ..Touched::default() }
                    }
                    OnServerGone::Default | OnServerGone::Drop => Touched { dropped: open, ..Touched::default() },
                }
            }
            Command::EditService(key, _) => Touched { left: self.open(key, None), ..Touched::default() },
            Command::EditServer(key, config) => {
                Touched { left: self.open(key, Some(&config.key)), ..Touched::default() }
            }
            _ => Touched::default(),
        }
    }

    /// Connections of a service, or of one of its servers.
    fn open(&mut self, key: &ServiceKey, server: Option<&ServerKey>) -> u64 {
        let (mut cursor, mut open) = (ServerCursor::default(), 0);
        loop {
            let servers = self.servers(key, &cursor, ROWS);
            if servers.is_empty() {
                return open;
            }
            cursor.advance(&servers);
            let wanted = servers.iter().filter(|view| server.is_none_or(|server| view.config.key == *server));
            open += wanted
                .map(|view| u64::from(view.active_connections) + u64::from(view.inactive_connections))
                .sum::<u64>();
        }
    }
}
