//! What ipvsadm never had, as subcommands: their words, and what they do.

mod exec;
mod rules;

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use lvs_core::{AfterDrain, Command, Endpoint, ServiceKey};

use crate::json;
use crate::said::Said;
pub use lvs_admin::words::{duration, server, service};
use lvs_client::{Running, Trouble};
pub use rules::system_names;

/// Drives lvsd while it runs: ipvsadm's commands, and a few that ipvsadm never had.
#[derive(Parser, Debug)]
#[command(
    name = "lvsadm",
    version,
    about,
    after_help = "Every ipvsadm command works too: `lvsadm -A -t 192.0.2.80:80 -s wrr`, `lvsadm -Ln`, `lvsadm -h` lists them.\n\
                  A listing with --json is printed as JSON."
)]
pub struct Verbs {
    /// The control socket of lvsd. Also: the environment's LVS_CONTROL. Default: /run/lvs/control.sock.
    #[arg(long, value_name = "PATH", global = true)]
    pub control: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Takes a server out of service: no new connections, and an end for those it has.
    Drain {
        /// tcp:ADDRESS:PORT, udp:…, sctp:…, or mark:NUMBER, for IPv6 mark:NUMBER/6.
        #[arg(value_parser = service)]
        service: ServiceKey,
        /// ADDRESS:PORT of the real server.
        #[arg(value_parser = server)]
        server: Endpoint,
        /// How long its connections may go on: 30s, 5m, 1h.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        deadline: Duration,
        /// What becomes of those still open then.
        #[arg(long, value_enum, default_value_t)]
        then: Then,
        /// Waits until none is left.
        #[arg(long)]
        wait: bool,
    },
    /// Puts a server that drains, or was drained, back into service.
    Undrain {
        /// tcp:ADDRESS:PORT, udp:…, sctp:…, or mark:NUMBER, for IPv6 mark:NUMBER/6.
        #[arg(value_parser = service)]
        service: ServiceKey,
        /// ADDRESS:PORT of the real server.
        #[arg(value_parser = server)]
        server: Endpoint,
    },
    /// Shows the settings, or one, or gives one a value.
    Settings {
        /// NAME, or NAME=VALUE. The names are those of the sysctls below net.ipv4.vs.
        #[arg(value_name = "NAME[=VALUE]")]
        settings: Vec<String>,
    },
    /// Says whether lvsd is ready: exit status 0, else 1.
    Ready {
        /// Waits until it is, also for an lvsd that has not started yet.
        #[arg(long)]
        wait: bool,
    },
    /// Reads a file of rules as ipvsadm-save writes them, and says which lines are wrong. Asks no lvsd.
    Check {
        /// The file; - is standard input.
        file: PathBuf,
    },
    /// Carries out a file of rules, as `ipvsadm-restore` does.
    Restore {
        /// The file; - is standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// All of it or nothing: the first line that is refused is named, and nothing is applied.
        #[arg(long)]
        atomic: bool,
    },
    /// Runs a program, such as stock ipvsadm or keepalived, that drives lvsd in place of the kernel.
    Exec {
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints the manual page.
    Man {
        /// That of this verb.
        #[arg(value_name = "VERB")]
        verb: Option<String>,
    },
}

/// What becomes of connections that are open at a drain's deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Then {
    /// Both sides get a RST.
    #[default]
    Reset,
    /// They are forgotten.
    Silence,
}

impl Verbs {
    /// Does it.
    pub fn run(&self) -> Said {
        match &self.verb {
            Verb::Check { file } => rules::check(file),
            Verb::Exec { command } => exec::exec(command, &lvs_client::socket::path(self.control.as_deref())),
            Verb::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "lvsadm", &mut script);
                Said::text(String::from_utf8_lossy(&script))
            }
            Verb::Man { verb } => {
                manual(verb.as_deref()).map_or_else(|complaint| Said::complaint(USAGE, complaint), Said::text)
            }
            verb => match self.connect() {
                Ok(mut running) => self
                    .ask(verb, &mut running)
                    .unwrap_or_else(|trouble| Said::complaint(FAILED, format!("lvsadm: {trouble}"))),
                // Nobody there is not ready either.
                Err(trouble) => Said::complaint(FAILED, format!("lvsadm: {trouble}")),
            },
        }
    }

    fn connect(&self) -> Result<Running, Trouble> {
        let path = lvs_client::socket::path(self.control.as_deref());
        let mut connected = Running::connect(&path);
        if matches!(self.verb, Verb::Ready { wait: true }) {
            while matches!(&connected, Err(Trouble::Unreachable(unreachable)) if unreachable.is_nobody()) {
                std::thread::sleep(LOOK_AGAIN);
                connected = Running::connect(&path);
            }
        }
        connected
    }

    fn ask(&self, verb: &Verb, running: &mut Running) -> Result<Said, Trouble> {
        match verb {
            Verb::Drain { service, server, deadline, then, wait } => {
                let then = match then {
                    Then::Reset => AfterDrain::Reset,
                    Then::Silence => AfterDrain::Silence,
                };
                running.apply(&Command::Drain { service: *service, server: *server, deadline: *deadline, then })?;
                if *wait { wait_for_drain(running, service, server) } else { Ok(Said::default()) }
            }
            Verb::Undrain { service, server } => running.undrain(service, server).map(|()| Said::default()),
            Verb::Settings { settings } => self.settings(settings, running),
            Verb::Ready { wait } => self.ready(*wait, running),
            Verb::Restore { file, atomic: false } => rules::restore(file, running),
            Verb::Restore { file, atomic: true } => rules::restore_together(file, running),
            Verb::Check { .. } | Verb::Exec { .. } | Verb::Completions { .. } | Verb::Man { .. } => Ok(Said::default()),
        }
    }

    fn settings(&self, words: &[String], running: &mut Running) -> Result<Said, Trouble> {
        let mut told = Vec::new();
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => running.set(name, value)?,
                None => told.extend(running.settings(Some(word))?),
            }
        }
        if words.is_empty() {
            told = running.settings(None)?;
        }
        if self.json {
            return Ok(Said::text(json::text(&json::settings(&told))));
        }
        Ok(Said::text(told.iter().map(|(name, value)| format!("{name} = {value}\n")).collect::<String>()))
    }

    fn ready(&self, wait: bool, running: &mut Running) -> Result<Said, Trouble> {
        let mut state = running.state();
        while wait && is_yet_to_come(&state) {
            std::thread::sleep(LOOK_AGAIN);
            // One that is started again meanwhile is waited for like one that has not started yet.
            if let Err(Trouble::Unreachable(_)) = &state {
                *running = self.connect()?;
            }
            state = running.state();
        }
        let state = state?;
        let status = if state.is_ready { 0 } else { FAILED };
        let stdout = match (self.json, state.is_ready) {
            (true, _) => json::text(&json::state(&state)),
            (false, true) => "ready\n".to_owned(),
            (false, false) => "not ready\n".to_owned(),
        };
        Ok(Said { stdout, status, ..Said::default() })
    }
}

/// Whether the answer may be another one later: it is not ready, or it has gone away.
fn is_yet_to_come(state: &Result<lvs_genl::lvs::State, Trouble>) -> bool {
    match state {
        Ok(state) => !state.is_ready,
        Err(trouble) => matches!(trouble, Trouble::Unreachable(_)),
    }
}

/// Waits until the server has no connection left that is open, of any protocol, or is gone or drained no more.
fn wait_for_drain(running: &mut Running, service: &ServiceKey, server: &Endpoint) -> Result<Said, Trouble> {
    loop {
        let mut services = vec![running.service(service)?];
        running.fill_servers(&mut services)?;
        let left = services[0].servers.iter().find(|view| view.config.key == *server);
        if left.and_then(|view| view.drain).is_none_or(|drain| drain.open == 0) {
            return Ok(Said::default());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The manual page lvsadm(8), or that of a verb: `drain` gives lvsadm-drain(8).
fn manual(verb: Option<&str>) -> Result<String, String> {
    let mut command = Verbs::command();
    command.build();
    if let Some(name) = verb {
        command = command.find_subcommand(name).ok_or(format!("lvsadm: there is no verb {name}"))?.clone();
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).section("8").render(&mut page).map_err(|error| format!("lvsadm: {error}"))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Exit status of a wrong command line.
const USAGE: u8 = 2;
/// Exit status of what failed.
pub(crate) const FAILED: u8 = 1;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
