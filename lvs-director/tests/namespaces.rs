//! Real packets: a director between the kernel's TCP stacks, on TUN devices in network namespaces of the test's own.
//!
//! A program of its own rather than a set of `#[test]`s: the kernel lets only a process with one thread enter a user
//! namespace, and the usual harness has several. So this file runs itself again for each case. Where user namespaces or
//! TUN are denied, a case says what was denied and counts as ignored.

mod cases;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use cases::Case;
use lvs_core::{HEADROOM, PacketBuf};
use lvs_director::demo::progress::Progress;
use lvs_director::demo::{director, lab, load, namespaces, plan};
use lvs_director::denied::Denied;
use lvs_director::realserver::{Action, realserver};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
use lvs_io_tun::netdev;

/// What a case does.
type Run = fn() -> Result<(), Denied>;

const CASES: [(&str, Run); 7] = [
    ("http_over_ipv4_and_ipv6_is_balanced_by_weight", http_over_ipv4_and_ipv6_is_balanced_by_weight),
    ("curl_gets_whole_answers_over_ipv4_and_ipv6", curl_gets_whole_answers_over_ipv4_and_ipv6),
    ("run_forwards_until_ctrl_c_and_prints_its_tables", run_forwards_until_ctrl_c_and_prints_its_tables),
    ("run_shares_the_clients_between_its_workers", run_shares_the_clients_between_its_workers),
    ("run_refuses_an_address_the_host_owns", run_refuses_an_address_the_host_owns),
    ("a_real_server_is_undone_exactly", a_real_server_is_undone_exactly),
    ("a_tunnel_ends_until_ctrl_c", a_tunnel_ends_until_ctrl_c),
];

fn http_over_ipv4_and_ipv6_is_balanced_by_weight() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    let visit = lab::visit(director(), || load::drive(60, &Progress::silent(60)))?;
    visit.ended.expect("no device failed");
    assert_eq!(visit.outcome.failed, [""; 0]);
    for (service, virtual_address) in plan::VIRTUAL.iter().enumerate() {
        for (name, answers) in [("ant", 15), ("bee", 10), ("cat", 5)] {
            let answered = visit.outcome.answered.iter();
            let count = answered.filter(|answer| answer.to == *virtual_address && answer.server == name).count();
            assert_eq!(count, answers, "{name} for service {service}");
        }
    }
    let counters = visit.worker.counters();
    assert_eq!(counters.dropped, 0, "{counters:?}");
    Ok(())
}

fn curl_gets_whole_answers_over_ipv4_and_ipv6() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    let curl = |url: &str| {
        let options = ["--silent", "--show-error", "--globoff", "--noproxy", "*", "--max-time", "5"];
        let output = Command::new("curl").args(options).arg(url).output().expect("curl starts");
        assert!(output.status.success(), "{url}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let visit = lab::visit(director(), || {
        plan::VIRTUAL
            .map(|service| [curl(&format!("http://{service}/")), curl(&format!("http://{service}/bytes/300000"))])
    })?;
    for [greeting, bulk] in visit.outcome {
        assert!(["ant", "bee", "cat"].iter().any(|name| greeting == format!("Hello from {name}.\n")), "{greeting:?}");
        assert_eq!(bulk.len(), 300_000);
    }
    Ok(())
}

fn run_forwards_until_ctrl_c_and_prints_its_tables() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()?;
    let rules = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run.{}.rules", std::process::id()));
    std::fs::write(&rules, "-A -u 192.0.2.80:53 -s rr\n-a -u 192.0.2.80:53 -r 10.2.0.11:5353 -m\n").expect("written");
    let mut lvsd = Lvsd::spawn(&["run", rules.to_str().expect("text"), "--tun", "lvs0"]);
    let mut first_line = String::new();
    BufReader::new(lvsd.0.stderr.take().expect("piped")).read_line(&mut first_line).expect("text");
    if first_line.contains("cannot open /dev/net/tun") {
        println!("skipped: {first_line}");
        return Ok(());
    }
    assert_eq!(first_line, "lvsd: forwarding on lvs0; Ctrl-C ends it and prints the tables\n");

    let client = Ipv4Addr::new(10, 1, 0, 1);
    let virtual_address = Ipv4Addr::new(192, 0, 2, 80);
    netdev::add_address("lvs0", client.into(), 24).expect("the device is there");
    netdev::add_route(virtual_address.into(), 32, "lvs0").expect("the device is there");
    let datagram = UdpSocket::bind((client, 0)).and_then(|socket| socket.send_to(b"query", (virtual_address, 53)));
    assert_eq!(datagram.expect("sent"), 5);
    // Nobody serves this port. The refusal shows that everything before it has been handled.
    let refused = TcpStream::connect_timeout(&(virtual_address, 81).into(), Duration::from_secs(5));
    assert_eq!(refused.map_err(|error| error.kind()).err(), Some(std::io::ErrorKind::ConnectionRefused));

    let id = rustix::process::Pid::from_child(&lvsd.0);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let mut tables = String::new();
    lvsd.0.stdout.take().expect("piped").read_to_string(&mut tables).expect("text");
    assert!(lvsd.0.wait().is_ok_and(|status| status.success()));
    for line in [
        "UDP  192.0.2.80:53 rr",
        "  -> 10.2.0.11:5353               Masq    1      0          1         ",
        "UDP  192.0.2.80:53                       1        1        0       33        0",
    ] {
        assert!(tables.lines().any(|found| found == line), "{line:?} is missing in\n{tables}");
    }
    let _ = std::fs::remove_file(rules);
    Ok(())
}

fn run_shares_the_clients_between_its_workers() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()?;
    let rules = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("workers.{}.rules", std::process::id()));
    let text = "-A -u 192.0.2.80:53 -s rr\n\
        --add-laddr -u 192.0.2.80:53 --local-address 10.3.0.1\n\
        -a -u 192.0.2.80:53 -r 10.2.0.11:5353 --fullnat\n";
    std::fs::write(&rules, text).expect("written");
    let mut lvsd = Lvsd::spawn(&["run", rules.to_str().expect("text"), "--tun", "lvs0", "--workers", "2"]);
    let mut first_line = String::new();
    BufReader::new(lvsd.0.stderr.take().expect("piped")).read_line(&mut first_line).expect("text");
    if first_line.contains("cannot open /dev/net/tun") {
        println!("skipped: {first_line}");
        return Ok(());
    }
    assert_eq!(first_line, "lvsd: forwarding on lvs0; Ctrl-C ends it and prints the tables\n");

    // Clients and server live here, on both ends of the one device.
    let [server, virtual_address, local] = [[10, 2, 0, 11], [192, 0, 2, 80], [10, 3, 0, 1]].map(Ipv4Addr::from);
    let clients: Vec<Ipv4Addr> = (1..=16).map(|number| Ipv4Addr::new(10, 1, 0, number)).collect();
    for address in clients.iter().chain([&server]) {
        netdev::add_address("lvs0", (*address).into(), 32).expect("the device is there");
    }
    for address in [virtual_address, local] {
        netdev::add_route(address.into(), 32, "lvs0").expect("the device is there");
    }
    let at_server = UdpSocket::bind((server, 5353)).expect("the address is there");
    at_server.set_read_timeout(Some(Duration::from_secs(5))).expect("a duration");
    for client in &clients {
        let socket = UdpSocket::bind((*client, 0)).expect("the address is there");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a duration");
        socket.send_to(b"query", (virtual_address, 53)).expect("sent");
        let (len, from) = at_server.recv_from(&mut [0; 8]).expect("the query comes");
        assert_eq!((len, from.ip()), (5, local.into()));
        at_server.send_to(b"answer", from).expect("sent");
        assert_eq!(socket.recv_from(&mut [0; 8]).expect("the answer comes"), (6, (virtual_address, 53).into()));
    }
    let id = rustix::process::Pid::from_child(&lvsd.0);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let mut tables = String::new();
    lvsd.0.stdout.take().expect("piped").read_to_string(&mut tables).expect("text");
    assert!(lvsd.0.wait().is_ok_and(|status| status.success()));
    for line in [
        "  -> 10.2.0.11:5353               FullNat 1      0          16        ",
        "UDP  192.0.2.80:53                      16       16       16      528      544",
    ] {
        assert!(tables.lines().any(|found| found == line), "{line:?} is missing in\n{tables}");
    }
    let _ = std::fs::remove_file(rules);
    Ok(())
}

fn run_refuses_an_address_the_host_owns() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()?;
    let here = std::fs::File::open("/proc/self/ns/net").expect("it is there");
    netdev::add_veth("eth0", "far0", here.as_fd()).map_err(|error| Denied::described(&error))?;
    for (device, address) in [("eth0", [10, 9, 0, 1]), ("far0", [10, 9, 0, 80])] {
        netdev::set_up(device).expect("the device is there");
        netdev::add_address(device, address.into(), 24).expect("the device is there");
    }
    let rules = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("own.{}.rules", std::process::id()));
    let forwards_on = |virtual_address: &str| {
        let text = format!("-A -t {virtual_address}:80 -s rr\n-a -t {virtual_address}:80 -r 10.9.0.11:80 -g\n");
        std::fs::write(&rules, text).expect("written");
        let mut lvsd = Lvsd::spawn(&["run", rules.to_str().expect("text"), "--afpacket", "eth0"]);
        let mut first_line = String::new();
        BufReader::new(lvsd.0.stderr.take().expect("piped")).read_line(&mut first_line).expect("text");
        first_line
    };
    let refused = forwards_on("10.9.0.80");
    assert!(refused.contains("this host owns the virtual or local address 10.9.0.80"), "{refused}");
    assert_eq!(forwards_on("10.9.0.81"), "lvsd: forwarding on eth0; Ctrl-C ends it and prints the tables\n");
    let _ = std::fs::remove_file(rules);
    Ok(())
}

fn a_real_server_is_undone_exactly() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()?;
    netdev::set_up("lo").expect("there is always one");
    let memory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vip.{}.memory", std::process::id()));
    let [one, two, three] = ["192.0.2.80", "192.0.2.81", "2001:db8::80"].map(|text| text.parse().expect("a constant"));
    let has = |address| netdev::addresses("lo").expect("it is there").iter().any(|(other, _)| *other == address);
    let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{name}")).expect("text");
    let settings = || [setting("arp_ignore"), setting("arp_announce")].map(|value| value.trim().to_owned());
    let before = settings();
    let act = |action, vips: &[_]| realserver(action, vips, None, &memory);

    act(Action::Start, &[one, three]);
    act(Action::Start, &[one, two]);
    assert!(has(one) && has(two) && has(three));
    assert_eq!(settings(), ["1", "2"]);
    act(Action::Stop, &[one]);
    assert!(!has(one) && has(two) && has(three));
    assert_eq!(settings(), ["1", "2"], "another address still needs them");
    act(Action::Stop, &[]);
    assert!(!has(two) && !has(three));
    assert_eq!(settings(), before);
    assert!(!memory.exists());

    // What others changed meanwhile is theirs; what was there before stays.
    netdev::add_address("lo", one, 32).expect("it is not there");
    act(Action::Start, &[one, two]);
    std::fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "1").expect("root here");
    act(Action::Stop, &[]);
    assert!(has(one) && !has(two));
    assert_eq!(settings(), [before[0].as_str(), "1"]);
    Ok(())
}

fn a_tunnel_ends_until_ctrl_c() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()?;
    netdev::set_up("lo").expect("there is always one");
    let here = std::fs::File::open("/proc/self/ns/net").expect("it is there");
    netdev::add_veth("eth0", "far0", here.as_fd()).map_err(|error| Denied::described(&error))?;
    netdev::set_up("eth0").and(netdev::set_up("far0")).expect("they are there");
    let memory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("end.{}.memory", std::process::id()));
    let mut words = vec!["realserver", "start", "--vip", "192.0.2.80", "--tunnel", "eth0", "--gue-port", "6080"];
    words.extend(["--memory", memory.to_str().expect("text")]);
    let mut lvsd = Lvsd::spawn(&words);
    let mut first_line = String::new();
    BufReader::new(lvsd.0.stderr.take().expect("piped")).read_line(&mut first_line).expect("text");
    if first_line.contains("denied") || first_line.contains("Permission") {
        println!("skipped: {first_line}");
        return Ok(());
    }
    assert_eq!(first_line, "lvsd: ending tunnels on eth0 by lvsend0; Ctrl-C ends it and undoes everything\n");
    let client = std::net::SocketAddr::from(([203, 0, 113, 7], 1024));
    let service = UdpSocket::bind(("192.0.2.80", 80)).expect("the address is there");
    service.set_read_timeout(Some(Duration::from_secs(5))).expect("a duration");
    netdev::add_route(client.ip(), 32, "lvsend0").expect("the device is there");
    send_by_ethernet("far0", "eth0", &TUNNELLED);
    let mut datagram = [0; 8];
    assert_eq!(service.recv_from(&mut datagram).expect("it came out"), (2, client));
    for part in &IN_PARTS {
        send_by_ethernet("far0", "eth0", part);
    }
    assert_eq!(service.recv_from(&mut datagram).expect("its parts were put together"), (2, client));
    let id = rustix::process::Pid::from_child(&lvsd.0);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let mut said = String::new();
    lvsd.0.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(lvsd.0.wait().is_ok_and(|status| status.success()), "{said}");
    assert!(
        said.contains("2 packets came through tunnels\n  1 of them in parts\nlo no longer has 192.0.2.80\n"),
        "{said}"
    );
    assert!(UdpSocket::bind(("192.0.2.80", 81)).is_err() && !memory.exists());
    Ok(())
}

/// 203.0.113.7:1024 > 192.0.2.80:80 UDP "hi" without a checksum, in 10.0.0.254 > 10.0.0.2 IPIP.
const TUNNELLED: [u8; 50] = [
    0x45, 0, 0, 50, 0, 0, 0, 0, 64, 4, 0x65, 0xc9, 10, 0, 0, 254, 10, 0, 0, 2, //
    0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0x77, 203, 0, 113, 7, 192, 0, 2, 80, //
    4, 0, 0, 80, 0, 10, 0, 0, b'h', b'i',
];

/// The same in two parts.
const IN_PARTS: [&[u8]; 2] = [
    &[
        0x45, 0, 0, 44, 0, 1, 0x20, 0, 64, 4, 0x45, 0xce, 10, 0, 0, 254, 10, 0, 0, 2, //
        0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x7c, 0x77, 203, 0, 113, 7, 192, 0, 2, 80, 4, 0, 0, 80,
    ],
    &[0x45, 0, 0, 26, 0, 1, 0, 3, 64, 4, 0x65, 0xdd, 10, 0, 0, 254, 10, 0, 0, 2, 0, 10, 0, 0, b'h', b'i'],
];

/// Sends a packet by one device to the other.
fn send_by_ethernet(from: &str, to: &str, packet: &[u8]) {
    let next_hop = [10, 0, 0, 2].into();
    let silent = AfPacketOptions { announces: false, ..AfPacketOptions::default() };
    let mac = AfPacketDevice::open(to, &silent).expect("it is there").mac();
    let options = AfPacketOptions { static_neighbours: vec![(next_hop, mac)], ..silent };
    let mut arm = AfPacketDevice::open(from, &options).expect("it is there").into_arm();
    let mut storage = [&[0; HEADROOM], packet].concat();
    let mut packet = PacketBuf::new(&mut storage, HEADROOM, packet.len());
    arm.sink.send(&mut packet, next_hop).and_then(|()| arm.sink.flush()).expect("sent");
}

/// A running `lvsd`, ended with the case at the latest.
struct Lvsd(Child);

impl Lvsd {
    fn spawn(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
        Self(command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lvsd starts"))
    }
}

impl Drop for Lvsd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    let case = |(name, run): (&str, Run)| Case {
        name: name.to_owned(),
        is_extra: name.starts_with("curl"),
        run: Box::new(move || run().map_err(|denied| Box::new(denied) as _)),
    };
    cases::main(&CASES.map(case), 1, "run by .ci/run, which installs curl", |_| {})
}
