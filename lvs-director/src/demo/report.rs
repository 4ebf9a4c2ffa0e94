//! What the demo says at the end: figures computed from the outcome, as text for people and as JSON for programs.
//! Decides what is shown and how it is laid out; the listing and the explanation come ready-made.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::Outcome;
use super::plan;

/// Everything the demo found out.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Whose TCP carried the requests.
    pub mode: Mode,
    /// How many requests were made.
    pub requests: usize,
    /// What became of them.
    pub outcome: Outcome,
    /// The director's services and counters, as `ipvsadm -Ln --stats` prints them.
    pub listing: String,
    /// Why a packet goes where it goes, as the director explains it.
    pub explanation: String,
}

/// Whose TCP carried the requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The kernel's, through TUN devices.
    Tun,
    /// The simulator's, because something was denied.
    Simulated {
        /// What was denied, by whom, and what helps.
        denied: String,
    },
}

/// What one server did, against what its weight promised.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// The server.
    pub server: plan::Server,
    /// Requests it answered, one number for each virtual service of the plan.
    pub answered: [usize; plan::VIRTUAL.len()],
    /// Requests its weight promised it.
    pub promised: f64,
}

/// Nearest-rank percentiles of the latency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Half of the requests were at least as fast as this.
    pub p50: Duration,
    /// Nine of ten were.
    pub p90: Duration,
    /// Ninety-nine of a hundred were.
    pub p99: Duration,
    /// All were.
    pub max: Duration,
}

impl Report {
    /// What each server did.
    pub fn shares(&self) -> Vec<Share> {
        let weights: u32 = plan::SERVERS.iter().map(|server| server.weight).sum();
        plan::SERVERS
            .iter()
            .map(|server| Share {
                server: *server,
                answered: plan::VIRTUAL.map(|service| {
                    let answers = self.outcome.answered.iter();
                    answers.filter(|answer| answer.to == service && answer.server == server.name).count()
                }),
                promised: self.requests as f64 * f64::from(server.weight) / f64::from(weights),
            })
            .collect()
    }

    /// How long answers took; `None` if there was none.
    pub fn latency(&self) -> Option<Latency> {
        let mut latencies: Vec<_> = self.outcome.answered.iter().map(|answer| answer.latency).collect();
        latencies.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100).max(1);
            latencies.get(rank - 1).copied()
        };
        Some(Latency { p50: percentile(50)?, p90: percentile(90)?, p99: percentile(99)?, max: percentile(100)? })
    }

    /// The report as one JSON object.
    pub fn to_json(&self) -> Value {
        let (mode, denied) = match &self.mode {
            Mode::Tun => ("tun", None),
            Mode::Simulated { denied } => ("simulated", Some(denied)),
        };
        let per_server: Vec<_> = self.shares().iter().map(share_to_json).collect();
        json!({
            "mode": mode,
            "denied": denied,
            "requests": self.requests,
            "answered": self.outcome.answered.len(),
            "failed": self.outcome.failed.len(),
            "failures": self.outcome.failed.iter().take(FAILURES_SHOWN).collect::<Vec<_>>(),
            "seconds": self.outcome.elapsed.as_secs_f64(),
            "per_server": per_server,
            "latency_ms": self.latency().map(latency_to_json),
            "stats": self.listing,
            "explain": self.explanation,
        })
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        self.write_introduction(text)?;
        let time = if self.mode == Mode::Tun { "" } else { " of simulated time" };
        writeln!(
            text,
            "\n{} of {} HTTP requests answered, every byte checked, in {:.2} s{time}.",
            self.outcome.answered.len(),
            self.requests,
            self.outcome.elapsed.as_secs_f64(),
        )?;
        self.write_failures(text)?;
        writeln!(text, "\nWhat the director counted (ipvsadm -Ln --stats):\n\n{}", indented(&self.listing))?;
        self.write_shares(text)?;
        if let Some(Latency { p50, p90, p99, max }) = self.latency() {
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(milliseconds);
            writeln!(text, "\nLatency, from connecting to the last byte (ms):\n")?;
            writeln!(text, "  p50 {p50:.2}   p90 {p90:.2}   p99 {p99:.2}   max {max:.2}")?;
        }
        writeln!(text, "\nWhy does a packet go where it goes? The director explains one:\n")?;
        write!(text, "{}", indented(&self.explanation))
    }

    fn write_introduction(&self, text: &mut String) -> std::fmt::Result {
        let (stacks, link) = match self.mode {
            Mode::Tun => ("use the kernel's TCP,\neach side in a network namespace of its own", "TUN device"),
            Mode::Simulated { .. } => ("are simulated,\nTCP stacks and all", "simulated link"),
        };
        let clients = plan::CLIENTS.map(|client| client.address.to_string()).join("  ");
        let services = plan::VIRTUAL.map(|service| service.to_string()).join("  ");
        writeln!(text, "A NAT load balancer inside this process, between clients and servers that {stacks}:\n")?;
        writeln!(text, "  clients    {clients}\n     │ {link}")?;
        writeln!(text, "  director   {services}  (scheduler wrr)\n     │ {link}")?;
        for (index, server) in plan::SERVERS.iter().enumerate() {
            let label = if index == 0 { "servers" } else { "" };
            let [ipv4, ipv6] = server.endpoints();
            writeln!(text, "  {label:<8}   {ipv4}  {ipv6}  {}, weight {}", server.name, server.weight)?;
        }
        Ok(())
    }

    fn write_failures(&self, text: &mut String) -> std::fmt::Result {
        let failed = &self.outcome.failed;
        if failed.is_empty() {
            return Ok(());
        }
        writeln!(text, "{} FAILED:", failed.len())?;
        for reason in failed.iter().take(FAILURES_SHOWN) {
            writeln!(text, "  {reason}")?;
        }
        if failed.len() > FAILURES_SHOWN {
            writeln!(text, "  and {} more", failed.len() - FAILURES_SHOWN)?;
        }
        Ok(())
    }

    fn write_shares(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "Requests each server answered, against what its weight promised (scheduler wrr):\n")?;
        writeln!(
            text,
            "  {:<8}{:>6}{:>8}{:>8}{:>10}{:>10}",
            "server", "weight", "IPv4", "IPv6", "answered", "promised"
        )?;
        for Share { server, answered: [ipv4, ipv6], promised } in self.shares() {
            let answered = ipv4 + ipv6;
            let bar = "█".repeat(answered * BAR_WIDTH / self.requests.max(1));
            let line = format!(
                "  {:<8}{:>6}{ipv4:>8}{ipv6:>8}{answered:>10}{promised:>10.1}  {bar}",
                server.name, server.weight
            );
            writeln!(text, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn share_to_json(share: &Share) -> Value {
    let [ipv4, ipv6] = share.answered;
    json!({
        "name": share.server.name,
        "weight": share.server.weight,
        "requests": ipv4 + ipv6,
        "requests_ipv4": ipv4,
        "requests_ipv6": ipv6,
        "promised": share.promised,
    })
}

fn latency_to_json(latency: Latency) -> Value {
    json!({
        "p50": milliseconds(latency.p50),
        "p90": milliseconds(latency.p90),
        "p99": milliseconds(latency.p99),
        "max": milliseconds(latency.max),
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

/// How many reasons of failed requests are told one by one.
const FAILURES_SHOWN: usize = 5;

const BAR_WIDTH: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::load::Answered;

    /// Seven requests: ant answers three of IPv4 and one of IPv6, bee two of IPv6, and one fails.
    fn report() -> Report {
        let answered = [("ant", 0, 10), ("ant", 0, 20), ("ant", 0, 30), ("ant", 1, 40), ("bee", 1, 50), ("bee", 1, 60)]
            .map(|(server, service, latency_ms)| Answered {
                to: plan::VIRTUAL[service],
                server: server.to_owned(),
                latency: Duration::from_millis(latency_ms),
            });
        Report {
            mode: Mode::Tun,
            requests: 7,
            outcome: Outcome {
                answered: answered.to_vec(),
                failed: vec!["request 6: refused".to_owned()],
                elapsed: Duration::from_millis(1500),
            },
            listing: "IP Virtual Server\n".to_owned(),
            explanation: "because\n".to_owned(),
        }
    }

    #[test]
    fn the_json_tells_requests_failures_servers_and_mode() {
        let json = report().to_json();
        assert_eq!(json["mode"], "tun");
        assert_eq!((json["requests"].as_u64(), json["failed"].as_u64()), (Some(7), Some(1)));
        assert_eq!(json["per_server"][0]["name"], "ant");
        assert_eq!(json["per_server"][0]["requests"], 4);
        assert_eq!(json["per_server"][0]["requests_ipv4"], 3);
        assert_eq!(json["per_server"][0]["promised"], 3.5);
        assert_eq!(json["per_server"][2]["requests"], 0);
        assert_eq!(json["latency_ms"]["p50"], 30.0);
        assert_eq!(json["latency_ms"]["p90"], 60.0);
        assert_eq!(json["seconds"], 1.5);
    }

    #[test]
    fn the_text_tells_the_same() {
        let text = report().to_text();
        for line in [
            "6 of 7 HTTP requests answered, every byte checked, in 1.50 s.",
            "1 FAILED:",
            "  request 6: refused",
            "  clients    10.1.0.1  fd00:1::1",
            "  IP Virtual Server",
            "  ant          3       3       1         4       3.5  ██████████████████████",
            "  p50 30.00   p90 60.00   p99 60.00   max 60.00",
            "  because",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
        }
    }

    #[test]
    fn percentiles_are_taken_by_nearest_rank() {
        let mut report = report();
        report.outcome.answered = (1..=200u64)
            .map(|ms| Answered { to: plan::VIRTUAL[0], server: "ant".to_owned(), latency: Duration::from_millis(ms) })
            .collect();
        let latency = report.latency().expect("there are answers");
        assert_eq!(
            [latency.p50, latency.p90, latency.p99, latency.max],
            [100, 180, 198, 200].map(Duration::from_millis)
        );
        report.outcome.answered.clear();
        assert_eq!(report.latency(), None);
    }
}
