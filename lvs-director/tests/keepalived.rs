//! Stock keepalived with its ordinary files beside `lvsd`: health checks of servers behind a director that forwards all the
//! while, and two directors of which one is killed.

mod bed;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bed::keepalived::{Keepalived, is_installed};
use bed::{Folder, Lvsd, Machine, Request, skipped, wait_until};
use lvs_io::l2::MacAddress;
use lvs_io::{LinkWatch, netdev};
use lvs_io_tun::netns::enter_new_network_namespace;
use lvs_testkit::network::{Failure, Port, add_switch, isolated};
use rustix::process::Signal;

const VIP: &str = "10.9.0.80";
/// Where servers send what is for clients; the active director has it.
const GATEWAY: &str = "10.9.0.254";

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("a constant"), 80)
}

/// A machine on the switch.
fn machine(name: &'static str, address: &str) -> Result<Machine, Failure> {
    Machine::new(name, vec![Port::new("eth0", "lan", &[format!("{address}/24")])])
}

fn server(name: &'static str, address: &str) -> Result<Machine, Failure> {
    Machine::new(name, vec![Port::new("eth0", "lan", &[format!("{address}/24")]).route("10.9.0.7/32", Some(GATEWAY))])
}

/// Gives a machine addresses for itself.
fn take(machine: &Machine, addresses: &'static [&'static str]) {
    machine.run(move || {
        for address in addresses {
            netdev::add_address("eth0", address.parse().expect("a constant"), 32).expect("the device is there");
        }
    });
}

/// A virtual server with these lines and real servers.
fn virtual_server(lines: &str, servers: &[(&str, &str)]) -> String {
    let servers: String = servers
        .iter()
        .map(|(address, check)| format!(" real_server {address} 80 {{\n  weight 1\n{check}\n }}\n"))
        .collect();
    format!(
        "virtual_server {VIP} 80 {{\n delay_loop 1\n lb_algo rr\n lb_kind NAT\n protocol TCP\n{lines}\n{servers}}}\n"
    )
}

const GLOBAL: &str = "global_defs {\n router_id test\n script_user root\n max_auto_priority -1\n}\n";
const BY_TCP: &str = "  TCP_CHECK {\n   connect_timeout 1\n   retry 0\n  }";
const BY_HTTP: &str =
    "  HTTP_GET {\n   url {\n    path /bytes/10\n    status_code 200\n   }\n   connect_timeout 1\n   retry 0\n  }";

/// Those who answered between two moments, and whether nobody was refused.
fn answered(requests: &[Request], from: Instant, to: Instant) -> Vec<&str> {
    let within = requests.iter().filter(|request| request.begun >= from && request.ended <= to);
    let mut names: Vec<&str> = within
        .map(|request| request.outcome.as_deref().unwrap_or_else(|error| panic!("a request failed: {error}")))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn check(name: &str, body: impl FnOnce() -> Result<(), Failure>) {
    isolated(name, is_installed, body);
}

/// As [`check`], without a user namespace: there keepalived may not become whom its scripts are to run as (setgroups(2)).
fn check_with_scripts(name: &str, body: impl FnOnce() -> Result<(), Failure> + Send + 'static) {
    let there = std::thread::spawn(|| {
        is_installed()?;
        enter_new_network_namespace().map_err(|error| format!("only root may run scripts as others: {error}"))
    });
    let inside = |body: Box<dyn FnOnce() -> Result<(), Failure> + Send>| {
        std::thread::spawn(move || enter_new_network_namespace().map_err(Failure::from).and_then(|()| body()))
    };
    match there.join().expect("it does not panic") {
        Err(reason) => skipped(name, &reason),
        Ok(()) => inside(Box::new(body)).join().expect("see above").unwrap_or_else(|error| panic!("{error}")),
    }
}

#[test]
fn health_checks_of_three_kinds_move_servers_and_no_other_request_fails() {
    check_with_scripts("health_checks_of_three_kinds_move_servers_and_no_other_request_fails", || {
        add_switch("lan")?;
        let (client, host) = (machine("client", "10.9.0.7")?, machine("host", "10.9.0.1")?);
        take(&host, &[VIP, GATEWAY]);
        let names = ["one", "two", "three"];
        let addresses = ["10.9.0.11", "10.9.0.12", "10.9.0.13"];
        let machines =
            [server(names[0], addresses[0])?, server(names[1], addresses[1])?, server(names[2], addresses[2])?];
        let sorry = server("sorry", "10.9.0.99")?;
        let serve = |index: usize| machines[index].serve(names[index], at(addresses[index]));
        let [one, two, _three] = [serve(0), serve(1), serve(2)];
        let _sorry = sorry.serve("sorry", at("10.9.0.99"));

        let folder = Folder::new();
        let load = folder.write("load", "0");
        let script = folder.write("check", &format!("#!/bin/sh\nexit $(cat {})\n", load.display()));
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let by_script =
            format!("  MISC_CHECK {{\n   misc_path {}\n   misc_dynamic\n   retry 0\n  }}", script.display());
        let text = GLOBAL.to_owned()
            + &virtual_server(
                " sorry_server 10.9.0.99 80",
                &[(addresses[0], BY_TCP), (addresses[1], BY_HTTP), (addresses[2], &by_script)],
            );
        let lvsd = Lvsd::start(&host, &folder, "lvsd", "");
        let keepalived = Keepalived::start(&host, &folder, "keepalived", &lvsd, &text);
        let vip = at(VIP);
        let of = |weights: [Option<u32>; 3]| -> Vec<(SocketAddr, u32)> {
            addresses.iter().zip(weights).filter_map(|(address, weight)| Some((at(address), weight?))).collect()
        };
        lvsd.has(vip, &of([Some(1), Some(1), Some(1)]));
        wait_until("it answers", || client.get(vip).is_ok());

        let traffic = client.keep_asking(vip);
        // A moment after so many more requests that every server had some.
        let later = |since: Instant| {
            wait_until("others ask", || traffic.count_since(since) >= 20);
            Instant::now()
        };
        let begin = Instant::now();
        // The server says how much it wants: the exit status less 2.
        fs::write(&load, "7")?;
        lvsd.has(vip, &of([Some(1), Some(1), Some(5)]));
        // What does no HTTP any more, and what does nothing any more.
        let two_dies = later(begin);
        drop(two);
        lvsd.has(vip, &of([Some(1), None, Some(5)]));
        let two_is_out = Instant::now();
        let two = serve(1);
        lvsd.has(vip, &of([Some(1), Some(1), Some(5)]));
        fs::write(&load, "1")?;
        lvsd.has(vip, &of([Some(1), Some(1), None]));
        let all_die = later(two_is_out);
        drop((one, two));
        lvsd.has(vip, &[(at("10.9.0.99"), 1)]);
        let all_are_out = Instant::now();
        // keepalived takes the sorry server out before it puts the others in: for a moment there is nobody.
        let end = later(all_are_out);
        let _both = [serve(0), serve(1)];
        lvsd.has(vip, &of([Some(1), Some(1), None]));
        let requests = traffic.end();
        assert_eq!(answered(&requests, begin, two_dies), ["one", "three", "two"], "{}", keepalived.said());
        assert!(!answered(&requests, two_is_out, all_die).is_empty());
        assert_eq!(answered(&requests, all_are_out, end), ["sorry"], "{}", keepalived.said());
        Ok(())
    });
}

#[test]
fn quorum_and_inhibit_on_failure_do_as_they_say_and_a_reload_leaves_the_rest_alone() {
    check("quorum_and_inhibit_on_failure_do_as_they_say_and_a_reload_leaves_the_rest_alone", || {
        add_switch("lan")?;
        let (client, host) = (machine("client", "10.9.0.7")?, machine("host", "10.9.0.1")?);
        take(&host, &[VIP, GATEWAY]);
        let (one, two) = (server("one", "10.9.0.11")?, server("two", "10.9.0.12")?);
        let (at_one, at_two, at_sorry) = (at("10.9.0.11"), at("10.9.0.12"), at("10.9.0.99"));
        let serving = [one.serve("one", at_one), two.serve("two", at_two)];
        let [_serves_one, serves_two] = serving;
        let inhibited = format!("  inhibit_on_failure\n{BY_TCP}");
        let lines = " quorum 2\n sorry_server 10.9.0.99 80";
        let text = GLOBAL.to_owned() + &virtual_server(lines, &[("10.9.0.11", BY_TCP), ("10.9.0.12", &inhibited)]);
        let folder = Folder::new();
        let lvsd = Lvsd::start(&host, &folder, "lvsd", "");
        let keepalived = Keepalived::start(&host, &folder, "keepalived", &lvsd, &text);
        let vip = at(VIP);
        lvsd.has(vip, &[(at_one, 1), (at_two, 1)]);
        wait_until("it answers", || client.get(vip).is_ok());
        // Without its quorum the service is the sorry server's; who is inhibited stays, without weight.
        drop(serves_two);
        lvsd.has(vip, &[(at_two, 0), (at_sorry, 1)]);
        let _serves_two = two.serve("two", at_two);
        lvsd.has(vip, &[(at_one, 1), (at_two, 1)]);

        // Another weight for one of them; the other one's requests and counters go on.
        let traffic = client.keep_asking(vip);
        let begin = Instant::now();
        let before = connections(&lvsd, at_one);
        let heavier = format!("  weight 3\n{inhibited}");
        keepalived
            .reload(&(GLOBAL.to_owned() + &virtual_server(lines, &[("10.9.0.11", BY_TCP), ("10.9.0.12", &heavier)])));
        lvsd.has(vip, &[(at_one, 1), (at_two, 3)]);
        assert!(connections(&lvsd, at_one) >= before);
        let end = Instant::now();
        answered(&traffic.end(), begin, end);
        Ok(())
    });
}

/// How many connections the server has had.
fn connections(lvsd: &Lvsd, server: SocketAddr) -> u64 {
    let found = lvsd.ask(|running| {
        let mut services = running.services()?;
        running.fill_servers(&mut services)?;
        Ok(services)
    });
    let servers = found.into_iter().flatten().flat_map(|service| service.servers);
    let of_server =
        servers.filter(|found| (found.config.key.address, found.config.key.port) == (server.ip(), server.port()));
    of_server.map(|server| server.statistics.live.connections).sum()
}

#[test]
fn when_the_active_director_dies_the_address_moves_and_new_connections_go_on() {
    check("when_the_active_director_dies_the_address_moves_and_new_connections_go_on", || {
        add_switch("lan")?;
        let client = machine("client", "10.9.0.7")?;
        let directors = [machine("first", "10.9.0.1")?, machine("second", "10.9.0.2")?];
        let (one, two) = (server("one", "10.9.0.11")?, server("two", "10.9.0.12")?);
        let _serving = [one.serve("one", at("10.9.0.11")), two.serve("two", at("10.9.0.12"))];
        let folder = Folder::new();
        let file = |priority: u32| {
            format!(
                "global_defs {{\n router_id test\n script_user root\n vrrp_version 3\n vrrp_garp_master_delay 1\n}}\n\
                 vrrp_instance web {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority {priority}\n \
                 advert_int 0.2\n virtual_ipaddress {{\n  {VIP}\n  {GATEWAY}\n }}\n}}\n"
            ) + &virtual_server("", &[("10.9.0.11", BY_TCP), ("10.9.0.12", BY_TCP)])
        };
        let wire = client.listen();
        let lvsds = [0, 1].map(|index| Lvsd::start(&directors[index], &folder, ["lvsd1", "lvsd2"][index], ""));
        let first = Keepalived::start(&directors[0], &folder, "keepalived1", &lvsds[0], &file(200));
        let owns = |index: usize, vip: &'static str| {
            let vip: IpAddr = vip.parse().expect("a constant");
            directors[index].run(move || netdev::is_local(vip).unwrap_or(false))
        };
        wait_until("the first one has the addresses", || owns(0, VIP) && owns(0, GATEWAY));
        let second = Keepalived::start(&directors[1], &folder, "keepalived2", &lvsds[1], &file(100));
        let vip = at(VIP);
        for lvsd in &lvsds {
            lvsd.has(vip, &[(at("10.9.0.11"), 1), (at("10.9.0.12"), 1)]);
        }
        wait_until("it answers", || client.get(vip).is_ok());
        let traffic = client.keep_asking(vip);
        let before = Instant::now();
        for _ in 0..20 {
            client.get(vip)?;
        }
        // The standby has said nothing about the address, and nothing for it.
        let standby = directors[1].run(|| mac_of("eth0"));
        assert!(!owns(1, VIP), "{}", second.said());
        assert_eq!(wire.count(|frame| speaks_for(frame, standby, vip.ip())), 0);
        let dies = Instant::now();
        directors[0].run(|| netdev::set_down("eth0")).expect("it is there");
        first.kill();
        lvsds[0].process.signal(Signal::KILL);
        wait_until("the second one has the addresses", || owns(1, VIP) && owns(1, GATEWAY));
        wait_until("it answers again", || client.get(vip).is_ok());
        let again = Instant::now();
        for _ in 0..20 {
            client.get(vip).unwrap_or_else(|error| panic!("{error}: {}", second.said()));
        }
        // What was asked of the dead one has come to its end by then.
        wait_until("others ask again", || traffic.count_since(again) >= 20);
        assert!(wire.count(|frame| speaks_for(frame, standby, vip.ip())) > 0, "now it speaks");
        let requests = traffic.end();
        assert!(!answered(&requests, before, dies).is_empty());
        assert!(!answered(&requests, again, Instant::now()).is_empty());
        Ok(())
    });
}

fn mac_of(device: &str) -> MacAddress {
    LinkWatch::new(device)
        .and_then(|watch| watch.look())
        .expect("rtnetlink")
        .and_then(|link| link.mac)
        .expect("a device")
}

/// Does the frame come from this station, and say or answer something for this address?
fn speaks_for(frame: &[u8], station: MacAddress, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let sender = match frame.get(12..14) {
        // RFC 826: the sender's protocol address.
        Some([8, 6]) => frame.get(28..32),
        Some([8, 0]) => frame.get(26..30),
        _ => None,
    };
    frame.get(6..12) == Some(&station.0[..]) && sender == Some(&address.octets()[..])
}
