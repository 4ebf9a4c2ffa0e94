//! What `lvsd` finds, says and changes on the host it runs on: settings, addresses, devices. In network namespaces of
//! the test's own; see `namespaces.rs` for why each case has a process to itself.

mod cases;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cases::Case;
use lvs_director::demo::namespaces;
use lvs_director::denied::Denied;
use lvs_director::realserver::{Action, default_path, realserver};
use lvs_io_afpacket::check::{self, Finding};
use lvs_io_afpacket::{AfPacketDevice, AfPacketOptions};
use lvs_io_tun::{TunOptions, TunQueue, netdev};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a case does.
type Run = fn() -> Result<(), Denied>;

const CASES: [(&str, Run); 16] = [
    ("ipv6_forwarding_is_found_where_the_kernel_looks_for_it", ipv6_forwarding_is_found_where_the_kernel_looks_for_it),
    (
        "a_device_that_is_down_is_named_and_serves_once_it_is_up",
        a_device_that_is_down_is_named_and_serves_once_it_is_up,
    ),
    ("an_address_is_taken_over_and_given_up_while_the_device_is_open", an_address_is_taken_over_and_given_up),
    ("a_missing_device_is_named_with_a_remedy", a_missing_device_is_named_with_a_remedy),
    ("what_came_and_was_no_packet_is_told_at_the_end", what_came_and_was_no_packet_is_told_at_the_end),
    ("a_lost_device_is_told_and_waited_for_or_the_end_as_asked", a_lost_device_is_told_and_waited_for_or_the_end),
    ("settings_of_devices_that_speak_of_the_address_are_changed_too", settings_of_devices_are_changed_too),
    ("a_tunnel_end_leaves_what_the_machine_needs", a_tunnel_end_leaves_what_the_machine_needs),
    ("stop_leaves_what_a_running_tunnel_end_needs", stop_leaves_what_a_running_tunnel_end_needs),
    ("what_a_killed_tunnel_end_had_is_given_back", what_a_killed_tunnel_end_had_is_given_back),
    ("each_network_namespace_has_its_own_memory", each_network_namespace_has_its_own_memory),
    ("what_another_network_namespace_had_is_forgotten", what_another_network_namespace_had_is_forgotten),
    ("a_memory_that_names_other_files_is_refused", a_memory_that_names_other_files_is_refused),
    ("a_memory_that_finds_no_room_stays_as_it_was", a_memory_that_finds_no_room_stays_as_it_was),
    ("addresses_no_service_can_have_are_refused", addresses_no_service_can_have_are_refused),
    ("rules_that_lead_nowhere_are_warned_about", rules_that_lead_nowhere_are_warned_about),
];

const VIP: &str = "192.0.2.80";

fn ipv6_forwarding_is_found_where_the_kernel_looks_for_it() -> Result<(), Denied> {
    lonely_host()?;
    if !netdev::has_ipv6() {
        return Err(Denied::said("this kernel has no IPv6"));
    }
    let set = |name: &str, value| set(&format!("net/ipv6/conf/{name}"), value);
    let found = || check::host("eth0", &[]).into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>();
    assert_eq!(found(), [""; 0]);
    set("eth0/forwarding", "1");
    assert_eq!(found(), [""; 0], "the device's own does nothing");
    set("all/forwarding", "1");
    set("eth0/forwarding", "0");
    let [finding] = found().try_into().expect("one");
    assert!(finding.ends_with("'sysctl net.ipv6.conf.all.forwarding=0'"), "{finding}");
    set("all/forwarding", "0");
    // Linux 6.17.
    if Path::new("/proc/sys/net/ipv6/conf/eth0/force_forwarding").exists() {
        set("eth0/force_forwarding", "1");
        let [finding] = found().try_into().expect("one");
        assert!(finding.ends_with("'sysctl net.ipv6.conf.eth0.force_forwarding=0'"), "{finding}");
    }
    Ok(())
}

fn a_device_that_is_down_is_named_and_serves_once_it_is_up() -> Result<(), Denied> {
    empty_namespace()?;
    add_veth()?;
    netdev::set_up("far0").expect("it is there");
    assert_eq!(check::host("eth0", &[]), [Finding::DeviceDown("eth0".to_owned())]);
    let mut arm = AfPacketDevice::open("eth0", &AfPacketOptions::default()).expect("root here").into_arm();
    let receive = |arm: &mut lvs_io::Arm| {
        let mut received = 0;
        arm.source.receive(&mut |packets| received += packets.len()).expect("it goes on");
        received
    };
    assert_eq!(receive(&mut arm), 0);
    assert!(!is_readable(&arm, 0), "a worker would never sleep");

    netdev::set_up("eth0").expect("it is there");
    let mut storage = [0; lvs_core::HEADROOM + 20];
    let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 50, 0x66, 0xb4, 10, 0, 0, 254, 10, 0, 0, 2];
    storage[lvs_core::HEADROOM..].copy_from_slice(&header);
    let options = AfPacketOptions {
        static_neighbours: vec![("10.0.0.2".parse().expect("a constant"), mac_of("eth0"))],
        ..AfPacketOptions::default()
    };
    let mut peer = AfPacketDevice::open("far0", &options).expect("root here").into_arm();
    let mut packet = lvs_core::PacketBuf::new(&mut storage, lvs_core::HEADROOM, 20);
    peer.sink.send(&mut packet, "10.0.0.2".parse().expect("a constant")).expect("sent");
    peer.sink.flush().expect("sent");
    let mut received = 0;
    while received == 0 {
        assert!(is_readable(&arm, 10), "nothing came");
        received = receive(&mut arm);
    }
    Ok(())
}

fn an_address_is_taken_over_and_given_up() -> Result<(), Denied> {
    lonely_host()?;
    let device = AfPacketDevice::open("eth0", &AfPacketOptions::default())?;
    let (addresses, counters) = (device.addresses(), device.counters());
    let mut arm = device.into_arm();
    for round in 1..=2 {
        // Somebody who knows nobody yet.
        let options = AfPacketOptions { source_ipv4: Some([10, 0, 0, 1].into()), ..AfPacketOptions::default() };
        let mut peer = AfPacketDevice::open("far0", &options)?.into_arm();
        if round == 1 {
            for address in ["10.0.0.80", "10.0.0.81", "fd00::80"] {
                addresses.add(ip(address))?;
            }
            assert!(is_readable(&arm, 0), "a worker that sleeps is woken");
            arm.sink.flush().expect("it is up");
            assert_eq!(counters.get().edge.announced, 3);
        } else {
            addresses.remove(ip("10.0.0.80"));
            arm.sink.flush().expect("it is up");
        }
        let before = counters.get().edge.answered;
        for (number, address) in [80, 81].into_iter().zip(["10.0.0.80", "10.0.0.81"]) {
            let mut storage = [0; lvs_core::HEADROOM + 20];
            let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 50, 0, 0, 10, 0, 0, 1, 10, 0, 0, number];
            storage[lvs_core::HEADROOM..].copy_from_slice(&header);
            let mut packet = lvs_core::PacketBuf::new(&mut storage, lvs_core::HEADROOM, 20);
            peer.sink.send(&mut packet, ip(address)).and_then(|()| peer.sink.flush()).expect("it waits");
        }
        // Each turn of either station may make the other one speak.
        let mut reached = Vec::new();
        while !reached.contains(&81) {
            assert!(is_readable(&arm, 10), "nothing came");
            let mut note = |packets: &mut [lvs_core::PacketBuf<'_>]| {
                let for_us = packets.iter().filter(|packet| packet.bytes()[9] == 50);
                reached.extend(for_us.map(|packet| packet.bytes()[19]));
            };
            arm.source.receive(&mut note).and_then(|_| arm.sink.flush()).expect("it is up");
            peer.source.receive(&mut |_| {}).and_then(|_| peer.sink.flush()).expect("it is up");
        }
        let (expected, answered) = if round == 1 { (vec![80, 81], 2) } else { (vec![81], 1) };
        reached.sort_unstable();
        assert_eq!((reached, counters.get().edge.answered - before), (expected, answered), "round {round}");
    }
    Ok(())
}

fn is_readable(arm: &lvs_io::Arm, patience_s: i64) -> bool {
    let fds = [arm.source.poll_fd(), arm.source.wake_fd()].map(|fd| fd.expect("a socket, and a bell"));
    let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let patience = Timespec { tv_sec: patience_s, tv_nsec: 0 };
    poll(&mut fds, Some(&patience)).expect("two descriptors") > 0
}

fn mac_of(device: &str) -> lvs_io::l2::MacAddress {
    AfPacketDevice::open(device, &AfPacketOptions::default()).expect("root here").mac()
}

fn a_missing_device_is_named_with_a_remedy() -> Result<(), Denied> {
    empty_namespace()?;
    let rules = rules("missing", "-A -t 192.0.2.80:80 -s rr\n");
    let (mut lvsd, mut said) = Lvsd::spawn(&["run", &rules, "--afpacket", "eth9"]);
    let line = next_line(&mut said);
    assert!(line.contains("eth9: No such device") && line.contains("see 'ip link'"), "{line}");
    assert!(lvsd.0.wait().is_ok_and(|status| status.code() == Some(1)));
    Ok(())
}

fn what_came_and_was_no_packet_is_told_at_the_end() -> Result<(), Denied> {
    lonely_host()?;
    let rules = rules("counted", "-A -t 10.0.0.80:80 -s rr\n-a -t 10.0.0.80:80 -r 10.0.0.11:80 -g\n");
    let mut listener = AfPacketDevice::open("eth0", &AfPacketOptions::default())?.into_arm();
    let (lvsd, mut said) = Lvsd::spawn(&["run", &rules, "--afpacket", "eth0"]);
    loop {
        let line = next_line(&mut said);
        assert!(line.starts_with("lvsd: "), "{line:?}");
        if line.starts_with("lvsd: forwarding on eth0") {
            break;
        }
    }
    let peer = |vlan: Option<u16>| {
        let static_neighbours = if vlan.is_none() { Vec::new() } else { vec![(ip("10.0.0.80"), mac_of("eth0"))] };
        let source_ipv4 = Some([10, 0, 0, 1].into());
        let options = AfPacketOptions { vlan, static_neighbours, source_ipv4, ..AfPacketOptions::default() };
        AfPacketDevice::open("far0", &options).map(AfPacketDevice::into_arm)
    };
    let send = |arm: &mut lvs_io::Arm| {
        let mut storage = [0; lvs_core::HEADROOM + 20];
        let header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 50, 0, 0, 10, 0, 0, 1, 10, 0, 0, 80];
        storage[lvs_core::HEADROOM..].copy_from_slice(&header);
        let mut packet = lvs_core::PacketBuf::new(&mut storage, lvs_core::HEADROOM, 20);
        arm.sink.send(&mut packet, ip("10.0.0.80")).and_then(|()| arm.sink.flush()).expect("it leaves, or waits");
    };
    let (mut tagged, mut untagged) = (peer(Some(7))?, peer(None)?);
    (0..3).for_each(|_| send(&mut tagged));
    // It leaves when lvsd has said who has the address: by then it has seen what came before the question.
    send(&mut untagged);
    let mut has_left = false;
    while !has_left {
        let fds = [&untagged, &listener].map(|arm| arm.source.poll_fd().expect("a socket"));
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert!(poll(&mut fds, Some(&patience)).expect("two descriptors") > 0, "no answer came");
        untagged.source.receive(&mut |_| {}).and_then(|_| untagged.sink.flush()).expect("it is up");
        listener
            .source
            .receive(&mut |packets| has_left |= packets.iter().any(|packet| packet.bytes()[9] == 50))
            .expect("it is up");
    }
    let tables = lvsd.interrupt();
    let line = "3 frames ignored: of another VLAN";
    assert!(tables.lines().any(|found| found == line), "{tables}");
    Ok(())
}

fn a_lost_device_is_told_and_waited_for_or_the_end() -> Result<(), Denied> {
    lonely_host()?;
    let rules = rules("lost", "-A -t 10.0.0.80:80 -s rr\n-a -t 10.0.0.80:80 -r 10.0.0.11:80 -g\n");
    let wait_for = |said: &mut BufReader<ChildStderr>, start: &str| while !next_line(said).starts_with(start) {};
    let (lvsd, mut said) = Lvsd::spawn(&["run", &rules, "--afpacket", "eth0", "--workers", "2"]);
    wait_for(&mut said, "lvsd: forwarding on eth0");
    netdev::set_down("eth0").expect("it is there");
    wait_for(&mut said, "lvsd: warning: eth0 is down: nothing is forwarded");
    netdev::set_up("eth0").expect("it is there");
    wait_for(&mut said, "lvsd: eth0 is back");
    netdev::delete_link("eth0").expect("it is there");
    wait_for(&mut said, "lvsd: warning: eth0 was deleted");
    add_veth()?;
    netdev::set_up("eth0").expect("it is there");
    wait_for(&mut said, "lvsd: eth0 is back");
    assert!(lvsd.interrupt().contains("packets received"));

    let (mut lvsd, mut said) = Lvsd::spawn(&["run", &rules, "--afpacket", "eth0", "--on-device-loss", "end"]);
    wait_for(&mut said, "lvsd: forwarding on eth0");
    netdev::set_down("eth0").expect("it is there");
    wait_for(&mut said, "lvsd: warning: eth0 is down");
    wait_for(&mut said, "lvsd: stopped: the clients' device is down");
    assert!(!lvsd.0.wait().expect("it was started").success());
    Ok(())
}

fn settings_of_devices_are_changed_too() -> Result<(), Denied> {
    lonely_host()?;
    let memory = memory("devices");
    let setting = |device: &str, name: &str| get(&format!("net/ipv4/conf/{device}/{name}"));
    let all = || ["all", "eth0", "far0"].map(|device| setting(device, "arp_ignore"));
    // Which values keep quiet was tried out against the kernel, alone and together.
    for (before, during) in [
        (["0", "0", "0"], ["1", "0", "0"]),
        (["0", "3", "1"], ["1", "1", "1"]),
        (["3", "0", "2"], ["1", "0", "2"]),
        (["2", "8", "7"], ["2", "8", "1"]),
        (["8", "3", "0"], ["8", "3", "0"]),
        (["9", "0", "0"], ["1", "0", "0"]),
    ] {
        for (device, value) in ["all", "eth0", "far0"].iter().zip(before) {
            set(&format!("net/ipv4/conf/{device}/arp_ignore"), value);
        }
        realserver(Action::Start, &[ip(VIP)], None, &memory);
        assert_eq!(all(), during, "{before:?}");
        assert_eq!(setting("all", "arp_announce"), "2");
        realserver(Action::Stop, &[], None, &memory);
        assert_eq!(all(), before);
        assert_eq!(setting("all", "arp_announce"), "0");
    }
    assert!(!memory.exists());
    Ok(())
}

fn a_tunnel_end_leaves_what_the_machine_needs() -> Result<(), Denied> {
    lonely_host()?;
    set("net/ipv4/conf/all/rp_filter", "1");
    let memory = memory("both");
    realserver(Action::Start, &[ip(VIP)], None, &memory);
    let end = tunnel_end(&memory)?;
    assert_eq!(get("net/ipv4/conf/all/rp_filter"), "0");
    end.interrupt();
    assert!(has(VIP));
    assert_eq!(get("net/ipv4/conf/all/arp_ignore"), "1");
    assert_eq!(get("net/ipv4/conf/all/rp_filter"), "1", "only the tunnel end needed it");
    realserver(Action::Stop, &[], None, &memory);
    assert!(!has(VIP) && !memory.exists());
    assert_eq!(get("net/ipv4/conf/all/arp_ignore"), "0");
    Ok(())
}

fn stop_leaves_what_a_running_tunnel_end_needs() -> Result<(), Denied> {
    lonely_host()?;
    let memory = memory("running");
    let end = tunnel_end(&memory)?;
    realserver(Action::Start, &[ip(VIP), ip("192.0.2.81")], None, &memory);
    realserver(Action::Stop, &[], None, &memory);
    assert!(has(VIP) && !has("192.0.2.81"));
    assert_eq!(get("net/ipv4/conf/all/arp_ignore"), "1");
    end.interrupt();
    assert!(!has(VIP) && !memory.exists());
    assert_eq!(get("net/ipv4/conf/all/arp_ignore"), "0");
    Ok(())
}

fn what_a_killed_tunnel_end_had_is_given_back() -> Result<(), Denied> {
    lonely_host()?;
    let memory = memory("killed");
    let end = tunnel_end(&memory)?;
    drop(end);
    assert!(has(VIP), "nobody tidied up");
    realserver(Action::Stop, &[], None, &memory);
    assert!(!has(VIP) && !memory.exists());
    assert_eq!(get("net/ipv4/conf/all/arp_ignore"), "0");
    Ok(())
}

fn each_network_namespace_has_its_own_memory() -> Result<(), Denied> {
    empty_namespace()?;
    let here = default_path();
    assert_eq!(here, default_path());
    namespaces::enter_network_namespace()?;
    assert_ne!(here, default_path());
    Ok(())
}

fn what_another_network_namespace_had_is_forgotten() -> Result<(), Denied> {
    lonely_host()?;
    let memory = memory("reused");
    realserver(Action::Start, &[ip(VIP)], None, &memory);
    let first = fs::read_to_string(&memory).expect("written");
    assert!(first.contains("setting net/ipv4/conf/all/arp_ignore 0 1\n"), "{first}");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it is there");
    let before_a_restart = first.replace(boot.trim(), "another");
    assert_ne!(before_a_restart, first);
    // As the next one to be given the number of the first.
    namespaces::enter_network_namespace()?;
    netdev::set_up("lo").expect("it is there");
    let settings = ["arp_ignore", "arp_announce"].map(|name| format!("net/ipv4/conf/all/{name}"));
    let own = || settings.each_ref().map(|setting| get(setting));
    for (setting, value) in settings.iter().zip(["1", "2"]) {
        set(setting, value);
    }
    assert_eq!(said_of(&memory, "status"), "not a real server\n");
    assert_eq!(said_of(&memory, "stop"), "nothing was started\n");
    assert_eq!(own(), ["1", "2"]);
    assert!(!memory.exists());

    realserver(Action::Start, &[ip(VIP)], None, &memory);
    assert_eq!(said_of(&memory, "status"), format!("lo has {VIP}/32\n"));
    let second = fs::read_to_string(&memory).expect("written");
    fs::write(&memory, second.replace(boot.trim(), "another")).expect("written");
    assert_eq!(said_of(&memory, "status"), "not a real server\n");
    fs::write(&memory, before_a_restart).expect("written");
    assert_eq!(said_of(&memory, "stop"), "nothing was started\n");
    assert_eq!(own(), ["1", "2"]);
    Ok(())
}

fn a_memory_that_names_other_files_is_refused() -> Result<(), Denied> {
    lonely_host()?;
    let (memory, victim) = (memory("hostile"), of_this_case("victim"));
    fs::write(&victim, "1").expect("written");
    let line = format!("setting ../..{} 666 1", victim.to_str().expect("text"));
    fs::write(&memory, format!("{line}\n")).expect("written");
    for action in ["start", "stop", "status"] {
        let mut words = vec!["realserver", action, "--memory", memory.to_str().expect("text")];
        if action == "start" {
            words.extend(["--vip", VIP]);
        }
        let (mut lvsd, mut said) = Lvsd::spawn(&words);
        let complaint = next_line(&mut said);
        assert!(complaint.ends_with(&format!(": {line:?} is nothing lvsd remembers; see what it is\n")), "{complaint}");
        assert!(lvsd.0.wait().is_ok_and(|status| status.code() == Some(1)));
    }
    assert!(!has(VIP));
    assert_eq!(fs::read_to_string(&victim).expect("it is there"), "1");
    fs::remove_file(victim).and(fs::remove_file(memory)).expect("they are there");
    Ok(())
}

fn a_memory_that_finds_no_room_stays_as_it_was() -> Result<(), Denied> {
    lonely_host()?;
    let memory = memory("full");
    realserver(Action::Start, &[ip(VIP)], None, &memory);
    let before = fs::read_to_string(&memory).expect("written");
    // What a full file system does: some bytes more find room, the rest does not.
    signal_hook::flag::register(signal_hook::consts::signal::SIGXFSZ, Arc::<AtomicBool>::default())
        .expect("it can be caught");
    let limit = getrlimit(Resource::Fsize);
    let room = Some(before.len() as u64 + 5);
    setrlimit(Resource::Fsize, Rlimit { current: room, ..limit }).expect("less is allowed");
    realserver(Action::Start, &[ip("192.0.2.81")], None, &memory);
    setrlimit(Resource::Fsize, limit).expect("as it was");
    assert_eq!(fs::read_to_string(&memory).expect("it is there"), before);
    assert!(!has("192.0.2.81"));
    assert!(!memory.with_extension(format!("{}.new", std::process::id())).exists());
    realserver(Action::Stop, &[], None, &memory);
    assert!(!has(VIP) && !memory.exists());
    assert_eq!(get("net/ipv4/conf/all/arp_ignore"), "0");
    Ok(())
}

fn addresses_no_service_can_have_are_refused() -> Result<(), Denied> {
    lonely_host()?;
    let memory = memory("refused");
    for (address, why) in [
        ("0.0.0.0", "no address at all"),
        ("::", "no address at all"),
        ("224.0.0.1", "a multicast group"),
        ("ff02::1", "a multicast group"),
        ("127.0.0.1", "a loopback address"),
        ("::1", "a loopback address"),
        ("169.254.1.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("255.255.255.255", "the broadcast address"),
        ("::ffff:192.0.2.80", "an IPv4 address in disguise"),
    ] {
        let vips = format!("{VIP},{address}");
        let words = ["realserver", "start", "--vip", &vips, "--memory", memory.to_str().expect("text")];
        let (mut lvsd, mut said) = Lvsd::spawn(&words);
        let line = next_line(&mut said);
        assert!(line.starts_with(&format!("lvsd: {address} cannot be a virtual address: it is {why}")), "{line}");
        assert!(lvsd.0.wait().is_ok_and(|status| status.code() == Some(1)));
        assert!(!has(VIP) && !memory.exists(), "nothing is done by halves");
    }
    Ok(())
}

fn rules_that_lead_nowhere_are_warned_about() -> Result<(), Denied> {
    lonely_host()?;
    let rules = rules(
        "astray",
        "-A -t 192.0.2.82:80 -s rr\n-a -t 192.0.2.82:80 -r 10.0.0.11:80 -g\n\
         -A -u 192.0.2.81:53 -s rr\n-a -u 192.0.2.81:53 -r 10.0.0.11:53 --fullnat\n",
    );
    let _tun = TunQueue::open("tun0", &TunOptions::default())?;
    netdev::set_up("tun0").and(netdev::add_address("eth0", ip("10.0.0.1"), 24)).expect("they are there");
    netdev::add_route(ip(VIP), 32, "tun0").expect("no such route yet");
    let way_on = || netdev::way_on("tun0", ip("203.0.113.1"), ip(VIP)).expect("it is there");
    assert_eq!(way_on(), None, "this host does not forward");
    set("net/ipv4/ip_forward", "1");
    assert_eq!(way_on().as_deref(), Some("tun0"));
    netdev::divert_to("tun0", ip("10.0.0.11"), "eth0", 100).expect("a new table");
    assert_eq!(way_on().as_deref(), Some("eth0"));
    let (_lvsd, mut said) = Lvsd::spawn(&["run", &rules, "--tun", "tun1"]);
    let line = next_line(&mut said);
    assert!(line.contains("UDP 192.0.2.81:53 reaches servers by FullNAT but has no local IPv4 address"), "{line}");
    let line = next_line(&mut said);
    assert!(line.contains("direct routing by TUN leaves the address 192.0.2.82 in the packets"), "{line}");
    Ok(())
}

/// A network namespace with nothing in it.
fn empty_namespace() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()
}

/// One with a pair of Ethernet devices, and everything up.
fn lonely_host() -> Result<(), Denied> {
    empty_namespace()?;
    add_veth()?;
    for device in ["lo", "eth0", "far0"] {
        netdev::set_up(device).expect("it is there");
    }
    Ok(())
}

fn add_veth() -> Result<(), Denied> {
    let here = fs::File::open("/proc/self/ns/net").expect("it is there");
    netdev::add_veth("eth0", "far0", here.as_fd()).map_err(|error| Denied::described(&error))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

fn has(vip: &str) -> bool {
    netdev::addresses("lo").expect("it is there").iter().any(|(other, _)| *other == ip(vip))
}

fn get(setting: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{setting}")).expect("it is there").trim().to_owned()
}

fn set(setting: &str, value: &str) {
    fs::write(format!("/proc/sys/{setting}"), value).expect("root here");
}

fn of_this_case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", std::process::id()))
}

fn memory(name: &str) -> PathBuf {
    of_this_case(&format!("{name}.memory"))
}

fn rules(name: &str, text: &str) -> String {
    let path = of_this_case(&format!("{name}.rules"));
    fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}

/// A tunnel end for [`VIP`] on eth0 that has begun.
fn tunnel_end(memory: &Path) -> Result<Lvsd, Denied> {
    let words = ["realserver", "start", "--vip", VIP, "--tunnel", "eth0", "--memory", memory.to_str().expect("text")];
    let (lvsd, mut said) = Lvsd::spawn(&words);
    let line = next_line(&mut said);
    if line.contains("denied") || line.contains("Permission") {
        return Err(Denied::said(line));
    }
    assert!(line.starts_with("lvsd: ending tunnels on eth0"), "{line}");
    Ok(lvsd)
}

/// What `lvsd realserver` prints.
fn said_of(memory: &Path, action: &str) -> String {
    let mut lvsd = Command::new(env!("CARGO_BIN_EXE_lvsd"));
    let output = lvsd.args(["realserver", action, "--memory"]).arg(memory).output().expect("it starts");
    String::from_utf8(output.stdout).expect("text")
}

/// A running `lvsd`, ended with the case at the latest.
struct Lvsd(Child);

impl Lvsd {
    fn spawn(words: &[&str]) -> (Self, BufReader<ChildStderr>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
        let mut child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        (Self(child), said)
    }

    /// Ctrl-C, and waits until it has undone everything. Returns what it printed.
    fn interrupt(mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
        let mut said = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        assert!(self.0.wait().is_ok_and(|status| status.success()), "{said}");
        said
    }
}

impl Drop for Lvsd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn next_line(said: &mut BufReader<ChildStderr>) -> String {
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    line
}

fn main() -> ExitCode {
    let case = |(name, run): (&str, Run)| Case {
        name: name.to_owned(),
        is_extra: false,
        run: Box::new(move || run().map_err(|denied| Box::new(denied) as _)),
    };
    cases::main(&CASES.map(case), 1, "none", |_| {})
}
