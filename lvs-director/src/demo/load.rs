//! The clients: sends every request of the plan over the kernel's TCP, several at once, and notes who answered and
//! how long it took. Decides nothing about the network: it runs in whatever namespace its caller is in.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::plan;
use super::progress::Progress;
use crate::http;

/// What became of all requests.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    /// Those whose every byte arrived unaltered.
    pub answered: Vec<Answered>,
    /// The others, with the reason.
    pub failed: Vec<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

/// A request that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The virtual service that was asked.
    pub to: SocketAddr,
    /// The server that signed the answer.
    pub server: String,
    /// From the start of the connection to the last byte of the answer.
    pub latency: Duration,
}

/// Sends the first `requests` requests of the plan, [`plan::CONCURRENCY`] at a time, and waits for all of them.
/// Bounded: a request fails after [`REQUEST_TIMEOUT`], and all that are left fail once the whole takes too long.
pub fn drive(requests: usize, progress: &Progress) -> Outcome {
    let started = Instant::now();
    let deadline = started + patience(requests);
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Outcome::default());
    let client = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= requests {
                break;
            }
            let result = one_request(index, deadline);
            progress.finished(result.is_ok());
            let mut outcome = outcome.lock().expect("no client panics while it holds the lock");
            match result {
                Ok(answered) => outcome.answered.push(answered),
                Err(reason) => outcome.failed.push(reason),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..plan::CONCURRENCY.min(requests) {
            scope.spawn(client);
        }
    });
    let mut outcome = outcome.into_inner().expect("no client panicked");
    outcome.elapsed = started.elapsed();
    outcome
}

fn one_request(index: usize, deadline: Instant) -> Result<Answered, String> {
    let plan::Request { to, len } = plan::request(index);
    let started = Instant::now();
    let answer = http::get(to, len, deadline.min(started + REQUEST_TIMEOUT))
        .map_err(|error| format!("request {index} to http://{to}/bytes/{len}: {error}"))?;
    if answer.body_len != len {
        return Err(format!("request {index} to http://{to}/bytes/{len}: got {} bytes", answer.body_len));
    }
    Ok(Answered { to, server: answer.server, latency: started.elapsed() })
}

/// How long all requests together may take.
fn patience(requests: usize) -> Duration {
    // A healthy director answers thousands a second even on a small machine; this only bounds a broken one.
    Duration::from_secs(8) + Duration::from_millis(5) * u32::try_from(requests).unwrap_or(u32::MAX)
}

/// How long one request may take: long enough for one lost SYN, which Linux repeats after 1 s and then 3 s (RFC 6298).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
