//! `lvsd demo --page`: the demo's network with its page, until Ctrl-C. Clients come and go at a pace that swells and ebbs, and
//! some stay for a while, so that there is something to look at and to drain. Whoever opens the page may do everything:
//! there is nothing but the demo behind it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lvs_core::Director;
use lvs_io::{Clock, MonotonicClock, WorkerHandle};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{configure, lab, namespaces, plan};
use crate::control::{self, Control};
use crate::denied::Denied;
use crate::files::{Files, without_places};
use crate::web::{Doors, Web};
use crate::{args, http, listing, say};

/// Runs the demo's network with its page at a loopback address until Ctrl-C, then prints the tables. Fails where the kernel
/// denies the network, or the address is taken. Must be called before the process starts a thread.
pub fn run(at: SocketAddr) -> ExitCode {
    match serve(at) {
        Ok(tables) => say::print(&tables),
        Err(complaint) => {
            say::error(complaint);
            ExitCode::FAILURE
        }
    }
}

fn serve(at: SocketAddr) -> Result<String, String> {
    let doors = Doors::of_demo(at)?;
    namespaces::enter_user_namespace().map_err(|denied| denied.to_string())?;
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let caught = signal_hook::flag::register(signal, Arc::clone(&is_over));
        caught.map_err(|cause| Denied::new("wait for Ctrl-C", cause).to_string())?;
    }
    let mut shown = None;
    let show = |worker: WorkerHandle, clock: MonotonicClock| {
        shown = Some(Shown::start(doors, worker, clock)?);
        say::note(format_args!("the page is at http://{at}/; Ctrl-C ends it"));
        Ok(())
    };
    let visit = lab::visit_shown(super::director(), || clients(&is_over), show).map_err(|denied| denied.to_string())?;
    drop(shown);
    let lab::Visit { mut worker, clock, ended, .. } = visit;
    ended.map_err(|error| format!("the director stopped: {error}"))?;
    let later = listing::publish_counters(worker.director_mut(), clock.now());
    Ok(listing::statistics(&worker.director().services(later)))
}

/// What answers the page. The HTTP thread ends before the control thread, which it asks.
struct Shown {
    _web: Option<Web>,
    _control: Control,
}

impl Shown {
    fn start(doors: Doors, worker: WorkerHandle, clock: MonotonicClock) -> Result<Self, Denied> {
        let denied = |complaint: String| Denied::said(complaint);
        let options = args::Run::default();
        let mut configuration = crate::configuration::Configuration::of(&options).map_err(denied)?;
        // Its devices are in other namespaces: what this host owns is none of its business.
        configuration.devices = crate::devices::Devices::Tun(Vec::new());
        let mut files = Files::of(&options, configuration, 1).map_err(denied)?;
        files.config = super::config();
        let config = without_places(&files.config);
        let mut master = Director::new(config.clone(), lvs_core::Seed::new(0));
        configure(&mut master);
        let control = Control::start(control::Setup {
            listeners: Vec::new(),
            master,
            config,
            workers: vec![worker],
            clock,
            steering: None,
            addresses: Vec::new(),
            queues: Vec::new(),
            host_rules: None,
            journal: None,
            files,
        });
        let control = control.map_err(|error| Denied::said(error.to_string()))?;
        Ok(Self { _web: doors.serve(control.asker()).map_err(denied)?, _control: control })
    }
}

/// Everybody who asks, until it is over.
fn clients(is_over: &AtomicBool) {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    let hurried = || {
        while !is_over.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let plan::Request { to, len } = plan::request(index);
            // What fails is seen on the page.
            let _ = http::get(to, len, Instant::now() + super::load::REQUEST_TIMEOUT);
            thread::sleep(pause(begun.elapsed()));
        }
    };
    let patient = |number: usize| {
        let mut round = number;
        while !is_over.load(Ordering::Relaxed) {
            round += 1;
            stay(plan::VIRTUAL[round % plan::VIRTUAL.len()], STAY + STAY * (round % 5) as u32 / 4, is_over);
        }
    };
    thread::scope(|scope| {
        (0..HURRIED).for_each(|_| _ = scope.spawn(hurried));
        (0..PATIENT).for_each(|number| _ = scope.spawn(move || patient(number)));
    });
}

/// Longer and shorter, in waves of 40 s.
fn pause(elapsed: Duration) -> Duration {
    let wave = (elapsed.as_secs_f64() * std::f64::consts::TAU / 40.0).sin();
    Duration::from_secs_f64(0.06 + 0.045 * wave)
}

/// A connection that says nothing for a while, then asks.
fn stay(to: SocketAddr, time: Duration, is_over: &AtomicBool) {
    let Ok(mut stream) = TcpStream::connect_timeout(&to, super::load::REQUEST_TIMEOUT) else {
        thread::sleep(LOOK_AGAIN);
        return;
    };
    let begun = Instant::now();
    while begun.elapsed() < time && !is_over.load(Ordering::Relaxed) {
        thread::sleep(LOOK_AGAIN);
    }
    let _ = stream.set_read_timeout(Some(super::load::REQUEST_TIMEOUT));
    let _ = stream.write_all(&http::request(&http::host(to), 1000));
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Clients that come and go.
const HURRIED: usize = 3;
/// Clients that stay.
const PATIENT: usize = 24;
const STAY: Duration = Duration::from_secs(4);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
