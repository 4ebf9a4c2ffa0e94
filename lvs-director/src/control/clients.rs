//! Conversations at the control socket, all on one thread. A program's requests are read only when those before are
//! answered, and answers are made only as it reads them: what is kept of one is a datagram each way. Sends never block.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use lvs_genl::server::{Access, Session};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::asks::Asks;
use super::listener::Listener;
use super::orders::{Inbox, Order};
use super::places::{Holder, Places, Seldom, quietest_below};
use super::tables::{Peer, Tables};
use crate::say;

/// One program.
struct Client {
    socket: OwnedFd,
    session: Session,
    peer: Peer,
    /// An answer that the socket has no room for yet.
    unsent: Option<Vec<u8>>,
    holder: Holder,
}

/// What has something to say.
struct Ready {
    orders: bool,
    listeners: Vec<bool>,
    clients: Vec<bool>,
}

/// Everybody who talks to `lvsd`.
pub struct Clients {
    listeners: Vec<Listener>,
    orders: Inbox,
    asks: Asks,
    tables: Tables,
    clients: Vec<Client>,
    places: Places,
    parted: Seldom,
    /// Nobody can be taken in: the listeners are not asked until then.
    deaf_until: Option<Instant>,
    /// Datagrams are read into it.
    buffer: Vec<u8>,
}

impl Clients {
    pub fn new(listeners: Vec<Listener>, orders: Inbox, asks: Asks, tables: Tables) -> Self {
        let buffer = vec![0; REQUEST_MAX + 1];
        let places = Places::of_process();
        let (clients, parted) = (Vec::new(), Seldom::default());
        Self { listeners, orders, asks, tables, clients, places, parted, deaf_until: None, buffer }
    }

    /// Serves until it is ordered to end; `false` if it ends otherwise.
    pub fn serve(mut self) -> bool {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    say::error(format_args!("the control socket fails: {error}"));
                    return false;
                }
            };
            self.tables.do_what_is_due();
            if ready.orders && !self.obey() {
                return true;
            }
            self.talk(&ready.clients);
            ready.listeners.iter().enumerate().filter(|(_, is_ready)| **is_ready).for_each(|(at, _)| self.welcome(at));
        }
    }

    /// Does what it is ordered to; `false` if that is to end.
    fn obey(&mut self) -> bool {
        for order in self.orders.take() {
            match order {
                Order::End => return false,
                Order::Reload => self.tables.reload(),
                Order::Print => self.tables.print(),
                Order::Answer => self.asks.answer(&mut self.tables),
            }
        }
        true
    }

    /// Sleeps until something happens, or the master has something to do.
    fn wait(&mut self) -> io::Result<Ready> {
        self.deaf_until = self.deaf_until.filter(|until| *until > Instant::now());
        let hears = if self.deaf_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let pause = self.deaf_until.map(|until| until.saturating_duration_since(Instant::now()));
        let pause = pause.into_iter().chain(self.tables.due_in()).min();
        let mut fds = vec![PollFd::new(&self.orders, PollFlags::IN)];
        fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener, hears)));
        fds.extend(
            self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.socket.as_fd(), client.waits_for())),
        );
        // A whole millisecond more: poll(2) may round down, and would be asked again at once.
        let pause = pause.and_then(|pause| Timespec::try_from(pause + Duration::from_millis(1)).ok());
        match poll(&mut fds, pause.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => fds.iter_mut().for_each(PollFd::clear_revents),
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let orders = ready.next().unwrap_or(true);
        let listeners = ready.by_ref().take(self.listeners.len()).collect();
        Ok(Ready { orders, listeners, clients: ready.collect() })
    }

    /// Goes on with those who are ready, and parts from those who went or break the rules.
    fn talk(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        let (tables, buffer) = (&mut self.tables, &mut self.buffer);
        self.clients.retain_mut(|client| match ready.next() {
            Some(true) => client.go_on(tables, buffer),
            _ => true,
        });
    }

    /// Takes in who waits at a listener.
    fn welcome(&mut self, at: usize) {
        for _ in 0..WELCOMED_AT_ONCE {
            let most = self.listeners[at].access;
            let socket = match self.listeners[at].accept() {
                Ok(socket) => socket,
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
                // Descriptors are used up, or memory: somebody goes, or nobody is taken in for a moment.
                Err(error) => {
                    match quietest_below(&self.holders(), most) {
                        Some(index) => self.part_from(index, error),
                        None => self.deaf_until = Some(Instant::now() + DEAF),
                    }
                    return;
                }
            };
            let Ok(credentials) = rustix::net::sockopt::socket_peercred(&socket) else { continue };
            let uid = credentials.uid.as_raw();
            let is_trusted = uid == 0 || uid == rustix::process::geteuid().as_raw();
            // The rights of its file let nobody but its group connect to the other one.
            let access = match most {
                Access::Full if !is_trusted => Access::None,
                access => access,
            };
            if let Some(index) = self.places.who_goes(&self.holders(), access, uid) {
                self.part_from(index, "every place is taken");
            }
            let peer = Peer::Process { uid, pid: credentials.pid.as_raw_nonzero().get() };
            let session = Session::new(access);
            let holder = Holder { access, uid, heard: Instant::now() };
            self.clients.push(Client { socket, session, peer, unsent: None, holder });
        }
    }

    fn holders(&self) -> Vec<Holder> {
        self.clients.iter().map(|client| client.holder).collect()
    }

    /// Makes room.
    fn part_from(&mut self, index: usize, reason: impl std::fmt::Display) {
        let client = self.clients.swap_remove(index);
        let count = self.clients.len() + 1;
        self.parted.warn(format_args!(
            "{count} programs use the control socket, and {reason}: closed that of {}",
            client.peer
        ));
    }
}

impl Client {
    fn waits_for(&self) -> PollFlags {
        // Where its turn ended before its questions, they are answered before more is read.
        if self.unsent.is_some() || !self.session.is_idle() { PollFlags::OUT } else { PollFlags::IN }
    }

    /// Sends what waits, and answers what is asked. `false` if the conversation is over.
    fn go_on(&mut self, tables: &mut Tables, buffer: &mut [u8]) -> bool {
        for _ in 0..DATAGRAMS_AT_ONCE {
            if let Some(unsent) = self.unsent.take() {
                match rustix::net::send(&self.socket, &unsent, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    // It reads: it is not quiet.
                    Ok(_) => self.holder.heard = Instant::now(),
                    Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {
                        self.unsent = Some(unsent);
                        return true;
                    }
                    Err(_) => return false,
                }
            }
            let mut answer = Vec::new();
            tables.asked_by(self.peer);
            if self.session.next_datagram(tables, &mut answer) {
                self.unsent = Some(answer);
                continue;
            }
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((len, _)) if len > REQUEST_MAX => {
                    say::warning(format_args!("{} sends more than {REQUEST_MAX} bytes at once: closed", self.peer));
                    return false;
                }
                Ok((len, _)) => {
                    self.holder.heard = Instant::now();
                    if self.session.receive(&buffer[..len]).is_err() {
                        return false;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

const WELCOMED_AT_ONCE: usize = 64;
/// Longest datagram of requests: what a socket's default buffer takes.
const REQUEST_MAX: usize = 1 << 18;
/// After so many it is the others' turn.
const DATAGRAMS_AT_ONCE: usize = 64;
/// How long nobody is taken in after nobody could be.
const DEAF: Duration = Duration::from_millis(100);
