//! Where HTTP is served, and who may come in there. A unix socket is its owner's alone and for everything. A TCP address is
//! every user's of this host: it is on loopback, and where no ordinary user could have taken its place, because whoever
//! types a token into the page must know whose page it is.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::guard::Access;
use super::routes::Site;
use super::token::Token;
use super::{Web, server};
use crate::control::{Asker, Listener};
use crate::denied::Denied;
use crate::say;

/// A place to serve at, as `--http` names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpAt {
    /// A unix socket: `unix:PATH`.
    Unix(PathBuf),
    /// A loopback address: `ADDRESS:PORT`.
    Tcp(SocketAddr),
    /// Whatever systemd hands over: `systemd` (sd_listen_fds(3)).
    Systemd,
}

impl HttpAt {
    /// Reads one.
    ///
    /// # Errors
    /// A sentence: it is none of them, or a TCP address that lvsd does not serve at.
    ///
    /// ```
    /// use lvs_director::web::HttpAt;
    /// assert_eq!(HttpAt::parse("unix:/run/lvs/http.sock"), Ok(HttpAt::Unix("/run/lvs/http.sock".into())));
    /// assert!(HttpAt::parse("127.0.0.1:980").is_ok());
    /// assert!(HttpAt::parse("127.0.0.1:8080").unwrap_err().contains("below 1024"));
    /// assert!(HttpAt::parse("192.0.2.1:80").unwrap_err().contains("loopback"));
    /// ```
    pub fn parse(word: &str) -> Result<Self, String> {
        if word == "systemd" {
            return Ok(Self::Systemd);
        }
        if let Some(path) = word.strip_prefix("unix:") {
            return if path.is_empty() { Err(HOW.to_owned()) } else { Ok(Self::Unix(path.into())) };
        }
        let address: SocketAddr = word.parse().map_err(|_| HOW.to_owned())?;
        on_loopback(address)?;
        if !(1..=PRIVILEGED_MAX).contains(&address.port()) {
            return Err(format!(
                "any user of this host could take port {} while lvsd is away: take one below 1024, or have systemd hold it",
                address.port()
            ));
        }
        Ok(Self::Tcp(address))
    }

    /// The path, where it has one.
    pub fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) | Self::Systemd => None,
        }
    }
}

fn on_loopback(address: SocketAddr) -> Result<(), String> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "{} is no loopback address: what lvsd serves is not encrypted; reach it from elsewhere by 'ssh -L'",
        address.ip()
    ))
}

/// One that is open.
#[derive(Debug)]
pub(super) enum Door {
    /// Who connects is the owner or root. The lock is held for as long as it is open.
    Unix(UnixListener, Option<OwnedFd>),
    /// Anybody on this host connects.
    Tcp(TcpListener),
}

/// All that are open; nobody is answered yet.
#[derive(Debug)]
pub struct Doors {
    doors: Vec<Door>,
    token: Option<Token>,
    /// What everybody on this host may do by TCP.
    of_tcp: Access,
}

impl Doors {
    /// Opens them, and reads the token. To be called while this process has the rights that low ports take.
    ///
    /// # Errors
    /// A sentence: a place cannot be had, or the token's file is not what it has to be.
    pub fn open(places: &[HttpAt], token: Option<&Path>) -> Result<Self, String> {
        let token = token.map(Token::read).transpose()?;
        let mut doors = Vec::new();
        for place in places {
            match place {
                HttpAt::Unix(path) => {
                    let (socket, lock) = Listener::open_stream(path).map_err(|error| error.to_string())?;
                    doors.push(Door::Unix(socket, Some(lock)));
                    say::note(format_args!("HTTP at unix:{}", path.display()));
                }
                HttpAt::Tcp(address) => doors.push(Door::Tcp(open_tcp(*address)?)),
                HttpAt::Systemd => doors.extend(handed_over()?),
            }
        }
        Ok(Self { doors, token, of_tcp: Access::Read })
    }

    /// One TCP address where everybody on this host may do everything: for the demo.
    ///
    /// # Errors
    /// A sentence: the address cannot be had.
    pub(crate) fn of_demo(address: SocketAddr) -> Result<Self, String> {
        let denied = |cause: io::Error| Denied::new(format_args!("serve the page at {address}"), cause);
        let socket = TcpListener::bind(address)
            .map_err(|cause| denied(cause).remedy("'--page=127.0.0.1:PORT' chooses another port").to_string())?;
        Ok(Self { doors: vec![Door::Tcp(socket)], token: None, of_tcp: Access::Full })
    }

    /// Answers whoever comes in, on a thread of its own, with what `asker` is told; nobody where nothing is open.
    ///
    /// # Errors
    /// A sentence: the thread cannot be started.
    pub(crate) fn serve(self, asker: Asker) -> Result<Option<Web>, String> {
        if self.doors.is_empty() {
            return Ok(None);
        }
        let web = server::start(self.doors, Site::new(asker, self.token, self.of_tcp));
        web.map(Some).map_err(|cause| Denied::new("serve HTTP", cause).to_string())
    }
}

fn open_tcp(address: SocketAddr) -> Result<TcpListener, String> {
    // Where the kernel lets everybody have lower ports too (ip-sysctl), those are no better than others.
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let unprivileged = text.trim().parse().unwrap_or(PRIVILEGED_MAX + 1);
    if address.port() >= unprivileged {
        return Err(format!(
            "cannot serve HTTP at {address}: net.ipv4.ip_unprivileged_port_start={unprivileged} lets any user take that \
             port; take one below, or have systemd hold it"
        ));
    }
    let remedy = |cause: io::Error| {
        let denied = Denied::new(format_args!("serve HTTP at {address}"), cause);
        denied.remedy("start as root, or have systemd hold the address (packaging/lvsd.socket)").to_string()
    };
    let socket = TcpListener::bind(address).map_err(remedy)?;
    say::note(format_args!("HTTP at http://{address}/"));
    Ok(socket)
}

/// What systemd hands over: sockets that listen, of TCP on loopback or of the file system.
fn handed_over() -> Result<Vec<Door>, String> {
    let mut sockets = listenfd::ListenFd::from_env();
    if sockets.len() == 0 {
        return Err("systemd hands over no socket (LISTEN_FDS): start lvsd by a socket unit, as packaging/lvsd.socket"
            .to_owned());
    }
    (0..sockets.len()).map(|index| taken(&mut sockets, index)).collect()
}

fn taken(sockets: &mut listenfd::ListenFd, index: usize) -> Result<Door, String> {
    let failed = |cause: io::Error| format!("socket {} that systemd hands over: {cause}", index + 1);
    if let Ok(Some(socket)) = sockets.take_tcp_listener(index) {
        let address = socket.local_addr().map_err(failed)?;
        on_loopback(address)?;
        say::note(format_args!("HTTP at http://{address}/, which systemd holds"));
        return Ok(Door::Tcp(socket));
    }
    match sockets.take_unix_listener(index) {
        Ok(Some(socket)) => {
            say::note("HTTP at a unix socket that systemd holds");
            Ok(Door::Unix(socket, None))
        }
        Ok(None) => Err(format!("socket {} that systemd hands over was taken already", index + 1)),
        Err(cause) => Err(failed(cause)),
    }
}

const HOW: &str = "write unix:PATH, a loopback ADDRESS:PORT such as 127.0.0.1:980, or systemd";
/// Only a process with CAP_NET_BIND_SERVICE may listen at this port or one below it (ip(7), capabilities(7)).
const PRIVILEGED_MAX: u16 = 1023;
