//! A running director, asked over its control socket. Requests go out some at a time before the first is answered;
//! answers come in order.

mod undrain;

use std::fmt;
use std::path::Path;

use lvs_admin::{SyncDaemon, SyncRole};
use lvs_core::service::stats::Statistics;
use lvs_core::view::{ConnectionView, ServiceView, TimeoutsView};
use lvs_core::{Command, ServiceKey};
use lvs_genl::Errno;
use lvs_genl::client::{Client, Malformed, Reply};
use lvs_genl::convert::Request;
use lvs_genl::ipvs::{self, DaemonMessage, command};
use lvs_genl::lvs::{self, State};
use lvs_genl::server::Refusal;

use crate::daemon::{asked, shown, state};
use crate::socket::{Socket, Unreachable};

/// A connection to a running director.
#[derive(Debug)]
pub struct Running {
    socket: Socket,
    client: Client,
}

/// Why something could not be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nobody answers.
    Unreachable(Unreachable),
    /// An answer cannot be read.
    Malformed(Malformed),
    /// The director refused, and changed nothing.
    Refused(Refusal),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(unreachable) => unreachable.fmt(f),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<Unreachable> for Trouble {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unreachable(unreachable)
    }
}

impl From<Malformed> for Trouble {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Running {
    /// Connects and learns the families' numbers.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn connect(path: &Path) -> Result<Self, Trouble> {
        let mut running = Self { socket: Socket::connect(path)?, client: Client::new(std::process::id()) };
        for family in [ipvs::NAME, lvs::NAME] {
            let question = running.client.look_up(family);
            let mut learned = Vec::new();
            running.ask(&question, |reply| learned.push(reply))?;
            learned.iter().for_each(|reply| running.client.learn(reply));
        }
        Ok(running)
    }

    /// Asks for the version, as ipvsadm does before it reads its arguments; says whether this user may ask at all.
    ///
    /// # Errors
    /// [`Errno::NOT_PERMITTED`] for one who may not.
    pub fn check(&mut self) -> Result<(), Trouble> {
        let question = self.client.request(&Request::new(command::GET_INFO));
        self.ask(&question, drop)
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// The director refuses it, and nothing has changed.
    pub fn apply(&mut self, command: &Command) -> Result<(), Trouble> {
        let request = self.request(command)?;
        self.ask(&request, drop)
    }

    /// Carries commands out in order, each whatever became of those before it. `each` hears what became of every one.
    ///
    /// # Errors
    /// The director went away; how many were carried out is not known then.
    pub fn apply_all<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a Command>,
        mut each: impl FnMut(usize, Result<(), Refusal>),
    ) -> Result<(), Trouble> {
        let mut commands = commands.into_iter();
        self.pipeline(
            |running| commands.next().map(|command| running.request(command)).transpose(),
            |index, answer| match answer {
                Answer::Ended => each(index, Ok(())),
                Answer::Refused(refusal) => each(index, Err(refusal)),
                Answer::Told(_) => {}
            },
        )
    }

    /// Carries commands out in order, all of them or none.
    ///
    /// # Errors
    /// One is refused, and nothing has changed: [`Refusal::at`] says which. Or the director went away.
    pub fn apply_together(&mut self, commands: &[Command]) -> Result<(), Trouble> {
        self.transaction(lvs::command::BEGIN)?;
        let mut refused = None;
        self.apply_all(commands, |index, outcome| {
            if let (Err(refusal), None) = (outcome, &refused) {
                refused = Some(Refusal { at: u32::try_from(index).ok(), ..refusal });
            }
        })?;
        match refused {
            None => self.transaction(lvs::command::COMMIT),
            Some(refusal) => {
                self.transaction(lvs::command::ABORT)?;
                Err(Trouble::Refused(refusal))
            }
        }
    }

    fn transaction(&mut self, command: u8) -> Result<(), Trouble> {
        let request = self.client.lvs_request(&lvs::Request::new(command));
        self.ask(&request, drop)
    }

    /// Every service, in the order in which the director tells them; without servers.
    ///
    /// # Errors
    /// The director refuses or went away.
    pub fn services(&mut self) -> Result<Vec<ServiceView>, Trouble> {
        let question = self.client.request(&Request::dump(command::GET_SERVICE));
        let mut services = Vec::new();
        self.ask(&question, |reply| {
            if let Reply::Service(service) = reply {
                services.push(service);
            }
        })?;
        // The director does not say when they were added: newest first, as far as it matters.
        for (added, service) in services.iter_mut().rev().enumerate() {
            service.added = added as u64;
        }
        Ok(services)
    }

    /// One service, without servers.
    ///
    /// # Errors
    /// [`Errno::NO_SUCH`] if it is not there.
    pub fn service(&mut self, key: &ServiceKey) -> Result<ServiceView, Trouble> {
        let question = self.client.request(&Request::get_service(key));
        let mut found = None;
        self.ask(&question, |reply| {
            if let Reply::Service(service) = reply {
                found = Some(service);
            }
        })?;
        found.ok_or(Trouble::Malformed(Malformed))
    }

    /// Fills in the servers of services, in the services' order.
    ///
    /// # Errors
    /// The director refuses or went away.
    pub fn fill_servers(&mut self, services: &mut [ServiceView]) -> Result<(), Trouble> {
        let keys: Vec<ServiceKey> = services.iter().map(|service| service.key).collect();
        let mut keys = keys.iter();
        self.pipeline(
            |running| Ok(keys.next().map(|key| running.client.request(&Request::get_servers(key)))),
            |index, answer| {
                if let (Answer::Told(reply), Some(service)) = (answer, services.get_mut(index))
                    && let Reply::Server(server) = *reply
                {
                    service.servers.push(server);
                }
            },
        )
    }

    /// Hands every connection and persistence template to `each`.
    ///
    /// # Errors
    /// The director refuses or went away.
    pub fn connections(&mut self, mut each: impl FnMut(ConnectionView)) -> Result<(), Trouble> {
        let question = self.client.lvs_request(&lvs::Request::dump(lvs::command::GET_CONNECTION));
        self.ask(&question, |reply| {
            if let Reply::Connection(connection) = reply {
                each(connection);
            }
        })
    }

    /// The timeouts.
    ///
    /// # Errors
    /// The director refuses or went away.
    pub fn timeouts(&mut self) -> Result<TimeoutsView, Trouble> {
        let question = self.client.request(&Request::new(command::GET_CONFIG));
        let mut found = None;
        self.ask(&question, |reply| {
            if let Reply::Timeouts(timeouts) = reply {
                found = Some(timeouts);
            }
        })?;
        let timeouts = found.ok_or(Trouble::Malformed(Malformed))?;
        let seconds = |value: Option<u32>| std::time::Duration::from_secs(value.unwrap_or(0).into());
        Ok(TimeoutsView::new(seconds(timeouts.tcp), seconds(timeouts.tcp_fin), seconds(timeouts.udp)))
    }

    /// The synchronisation daemons that run.
    ///
    /// # Errors
    /// The director refuses or went away.
    pub fn daemons(&mut self) -> Result<Vec<SyncDaemon>, Trouble> {
        let question = self.client.request(&Request::dump(command::GET_DAEMON));
        let mut daemons = Vec::new();
        self.ask(&question, |reply| {
            if let Reply::Daemon(daemon) = reply {
                daemons.extend(shown(daemon));
            }
        })?;
        Ok(daemons)
    }

    /// Starts a synchronisation daemon.
    ///
    /// # Errors
    /// The director refuses: one of this role runs, or there is no such interface.
    pub fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Trouble> {
        let request = Request { daemon: Some(asked(daemon)), ..Request::new(command::NEW_DAEMON) };
        let request = self.client.request(&request);
        self.ask(&request, drop)
    }

    /// Stops a synchronisation daemon.
    ///
    /// # Errors
    /// [`Errno::NO_SUCH`] if none of this role runs.
    pub fn stop_daemon(&mut self, role: SyncRole) -> Result<(), Trouble> {
        // ipvsadm names no interface here, and number 0.
        let daemon = DaemonMessage {
            state: Some(state(role)),
            interface: Some(String::new()),
            sync_id: Some(0),
            ..DaemonMessage::default()
        };
        let request = self.client.request(&Request { daemon: Some(daemon), ..Request::new(command::DEL_DAEMON) });
        self.ask(&request, drop)
    }

    /// Every setting, or the one of this name, with its value.
    ///
    /// # Errors
    /// [`Errno::NO_ENTRY`] if there is none of this name.
    pub fn settings(&mut self, name: Option<&str>) -> Result<Vec<(String, String)>, Trouble> {
        let request = match name {
            None => lvs::Request::dump(lvs::command::GET_SETTING),
            Some(name) => lvs::Request { name: Some(name.to_owned()), ..lvs::Request::new(lvs::command::GET_SETTING) },
        };
        let question = self.client.lvs_request(&request);
        let mut settings = Vec::new();
        self.ask(&question, |reply| {
            if let Reply::Setting { name, value } = reply {
                settings.push((name, value));
            }
        })?;
        Ok(settings)
    }

    /// Gives a setting a value.
    ///
    /// # Errors
    /// [`Errno::NO_ENTRY`] if there is none of this name, [`Errno::INVALID`] for a value it does not take.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Trouble> {
        let request = self.client.lvs_request(&lvs::Request {
            name: Some(name.to_owned()),
            value: Some(value.to_owned()),
            ..lvs::Request::new(lvs::command::SET_SETTING)
        });
        self.ask(&request, drop)
    }

    /// Whether it is ready, and how full its tables are.
    ///
    /// # Errors
    /// The director refuses or went away.
    pub fn state(&mut self) -> Result<State, Trouble> {
        let question = self.client.lvs_request(&lvs::Request::new(lvs::command::GET_STATE));
        let mut found = None;
        self.ask(&question, |reply| {
            if let Reply::State(state) = reply {
                found = Some(state);
            }
        })?;
        found.ok_or(Trouble::Malformed(Malformed))
    }

    /// The counters of everything together.
    ///
    /// # Errors
    /// The director refuses or went away.
    pub fn statistics(&mut self) -> Result<Statistics, Trouble> {
        let question = self.client.lvs_request(&lvs::Request::new(lvs::command::GET_STATISTICS));
        let mut found = None;
        self.ask(&question, |reply| {
            if let Reply::Statistics(statistics) = reply {
                found = Some(statistics);
            }
        })?;
        found.ok_or(Trouble::Malformed(Malformed))
    }

    /// A command as a datagram: of the IPVS family, or ours for what IPVS never had.
    fn request(&mut self, command: &Command) -> Result<Vec<u8>, Trouble> {
        if let Some(request) = Request::of_command(command) {
            return Ok(self.client.request(&request));
        }
        let unknown = || Trouble::Refused(Refusal::from(Errno::NOT_SUPPORTED));
        lvs::Request::of_command(command).map(|request| self.client.lvs_request(&request)).ok_or_else(unknown)
    }

    /// Sends one request and hears its answers to the end.
    fn ask(&mut self, request: &[u8], mut each: impl FnMut(Reply)) -> Result<(), Trouble> {
        let mut request = Some(request.to_vec());
        let mut outcome = Ok(());
        self.pipeline(
            |_| Ok(request.take()),
            |_, answer| match answer {
                Answer::Told(reply) => each(*reply),
                Answer::Refused(refusal) => outcome = Err(Trouble::Refused(refusal)),
                Answer::Ended => {}
            },
        )?;
        outcome
    }

    /// Sends requests as long as `next` has any, [`WINDOW`] of them before the first is answered, and hears the answers
    /// of each to its end.
    fn pipeline(
        &mut self,
        mut next: impl FnMut(&mut Self) -> Result<Option<Vec<u8>>, Trouble>,
        mut each: impl FnMut(usize, Answer),
    ) -> Result<(), Trouble> {
        let (mut sent, mut answered, mut is_all) = (0, 0, false);
        loop {
            while !is_all && sent - answered < WINDOW {
                match next(self)? {
                    Some(request) => {
                        self.socket.send(&request)?;
                        sent += 1;
                    }
                    None => is_all = true,
                }
            }
            if answered == sent {
                return Ok(());
            }
            let datagram = self.socket.receive()?;
            for reply in self.client.replies(datagram) {
                match reply? {
                    Reply::Ack | Reply::Done => {
                        each(answered, Answer::Ended);
                        answered += 1;
                    }
                    Reply::Refused(refusal) => {
                        each(answered, Answer::Refused(refusal));
                        answered += 1;
                    }
                    reply => each(answered, Answer::Told(Box::new(reply))),
                }
            }
        }
    }
}

enum Answer {
    Told(Box<Reply>),
    Ended,
    Refused(Refusal),
}

/// Requests under way at once: `lvsd` answers in bounded queues, and reads no further while they are full.
const WINDOW: usize = 32;
