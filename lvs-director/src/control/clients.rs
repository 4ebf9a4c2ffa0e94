//! Conversations at the control socket, all on one thread. A program's requests are read only when those before are
//! answered, and answers are made only as it reads them: what is kept of one is a datagram each way. Sends never block.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use lvs_genl::server::{Access, Session};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::Order;
use super::listener::Listener;
use super::tables::{Peer, Tables};
use crate::say;

/// One program.
struct Client {
    socket: OwnedFd,
    session: Session,
    peer: Peer,
    /// An answer that the socket has no room for yet.
    unsent: Option<Vec<u8>>,
    heard: Instant,
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
    orders: UnixStream,
    tables: Tables,
    clients: Vec<Client>,
    /// Datagrams are read into it.
    buffer: Vec<u8>,
}

impl Clients {
    pub fn new(listeners: Vec<Listener>, orders: UnixStream, tables: Tables) -> Self {
        Self { listeners, orders, tables, clients: Vec::new(), buffer: vec![0; REQUEST_MAX + 1] }
    }

    /// Serves until it is ordered to end.
    pub fn serve(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    say::error(format_args!("the control socket fails: {error}"));
                    return;
                }
            };
            if ready.orders && !self.obey() {
                return;
            }
            self.talk(&ready.clients);
            ready.listeners.iter().enumerate().filter(|(_, is_ready)| **is_ready).for_each(|(at, _)| self.welcome(at));
        }
    }

    /// Does what it is ordered to; `false` if that is to end.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 64];
        let count = match self.orders.read(&mut bytes) {
            // Whoever gave orders is gone.
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        for order in bytes[..count].iter().filter_map(|byte| Order::of(*byte)) {
            match order {
                Order::End => return false,
                Order::Reload => self.tables.reload(),
                Order::Print => self.tables.print(),
            }
        }
        true
    }

    /// Sleeps until something happens.
    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(&self.orders, PollFlags::IN)];
        fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        fds.extend(
            self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.socket.as_fd(), client.waits_for())),
        );
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
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
            let Some(socket) = self.listeners[at].accept() else { return };
            if self.clients.len() >= CLIENTS_MAX {
                self.part_from_the_quietest();
            }
            let Ok(credentials) = rustix::net::sockopt::socket_peercred(&socket) else { continue };
            let uid = credentials.uid.as_raw();
            let is_trusted = uid == 0 || uid == rustix::process::geteuid().as_raw();
            // The rights of its file let nobody but its group connect to the other one.
            let access = match self.listeners[at].access {
                Access::Full if !is_trusted => Access::None,
                access => access,
            };
            let peer = Peer { uid, pid: credentials.pid.as_raw_nonzero().get() };
            let session = Session::new(access);
            self.clients.push(Client { socket, session, peer, unsent: None, heard: Instant::now() });
        }
    }

    /// Makes room: the one that has said nothing for longest goes.
    fn part_from_the_quietest(&mut self) {
        let quietest = self.clients.iter().enumerate().min_by_key(|(_, client)| client.heard).map(|(index, _)| index);
        if let Some(index) = quietest {
            let client = self.clients.swap_remove(index);
            say::warning(format_args!("{CLIENTS_MAX} programs use the control socket: closed that of {}", client.peer));
        }
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
                    Ok(_) => {}
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
                    self.heard = Instant::now();
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

/// Programs at once. One more takes the place of the quietest.
const CLIENTS_MAX: usize = 1024;
const WELCOMED_AT_ONCE: usize = 64;
/// Longest datagram of requests: what a socket's default buffer takes.
const REQUEST_MAX: usize = 1 << 18;
/// After so many it is the others' turn.
const DATAGRAMS_AT_ONCE: usize = 64;
