//! The command line of `lvsd`: words in, an [`Invocation`] or a sentence about what is wrong out.
//! Written by hand: three subcommands with few options do not need a parser crate.

use std::net::IpAddr;
use std::path::PathBuf;

use lvs_io_afpacket::Delivery;

use crate::realserver::{Action, TunnelEnd};
use crate::run::Devices;

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invocation {
    /// `lvsd --help`.
    Help,
    /// `lvsd --version`.
    Version,
    /// `lvsd demo`.
    Demo {
        /// How many requests to make.
        requests: usize,
        /// Print one JSON object rather than text.
        json: bool,
    },
    /// `lvsd run`.
    Run {
        /// The rules, as `ipvsadm-save` writes them.
        rules: PathBuf,
        /// The clients' device and the servers', or one for both.
        devices: Devices,
        /// How many threads share the work, each with a director and a queue of its own.
        workers: u16,
    },
    /// `lvsd realserver`.
    RealServer {
        /// `start`, `stop` or `status`.
        action: Action,
        /// The virtual addresses; none with `stop` means all, and `status` takes none.
        vips: Vec<IpAddr>,
        /// With `start`: where tunnels are to end.
        tunnel: Option<TunnelEnd>,
        /// Where changes are remembered, if not where they usually are.
        memory: Option<PathBuf>,
    },
}

/// Reads the words that follow the program's name.
///
/// # Errors
/// A sentence that says which word is wrong. The caller adds [`USAGE`].
///
/// ```
/// use lvs_director::args::{Invocation, parse};
/// let invocation = parse(["demo", "--requests", "50"].map(String::from)).unwrap();
/// assert_eq!(invocation, Invocation::Demo { requests: 50, json: false });
/// ```
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Invocation, String> {
    let mut words = words.into_iter().peekable();
    let Some(subcommand) = words.next() else { return Err("a subcommand is missing".to_owned()) };
    match subcommand.as_str() {
        "--help" | "-h" | "help" => Ok(Invocation::Help),
        "--version" | "-V" => Ok(Invocation::Version),
        "demo" => demo(Words(words.collect())),
        "run" => run(Words(words.collect())),
        "realserver" => real_server(Words(words.collect())),
        option if option.starts_with('-') => Err(format!("unknown option {option:?}")),
        other => Err(format!("unknown subcommand {other:?}")),
    }
}

fn demo(mut words: Words) -> Result<Invocation, String> {
    let (mut requests, mut json) = (crate::demo::plan::REQUESTS, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => return Ok(Invocation::Help),
            "--json" => json = true,
            "--requests" => {
                let value = words.value_of("--requests")?;
                requests = value
                    .parse()
                    .ok()
                    .filter(|requests| (1..=REQUESTS_MAX).contains(requests))
                    .ok_or_else(|| format!("--requests takes a number from 1 to {REQUESTS_MAX}, not {value:?}"))?;
            }
            _ => return Err(unexpected(&word, "demo")),
        }
    }
    Ok(Invocation::Demo { requests, json })
}

fn run(mut words: Words) -> Result<Invocation, String> {
    let (mut rules, mut devices, mut workers, mut in_blocks) = (None, None, 1, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => return Ok(Invocation::Help),
            "--tun" | "--afpacket" if devices.is_some() => {
                return Err("--tun or --afpacket, and only once: two devices are named with a comma".to_owned());
            }
            "--tun" => devices = Some(Devices::Tun(device_names("--tun", &words.value_of("--tun")?)?)),
            "--afpacket" => {
                let names = device_names("--afpacket", &words.value_of("--afpacket")?)?;
                devices = Some(Devices::AfPacket(names, Delivery::AtOnce));
            }
            "--in-blocks" => in_blocks = true,
            "--workers" => {
                let value = words.value_of("--workers")?;
                let wrong = || format!("--workers takes a number from 1 to {WORKERS_MAX}, not {value:?}");
                workers = value.parse().ok().filter(|count| (1..=WORKERS_MAX).contains(count)).ok_or_else(wrong)?;
            }
            _ if word.starts_with('-') || rules.is_some() => return Err(unexpected(&word, "run")),
            _ => rules = Some(PathBuf::from(word)),
        }
    }
    let rules = rules.ok_or("run needs a file of rules, as ipvsadm-save writes them")?;
    let mut devices = devices.ok_or("run needs --tun or --afpacket, with NAME, or CLIENTS,SERVERS")?;
    if in_blocks {
        let Devices::AfPacket(_, delivery) = &mut devices else {
            return Err("--in-blocks belongs to --afpacket".to_owned());
        };
        *delivery = Delivery::BLOCKS;
    }
    Ok(Invocation::Run { rules, devices, workers })
}

fn real_server(mut words: Words) -> Result<Invocation, String> {
    let (mut action, mut vips, mut device, mut gue_port) = (None, Vec::new(), None, None);
    let mut memory = None;
    while let Some(word) = words.next() {
        let known = match word.as_str() {
            "--help" | "-h" => return Ok(Invocation::Help),
            "--vip" => {
                for text in words.value_of("--vip")?.split(',') {
                    vips.push(text.parse().map_err(|_| format!("--vip: {text:?} is no IP address"))?);
                }
                continue;
            }
            "--tunnel" => {
                let names = device_names("--tunnel", &words.value_of("--tunnel")?)?;
                let [name] = names.as_slice() else { return Err("--tunnel takes one name".to_owned()) };
                device = Some(name.clone());
                continue;
            }
            "--gue-port" => {
                let port = words.value_of("--gue-port")?;
                let wrong = || format!("--gue-port takes a number from 1 to 65535, not {port:?}");
                gue_port = Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?);
                continue;
            }
            "--memory" => {
                memory = Some(PathBuf::from(words.value_of("--memory")?));
                continue;
            }
            "start" => Action::Start,
            "stop" => Action::Stop,
            "status" => Action::Status,
            _ => return Err(unexpected(&word, "realserver")),
        };
        if action.replace(known).is_some() {
            return Err(unexpected(&word, "realserver"));
        }
    }
    let action = action.ok_or("realserver needs one of start, stop and status")?;
    if action != Action::Start && device.is_some() || device.is_none() && gue_port.is_some() {
        return Err("--gue-port belongs to --tunnel, and --tunnel to realserver start".to_owned());
    }
    let tunnel = device.map(|device| TunnelEnd { device, gue_port });
    match (action, vips.is_empty()) {
        (Action::Start, true) => Err("realserver start needs --vip ADDRESS".to_owned()),
        (Action::Status, false) => Err("realserver status takes no --vip: it tells of all".to_owned()),
        _ => Ok(Invocation::RealServer { action, vips, tunnel, memory }),
    }
}

fn device_names(option: &str, value: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> = value.split(',').map(str::to_owned).collect();
    let is_name = |name: &String| {
        // What Linux takes for a device name; `%` would ask it to choose a number.
        (1..=NAME_LEN_MAX).contains(&name.len())
            && !name.contains(|character: char| matches!(character, '/' | ':' | '%') || character.is_whitespace())
            && name != "."
            && name != ".."
    };
    if let Some(wrong) = names.iter().find(|name| !is_name(name)) {
        return Err(format!("{option}: {wrong:?} cannot name a device"));
    }
    match names.as_slice() {
        [_] => Ok(names),
        [clients, servers] if clients != servers => Ok(names),
        [_, _] => {
            Err(format!("{option}: the two names must differ; give one name if one device is to serve both sides"))
        }
        _ => Err(format!("{option} takes one name or two")),
    }
}

fn unexpected(word: &str, subcommand: &str) -> String {
    format!("{subcommand} does not know what to do with {word:?}")
}

/// The words that are left. `--option=value` counts as two.
struct Words(std::collections::VecDeque<String>);

impl Words {
    fn next(&mut self) -> Option<String> {
        let word = self.0.pop_front()?;
        match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => {
                self.0.push_front(value.to_owned());
                Some(option.to_owned())
            }
            _ => Some(word),
        }
    }

    fn value_of(&mut self, option: &str) -> Result<String, String> {
        self.0.pop_front().ok_or_else(|| format!("{option} needs a value"))
    }
}

/// Most requests a demo makes: more than that is a benchmark, and takes more ports than a client has.
const REQUESTS_MAX: usize = 20_000;

/// Most workers: a core and a queue each.
const WORKERS_MAX: u16 = 64;

/// IFNAMSIZ less the terminating zero.
const NAME_LEN_MAX: usize = 15;

/// One line for each way to call the program.
pub const USAGE: &str = "\
Usage: lvsd demo [--json] [--requests N]
       lvsd run RULES --tun NAME[,NAME] [--workers N]
       lvsd run RULES --afpacket NAME[,NAME] [--in-blocks] [--workers N]
       lvsd realserver start --vip ADDRESS[,ADDRESS...] [--tunnel NAME [--gue-port N]] [--memory FILE]
       lvsd realserver stop [--vip ADDRESS[,ADDRESS...]] [--memory FILE]
       lvsd realserver status [--memory FILE]
       lvsd --help | --version";

/// What `lvsd --help` prints below [`USAGE`].
pub const HELP: &str = "\
lvsd is a layer-4 load balancer: Linux Virtual Server (IPVS) in user space.

  demo   Balance real HTTP over three small servers, inside this process: clients
         and servers live in network namespaces made for the occasion, and nothing
         of the machine's own network is touched. Needs user namespaces (or root)
         and /dev/net/tun; where these are denied, says so and simulates.
           --json         print one JSON object instead of tables
           --requests N   make N requests (default 600)

  run    Balance what arrives on devices until Ctrl-C, then print the tables.
           RULES          a file as ipvsadm-save writes it, e.g.
                            -A -t 192.0.2.80:80 -s wrr
                            -a -t 192.0.2.80:80 -r 10.2.0.11:8080 -m -w 3
           --tun NAME     one device for clients and servers, or
           --tun C,S      clients behind device C, servers behind device S
         Devices that do not exist are made, and gone afterwards. While it runs, give
         them routes: 'ip route add 192.0.2.80 dev NAME' for a virtual address; with
         NAT the servers' replies must come back through it too
         (net.ipv4.ip_forward=1; examples/tun_loop.rs shows a whole set-up).
           --afpacket NAME, or --afpacket C,S
                          the same on Ethernet devices: answers ARP and Neighbor
                          Discovery for the virtual addresses, and finds its way by
                          the addresses and routes this host has there. The host must
                          own no virtual address and not forward.
           --in-blocks    receive packets in blocks: less work for each under load, but
                          where there is little, each waits for a millisecond
           --workers N    share the work between N threads (default 1): each has its own
                          clients, its own queue of every device (a TUN device made
                          beforehand needs 'multi_queue'), its own schedule, and its own
                          count of connections against -x and -y

  realserver
         Make this machine a real server for direct routing: the virtual addresses
         go to lo, and ARP keeps quiet about them. Says what it changes, and 'stop'
         undoes exactly that. Needs root.
           --tunnel NAME  take what comes by the Ethernet device NAME out of IPIP and
                          GRE tunnels, without the kernel's; until Ctrl-C
           --gue-port N   and out of GUE on UDP port N
           --memory FILE  remember what to undo there (default: a file in /run for
                          each network namespace)

Exit status: 0 all went well; 1 a request failed, the rules are wrong or
unreadable, or something was denied;
2 the command line is wrong.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned))
    }

    #[test]
    fn subcommands_take_their_options_in_any_order() {
        assert_eq!(parsed("demo"), Ok(Invocation::Demo { requests: 600, json: false }));
        assert_eq!(parsed("demo --requests=7 --json"), Ok(Invocation::Demo { requests: 7, json: true }));
        let run = |workers| Invocation::Run {
            rules: "r.txt".into(),
            devices: Devices::Tun(vec!["a".to_owned(), "b".to_owned()]),
            workers,
        };
        assert_eq!(parsed("run r.txt --tun a,b"), Ok(run(1)));
        assert_eq!(parsed("run --workers 4 --tun a,b r.txt"), Ok(run(4)));
        assert_eq!(parsed("run --help"), Ok(Invocation::Help));
        let run = |delivery| {
            let devices = Devices::AfPacket(vec!["eth0".to_owned()], delivery);
            Ok(Invocation::Run { rules: "r.txt".into(), devices, workers: 1 })
        };
        assert_eq!(parsed("run --afpacket eth0 r.txt"), run(Delivery::AtOnce));
        assert_eq!(parsed("run --in-blocks --afpacket eth0 r.txt"), run(Delivery::BLOCKS));
        let vips = vec!["192.0.2.80".parse().unwrap(), "2001:db8::80".parse().unwrap()];
        let start = |tunnel| {
            let vips = Vec::clone(&vips);
            Ok(Invocation::RealServer { action: Action::Start, vips, tunnel, memory: None })
        };
        let line = "realserver start --vip 192.0.2.80,2001:db8::80";
        assert_eq!(parsed(line), start(None));
        let end = TunnelEnd { device: "eth0".to_owned(), gue_port: Some(6080) };
        assert_eq!(parsed(&format!("{line} --tunnel eth0 --gue-port 6080")), start(Some(end)));
        let stop = |memory| Invocation::RealServer { action: Action::Stop, vips: Vec::new(), tunnel: None, memory };
        assert_eq!(parsed("realserver stop"), Ok(stop(None)));
        assert_eq!(parsed("realserver --memory a.txt stop"), Ok(stop(Some("a.txt".into()))));
        assert_eq!(parsed("--version"), Ok(Invocation::Version));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, complaint) in [
            ("", "a subcommand is missing"),
            ("fly", "unknown subcommand \"fly\""),
            ("--fly", "unknown option \"--fly\""),
            ("demo --fly", "demo does not know what to do with \"--fly\""),
            ("demo --requests", "--requests needs a value"),
            ("demo --requests 0", "--requests takes a number from 1 to 20000, not \"0\""),
            ("run --tun a", "run needs a file of rules, as ipvsadm-save writes them"),
            ("run r.txt", "run needs --tun or --afpacket, with NAME, or CLIENTS,SERVERS"),
            (
                "run r.txt --tun a --afpacket b",
                "--tun or --afpacket, and only once: two devices are named with a comma",
            ),
            ("run r.txt --tun a --in-blocks", "--in-blocks belongs to --afpacket"),
            ("run r.txt --afpacket a/b", "--afpacket: \"a/b\" cannot name a device"),
            ("realserver", "realserver needs one of start, stop and status"),
            ("realserver start", "realserver start needs --vip ADDRESS"),
            ("realserver start --vip ten", "--vip: \"ten\" is no IP address"),
            ("realserver stop --tunnel eth0", "--gue-port belongs to --tunnel, and --tunnel to realserver start"),
            ("realserver start --gue-port 0", "--gue-port takes a number from 1 to 65535, not \"0\""),
            ("realserver start stop", "realserver does not know what to do with \"stop\""),
            ("realserver status --vip ::1", "realserver status takes no --vip: it tells of all"),
            ("run r.txt s.txt --tun a", "run does not know what to do with \"s.txt\""),
            ("run r.txt --tun a --workers 0", "--workers takes a number from 1 to 64, not \"0\""),
            ("run r.txt --tun a --workers", "--workers needs a value"),
            ("run r.txt --tun a,b,c", "--tun takes one name or two"),
            ("run r.txt --tun a,", "--tun: \"\" cannot name a device"),
            ("run r.txt --tun abcdefghijklmnop", "--tun: \"abcdefghijklmnop\" cannot name a device"),
            ("run r.txt --tun tun%d", "--tun: \"tun%d\" cannot name a device"),
            (
                "run r.txt --tun a,a",
                "--tun: the two names must differ; give one name if one device is to serve both sides",
            ),
        ] {
            assert_eq!(parsed(line), Err(complaint.to_owned()), "{line}");
        }
    }
}
