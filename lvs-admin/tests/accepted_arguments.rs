//! What well-formed command lines mean, with ipvsadm 1.31's defaults and quirks.

use std::time::Duration;

use lvs_admin::{Columns, ListOptions, Listing, Names, Request, SyncDaemon, SyncRole};
use lvs_admin::{parse, parse_with_names, split_words};
use lvs_core::service::{
    DrainConfig, OnReplyConflict, SchedulerFlags, SlowStart, TunnelChecksum, TunnelConfig, TunnelKind,
};
use lvs_core::{AddressFamily, AfterDrain, Command, ForwardMethod, Netmask, OnServerGone, Protocol};
use lvs_core::{ServerConfig, ServiceConfig, ServiceKey, ServiceTimeouts};

/// The arguments ask for this.
#[track_caller]
fn check(arguments: &str, expected: Request) {
    assert_eq!(parse(&split_words(arguments)), Ok(expected), "{arguments}");
}

#[track_caller]
fn check_command(arguments: &str, expected: Command) {
    check(arguments, Request::Apply(expected));
}

/// `arguments` add this service on TCP 192.0.2.80:80 (or edit it to this).
#[track_caller]
fn check_service(arguments: &str, change: impl FnOnce(&mut ServiceConfig)) {
    let mut config = ServiceConfig::new("wlc");
    change(&mut config);
    check_command(&format!("-A -t 192.0.2.80:80 {arguments}"), Command::AddService(web(), config.clone()));
    check_command(&format!("-E -t 192.0.2.80:80 {arguments}"), Command::EditService(web(), config));
}

/// `arguments` add this server to the service on TCP 192.0.2.80:80 (or edit it to this).
#[track_caller]
fn check_server(arguments: &str, address: &str, forward: ForwardMethod, change: impl FnOnce(&mut ServerConfig)) {
    let mut config = ServerConfig::new(address.parse().unwrap(), forward);
    change(&mut config);
    check_command(&format!("-a -t 192.0.2.80:80 {arguments}"), Command::AddServer(web(), config.clone()));
    check_command(&format!("-e -t 192.0.2.80:80 {arguments}"), Command::EditServer(web(), config));
}

fn web() -> ServiceKey {
    ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap())
}

fn marked(family: AddressFamily, mark: u32) -> ServiceKey {
    ServiceKey::FwMark { family, mark }
}

#[test]
fn a_service_gets_the_defaults_of_what_is_not_said() {
    check_service("", |_| {});
    check_service("-s rr", |service| service.scheduler = "rr".to_owned());
    check_service("--pe sip", |service| service.persistence_engine = Some("sip".to_owned()));
    check_service("-M 255.255.255.0", |service| service.netmask = Some(Netmask::V4([255, 255, 255, 0].into())));
}

#[test]
fn persistence_without_a_value_is_360_seconds() {
    check_service("-p", |service| service.persistence_timeout_s = Some(360));
    check_service("-p 55 --netmask 255.255.0.0", |service| {
        service.persistence_timeout_s = Some(55);
        service.netmask = Some(Netmask::V4([255, 255, 0, 0].into()));
    });
    check_service("-p -s rr", |service| {
        service.persistence_timeout_s = Some(360);
        service.scheduler = "rr".to_owned();
    });
}

#[test]
fn a_mask_of_all_ones_is_no_mask() {
    check_service("-p 5 -M 255.255.255.255", |service| service.persistence_timeout_s = Some(5));
}

#[test]
fn scheduler_flags_have_general_and_scheduler_names() {
    check_service("-b flag-1,flag-2,flag-3", |service| service.scheduler_flags = SchedulerFlags(7));
    check_service("-b mh-port,mh-fallback -s mh", |service| {
        service.scheduler = "mh".to_owned();
        service.scheduler_flags = SchedulerFlags(SchedulerFlags::PORT | SchedulerFlags::FALLBACK);
    });
}

#[test]
fn a_service_bounds_the_segments_its_syns_announce() {
    check_service("--mss-clamp 1400", |service| service.mss_clamp = Some(1400));
    check_service("--mss-clamp=1 -s rr", |service| {
        service.mss_clamp = Some(1);
        service.scheduler = "rr".to_owned();
    });
    check_service("--mss-clamp 65535", |service| service.mss_clamp = Some(65_535));
}

#[test]
fn a_service_has_a_helper_and_says_what_becomes_of_its_connections() {
    check_service("--helper ftp", |service| service.helper = Some("ftp".to_owned()));
    check_service("--check-window", |service| service.check_window = true);
    check_service("--reuse-reschedules", |service| service.reuse_reschedules = true);
    for (name, rule) in
        [("allow", OnReplyConflict::Allow), ("another", OnReplyConflict::Another), ("refuse", OnReplyConflict::Refuse)]
    {
        check_service(&format!("--on-reply-conflict {name}"), |service| service.on_reply_conflict = rule);
    }
    for (name, action) in [
        ("default", OnServerGone::Default),
        ("reschedule", OnServerGone::Reschedule),
        ("reset", OnServerGone::Reset),
        ("icmp-unreachable", OnServerGone::IcmpUnreachable),
        ("drop", OnServerGone::Drop),
    ] {
        check_service(&format!("--on-server-gone {name}"), |service| service.on_server_gone = action);
    }
}

#[test]
fn a_service_has_timeouts_of_its_own_in_seconds_and_parts_of_one() {
    let timeouts = |arguments: &str, timeouts: ServiceTimeouts| {
        check_service(arguments, |service| service.timeouts = Some(timeouts));
    };
    let (day, half) = (Some(Duration::from_secs(86_400)), Some(Duration::from_millis(500)));
    let least = Some(Duration::from_nanos(1));
    timeouts("--tcp-timeout 86400", ServiceTimeouts { tcp: day, ..ServiceTimeouts::default() });
    timeouts("--tcpfin-timeout 0.5", ServiceTimeouts { tcp_fin: half, ..ServiceTimeouts::default() });
    timeouts("--udp-timeout 0.000000001", ServiceTimeouts { udp: least, ..ServiceTimeouts::default() });
    timeouts(
        "--udp-timeout 86400 --tcpfin-timeout 0.500 --tcp-timeout 86400.0",
        ServiceTimeouts { tcp: day, tcp_fin: half, udp: day },
    );
}

#[test]
fn slow_start_begins_with_a_tenth_and_is_a_straight_line_unless_said() {
    for (arguments, min_share, aggression) in [
        ("--slow-start 60", 102, 1024),
        ("--slow-start 60,51", 51, 1024),
        ("--slow-start 60.0,1024,65535", 1024, 65_535),
        ("--slow-start 60,0,0", 0, 0),
    ] {
        let window = Duration::from_secs(60);
        check_service(arguments, |service| {
            service.slow_start = Some(SlowStart { window, min_share, aggression });
        });
    }
}

#[test]
fn a_server_is_drained_for_so_long_and_then_in_silence_or_by_resets() {
    for (arguments, seconds, then) in [
        ("--drain 60", 60, AfterDrain::Silence),
        ("--drain=0", 0, AfterDrain::Silence),
        ("--drain-reset --drain 4294967295", u32::MAX, AfterDrain::Reset),
    ] {
        let deadline = Duration::from_secs(seconds.into());
        check_server(&format!("-r 10.0.0.2 -g {arguments}"), "10.0.0.2:80", ForwardMethod::DirectRouting, |server| {
            server.drain = Some(DrainConfig { deadline, then });
        });
    }
}

#[test]
fn a_server_has_an_mtu_whatever_the_method() {
    for (option, method) in
        [("-g", ForwardMethod::DirectRouting), ("-i", ForwardMethod::Tunnel), ("--fullnat", ForwardMethod::FullNat)]
    {
        check_server(&format!("-r 10.0.0.2 {option} --mtu 1400"), "10.0.0.2:80", method, |server| {
            server.mtu = Some(1400);
        });
    }
}

#[test]
fn every_kind_of_service_can_be_named() {
    let delete = |key| Request::Apply(Command::DeleteService(key));
    let address = |protocol, at: &str| ServiceKey::address(protocol, at.parse().unwrap());
    check("-D -u 192.0.2.80:53", delete(address(Protocol::Udp, "192.0.2.80:53")));
    check("-D --sctp-service 192.0.2.80:9", delete(address(Protocol::Sctp, "192.0.2.80:9")));
    check("-D -t [2001:db8::80]:80", delete(address(Protocol::Tcp, "[2001:db8::80]:80")));
    check("-D -t 2001:db8::80", delete(address(Protocol::Tcp, "[2001:db8::80]:0")));
    check("-D -f 4294967295", delete(marked(AddressFamily::Ipv4, u32::MAX)));
    check("-D -f 5 -6", delete(marked(AddressFamily::Ipv6, 5)));
}

#[test]
fn addresses_may_be_written_as_inet_aton_takes_them() {
    let delete =
        |at: &str| Request::Apply(Command::DeleteService(ServiceKey::address(Protocol::Tcp, at.parse().unwrap())));
    check("-D -t 10.1:80", delete("10.0.0.1:80"));
    check("-D -t 0x7f000001:80", delete("127.0.0.1:80"));
    check("-D -t 010.1.1.1:080", delete("8.1.1.1:80"));
}

#[test]
fn an_ipv6_mask_is_a_prefix_length() {
    let mut config = ServiceConfig::new("wlc").persistent(50);
    config.netmask = Some(Netmask::V6(56));
    let key = ServiceKey::address(Protocol::Tcp, "[2001:db8::80]:80".parse().unwrap());
    check_command("-A -t [2001:db8::80]:80 -p 50 -M 56", Command::AddService(key, config.clone()));
    check_command("-A -f 5 -6 -p 50 -M 56", Command::AddService(marked(AddressFamily::Ipv6, 5), config));
}

#[test]
fn one_packet_scheduling_goes_with_udp_and_marks() {
    let mut config = ServiceConfig::new("wlc");
    config.one_packet = true;
    let dns = ServiceKey::address(Protocol::Udp, "192.0.2.80:53".parse().unwrap());
    check_command("-A -u 192.0.2.80:53 -o", Command::AddService(dns, config.clone()));
    check_command("-A -f 3 --ops", Command::AddService(marked(AddressFamily::Ipv4, 3), config));
}

#[test]
fn any_port_is_for_persistent_services() {
    let key = ServiceKey::address(Protocol::Tcp, "192.0.2.80:0".parse().unwrap());
    check_command("-A -t 192.0.2.80 -p 9", Command::AddService(key, ServiceConfig::new("wlc").persistent(9)));
}

#[test]
fn a_server_gets_the_defaults_of_what_is_not_said() {
    check_server("-r 10.0.0.2", "10.0.0.2:80", ForwardMethod::DirectRouting, |_| {});
    check_server("-r 10.0.0.2 -m", "10.0.0.2:80", ForwardMethod::Nat, |_| {});
    check_server("-r 10.0.0.2:8080 -m -w 0 -x 9 -y 4", "10.0.0.2:8080", ForwardMethod::Nat, |server| {
        server.weight = 0;
        server.upper_threshold = 9;
        server.lower_threshold = 4;
    });
    check_server("-r 10.0.0.2 -w 2147483647", "10.0.0.2:80", ForwardMethod::DirectRouting, |server| {
        server.weight = 2_147_483_647;
    });
}

// ctl_defaults, ctl_errors_kernel
#[test]
fn only_address_translation_keeps_a_port_of_its_own() {
    check_server("-r 10.0.0.2:8443 -g", "10.0.0.2:80", ForwardMethod::DirectRouting, |_| {});
    check_server("-r 10.0.0.2:8443 -i", "10.0.0.2:80", ForwardMethod::Tunnel, |_| {});
    check_server("-r 10.0.0.2:8443 -m", "10.0.0.2:8443", ForwardMethod::Nat, |_| {});
    let server = ServerConfig::new("10.0.0.2:99".parse().unwrap(), ForwardMethod::DirectRouting);
    check_command("-a -f 7 -r 10.0.0.2:99 -g", Command::AddServer(marked(AddressFamily::Ipv4, 7), server));
    let key = "10.0.0.2:8443".parse::<std::net::SocketAddr>().unwrap();
    let key = lvs_core::ServerKey::new(key.ip(), key.port());
    check_command("-d -t 192.0.2.80:80 -r 10.0.0.2:8443", Command::DeleteServer(web(), key));
}

#[test]
fn a_server_named_before_its_service_does_not_know_the_port() {
    let expected = Command::AddServer(web(), ServerConfig::nat("10.0.0.2:0".parse().unwrap()));
    check_command("-a -r 10.0.0.2 -m -t 192.0.2.80:80", expected);
}

#[test]
fn tunnels_have_a_kind_a_port_and_a_checksum() {
    let tunnel = |arguments: &str, kind, port, checksum| {
        check_server(&format!("-r 10.0.0.2 -i {arguments}"), "10.0.0.2:80", ForwardMethod::Tunnel, |server| {
            server.tunnel = TunnelConfig { kind, port, checksum };
        });
    };
    tunnel("--tun-type ipip", TunnelKind::Ipip, 0, TunnelChecksum::None);
    tunnel("--tun-type gre --tun-csum", TunnelKind::Gre, 0, TunnelChecksum::Full);
    tunnel("--tun-type gue --tun-port 6080", TunnelKind::Gue, 6080, TunnelChecksum::None);
    tunnel("--tun-type gue --tun-port 6080 --tun-remcsum", TunnelKind::Gue, 6080, TunnelChecksum::Remote);
}

#[test]
fn a_tunnel_may_lead_to_the_other_family() {
    check_server("-r [2001:db8::2]:80 -i", "[2001:db8::2]:80", ForwardMethod::Tunnel, |_| {});
}

#[test]
fn commands_without_options() {
    check_command("-C", Command::Flush);
    check_command("--clear", Command::Flush);
    check_command("-Z", Command::Zero(None));
    check_command("-Z -t 192.0.2.80:80", Command::Zero(Some(web())));
    check("-R", Request::Restore);
    check("-S", Request::Save { numeric: false });
    check("-Sn", Request::Save { numeric: true });
    check("-h -z", Request::Help);
    check("--version", Request::Version);
}

#[test]
fn a_timeout_of_zero_stays_as_it_is() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let set = |tcp, tcp_fin, udp| Command::SetTimeouts { tcp, tcp_fin, udp };
    check_command("--set 100 20 30", set(seconds(100), seconds(20), seconds(30)));
    check_command("--set 0 25 0", set(None, seconds(25), None));
    check_command("--set 2678400 0 0", set(seconds(2_678_400), None, None));
}

#[test]
fn listings() {
    let columns =
        |columns| ListOptions { listing: Listing::Services(columns), numeric: true, ..ListOptions::default() };
    check("", Request::List(ListOptions::default()));
    check("-l", Request::List(ListOptions::default()));
    check("-Ln", Request::List(columns(Columns::Load)));
    check("--list --numeric", Request::List(columns(Columns::Load)));
    check("-Ln --stats", Request::List(columns(Columns::Statistics)));
    check("-Ln --rate", Request::List(columns(Columns::Rates)));
    check("-Ln --thresholds", Request::List(columns(Columns::Thresholds)));
    check("-Ln --persistent-conn", Request::List(columns(Columns::PersistentConnections)));
    check("-Ln --tun-info", Request::List(columns(Columns::Tunnels)));
    check("-Ln --thresholds --stats --rate", Request::List(columns(Columns::Statistics)));
    check("-LnX --nosort", Request::List(ListOptions { exact: true, unsorted: true, ..columns(Columns::Load) }));
    check("-Ln -t 192.0.2.80:80", Request::List(ListOptions { service: Some(web()), ..columns(Columns::Load) }));
    let listing = |listing| Request::List(ListOptions { listing, numeric: true, ..ListOptions::default() });
    check("-Lcn", listing(Listing::Connections { persistence_data: false }));
    check("-Lcn --persistent-conn", listing(Listing::Connections { persistence_data: true }));
    check("-Ln --timeout", listing(Listing::Timeouts));
    check("-Ln --daemon", listing(Listing::Daemons));
}

#[test]
fn values_may_be_attached() {
    for arguments in [
        "-At192.0.2.80:80 -srr",
        "-A -t=192.0.2.80:80 -s=rr",
        "--add-service --tcp-service=192.0.2.80:80 --scheduler=rr",
    ] {
        check_command(arguments, Command::AddService(web(), ServiceConfig::new("rr")));
    }
}

// ctl_daemon
#[test]
fn synchronisation_daemons() {
    let plain = SyncDaemon {
        role: SyncRole::Master,
        interface: "eth0".to_owned(),
        sync_id: 0,
        max_len: None,
        group: [224, 0, 0, 81].into(),
        port: 8848,
        ttl: 1,
    };
    check("--start-daemon master", Request::StartDaemon(plain.clone()));
    check(
        "--start-daemon backup --mcast-interface c0 --syncid 7 --sync-maxlen 1000 --mcast-group ff02::1 --mcast-port 9999 --mcast-ttl 5",
        Request::StartDaemon(SyncDaemon {
            role: SyncRole::Backup,
            interface: "c0".to_owned(),
            sync_id: 7,
            max_len: Some(1000),
            group: "ff02::1".parse().unwrap(),
            port: 9999,
            ttl: 5,
        }),
    );
    check("--stop-daemon backup", Request::StopDaemon(SyncRole::Backup));
}

#[test]
fn names_stand_for_numbers_where_there_is_a_table_of_them() {
    let names = Names::from_files("http 80/tcp www # web\ndomain 53/udp\n", "192.0.2.80 web.example\n");
    let parse = |arguments: &str| parse_with_names(&split_words(arguments), &names);
    assert_eq!(parse("-D -t web.example:www"), Ok(Request::Apply(Command::DeleteService(web()))));
    assert_eq!(parse("-D -t WEB.example:80"), Ok(Request::Apply(Command::DeleteService(web()))));
    let error = parse("-D -u web.example:http").unwrap_err();
    assert_eq!(error.message, "illegal virtual server address[:port] specified");
}
