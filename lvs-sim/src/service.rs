//! What a server host offers on a port: a dialogue for each TCP connection, or an echo of UDP datagrams.

use std::net::SocketAddr;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Duration;

use crate::client::is_forgotten;
use crate::dialogue::Dialogue;
use crate::session::{Session, tcp_socket};
use crate::udp_echo::{echo, udp_socket};

/// A TCP port, and the connections to it.
pub(crate) struct TcpService {
    pub(crate) port: u16,
    answer: Box<dyn FnMut() -> Box<dyn Dialogue>>,
    connections: Vec<ServerConnection>,
}

struct ServerConnection {
    client: SocketAddr,
    server: SocketAddr,
    handle: SocketHandle,
    session: Session,
}

impl TcpService {
    pub(crate) fn new(port: u16, answer: Box<dyn FnMut() -> Box<dyn Dialogue>>) -> Self {
        Self { port, answer, connections: Vec::new() }
    }

    /// Makes a listening socket for a SYN that is about to be delivered, unless its connection is there already.
    ///
    /// A socket that listened beforehand could take a SYN that was only duplicated, and split the connection in two.
    pub(crate) fn expect(&mut self, client: SocketAddr, server: SocketAddr, sockets: &mut SocketSet<'static>) {
        let known = self.connections.iter().position(|known| known.client == client && known.server == server);
        if let Some(index) = known {
            let state = sockets.get::<tcp::Socket<'_>>(self.connections[index].handle).state();
            if state != tcp::State::TimeWait {
                return;
            }
            // RFC 6191: a new SYN may end TIME-WAIT early, as Linux does.
            self.forget(index, sockets);
        }
        self.make_room(sockets);
        let mut socket = tcp_socket();
        socket.set_timeout(Some(HALF_OPEN_TIMEOUT));
        socket.listen(server).expect("the port is not 0 and the socket is new");
        let session = Session::new((self.answer)());
        self.connections.push(ServerConnection { client, server, handle: sockets.add(socket), session });
    }

    /// Forgets the oldest half-open connection if there are too many, as a server under a SYN flood must.
    fn make_room(&mut self, sockets: &mut SocketSet<'static>) {
        let is_half_open = |connection: &ServerConnection| {
            sockets.get::<tcp::Socket<'_>>(connection.handle).state() == tcp::State::SynReceived
        };
        if self.connections.iter().filter(|connection| is_half_open(connection)).count() < HALF_OPEN_MAX {
            return;
        }
        if let Some(oldest) = self.connections.iter().position(is_half_open) {
            self.forget(oldest, sockets);
        }
    }

    fn forget(&mut self, index: usize, sockets: &mut SocketSet<'static>) {
        let connection = self.connections.remove(index);
        sockets.remove(connection.handle);
    }

    /// Does what can be done now; returns whether anything was done.
    fn advance(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let mut progress = false;
        for connection in &mut self.connections {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(connection.handle);
            progress |= connection.session.advance(socket);
            socket.set_timeout(match socket.state() {
                tcp::State::SynReceived => Some(HALF_OPEN_TIMEOUT),
                // The client may be silent for as long as it likes.
                tcp::State::Established | tcp::State::CloseWait => None,
                _ => Some(CLOSING_TIMEOUT),
            });
        }
        for index in (0..self.connections.len()).rev() {
            let socket = sockets.get::<tcp::Socket<'_>>(self.connections[index].handle);
            // Still listening: the SYN it was made for was damaged.
            if is_forgotten(socket) || socket.state() == tcp::State::Listen {
                self.forget(index, sockets);
            }
        }
        progress
    }
}

/// What a host offers.
pub(crate) enum Service {
    Tcp(TcpService),
    /// The socket is there once the host is on.
    UdpEcho {
        port: u16,
        handle: Option<SocketHandle>,
    },
}

impl Service {
    pub(crate) fn advance(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        match self {
            Self::Tcp(service) => service.advance(sockets),
            Self::UdpEcho { handle, .. } => {
                handle.is_some_and(|handle| echo(sockets.get_mut::<udp::Socket<'_>>(handle)))
            }
        }
    }

    /// Starts on a host that was just switched on: every earlier connection is forgotten.
    pub(crate) fn start(&mut self, sockets: &mut SocketSet<'static>) {
        match self {
            Self::Tcp(service) => service.connections.clear(),
            Self::UdpEcho { port, handle } => *handle = Some(sockets.add(bound(*port))),
        }
    }
}

fn bound(port: u16) -> udp::Socket<'static> {
    let mut socket = udp_socket();
    socket.bind(port).expect("the port is not 0 and the socket is new");
    socket
}

/// Half-open connections a service keeps; Linux's `tcp_max_syn_backlog` on a small machine.
const HALF_OPEN_MAX: usize = 128;
/// How long a half-open connection is kept; Linux gives up after about as long.
const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a closing connection waits for its peer.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(120);
