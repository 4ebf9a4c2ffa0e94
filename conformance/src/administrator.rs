//! Who types at the recorded director: ipvsadm command lines, sysctls, files below /proc. Joins `lvs-admin` to a
//! director; the texts themselves are made there.

use std::fmt::Display;

use lvs_admin::{ListOptions, Listing, Names, Request, SaveOptions, proc, split_words};
use lvs_core::view::ConnectionView;
use lvs_core::{Command, Director, Instant, Protocol, ServiceKey};

use crate::sysctl::Remembered;

/// The administrator, and the little he keeps outside the director.
#[derive(Clone, Debug)]
pub struct Administrator {
    /// The recorder's `/etc/services`, as far as recordings show it.
    names: Names,
    sysctls: Remembered,
}

/// What a command printed and how it ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Printed {
    /// Exit status.
    pub status: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Administrator {
    /// One who has not done anything yet.
    pub fn new() -> Self {
        Self { names: Names::from_files(SERVICES, ""), sysctls: Remembered::default() }
    }

    /// Runs `ipvsadm` with a command line's arguments.
    pub fn ipvsadm(&self, director: &mut Director, now: Instant, arguments: &str, stdin: &str) -> Printed {
        match lvs_admin::parse_with_names(&split_words(arguments), &self.names) {
            Ok(Request::Restore) => self.restore(director, now, stdin),
            Ok(request) => self.perform(director, now, request),
            Err(error) => Printed::refused(error.exit_status.into(), error),
        }
    }

    /// The connection table as `/proc/net/ip_vs_conn` shows it.
    pub fn connections(&self, director: &Director, now: Instant) -> String {
        proc::ip_vs_conn(&connections(director, now))
    }

    /// A file below `/proc`; `None` for those nobody can answer.
    pub fn read(&self, director: &Director, now: Instant, path: &str) -> Option<String> {
        if let Some(name) = path.strip_prefix("/proc/sys/net/ipv4/vs/") {
            return self.sysctls.get(director.settings(), name).map(|value| format!("{value}\n"));
        }
        match path {
            "/proc/net/ip_vs" => Some(proc::ip_vs(&director.services(now))),
            "/proc/net/ip_vs_conn" => Some(self.connections(director, now)),
            "/proc/net/ip_vs_conn_sync" => Some(proc::ip_vs_conn_sync(&connections(director, now))),
            "/proc/net/ip_vs_stats" => Some(proc::ip_vs_stats(&director.statistics())),
            "/proc/net/ip_vs_stats_percpu" => {
                let totals = director.statistics();
                Some(proc::ip_vs_stats_percpu(&[totals.published], &totals))
            }
            _ => None,
        }
    }

    /// Changes sysctls. The error names one that does not exist or does not take its value.
    pub fn set_sysctls(
        &mut self,
        director: &mut Director,
        now: Instant,
        sysctls: &[(String, String)],
    ) -> Result<(), String> {
        // One write at a time, in the recording's order: what one of them sets off sees the others as they were then.
        for (name, value) in sysctls {
            let mut settings = director.settings().clone();
            self.sysctls.set(&mut settings, name, value)?;
            director.apply(now, &Command::SetSettings(settings)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// `ipvsadm -R`: goes on when a rule is refused, stops at a line that is no rule.
    fn restore(&self, director: &mut Director, now: Instant, rules: &str) -> Printed {
        let mut printed = Printed::default();
        for request in lvs_admin::restore(rules, &self.names) {
            let is_rule = request.is_ok();
            let line = match request {
                Ok(request) => self.perform(director, now, request),
                Err(refused) => Printed::refused(refused.error.exit_status.into(), refused.error),
            };
            printed.status = line.status;
            printed.stdout += &line.stdout;
            printed.stderr += &line.stderr;
            if !is_rule {
                break;
            }
        }
        printed
    }

    fn perform(&self, director: &mut Director, now: Instant, request: Request) -> Printed {
        match request {
            Request::Apply(command) => match director.apply(now, &with_ftp_helper(command)) {
                Ok(()) => Printed::default(),
                Err(error) => Printed::refused(REFUSED, error),
            },
            Request::List(options) => self.list(director, now, &options),
            Request::Save { numeric } => {
                let options = SaveOptions { numeric, ..SaveOptions::default() };
                Printed::text(lvs_admin::save(&director.services(now), options, &self.names))
            }
            Request::Help => Printed::text(lvs_admin::usage()),
            Request::Version => Printed::text(lvs_admin::version()),
            Request::Restore | Request::StartDaemon(_) | Request::StopDaemon(_) => {
                Printed::refused(REFUSED, "there are no synchronisation daemons here")
            }
        }
    }

    fn list(&self, director: &Director, now: Instant, options: &ListOptions) -> Printed {
        match options.listing {
            Listing::Services(_) => match lvs_admin::list(&director.services(now), options, &self.names) {
                Ok(text) => Printed::text(text),
                Err(error) => Printed::refused(NOT_LISTED, error),
            },
            Listing::Connections { .. } => {
                Printed::text(lvs_admin::list_connections(&connections(director, now), options, &self.names))
            }
            Listing::Timeouts => Printed::text(lvs_admin::list_timeouts(&director.timeouts())),
            Listing::Daemons => Printed::text(lvs_admin::list_daemons(&[])),
        }
    }
}

impl Default for Administrator {
    fn default() -> Self {
        Self::new()
    }
}

impl Printed {
    fn text(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    fn refused(status: i64, error: impl Display) -> Self {
        Self { status, stdout: String::new(), stderr: format!("{error}\n") }
    }
}

/// The recorded kernel had `ip_vs_ftp` loaded, which listens on every service on TCP port 21; here services ask for it.
fn with_ftp_helper(mut command: Command) -> Command {
    if let Command::AddService(key, config) | Command::EditService(key, config) = &mut command
        && matches!(key, ServiceKey::Address { protocol: Protocol::Tcp, port: FTP_PORT, .. })
    {
        config.helper = Some("ftp".into());
    }
    command
}

fn connections(director: &Director, now: Instant) -> Vec<ConnectionView> {
    director.connections(now).collect()
}

/// The default of the module's parameter `ports`.
const FTP_PORT: u16 = 21;
/// ipvsadm's exit status for what the kernel refuses.
const REFUSED: i64 = 255;
/// ipvsadm's exit status when the service to be listed does not exist.
const NOT_LISTED: i64 = 1;
/// The recorder's `/etc/services` (Debian 12), as far as recordings use its ports.
pub(crate) const SERVICES: &str = "ftp 21/tcp\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp\nhttps 443/tcp\nhttps 443/udp\n\
    openvpn 1194/tcp\nopenvpn 1194/udp\nsip 5060/tcp\nsip 5060/udp\nhttp-alt 8080/tcp\n";
