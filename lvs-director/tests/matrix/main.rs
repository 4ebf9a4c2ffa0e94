//! The namespace matrix: the kernel's TCP and UDP through a director, by every method it has. Client, director and two
//! real servers live in a network namespace each, joined by a bridge.
//!
//! ```text
//!   ┌──────────┐  ┌────────────┐  ┌────────┐ ┌────────┐
//!   │  client  │  │  director  │  │  one   │ │  two   │
//!   │   eth0   │  │ eth0 (lvs) │  │  eth0  │ │  eth0  │
//!   └────┼─────┘  └─────┼──────┘  └───┼────┘ └───┼────┘
//!        └──────────────┴── lan ──────┴──────────┘
//! ```
//!
//! Each row runs in a process of its own. What the machine does not have (user namespaces, IPv6, `/dev/net/tun`) is
//! said, and the rows that need it count as ignored.

#[path = "../cases/mod.rs"]
mod cases;
mod client;
mod director;
mod ground;
mod judge;
mod real_server;
mod rows;
mod traffic;
mod wire;

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::mpsc;

use cases::Case;
use client::Browsed;
use director::Directed;
use lvs_io::netdev;
use lvs_io_tun::netns;
use lvs_testkit::network::{Failure, Party, add_switch, tun_can_be_had};
use real_server::Served;
use rows::{Browser, Row};

fn main() -> ExitCode {
    let case = |row: Row| Case {
        name: row.name(),
        is_extra: row.browser == Browser::Curl,
        run: Box::new(move || {
            denied(&row)?;
            let played = play(row).unwrap_or_else(|error| panic!("{error}"));
            judge::judge(&row, &played);
            Ok(())
        }),
    };
    let cases: Vec<Case> = rows::all().into_iter().map(case).collect();
    cases::main(&cases, AT_ONCE, "run by .ci/run, which installs curl", netns::isolate)
}

/// A row waits most of its time for the kernel to make and unmake devices.
const AT_ONCE: usize = 4;

/// What the row needs and this machine does not have.
fn denied(row: &Row) -> Result<(), Box<dyn Display>> {
    if row.needs_ipv6() && !netdev::has_ipv6() {
        return Err(Box::new("this kernel has no IPv6"));
    }
    if row.needs_tun() {
        tun_can_be_had().map_err(|denied| Box::new(denied) as _)?;
    }
    Ok(())
}

/// What everybody has seen.
#[derive(Debug)]
struct Played {
    browsed: Browsed,
    directed: Directed,
    served: Vec<Served>,
}

fn play(row: Row) -> Result<Played, Failure> {
    row.switches().iter().try_for_each(|name| add_switch(name))?;
    let mut servers = Vec::new();
    for (index, name) in ground::NAMES.into_iter().enumerate() {
        let (finish, finished) = mpsc::channel();
        let run = move |ready: &dyn Fn()| real_server::run(row, index, &finished, ready);
        servers.push((finish, Party::new(name, vec![row.server_port(index)], run)?));
    }
    let (give_handle, handle) = mpsc::channel();
    let director = Party::new("director", row.director_ports(), move |ready| director::run(row, &give_handle, ready))?;
    let client = Party::new("client", vec![row.client_port()], move |_| client::browse(row))?;
    servers.iter().try_for_each(|(_, server)| server.start())?;
    director.start()?;
    let Ok(handle) = handle.recv() else {
        return Err(director.join().err().unwrap_or_else(|| "the director ended".into()));
    };
    client.start()?;
    let browsed = client.join();
    handle.stop();
    let directed = director.join()?;
    let browsed = browsed.map_err(|error| format!("{error}; {directed:?}"))?;
    let mut served = Vec::new();
    for (finish, server) in servers {
        // An error: it has ended already, `join` says why.
        let _ = finish.send(());
        served.push(server.join()?);
    }
    Ok(Played { browsed, directed, served })
}
