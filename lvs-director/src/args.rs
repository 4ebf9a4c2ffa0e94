//! The command line of `lvsd`: words in, an [`Invocation`] or clap's sentence about what is wrong out. What each value
//! has to look like is said here; what it means is said where it is used.

mod run;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lvs_io::Prefix;

use crate::realserver::{Action, TunnelEnd};
pub use run::{DeviceOptions, OnDeviceLoss, Run};
pub(crate) use run::{WORKERS_MAX, device_name};

/// What the words after the program's name come to.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(
    name = "lvsd",
    version,
    about = "lvsd is a layer-4 load balancer: Linux Virtual Server (IPVS) in user space.",
    after_help = EXIT_STATUS,
    max_term_width = 100,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub struct CommandLine {
    /// The subcommand and its options.
    #[command(subcommand)]
    pub invocation: Invocation,
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Invocation {
    /// Balance real HTTP over three small servers, inside this process.
    ///
    /// Clients and servers live in network namespaces made for the occasion, and nothing of the machine's own network
    /// is touched. Needs user namespaces (or root) and /dev/net/tun; where these are denied, says so and simulates.
    #[command(after_help = EXIT_STATUS)]
    Demo(Demo),
    /// Balance what arrives on devices until Ctrl-C, then print the tables.
    ///
    /// SIGTERM ends it as Ctrl-C does. SIGHUP has it read configuration and rules again and carry out what has changed, all
    /// of it or nothing; from a terminal that has hung up it ends it. SIGUSR1 prints the tables to standard output. Once
    /// devices are open it keeps of root's rights those on the network alone.
    #[command(after_help = EXIT_STATUS, after_long_help = run::names_and_exit_status(), override_usage = run::USAGE)]
    Run(Run),
    /// Say whether a configuration file, its rules and its settings are right, and touch nothing.
    #[command(after_help = EXIT_STATUS)]
    Check(Check),
    /// Take away the rules by which a killed 'lvsd run --addresses host' has kept this host's own stack quiet.
    ///
    /// Nothing is taken from an lvsd that runs. Needs CAP_NET_ADMIN.
    #[command(after_help = EXIT_STATUS)]
    Clean,
    /// Make this machine a real server for direct routing or tunnels, or end that.
    ///
    /// The virtual addresses go to lo, and ARP keeps quiet about them. Says what it changes, and 'stop' undoes exactly
    /// that. Needs root.
    #[command(
        name = "realserver",
        after_help = EXIT_STATUS,
        subcommand_required = true,
        arg_required_else_help = false,
        disable_help_subcommand = true
    )]
    RealServer(RealServer),
    /// Print the manual page.
    Man {
        /// That of this subcommand
        #[arg(value_name = "SUBCOMMAND")]
        subcommand: Option<String>,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `lvsd demo`.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Demo {
    /// Print one JSON object rather than tables
    #[arg(long)]
    pub json: bool,
    /// Make so many requests
    #[arg(long, value_name = "N", default_value_t = crate::demo::plan::REQUESTS, value_parser = requests)]
    pub requests: usize,
    /// Serve the page meanwhile, at this loopback address, and go on until Ctrl-C
    ///
    /// Whoever opens it may do everything there: nothing but the demo is behind it.
    #[arg(
        long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = "127.0.0.1:9480",
        value_parser = loopback, conflicts_with_all = ["json", "requests"]
    )]
    pub page: Option<SocketAddr>,
}

/// `lvsd check`.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Check {
    /// The configuration file, as 'lvsd run --config FILE' reads it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `lvsd realserver`.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct RealServer {
    /// Remember what to undo in this file, instead of one in /run for each network namespace
    #[arg(long, value_name = "FILE", global = true)]
    pub memory: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: RealServerAction,
}

/// What `lvsd realserver` does.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum RealServerAction {
    /// Take the virtual addresses
    Start {
        /// The virtual addresses
        #[arg(long = "vip", value_name = "ADDRESS", value_delimiter = ',', required = true, value_parser = address)]
        vips: Vec<IpAddr>,
        /// Where tunnels are to end.
        #[command(flatten)]
        tunnel: TunnelOptions,
    },
    /// Give the virtual addresses back
    Stop {
        /// Give back only these
        #[arg(long = "vip", value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
        vips: Vec<IpAddr>,
    },
    /// Say what was changed, and who needs it
    Status,
}

/// Where `lvsd realserver start` is to end tunnels.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct TunnelOptions {
    /// Take what comes by this Ethernet device out of IPIP and GRE tunnels, without the kernel's; until Ctrl-C
    #[arg(long = "tunnel", value_name = "NAME", value_parser = device_name)]
    device: Option<String>,
    /// And out of GUE on this UDP port
    #[arg(long, value_name = "PORT", requires = "device", value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: Option<u16>,
    /// Take tunnels from this director, or this network, only; may be given again. Without it, from anybody
    #[arg(long = "peer", value_name = "ADDRESS[/PREFIX]", requires = "device", value_parser = network)]
    peers: Vec<Prefix>,
}

impl TunnelOptions {
    /// The tunnel end, if one is asked for.
    pub fn end(&self) -> Option<TunnelEnd> {
        Some(TunnelEnd { device: self.device.clone()?, gue_port: self.gue_port, peers: self.peers.clone() })
    }
}

impl RealServerAction {
    /// As [`crate::realserver::realserver`] takes it.
    pub fn parts(&self) -> (Action, &[IpAddr], Option<TunnelEnd>) {
        match self {
            Self::Start { vips, tunnel } => (Action::Start, vips, tunnel.end()),
            Self::Stop { vips } => (Action::Stop, vips, None),
            Self::Status => (Action::Status, &[], None),
        }
    }
}

/// Reads the words that follow the program's name.
///
/// # Errors
/// What to print instead of doing anything, and where: the help and the version that were asked for, or what is wrong.
/// [`clap::Error::exit_code`] is 0 or 2.
///
/// ```
/// use lvs_director::args::{Demo, Invocation, parse};
/// let invocation = parse(["demo", "--requests", "50"].map(Into::into)).unwrap();
/// assert_eq!(invocation, Invocation::Demo(Demo { requests: 50, json: false, page: None }));
/// ```
pub fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Invocation, clap::Error> {
    let words = std::iter::once("lvsd".into()).chain(words);
    CommandLine::try_parse_from(words).map(|line| line.invocation)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IP address"))
}

fn network(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(|_| format!("{text:?} is no network"))
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.parse().ok();
    address
        .filter(|address| address.ip().is_loopback())
        .ok_or_else(|| "a loopback address such as 127.0.0.1:9480".to_owned())
}

fn requests(text: &str) -> Result<usize, String> {
    let wrong = || format!("a number from 1 to {REQUESTS_MAX}");
    text.parse().ok().filter(|requests| (1..=REQUESTS_MAX).contains(requests)).ok_or_else(wrong)
}

/// Most requests a demo makes: more than that is a benchmark, and takes more ports than a client has.
const REQUESTS_MAX: usize = 20_000;

const EXIT_STATUS: &str = "\
Exit status: 0 all went well; 1 a request failed, rules or configuration are wrong or
unreadable, or something was denied; 2 the command line is wrong.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use lvs_io_afpacket::Delivery;

    use super::*;
    use crate::devices::Devices;

    fn parsed(line: &str) -> Result<Invocation, clap::Error> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(Into::into))
    }

    /// What `line` is as a call of `run`.
    fn run(line: &str) -> (PathBuf, Devices, u16) {
        match parsed(line) {
            Ok(Invocation::Run(run)) => {
                (run.rules.unwrap_or_default(), run.devices.devices().expect("named"), run.workers.unwrap_or(1))
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    /// What `line` is as a call of `realserver`.
    fn real_server(line: &str) -> (Action, Vec<IpAddr>, Option<TunnelEnd>, Option<PathBuf>) {
        match parsed(line) {
            Ok(Invocation::RealServer(real)) => {
                let (action, vips, tunnel) = real.action.parts();
                (action, vips.to_vec(), tunnel, real.memory.clone())
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_grammar_contradicts_itself_nowhere() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn subcommands_take_their_options_in_any_order() {
        assert_eq!(parsed("demo").ok(), Some(Invocation::Demo(Demo { requests: 600, json: false, page: None })));
        assert_eq!(
            parsed("demo --requests=7 --json").ok(),
            Some(Invocation::Demo(Demo { requests: 7, json: true, page: None }))
        );
        let two = |workers| (PathBuf::from("r.txt"), Devices::Tun(vec!["a".to_owned(), "b".to_owned()]), workers);
        assert_eq!(run("run r.txt --tun a,b"), two(1));
        assert_eq!(run("run --workers 4 --tun a,b r.txt"), two(4));
        let one = |delivery| (PathBuf::from("r.txt"), Devices::AfPacket(vec!["eth0".to_owned()], delivery), 1);
        assert_eq!(run("run --afpacket eth0 r.txt"), one(Delivery::AtOnce));
        assert_eq!(run("run --in-blocks --afpacket eth0 r.txt"), one(Delivery::BLOCKS));
        let vips = ["192.0.2.80", "2001:db8::80"].map(|vip| vip.parse().unwrap()).to_vec();
        let line = "realserver start --vip 192.0.2.80,2001:db8::80";
        assert_eq!(real_server(line), (Action::Start, vips.clone(), None, None));
        let peers = ["10.0.0.254/32", "fd00::/64"].map(|peer| peer.parse().unwrap()).to_vec();
        let end = TunnelEnd { device: "eth0".to_owned(), gue_port: Some(6080), peers };
        let peers = "--peer 10.0.0.254 --peer fd00::/64";
        let with_tunnel = real_server(&format!("{line} --tunnel eth0 --gue-port 6080 {peers}"));
        assert_eq!(with_tunnel, (Action::Start, vips, Some(end), None));
        assert_eq!(real_server("realserver stop"), (Action::Stop, Vec::new(), None, None));
        let memory = Some("a.txt".into());
        assert_eq!(real_server("realserver --memory a.txt stop"), (Action::Stop, Vec::new(), None, memory.clone()));
        assert_eq!(real_server("realserver stop --memory a.txt"), (Action::Stop, Vec::new(), None, memory));
    }

    #[test]
    fn help_and_version_come_with_status_0() {
        for line in ["--help", "-h", "run --help", "realserver start -h", "--version", "-V"] {
            let error = parsed(line).expect_err(line);
            assert_eq!((error.exit_code(), error.use_stderr()), (0, false), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, complaint) in [
            ("", "requires a subcommand"),
            ("fly", "unrecognized subcommand 'fly'"),
            ("--fly", "unexpected argument '--fly' found"),
            ("demo --fly", "unexpected argument '--fly' found"),
            ("demo --requests", "a value is required for '--requests <N>' but none was supplied"),
            ("demo --requests 0", "invalid value '0' for '--requests <N>': a number from 1 to 20000"),
            ("run --tun a", "<RULES>"),
            ("run r.txt", "<--config <FILE>|--tun <NAME[,NAME]>|--afpacket <NAME[,NAME]>|--control <PATH>>"),
            ("run r.txt --tun a --afpacket b", "cannot be used with '--afpacket <NAME[,NAME]>'"),
            ("run r.txt --tun a --tun b", "cannot be used multiple times"),
            ("run r.txt --tun a --in-blocks", "cannot be used with '--in-blocks'"),
            ("run r.txt --afpacket a/b", "\"a/b\" cannot name a device"),
            ("realserver", "requires a subcommand"),
            ("realserver start", "--vip <ADDRESS>"),
            ("realserver start --vip ten", "\"ten\" is no IP address"),
            ("realserver stop --tunnel eth0", "unexpected argument '--tunnel' found"),
            ("realserver start --vip ::1 --gue-port 0", "0 is not in 1..=65535"),
            ("realserver start --vip ::1 --gue-port 6080", "--tunnel <NAME>"),
            ("realserver start --vip ::1 --peer 10.0.0.1", "--tunnel <NAME>"),
            ("realserver start --vip ::1 --tunnel eth0 --peer 10.0.0.1/33", "is no network"),
            ("realserver start --vip ::1 stop", "unexpected argument 'stop' found"),
            ("realserver status --vip ::1", "unexpected argument '--vip' found"),
            ("run r.txt s.txt --tun a", "unexpected argument 's.txt' found"),
            ("run r.txt --tun a --workers 0", "0 is not in 1..=64"),
            ("check", "<FILE>"),
            ("run r.txt --tun a --addresses mine", "[possible values: lvsd, host]"),
            ("run r.txt --tun a --log xml", "[possible values: human, json]"),
            ("run r.txt --tun a --workers", "a value is required for '--workers <N>'"),
            ("run r.txt --tun a --set drop_entri=1", "there is no setting drop_entri; near are drop_entry"),
            ("run r.txt --tun a,b,c", "one name or two"),
            ("run r.txt --tun a,", "\"\" cannot name a device"),
            ("run r.txt --tun abcdefghijklmnop", "\"abcdefghijklmnop\" cannot name a device"),
            ("run r.txt --tun tun%d", "\"tun%d\" cannot name a device"),
            ("run r.txt --tun a,a", "the two names must differ; give one name if one device is to serve both sides"),
        ] {
            let error = parsed(line).expect_err(line);
            assert_eq!((error.exit_code(), error.use_stderr()), (2, true), "{line}");
            let text = error.render().to_string();
            assert!(text.contains(complaint), "{line}: {complaint:?} is missing in\n{text}");
        }
    }
}
