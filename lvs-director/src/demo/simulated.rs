//! The demo where the kernel's network cannot be had: the same plan over `lvs-sim`, whose hosts have smoltcp's TCP
//! stacks and whose clock is virtual. What is said over them is the same HTTP, byte for byte.

use std::ops::Range;
use std::time::Duration;

use lvs_core::Seed;
use lvs_sim::{Conversation, Dialogue, HostId, Simulation, StepsExhausted};

use super::load::{Answered, Outcome, REQUEST_TIMEOUT};
use super::plan;
use crate::http;

/// Simulates the first `requests` requests of the plan. The simulation is returned for a look at its director.
pub fn drive(requests: usize) -> (Outcome, Simulation) {
    let mut simulation = Simulation::with_config(Seed::new(1), super::config());
    super::configure(simulation.director_mut());
    for server in &plan::SERVERS {
        let host = simulation.server(&[server.ipv4.into(), server.ipv6.into()]);
        simulation.serve(host, plan::SERVER_PORT, || Box::new(Server { name: server.name, ..Server::default() }));
    }
    let client = simulation.client(&plan::CLIENTS.map(|client| client.address));
    let mut outcome = Outcome::default();
    for first in (0..requests).step_by(WAVE) {
        let wave = first..requests.min(first + WAVE);
        if let Err(error) = one_wave(&mut simulation, client, wave, &mut outcome) {
            outcome.failed.insert(0, format!("the simulation stopped: {error}"));
            break;
        }
    }
    (outcome, simulation)
}

/// Simulates some of the requests, and then the rest after which sockets are forgotten.
fn one_wave(
    simulation: &mut Simulation,
    client: HostId,
    wave: Range<usize>,
    outcome: &mut Outcome,
) -> Result<(), StepsExhausted> {
    let started = simulation.now();
    let mut start = Duration::ZERO;
    let mut conversations = Vec::new();
    for index in wave {
        let request = plan::request(index);
        let conversation = Conversation::dialogue(request.to, Box::new(Client::new(request)));
        let id = simulation.converse(client, conversation.after(start).patience(REQUEST_TIMEOUT));
        conversations.push((index, id));
        start += START_EVERY;
    }
    simulation.run_until_idle()?;
    outcome.elapsed += simulation.now().duration_since(started);
    for (index, id) in conversations {
        let report = simulation.report(id);
        match (&report.server, report.latency()) {
            (Some(server), Some(latency)) if report.is_complete() => {
                outcome.answered.push(Answered { to: report.to, server: server.clone(), latency });
            }
            _ => outcome.failed.push(format!("request {index} to http://{}: {:?}", report.to, report.outcome)),
        }
    }
    simulation.run_for(TIME_WAIT)
}

/// A client that makes one request and checks every byte of the answer.
struct Client {
    request: plan::Request,
    unsaid: Vec<u8>,
    heard: Vec<u8>,
    outcome: Option<Result<http::Answer, http::HttpError>>,
}

impl Client {
    fn new(request: plan::Request) -> Self {
        let unsaid = http::request(&http::host(request.to), request.len);
        Self { request, unsaid, heard: Vec::new(), outcome: None }
    }
}

impl Dialogue for Client {
    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
    }

    fn hear_end(&mut self) {
        self.outcome = Some(http::Answer::parse(&self.heard));
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        speak(&mut self.unsaid, into)
    }

    fn has_said_all(&self) -> bool {
        self.unsaid.is_empty() && self.outcome.is_some()
    }

    fn is_satisfied(&self) -> bool {
        matches!(&self.outcome, Some(Ok(answer)) if answer.body_len == self.request.len)
    }

    fn is_damaged(&self) -> bool {
        self.outcome.is_some() && !self.is_satisfied()
    }

    fn server_name(&self) -> Option<&str> {
        self.outcome.as_ref()?.as_ref().ok().map(|answer| answer.server.as_str())
    }
}

/// A server that answers one request and hangs up.
#[derive(Default)]
struct Server {
    name: &'static str,
    heard: Vec<u8>,
    unsaid: Option<Vec<u8>>,
}

impl Dialogue for Server {
    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        if self.unsaid.is_none() {
            self.unsaid = http::answer(self.name, &self.heard);
        }
    }

    fn hear_end(&mut self) {
        // Nothing more will be asked; what has not become a request by now gets no answer.
        self.unsaid.get_or_insert_default();
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        self.unsaid.as_mut().map_or(0, |unsaid| speak(unsaid, into))
    }

    fn has_said_all(&self) -> bool {
        self.unsaid.as_ref().is_some_and(Vec::is_empty)
    }
}

/// Moves as many bytes as fit.
fn speak(unsaid: &mut Vec<u8>, into: &mut [u8]) -> usize {
    let count = unsaid.len().min(into.len());
    into[..count].copy_from_slice(&unsaid[..count]);
    unsaid.drain(..count);
    count
}

/// One request starts after the other, at this distance; an answer takes longer, so that several are under way.
const START_EVERY: Duration = Duration::from_millis(1);

/// How many requests follow one another without a rest: the work for a packet grows with the sockets there are.
const WAVE: usize = 600;

/// How long smoltcp keeps a socket in TIME-WAIT, and a little more.
const TIME_WAIT: Duration = Duration::from_secs(11);
