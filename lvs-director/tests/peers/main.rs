//! Where there is no Linux to follow, programs that others wrote are the judges: the PROXY header before nginx and
//! HAProxy, at a server that speaks first and at one that does not; and NAT64 over a path that takes 1,000 bytes.
//!
//! ```text
//!   ┌────────┐  ┌──────────┐  ┌────────┐           ┌────────┐  1,000  ┌────────┐
//!   │ client │  │ director │  │ server │     or    │ router │─────────│ server │
//!   └───┼────┘  └────┼─────┘  └───┼────┘           └───┼────┘   far   └────────┘
//!       └────────────┴─── lan ────┴────────────────────┘
//! ```
//!
//! Each case runs in a process of its own. What the machine does not have is said, and the case counts as ignored.

#[path = "../cases/mod.rs"]
mod cases;
mod ground;
mod programs;

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use cases::Case;
use ground::{Place, director};
use lvs_core::service::ClientAddress;
use lvs_io::netdev;
use lvs_io_tun::netns;
use lvs_testkit::network::{Failure, Party, add_switch};
use programs::Program;

fn main() -> ExitCode {
    let versions = [("v1", ClientAddress::ProxyV1), ("v2", ClientAddress::ProxyV2)];
    let places = [("ipv4", Place::Ipv4), ("ipv6", Place::Ipv6), ("nat64", Place::Nat64)];
    let mut cases = Vec::new();
    for program in [Program::Nginx, Program::Haproxy] {
        for (version, kind) in versions {
            for (family, place) in places {
                cases.push(Case {
                    name: format!("proxy_{version}_before_{}_{family}", program.name()),
                    is_extra: false,
                    run: Box::new(move || {
                        denied(place, Some(program))?;
                        introduce(program, kind, place).unwrap_or_else(|error| panic!("{error}"));
                        Ok(())
                    }),
                });
            }
        }
    }
    cases.push(Case {
        name: "nat64_over_a_path_of_1000_bytes".to_owned(),
        is_extra: false,
        run: Box::new(|| {
            denied(Place::NarrowNat64, None)?;
            send_over_narrow_path().unwrap_or_else(|error| panic!("{error}"));
            Ok(())
        }),
    });
    cases::main(&cases, AT_ONCE, "", netns::isolate)
}

/// A case waits most of its time for the kernel and for programs to start.
const AT_ONCE: usize = 4;

/// What the case needs and this machine does not have.
fn denied(place: Place, program: Option<Program>) -> Result<(), Box<dyn Display>> {
    if place != Place::Ipv4 && !netdev::has_ipv6() {
        return Err(Box::new("this kernel has no IPv6"));
    }
    match program.filter(|program| !program.is_installed()) {
        Some(program) => Err(Box::new(format!("{} is not installed", program.name()))),
        None => Ok(()),
    }
}

/// The server's greeting must come, and name the client; and so must its answer to a request.
fn introduce(program: Program, kind: ClientAddress, place: Place) -> Result<(), Failure> {
    let serve = move |ready: &dyn Fn(), finished: &mpsc::Receiver<()>| {
        let _running = programs::start(program, place)?;
        ready();
        Ok(finished.recv()?)
    };
    let browse = move || {
        let mut greeted = connect(place.virtual_endpoint(ground::GREETING))?;
        let client = greeted.local_addr()?;
        let expected = format!("220 {} {}\r\n", client.ip(), client.port());
        let mut greeting = vec![0; expected.len()];
        greeted.read_exact(&mut greeting).map_err(|error| format!("no greeting: {error}"))?;
        assert_eq!(String::from_utf8_lossy(&greeting), expected);
        let mut asked = connect(place.virtual_endpoint(ground::ASKING))?;
        let client = asked.local_addr()?;
        asked.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        asked.read_to_string(&mut answer).map_err(|error| format!("no answer: {error}"))?;
        let expected = format!("{} {}", client.ip(), client.port());
        assert!(answer.starts_with("HTTP/1.") && answer.ends_with(&expected), "{answer:?} should name {expected}");
        Ok(())
    };
    play(kind, place, serve, browse)
}

/// A client's full-sized segments must reach a server that lies behind a narrower link than the director's, all of them.
fn send_over_narrow_path() -> Result<(), Failure> {
    let serve = |ready: &dyn Fn(), finished: &mpsc::Receiver<()>| {
        programs::count_bytes(ground::ASKING)?;
        ready();
        Ok(finished.recv()?)
    };
    let browse = || {
        let mut stream = connect(Place::NarrowNat64.virtual_endpoint(ground::ASKING))?;
        stream.write_all(&vec![b'x'; UPLOAD])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| format!("no answer: {error}"))?;
        assert_eq!(answer, UPLOAD.to_string());
        Ok(())
    };
    play(ClientAddress::None, Place::NarrowNat64, serve, browse)
}

const UPLOAD: usize = 100_000;

/// Everybody in a namespace of his own.
fn play(
    kind: ClientAddress,
    place: Place,
    serve: impl Fn(&dyn Fn(), &mpsc::Receiver<()>) -> Result<(), Failure> + Send + 'static,
    browse: impl Fn() -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    place.switches().iter().try_for_each(|name| add_switch(name))?;
    let (finish, finished) = mpsc::channel();
    let server = Party::new("server", vec![place.server_port()], move |ready| {
        place.set_up_server()?;
        serve(ready, &finished)
    })?;
    let (finish_router, router_finished) = mpsc::channel::<()>();
    let router = place.router_ports().map(|ports| {
        Party::new("router", ports, move |ready| {
            ground::become_a_router()?;
            ready();
            Ok(router_finished.recv()?)
        })
    });
    let router = router.transpose()?;
    let (give_handle, handle) = mpsc::channel();
    let directing = move |ready: &dyn Fn()| director(kind, place, &give_handle, ready);
    let director = Party::new("director", vec![place.director_port()], directing)?;
    let client = Party::new("client", vec![place.client_port()], move |_| browse())?;
    router.iter().try_for_each(Party::start)?;
    server.start()?;
    director.start()?;
    let Ok(handle) = handle.recv() else {
        return Err(director.join().err().unwrap_or_else(|| "the director ended".into()));
    };
    client.start()?;
    let browsed = client.join();
    handle.stop();
    let counted = director.join()?;
    // An error: it has ended already, `join` says why.
    let _ = (finish.send(()), finish_router.send(()));
    server.join()?;
    browsed.map_err(|error| format!("{error}; {counted}").into())
}

fn connect(to: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| format!("{to}: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// How long anybody waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
