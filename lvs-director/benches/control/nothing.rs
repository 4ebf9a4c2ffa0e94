//! A control socket where every command is accepted and nothing is done: what a program takes by itself.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use lvs_core::service::ServicePlace;
use lvs_core::service::stats::Statistics;
use lvs_core::view::{ConnectionView, ServerView, ServiceView, TimeoutsView};
use lvs_core::{Command, ServerConfig, ServerKey, ServiceConfig, ServiceKey};
use lvs_genl::Errno;
use lvs_genl::ipvs::{DaemonMessage, DaemonRole};
use lvs_genl::lvs::State;
use lvs_genl::server::{Access, Refusal, ServerCursor, Session, Table};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::director::Failure;

/// Answers until the process ends.
pub struct Nothing {
    pub path: PathBuf,
}

impl Nothing {
    pub fn start(path: &Path) -> Result<Self, Failure> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 128)?;
        thread::spawn(move || {
            while let Ok(client) = rustix::net::accept_with(&socket, SocketFlags::CLOEXEC) {
                converse(&client);
            }
        });
        Ok(Self { path: path.to_owned() })
    }
}

/// Programs come one after the other.
fn converse(client: &OwnedFd) {
    let mut session = Session::new(Access::Full);
    let (mut buffer, mut answer) = (vec![0; 1 << 16], Vec::new());
    while let Ok((len @ 1.., _)) = rustix::net::recv(client, &mut buffer[..], RecvFlags::empty()) {
        if session.receive(&buffer[..len]).is_err() {
            return;
        }
        while session.next_datagram(&mut NoTable, &mut answer) {
            if rustix::net::send(client, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}

/// Has every service and no server.
struct NoTable;

impl Table for NoTable {
    fn apply(&mut self, _: &Command) -> Result<(), Refusal> {
        Ok(())
    }

    fn services(&mut self, _: Option<&ServicePlace>, _: usize) -> Vec<ServiceView> {
        Vec::new()
    }

    fn service(&mut self, _: &ServiceKey) -> Option<ServiceView> {
        None
    }

    fn servers(&mut self, _: &ServiceKey, _: &ServerCursor, _: usize) -> Vec<ServerView> {
        Vec::new()
    }

    fn service_config(&mut self, _: &ServiceKey) -> Option<ServiceConfig> {
        Some(ServiceConfig::new("wrr"))
    }

    fn server(&mut self, _: &ServiceKey, _: &ServerKey) -> Option<ServerConfig> {
        None
    }

    fn connections(&mut self, _: u64, _: usize) -> (Vec<ConnectionView>, Option<u64>) {
        (Vec::new(), None)
    }

    fn statistics(&mut self) -> Statistics {
        Statistics::default()
    }

    fn timeouts(&mut self) -> TimeoutsView {
        TimeoutsView::new(Default::default(), Default::default(), Default::default())
    }

    fn daemons(&mut self) -> Vec<DaemonMessage> {
        Vec::new()
    }

    fn start_daemon(&mut self, _: &DaemonMessage) -> Result<(), Refusal> {
        Err(Errno::NOT_SUPPORTED.into())
    }

    fn stop_daemon(&mut self, _: DaemonRole) -> Result<(), Refusal> {
        Err(Errno::NOT_SUPPORTED.into())
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn set_setting(&mut self, _: &str, _: &str) -> Result<(), Refusal> {
        Err(Errno::NO_ENTRY.into())
    }

    fn state(&mut self) -> State {
        State::default()
    }
}
