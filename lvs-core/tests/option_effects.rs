//! The table of options and methods in the docs of `service::effect` is what `without_effect` says, cell by cell, and
//! what a director does where that can be seen from one packet.

use lvs_admin::parse_rules;
use lvs_core::service::effect::without_effect;
use lvs_core::{Command, ForwardMethod, Protocol, ServiceConfig, ServiceKey};

const METHODS: [ForwardMethod; 5] = [
    ForwardMethod::Nat,
    ForwardMethod::DirectRouting,
    ForwardMethod::Tunnel,
    ForwardMethod::FullNat,
    ForwardMethod::Local,
];

/// Option, protocol, and whether it works by each method.
fn rows() -> Vec<(String, Protocol, Vec<bool>)> {
    let source = include_str!("../src/service/effect.rs");
    let lines = source.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let protocol = match cells[1] {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => panic!("{other}"),
        };
        let works = cells[2..].iter().map(|cell| match *cell {
            "yes" => true,
            "–" => false,
            other => panic!("{other}"),
        });
        (cells[0].trim_end_matches('`').to_owned(), protocol, works.collect())
    });
    rows.collect()
}

fn service(option: &str, protocol: Protocol) -> (ServiceKey, ServiceConfig) {
    let flag = match protocol {
        Protocol::Tcp => "-t",
        Protocol::Udp => "-u",
        Protocol::Sctp => "--sctp-service",
    };
    let commands = parse_rules(&format!("-A {flag} 192.0.2.1:21 -s rr {option}")).expect(option);
    match commands.into_iter().next() {
        Some(Command::AddService(key, config)) => (key, config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_cell_of_the_table_is_so() {
    let rows = rows();
    assert!(rows.len() > 20, "the table is read");
    for (option, protocol, works) in rows {
        assert_eq!(works.len(), METHODS.len(), "{option}");
        let (key, config) = service(&option, protocol);
        let name = option.split(' ').next().unwrap();
        for (method, works) in METHODS.into_iter().zip(works) {
            let idle = without_effect(&key, &config, method);
            assert_eq!(idle, if works { vec![] } else { vec![name] }, "{option}, {protocol:?}, {}", method.name());
        }
    }
}

#[test]
fn every_option_of_a_service_is_in_the_table_or_works_with_all() {
    let everything = "-p 60 --client-address toa --keep-sequence --keep-timestamps --mss-clamp 1400 --helper ftp \
                      --tcp-timeout 9 --tcpfin-timeout 9 --slow-start 9 --on-server-gone reset --reuse-reschedules";
    let (key, config) = service(everything, Protocol::Tcp);
    assert_eq!(without_effect(&key, &config, ForwardMethod::FullNat), [""; 0]);
    let idle = without_effect(&key, &config, ForwardMethod::DirectRouting);
    assert_eq!(idle, ["--client-address", "--keep-sequence", "--keep-timestamps", "--helper"]);
    let mark = ServiceKey::FwMark { family: lvs_core::AddressFamily::Ipv4, mark: 1 };
    assert_eq!(without_effect(&mark, &config, ForwardMethod::FullNat), [""; 0], "it may be of any protocol");
}
