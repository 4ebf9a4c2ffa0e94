//! The commands between two configurations: enough, and no more than needed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lvs_admin::{Configured, command_line, difference, parse_rules};
use lvs_core::view::ServiceView;
use lvs_core::{Command, Director, DirectorConfig, ForwardMethod, Instant, Protocol, Seed, ServerConfig, ServerKey};
use lvs_core::{ServiceConfig, ServiceKey, Settings};
use proptest::prelude::*;

fn director(commands: &[Command]) -> Director {
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    // What is refused changes nothing.
    commands.iter().for_each(|command| _ = director.apply(Instant::ZERO, command));
    director
}

/// What a listing tells of a service, whatever order things came in.
type Told = (ServiceConfig, Vec<IpAddr>, BTreeMap<ServerKey, ServerConfig>);

fn told(configured: &Configured) -> BTreeMap<ServiceKey, Told> {
    let servers = |service: &ServiceView| {
        service.servers.iter().map(|server| (server.config.key, server.config.clone())).collect::<BTreeMap<_, _>>()
    };
    let one = |service: &ServiceView| {
        (service.key, (service.config.clone(), service.local_addresses.clone(), servers(service)))
    };
    configured.services.iter().map(one).collect()
}

/// The words of the difference between two texts of rules.
fn check(before: &str, after: &str, expected: &str) {
    let configured = |rules: &str| Configured::of(&director(&parse_rules(rules).unwrap()));
    let commands = difference(&configured(before), &configured(after));
    let words: Vec<String> = commands.iter().map(|command| command_line(command).unwrap()).collect();
    assert_eq!(words.join("\n"), expected);
}

const WEB: &str = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1\n\
                   -a -t 192.0.2.80:80 -r 10.0.0.3:80 -m -w 1\n";
const DNS: &str = "-A -u [2001:db8::53]:53 -s rr\n-a -u [2001:db8::53]:53 -r [2001:db8::2]:53 -m -w 1\n";

#[test]
fn what_is_the_same_does_not_appear() {
    check(WEB, WEB, "");
    check(&format!("{WEB}{DNS}"), &format!("{DNS}{WEB}"), "");
    check(
        WEB,
        &WEB.replace("10.0.0.3:80 -m -w 1", "10.0.0.3:80 -m -w 5"),
        "-e -t 192.0.2.80:80 -r 10.0.0.3:80 -m -w 5",
    );
    check(WEB, &WEB.replace("-s wrr", "-s lc"), "-E -t 192.0.2.80:80 -s lc");
}

#[test]
fn what_goes_goes_first_and_a_service_takes_its_servers_along() {
    check(WEB, DNS, &format!("-D -t 192.0.2.80:80\n{}", DNS.trim_end()));
    check(WEB, "", "-D -t 192.0.2.80:80");
    check("", WEB, WEB.trim_end());
    check(
        WEB,
        &WEB.replace("10.0.0.2", "10.0.0.4"),
        "-d -t 192.0.2.80:80 -r 10.0.0.2:80\n-a -t 192.0.2.80:80 -r 10.0.0.4:80 -m -w 1",
    );
}

#[test]
fn local_addresses_keep_their_order_and_timeouts_are_named_alone() {
    let service = "-A -t 192.0.2.80:80 -s rr";
    let local = |last: u8| format!("--add-laddr -t 192.0.2.80:80 --local-address 10.0.0.{last}");
    let with = |addresses: &[u8]| {
        format!("{service}\n{}\n", addresses.iter().map(|last| local(*last)).collect::<Vec<_>>().join("\n"))
    };
    check(&with(&[1, 2]), &with(&[1, 2, 3]), &local(3));
    let deleted = |last: u8| local(last).replace("--add", "--del");
    check(&with(&[1, 2, 3]), &with(&[2, 3]), &deleted(1));
    check(&with(&[1, 2]), &with(&[2, 1]), &format!("{}\n{}", deleted(1), local(1)));
    check("", "--set 0 30 0\n", "--set 0 30 0");
}

fn any_service() -> impl Strategy<Value = ServiceKey> {
    let at = prop::sample::select(vec!["192.0.2.80:80", "192.0.2.81:0", "[2001:db8::80]:80"]);
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let family = prop::sample::select(vec![lvs_core::AddressFamily::Ipv4, lvs_core::AddressFamily::Ipv6]);
    prop_oneof![
        3 => (protocol, at).prop_map(|(protocol, at)| ServiceKey::address(protocol, at.parse().unwrap())),
        1 => (family, 1..3_u32).prop_map(|(family, mark)| ServiceKey::FwMark { family, mark }),
    ]
}

fn any_config() -> impl Strategy<Value = ServiceConfig> {
    let scheduler = prop::sample::select(vec!["rr", "wlc", "mh"]);
    let persistence = prop::option::of(prop::sample::select(vec![60, 300]));
    let engine = prop::option::of(Just("sip".to_owned()));
    (scheduler, persistence, engine, any::<[bool; 2]>()).prop_map(
        |(scheduler, persistence, engine, [one_packet, check_window])| {
            let mut config = ServiceConfig::new(scheduler);
            config.persistence_timeout_s = persistence;
            config.persistence_engine = engine;
            config.one_packet = one_packet;
            config.check_window = check_window;
            config
        },
    )
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "2001:db8::2"])
        .prop_map(|address| address.parse().unwrap())
}

fn any_server() -> impl Strategy<Value = ServerConfig> {
    let methods =
        [ForwardMethod::Nat, ForwardMethod::DirectRouting, ForwardMethod::Tunnel, ForwardMethod::FullNat].to_vec();
    (any_address(), prop::sample::select(vec![0, 80_u16]), prop::sample::select(methods), 0..3_u32, 0..2_u32).prop_map(
        |(address, port, method, weight, upper)| {
            let mut config = ServerConfig::new((address, port).into(), method).weight(weight);
            config.upper_threshold = upper;
            config
        },
    )
}

/// Anything that changes a configuration, about few things, so that two lists of them speak of the same.
fn any_command() -> impl Strategy<Value = Command> {
    let key = any_service;
    let seconds = || prop::option::of((1..3_u64).prop_map(Duration::from_secs));
    let settings =
        (0..3_u8).prop_map(|drop_entry| Settings::default().with(|settings| settings.drop_entry = drop_entry));
    prop_oneof![
        6 => (key(), any_config()).prop_map(|(key, config)| Command::AddService(key, config)),
        2 => (key(), any_config()).prop_map(|(key, config)| Command::EditService(key, config)),
        1 => key().prop_map(Command::DeleteService),
        12 => (key(), any_server()).prop_map(|(key, server)| Command::AddServer(key, server)),
        4 => (key(), any_server()).prop_map(|(key, server)| Command::EditServer(key, server)),
        2 => (key(), any_server()).prop_map(|(key, server)| Command::DeleteServer(key, server.key)),
        4 => (key(), any_address()).prop_map(|(key, address)| Command::AddLocalAddress(key, address)),
        1 => (key(), any_address()).prop_map(|(key, address)| Command::DeleteLocalAddress(key, address)),
        1 => (seconds(), seconds(), seconds()).prop_map(|(tcp, tcp_fin, udp)| Command::SetTimeouts { tcp, tcp_fin, udp }),
        1 => settings.prop_map(Command::SetSettings),
    ]
}

fn any_commands() -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(any_command(), 0..60)
}

/// What a command is about: at most one command is about each thing, but for a local address that moves.
fn thing(command: &Command) -> String {
    match command {
        Command::AddServer(key, config) | Command::EditServer(key, config) => format!("{key:?} {:?}", config.key),
        Command::DeleteServer(key, server) => format!("{key:?} {server:?}"),
        Command::AddService(key, _) | Command::EditService(key, _) | Command::DeleteService(key) => format!("{key:?}"),
        Command::AddLocalAddress(..) | Command::DeleteLocalAddress(..) => format!("{command:?}"),
        Command::SetTimeouts { .. } => "timeouts".to_owned(),
        _ => "settings".to_owned(),
    }
}

proptest! {
    /// Whatever two configurations there are, the commands between them can be carried out on the first and make the second.
    #[test]
    fn the_commands_make_the_second_of_the_first(before in any_commands(), after in any_commands()) {
        let (mut before, after) = (director(&before), Configured::of(&director(&after)));
        let first = Configured::of(&before);
        let commands = difference(&first, &after);
        for command in &commands {
            prop_assert_eq!(before.apply(Instant::ZERO, command), Ok(()), "{:?}", command);
        }
        let made = Configured::of(&before);
        prop_assert_eq!(told(&made), told(&after));
        prop_assert_eq!((made.timeouts, &made.settings), (after.timeouts, &after.settings));
        prop_assert_eq!(difference(&made, &after), []);
        // What is the same in both is in no command, and nothing is in two.
        let mut things: Vec<String> = commands.iter().map(thing).collect();
        for (key, (config, _, servers)) in told(&first) {
            let Some((same_config, _, same_servers)) = told(&after).remove(&key) else { continue };
            let is_named = things.contains(&format!("{key:?}"));
            prop_assert!(config != same_config || !is_named);
            for (server, config) in servers {
                let is_same = same_servers.get(&server) == Some(&config);
                let is_named = things.contains(&format!("{key:?} {server:?}"));
                prop_assert!(!is_same || !is_named);
            }
        }
        let count = things.len();
        things.sort();
        things.dedup();
        prop_assert_eq!(things.len(), count);
    }
}
