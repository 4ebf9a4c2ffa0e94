//! One process for one device: two directors on the same Ethernet device would both answer every client. Whoever opens a
//! device claims it first, by the name of a socket that only one process can have. The kernel keeps such names for each
//! network namespace (unix(7), abstract sockets) and takes them back when the process ends, however it ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::net::sockopt::socket_peercred;
use rustix::process::getuid;

use crate::denied::Denied;
use crate::say;

/// A claim, held for as long as this is.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "it is held, not used")] UnixListener);

/// Claims a device for a use of it: `forwarding on eth0`.
///
/// `None` if the name is held by a user who could not forward anyway, and only wants to be in the way.
///
/// # Errors
/// Another process has claimed it: its number is told.
pub fn claim(usage: &str) -> Result<Option<Claim>, Denied> {
    let attempt = || format!("start {usage}");
    let name =
        SocketAddr::from_abstract_name(format!("lvsd: {usage}")).map_err(|cause| Denied::new(attempt(), cause))?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => Ok(Some(Claim(listener))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name) {
            Some(Holder { uid, process }) if uid != 0 && uid != getuid().as_raw() => {
                say::warning(format_args!(
                    "process {process} of user {uid} pretends to be {usage} already; it is not believed, and nobody \
                     keeps a second lvsd from starting there"
                ));
                Ok(None)
            }
            holder => {
                let holder =
                    holder.map_or("another process".to_owned(), |holder| format!("process {}", holder.process));
                Err(Denied::said(format_args!("{holder} is {usage} already: end that first")))
            }
        },
        Err(cause) => Err(Denied::new(attempt(), cause)),
    }
}

struct Holder {
    uid: u32,
    process: i32,
}

/// Who has the name, as the kernel says it.
fn holder(name: &SocketAddr) -> Option<Holder> {
    let socket = UnixStream::connect_addr(name).ok()?;
    let credentials = socket_peercred(&socket).ok()?;
    Some(Holder { uid: credentials.uid.as_raw(), process: credentials.pid.as_raw_nonzero().get() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_refused_to_others_until_it_is_let_go() {
        let usage = format!("tested by process {}", std::process::id());
        let held = claim(&usage).expect("it is free");
        let refused = claim(&usage).expect_err("it is held").to_string();
        assert_eq!(refused, format!("process {} is {usage} already: end that first", std::process::id()));
        assert!(claim(&format!("{usage} otherwise")).is_ok());
        drop(held);
        assert!(claim(&usage).expect("it is free again").is_some());
    }
}
