//! `lvsd demo`: a few hundred real HTTP requests through a director, and what came of them.
//! Decides between the kernel's network and the simulated one, and the exit status.

pub mod lab;
pub mod load;
pub mod namespaces;
pub mod page;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod report;
pub mod servers;
pub mod simulated;

use std::process::ExitCode;

use lvs_core::{Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Seed, Side};
use lvs_io::Clock;

use crate::denied::Denied;
use crate::{listing, rules, say};
use progress::Progress;
use report::{Mode, Report};

/// Runs the demo with this many requests and prints its report, as text or as one JSON object.
/// Fails if any request does. Must be called before the process starts a thread.
pub fn run(requests: usize, json: bool) -> ExitCode {
    let report = over_tun(requests, json).unwrap_or_else(|denied| {
        say::note(format_args!(
            "{denied}\nThe same demo follows, simulated: TCP stacks, links and clock inside this process.\n"
        ));
        simulated(requests, denied)
    });
    let printed = say::print(&if json { format!("{}\n", report.to_json()) } else { report.to_text() });
    if report.outcome.failed.is_empty() { printed } else { ExitCode::FAILURE }
}

/// The demo over the kernel's TCP.
///
/// # Errors
/// What was denied; nothing has happened then.
fn over_tun(requests: usize, quiet: bool) -> Result<Report, Denied> {
    namespaces::enter_user_namespace()?;
    let progress = if quiet { Progress::silent(requests) } else { Progress::on_terminal(requests) };
    let visit = lab::visit(director(), || load::drive(requests, &progress))?;
    progress.clear();
    let lab::Visit { mut outcome, mut worker, clock, ended } = visit;
    if let Err(error) = ended {
        outcome.failed.insert(0, format!("the director stopped: {error}"));
    }
    let now = clock.now();
    let (listing, explanation) = last_words(worker.director_mut(), now);
    Ok(Report { mode: Mode::Tun, requests, outcome, listing, explanation })
}

/// The same demo over simulated TCP.
fn simulated(requests: usize, denied: Denied) -> Report {
    let (outcome, mut simulation) = simulated::drive(requests);
    let now = simulation.now();
    let (listing, explanation) = last_words(simulation.director_mut(), now);
    Report { mode: Mode::Simulated { denied: denied.to_string() }, requests, outcome, listing, explanation }
}

/// The demo's director has addresses of its own, for the ICMP errors it may have to send.
fn config() -> DirectorConfig {
    let side = |(ipv4, ipv6)| Side::default().with(|side| (side.ipv4, side.ipv6) = (Some(ipv4), Some(ipv6)));
    DirectorConfig::default().with(|config| {
        config.client_side = side(plan::DIRECTOR_CLIENT_SIDE);
        config.server_side = side(plan::DIRECTOR_SERVER_SIDE);
    })
}

/// Gives a new director the plan's rules.
fn configure(director: &mut Director) {
    rules::load(director, &plan::rules()).expect("the demo's own rules are right");
}

/// A director with the plan's rules.
pub fn director() -> Director {
    // Nothing in the demo is secret, and the same numbers each time make two runs comparable.
    let mut director = Director::new(config(), Seed::new(1));
    configure(&mut director);
    director
}

/// The listing and the explanation that end the report.
fn last_words(director: &mut Director, now: Instant) -> (String, String) {
    let later = listing::publish_counters(director, now);
    (listing::statistics(&director.services(later)), explain(director, later))
}

/// What would happen to the first packet of one more connection.
fn explain(director: &Director, now: Instant) -> String {
    let syn = probe::syn(plan::EXPLAINED_FROM, plan::EXPLAINED_TO);
    let mut storage = [0; HEADROOM + probe::SYN_LEN];
    storage[HEADROOM..].copy_from_slice(&syn);
    let packet = PacketBuf::new(&mut storage, HEADROOM, probe::SYN_LEN);
    director.explain(now, &packet).to_string()
}
