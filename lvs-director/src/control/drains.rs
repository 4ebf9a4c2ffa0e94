//! Drains and load factors, for which ipvsadm has no words, as lines of the journal. A drain is written with the moment of its
//! end, in milliseconds since 1970, so that it is no longer than it was for an `lvsd` that is started again.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lvs_core::service::DrainConfig;
use lvs_core::{AfterDrain, Command, ServerKey, ServiceKey};

/// A drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// Whose server it is.
    pub service: ServiceKey,
    /// The server.
    pub server: ServerKey,
    config: DrainConfig,
    end_ms: u64,
}

impl Drain {
    pub fn new(service: ServiceKey, server: ServerKey, deadline: Duration, then: AfterDrain, now: SystemTime) -> Self {
        let end_ms = milliseconds(since_1970(now).saturating_add(deadline));
        Self { service, server, config: DrainConfig { deadline, then }, end_ms }
    }

    /// Whether an edit with this leaves it running as it is.
    pub fn is(&self, config: Option<&DrainConfig>) -> bool {
        config == Some(&self.config)
    }

    /// What is left of it. Where the clock on the wall was set back, it is as long as it was at first.
    pub fn command(&self, now: SystemTime) -> Command {
        let left = Duration::from_millis(self.end_ms).saturating_sub(since_1970(now));
        let DrainConfig { deadline, then } = self.config;
        Command::Drain { service: self.service, server: self.server, deadline: left.min(deadline), then }
    }

    pub fn read(text: &str) -> Option<Self> {
        let (words, server) = text.rsplit_once(" -- ")?;
        let (service, server) = read_place(server)?;
        let mut words = words.split(' ');
        let end_ms = words.next()?.parse().ok()?;
        let deadline = Duration::from_millis(words.next()?.parse().ok()?);
        let then = match words.next()? {
            "reset" => AfterDrain::Reset,
            "silence" => AfterDrain::Silence,
            _ => return None,
        };
        Some(Self { service, server, config: DrainConfig { deadline, then }, end_ms })
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = match self.config.then {
            AfterDrain::Reset => "reset",
            AfterDrain::Silence => "silence",
        };
        let place = place(&self.service, &self.server);
        write!(f, "{} {} {then} -- {place}", self.end_ms, milliseconds(self.config.deadline))
    }
}

/// A load factor.
pub fn factor(service: &ServiceKey, server: &ServerKey, factor: u32) -> String {
    format!("{factor} -- {}", place(service, server))
}

/// As [`factor`] writes it.
pub fn read_factor(text: &str) -> Option<Command> {
    let (factor, server) = text.split_once(" -- ")?;
    let (service, server) = read_place(server)?;
    Some(Command::SetServerFactor { service, server, factor: factor.parse().ok()? })
}

/// The server in ipvsadm's words: those that delete it.
fn place(service: &ServiceKey, server: &ServerKey) -> String {
    lvs_admin::command_line(&Command::DeleteServer(*service, *server)).unwrap_or_default()
}

fn read_place(text: &str) -> Option<(ServiceKey, ServerKey)> {
    match lvs_admin::parse_rules(text).ok()?.pop()? {
        Command::DeleteServer(service, server) => Some((service, server)),
        _ => None,
    }
}

fn since_1970(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use lvs_core::Protocol;

    use super::*;

    #[test]
    fn a_drain_is_read_back_with_what_is_left_of_it() {
        for then in [AfterDrain::Reset, AfterDrain::Silence] {
            for (service, server) in [
                (ServiceKey::address(Protocol::Udp, "[2001:db8::53]:53".parse().unwrap()), "[2001:db8::2]:53"),
                (ServiceKey::address(Protocol::Sctp, "192.0.2.80:80".parse().unwrap()), "10.0.0.2:80"),
            ] {
                let server = lvs_core::ServerConfig::nat(server.parse().unwrap()).key;
                let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
                let drain = Drain::new(service, server, Duration::from_secs(60), then, start);
                let read = Drain::read(&drain.to_string()).unwrap();
                assert_eq!(read, drain);
                for (at, left) in [(20, 40), (60, 0), (100, 0)] {
                    let Command::Drain { deadline, .. } = read.command(start + Duration::from_secs(at)) else {
                        panic!()
                    };
                    assert_eq!(deadline.as_secs(), left);
                }
                let Command::Drain { deadline, .. } = read.command(UNIX_EPOCH) else { panic!() };
                assert_eq!(deadline.as_secs(), 60, "the clock was set back");
                let read = read_factor(&factor(&service, &server, 500));
                assert_eq!(read, Some(Command::SetServerFactor { service, server, factor: 500 }));
            }
        }
    }
}
