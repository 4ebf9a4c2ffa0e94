//! What a session asks of the tables, over all workers. Commands are checked on the master and handed on; rows are put
//! together from the workers: connections of all, counters summed. No job takes more than [`ROWS`] entries of a worker's
//! time.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use lvs_core::service::ServicePlace;
use lvs_core::service::stats::{Rates, Statistics};
use lvs_core::view::{ConnectionView, DrainView, Gauges, ServerView, ServiceView, TimeoutsView};
use lvs_core::{
    Command, Director, DirectorConfig, Event, Explanation, HEADROOM, Instant, PacketBuf, ServerConfig, ServerKey,
    ServiceConfig, ServiceKey, Settings,
};
use lvs_genl::Errno;
use lvs_genl::ipvs::{DaemonMessage, DaemonRole};
use lvs_genl::lvs::State;
use lvs_genl::server::{Refusal, ServerCursor, SyncDaemons, Table};
use lvs_io::{AddressChange, AddressRole, Clock, MonotonicClock, Steering, WorkerHandle};
use lvs_io_afpacket::SourceCountersHandle;

use super::addresses::Addresses;
use super::journal::Journal;
use super::known::KnownAddresses;
use super::owned;
use super::transaction::{Trial, words};
use crate::devices::Devices;
use crate::files::Files;
use crate::{say, warnings};

/// Who asks: for the record of what was changed by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A program at a socket of this host.
    Process {
        /// Its user.
        uid: u32,
        /// Its number.
        pid: i32,
    },
    /// Whoever holds the token, over TCP on loopback.
    Token {
        /// From where.
        from: SocketAddr,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid } => write!(f, "process {pid} of user {uid}"),
            Self::Token { from } => write!(f, "the token's holder at {from}"),
        }
    }
}

/// The tables of all workers as one.
pub struct Tables {
    pub master: Director,
    /// What the master was made with.
    pub config: DirectorConfig,
    pub daemons: SyncDaemons,
    pub workers: Vec<WorkerHandle>,
    pub clock: MonotonicClock,
    pub steering: Option<Steering>,
    pub peer: Option<Peer>,
    pub addresses: Addresses,
    pub known: KnownAddresses,
    pub queues: Vec<SourceCountersHandle>,
    pub journal: Option<Journal>,
    /// The files as they were read last.
    pub files: Files,
    /// Tables on their way to standard output.
    pub printing: Option<JoinHandle<()>>,
    /// A transaction under way.
    pub trial: Option<Trial>,
    /// Answers to requests that may be sent again.
    pub remembered: VecDeque<([u8; 16], Result<(), Refusal>)>,
    /// Grows with each change that is carried out.
    pub generation: u64,
}

impl Tables {
    /// Carries a command out on the master. It is written down before, and counts when it is accepted.
    fn decide(&mut self, command: &Command) -> Result<(), Refusal> {
        let now = self.now();
        let settings = self.master.settings().clone();
        let written = self.journal.as_mut().map(|journal| journal.write(command, &settings)).transpose();
        let mark = written.map_err(cannot_write)?;
        let outcome = self.master.apply(now, command);
        while self.master.poll_event().is_some() {}
        if let (Some(journal), Some(mark)) = (&mut self.journal, &mark) {
            match &outcome {
                Ok(()) => journal.keep(command, &settings),
                Err(_) => journal.take_back(mark),
            }
        }
        Ok(outcome?)
    }

    /// How long until the master has something to do; it sees no packets, and still forgets deleted servers in time.
    pub fn due_in(&self) -> Option<Duration> {
        self.master.poll_timeout().map(|due| due.duration_since(self.now()))
    }

    /// Does what the master has to do by now; what is left of much is done at the next turn.
    pub fn do_what_is_due(&mut self) {
        let now = self.now();
        for _ in 0..DUE_AT_ONCE {
            if self.master.poll_timeout().is_none_or(|due| due > now) {
                return;
            }
            self.master.handle_timeout(now);
            while self.master.poll_event().is_some() {}
        }
    }

    /// Whose request comes next.
    pub fn asked_by(&mut self, peer: Peer) {
        self.peer = Some(peer);
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Has the workers do what the master has done, and the devices follow.
    pub fn hand_on(&mut self, command: &Command) {
        self.generation += 1;
        let [before, after] = self.known.follow(self.now(), command);
        self.addresses.precede(command);
        self.teach(&before);
        for worker in &self.workers {
            let command = command.clone();
            // The master has accepted it, and the workers have the same rules. One that has ended needs none.
            let _ = worker.tell(move |director, now| _ = director.apply(now, &command));
        }
        self.teach(&after);
        self.addresses.follow(command);
        self.warn_of_routes(&before);
    }

    /// Tells steering and the hosts' stand-ins which addresses have come and gone.
    fn teach(&mut self, changes: &[AddressChange]) {
        if let Some(steering) = &mut self.steering {
            changes.iter().for_each(|change| steering.learn(change));
        }
        for (change, worker) in
            changes.iter().flat_map(|change| self.workers.iter().map(move |worker| (change, worker)))
        {
            // As above.
            let _ = worker.learn(*change);
        }
    }

    /// On TUN devices only what the host routes into them reaches the director: says which addresses it does not.
    fn warn_of_routes(&self, changes: &[AddressChange]) {
        let Devices::Tun(names) = &self.files.configuration.devices else { return };
        let arriving = changes.iter().filter(|change| change.role != AddressRole::Server);
        arriving.filter_map(|change| warnings::tun::unreachable(change.address, names)).for_each(say::warning);
    }

    /// Says who has started or stopped synchronisation.
    fn note_daemon(&self, what: &str, role: Option<DaemonRole>, outcome: &Result<(), Refusal>) {
        let Some(peer) = self.peer else { return };
        let role = role.map_or_else(String::new, |role| format!(" as {role:?}").to_lowercase());
        match outcome {
            Ok(()) => say::note(format_args!("{peer}: synchronisation{role} is {what}")),
            Err(refusal) => say::note(format_args!("{peer}: refused, {refusal}: synchronisation{role} to be {what}")),
        }
    }

    /// Events of the workers that nobody has taken, at most so many of each, with the worker's number.
    pub fn events(&self) -> Vec<(usize, Event)> {
        let some =
            |director: &mut Director| std::iter::from_fn(|| director.poll_event()).take(ROWS).collect::<Vec<_>>();
        let each = self
            .workers
            .iter()
            .enumerate()
            .filter_map(|(index, worker)| Some((index, worker.with(move |director, _| some(director)).ok()?)));
        each.flat_map(|(index, events)| events.into_iter().map(move |event| (index, event))).collect()
    }

    /// What would happen to a packet, and which worker says so; `None` where none answers. `mark` is its firewall mark.
    pub fn explain(&self, bytes: &[u8], mark: u32) -> Option<(usize, Explanation)> {
        let index = self.steering.as_ref().map_or(0, |steering| steering.shard(bytes));
        let mut storage = vec![0; HEADROOM + bytes.len()];
        storage[HEADROOM..].copy_from_slice(bytes);
        let len = bytes.len();
        let explain = move |director: &mut Director, now| {
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
            packet.mark = mark;
            director.explain(now, &packet)
        };
        Some((index, self.workers.get(index)?.with(explain).ok()?))
    }

    /// Asks every worker the same, in turn; those that have ended are left out.
    pub fn ask<R: Send + 'static>(
        &self,
        job: impl Fn(&mut Director, Instant) -> R + Clone + Send + 'static,
    ) -> impl Iterator<Item = R> {
        self.workers.iter().filter_map(move |worker| {
            let job = job.clone();
            worker.with(move |director, now| job(director, now)).ok()
        })
    }
}

impl Table for Tables {
    fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        if self.trial.is_some() {
            return self.try_out(command);
        }
        let outcome = owned::refuse(command, &self.files.configuration).and_then(|()| self.decide(command));
        if let Some(peer) = self.peer {
            let words = words(command);
            match &outcome {
                Ok(()) => say::note(format_args!("{peer}: {words}")),
                Err(refusal) => say::note(format_args!("{peer}: refused, {refusal}: {words}")),
            }
        }
        outcome?;
        self.hand_on(command);
        Ok(())
    }

    fn services(&mut self, after: Option<&ServicePlace>, most: usize) -> Vec<ServiceView> {
        let mut all = self.master.services_alone(after, most.min(ROWS));
        let keys: Vec<ServiceKey> = all.iter().map(|service| service.key).collect();
        let statistics = self.ask(move |director, _| {
            keys.iter()
                .map(|key| director.service_alone(key).map(|view| view.statistics).unwrap_or_default())
                .collect::<Vec<_>>()
        });
        for of_worker in statistics.collect::<Vec<_>>() {
            for (service, more) in all.iter_mut().zip(of_worker) {
                add(&mut service.statistics, more);
            }
        }
        all
    }

    fn service(&mut self, key: &ServiceKey) -> Option<ServiceView> {
        let mut all = self.master.service_alone(key)?;
        let key = *key;
        let of_workers: Vec<_> = self.ask(move |director, _| director.service_alone(&key)).flatten().collect();
        for service in of_workers {
            add(&mut all.statistics, service.statistics);
        }
        Some(all)
    }

    fn servers(&mut self, service: &ServiceKey, from: &ServerCursor, most: usize) -> Vec<ServerView> {
        let most = most.min(ROWS);
        let (key, cursor) = (*service, *from);
        let rows =
            move |director: &mut Director| director.servers_after(&key, cursor.last.as_ref(), cursor.position, most);
        let mut of_workers = self.ask(move |director, _| rows(director)).collect::<Vec<_>>().into_iter();
        let Some(mut all) = of_workers.next() else {
            return self.master.servers_after(&key, cursor.last.as_ref(), cursor.position, most);
        };
        for servers in of_workers {
            for server in servers {
                let Some(sum) = all.iter_mut().find(|sum| sum.config.key == server.config.key) else { continue };
                sum.active_connections += server.active_connections;
                sum.inactive_connections += server.inactive_connections;
                sum.persistent_connections += server.persistent_connections;
                sum.is_overloaded |= server.is_overloaded;
                sum.drain = together(sum.drain, server.drain);
                add(&mut sum.statistics, server.statistics);
            }
        }
        all
    }

    fn service_config(&mut self, key: &ServiceKey) -> Option<ServiceConfig> {
        self.decided().service_config(key).cloned()
    }

    fn server(&mut self, service: &ServiceKey, server: &ServerKey) -> Option<ServerConfig> {
        self.decided().server_config(service, server).cloned()
    }

    fn connections(&mut self, cursor: u64, most: usize) -> (Vec<ConnectionView>, Option<u64>) {
        let (index, inner) = ((cursor >> WORKER_SHIFT) as usize, cursor & ((1 << WORKER_SHIFT) - 1));
        let Some(worker) = self.workers.get(index) else { return (Vec::new(), None) };
        let most = most.min(ROWS);
        let piece = worker.with(move |director, now| director.connections_from(now, inner, most));
        let (views, next) = piece.unwrap_or_default();
        let other = || (index + 1 < self.workers.len()).then_some(((index + 1) as u64) << WORKER_SHIFT);
        let next = next.map(|next| (index as u64) << WORKER_SHIFT | next).or_else(other);
        (views, next)
    }

    fn statistics(&mut self) -> Statistics {
        let mut all = self.master.statistics();
        for of_worker in self.ask(|director, _| director.statistics()).collect::<Vec<_>>() {
            add(&mut all, of_worker);
        }
        all
    }

    fn timeouts(&mut self) -> TimeoutsView {
        self.master.timeouts()
    }

    fn daemons(&mut self) -> Vec<DaemonMessage> {
        self.daemons.list()
    }

    fn start_daemon(&mut self, daemon: &DaemonMessage) -> Result<(), Refusal> {
        self.refuse_on_trial()?;
        let outcome = self.daemons.start(daemon, |name, _| mtu(name)).map_err(Refusal::from);
        self.note_daemon("started", daemon.role().ok(), &outcome);
        outcome
    }

    fn stop_daemon(&mut self, role: DaemonRole) -> Result<(), Refusal> {
        self.refuse_on_trial()?;
        let outcome = self.daemons.stop(role).map_err(Refusal::from);
        self.note_daemon("stopped", Some(role), &outcome);
        outcome
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        let settings = self.master.settings();
        Settings::names().filter_map(|named| Some((named.name.to_owned(), settings.get(named.name)?))).collect()
    }

    fn set_setting(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let mut settings = self.decided().settings().clone();
        settings.set(name, value)?;
        self.apply(&Command::SetSettings(settings))
    }

    fn state(&mut self) -> State {
        let of_workers = self.ask(|director, _| director.gauges()).collect::<Vec<_>>();
        State {
            is_ready: !self.workers.is_empty() && of_workers.len() == self.workers.len(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workers: self.workers.len() as u32,
            gauges: of_workers.into_iter().fold(Gauges::default(), Gauges::plus),
        }
    }

    fn begin(&mut self) -> Result<(), Refusal> {
        self.trial = Some(Trial::of(&self.master, &self.config));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Refusal> {
        self.carry_out_trial()
    }

    fn abort(&mut self) {
        self.trial = None;
    }

    fn first_answer(&mut self, request_id: &[u8; 16]) -> Option<Result<(), Refusal>> {
        if self.trial.is_some() {
            return None;
        }
        self.remembered.iter().find(|(id, _)| id == request_id).map(|(_, answer)| answer.clone())
    }

    fn remember(&mut self, request_id: &[u8; 16], answer: &Result<(), Refusal>) {
        if self.trial.is_some() {
            return;
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((*request_id, answer.clone()));
    }
}

/// What is answered where the journal's disk is full.
pub fn cannot_write(error: std::io::Error) -> Refusal {
    Refusal {
        errno: Errno(error.raw_os_error().unwrap_or(Errno::NO_MEMORY.0)),
        text: Some(format!("lvsd cannot write down what is to be brought back: {error}")),
        at: None,
    }
}

/// How far a drain is over two workers: what is open of both, until the later end.
fn together(one: Option<DrainView>, other: Option<DrainView>) -> Option<DrainView> {
    let both = |mut one: DrainView, other: DrainView| {
        one.open = one.open.saturating_add(other.open);
        one.ends_in = one.ends_in.max(other.ends_in);
        one
    };
    match (one, other) {
        (Some(one), Some(other)) => Some(both(one, other)),
        (one, other) => one.or(other),
    }
}

fn add(sum: &mut Statistics, more: Statistics) {
    sum.live = sum.live.plus(more.live);
    sum.published = sum.published.plus(more.published);
    let Rates { connections, in_packets, out_packets, in_bytes, out_bytes } = more.rates;
    sum.rates.connections += connections;
    sum.rates.in_packets += in_packets;
    sum.rates.out_packets += out_packets;
    sum.rates.in_bytes += in_bytes;
    sum.rates.out_bytes += out_bytes;
}

/// The MTU of an interface.
fn mtu(name: &str) -> Result<u32, Errno> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(Errno::NO_DEVICE);
    }
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).map_err(|_| Errno::NO_DEVICE)?;
    text.trim().parse().map_err(|_| Errno::NO_DEVICE)
}

/// Most entries that one job looks at: some microseconds of a worker's time.
pub const ROWS: usize = 64;
/// Turns of the master's timed work before it is the programs' turn.
const DUE_AT_ONCE: usize = 64;
/// A cursor's upper bits say which worker is asked.
const WORKER_SHIFT: u32 = 48;
/// Answers remembered for requests that are sent again.
const REMEMBERED_MAX: usize = 1024;
