//! The HTTP thread: who comes in at a door is answered by hyper (HTTP/1.1, RFC 9112). So many at a time, each in its time: a
//! head, a body and a reader that do not come end the connection.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

use super::door::Door;
use super::guard::{Access, Visitor};
use super::patient::Patient;
use super::routes::{self, Site};
use crate::control::Peer;

/// The running HTTP thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Web {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread.
pub(super) fn start(doors: Vec<Door>, site: Site) -> io::Result<Web> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let doors = {
        let _inside = runtime.enter();
        doors.into_iter().map(Open::of).collect::<io::Result<Vec<_>>>()?
    };
    let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        let site = Rc::new(site);
        LocalSet::new().block_on(&runtime, async move {
            tokio::task::spawn_local(Arc::clone(&site.events).collect(site.asker.clone()));
            for door in doors {
                tokio::task::spawn_local(door.receive(Rc::clone(&site)));
            }
            // Told to, or nobody is left who could tell.
            let _ = stopped.await;
        });
    })?;
    Ok(Web { stop: Some(stop), thread: Some(thread) })
}

/// A door that the runtime listens at.
enum Open {
    Unix(UnixListener, #[expect(dead_code, reason = "held for as long as the door is open")] Option<OwnedFd>),
    Tcp(TcpListener),
}

impl Open {
    fn of(door: Door) -> io::Result<Self> {
        match door {
            Door::Unix(socket, lock) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket)?, lock))
            }
            Door::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket)?))
            }
        }
    }

    /// Takes in one after the other; those beyond the most wait outside.
    async fn receive(self, site: Rc<Site>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let site = Rc::clone(&site);
            let came = match &self {
                Self::Unix(socket, _) => socket.accept().await.map(|(stream, _)| {
                    let Some(visitor) = visitor(&stream) else { return };
                    tokio::task::spawn_local(async move {
                        converse(stream, visitor, site).await;
                        drop(place)
                    });
                }),
                Self::Tcp(socket) => socket.accept().await.map(|(stream, from)| {
                    let visitor = Visitor { access: site.of_tcp, peer: Peer::Token { from } };
                    let _ = stream.set_nodelay(true);
                    tokio::task::spawn_local(async move {
                        converse(stream, visitor, site).await;
                        drop(place)
                    });
                }),
            };
            if came.is_err() {
                // No descriptor is left, or whoever came has gone.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Who has connected to a unix socket: nobody but its owner and root is let in, whatever the rights of the file.
fn visitor(stream: &tokio::net::UnixStream) -> Option<Visitor> {
    let credentials = rustix::net::sockopt::socket_peercred(stream).ok()?;
    let (uid, pid) = (credentials.uid.as_raw(), credentials.pid.as_raw_nonzero().get());
    let is_trusted = uid == 0 || uid == rustix::process::geteuid().as_raw();
    is_trusted.then_some(Visitor { access: Access::Full, peer: Peer::Process { uid, pid } })
}

/// Answers one connection's requests until it ends.
pub(super) async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, visitor: Visitor, site: Rc<Site>) {
    let service = service_fn(|request| {
        let site = Rc::clone(&site);
        async move { Ok::<_, Infallible>(routes::answer(request, visitor, site).await) }
    });
    let mut protocol = hyper::server::conn::http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_headers(HEADERS_MAX).max_buf_size(BUFFER_MAX);
    // What went wrong between the two ends is theirs: nothing is left to be done.
    let _ = protocol.serve_connection(TokioIo::new(Patient::new(stream, READER_TIME)), service).await;
}

/// Most connections at one door.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// How long a head may take, and a connection be quiet between two.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long whoever reads an answer may take nothing of it.
const READER_TIME: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 64;
/// Of a head, and of what is written at once.
const BUFFER_MAX: usize = 64 * 1024;
/// How long nobody is taken in after nobody could be.
const PAUSE: Duration = Duration::from_millis(100);
