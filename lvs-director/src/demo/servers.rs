//! The demo's real servers: each a name, a listening socket for IPv4 and one for IPv6, and threads that answer.
//! Runs in whatever namespace its caller is in.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::plan;
use crate::denied::Denied;
use crate::http;

/// Listening sockets with the names of their servers.
#[derive(Debug)]
pub struct Servers {
    listeners: Vec<(&'static str, TcpListener)>,
    is_closed: AtomicBool,
}

impl Servers {
    /// Opens every server's sockets; connections wait in them until [`Self::serve`].
    ///
    /// # Errors
    /// If an address is not there or its port is taken.
    pub fn listen() -> Result<Self, Denied> {
        let mut listeners = Vec::new();
        for server in &plan::SERVERS {
            for endpoint in server.endpoints() {
                let listener = TcpListener::bind(endpoint)
                    .map_err(|cause| Denied::new(format!("listen on {endpoint}, the server {}", server.name), cause))?;
                listeners.push((server.name, listener));
            }
        }
        Ok(Self { listeners, is_closed: AtomicBool::new(false) })
    }

    /// Answers requests until [`Self::close`], each on a thread of its own.
    pub fn serve(&self) {
        thread::scope(|scope| {
            for (name, listener) in &self.listeners {
                scope.spawn(move || {
                    while !self.is_closed.load(Ordering::Acquire) {
                        // A client that breaks off is the client's failure, and counted there.
                        if let Ok((stream, _)) = listener.accept() {
                            scope.spawn(move || http::serve(name, stream, Instant::now() + CONNECTION_TIMEOUT));
                        }
                    }
                });
            }
        });
    }

    /// Makes [`Self::serve`] return, from any thread, once the requests in hand are answered.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        for (_, listener) in &self.listeners {
            // On Linux, shutting a listening socket down ends a blocked accept (EINVAL). The standard library offers
            // the call for streams only; both are the same kind of descriptor.
            if let Ok(listener) = listener.try_clone() {
                let _ = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
            }
        }
    }
}

/// How long a server keeps a connection whose client says nothing.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_until_it_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let servers = Servers { listeners: vec![("bee", listener)], is_closed: AtomicBool::new(false) };
        let answers = thread::scope(|scope| {
            scope.spawn(|| servers.serve());
            let answers = [1, 100_000].map(|len| http::get(address, len, Instant::now() + CONNECTION_TIMEOUT));
            servers.close();
            answers
        });
        // serve() has returned, or the scope would still wait.
        for (answer, body_len) in answers.into_iter().zip([1, 100_000]) {
            assert_eq!(answer.expect("an answer"), http::Answer { server: "bee".to_owned(), body_len });
        }
    }
}
