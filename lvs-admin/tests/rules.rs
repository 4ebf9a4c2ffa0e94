//! Rules as text, there and back: `ipvsadm -S` and `ipvsadm -R`.

mod table;

use std::time::Duration;

use lvs_admin::{Names, Request, SaveOptions, parse_rules, restore, save};
use lvs_core::service::{ClientAddress, DrainConfig, FullNatOptions, OnReplyConflict, SchedulerFlags, SlowStart};
use lvs_core::service::{TunnelChecksum, TunnelConfig, TunnelKind};
use lvs_core::view::ServiceView;
use lvs_core::{
    AddressFamily, AfterDrain, Command, Director, DirectorConfig, ForwardMethod, Instant, Netmask, OnServerGone,
};
use lvs_core::{Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey, ServiceTimeouts};
use proptest::prelude::*;
use table::{from_commands, table};

/// A table made from `rules` is saved as `expected`.
#[track_caller]
fn check(rules: &str, options: SaveOptions, expected: &str) {
    assert_eq!(save(&table(rules), options, &Names::from_files("http 80/tcp\n", "")), expected);
}

const NUMERIC: SaveOptions = SaveOptions { numeric: true, thresholds: false };

// ctl_save_restore: setup and step 0
#[test]
fn every_kind_of_service_is_saved_as_ipvsadm_saves_it() {
    let rules = concat!(
        "-A -t 10.156.23.66:443 -s wlc\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.176:443 -m -w 3\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.118:443 -g -w 0\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.78:443 -i -w 65535 -x 1000 -y 500\n",
        "-A -u 10.156.23.66:443 -s rr -p\n",
        "-a -u 10.156.23.66:443 -r 10.1.230.176:443 -m\n",
        "-A -u 10.156.23.66:444 -s mh -p 77 -M 255.255.240.0 -b mh-port,mh-fallback\n",
        "-A -u 10.156.23.66:445 -s rr -o\n",
        "-A --sctp-service 10.156.23.66:443 -s sh -b sh-port\n",
        "-a --sctp-service 10.156.23.66:443 -r 10.1.230.48:443 -m -w 2\n",
        "-A -f 1585397077 -s dh\n",
        "-A -f 3 -s lblcr -p 50\n",
        "-a -f 3 -r 10.1.230.48 -g -w 9\n",
        "-A -t 10.156.23.66:0 -s wrr -p 3000\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.48:443 -i -w 5 --tun-type gue --tun-port 6080\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.233:443 -i -w 5 --tun-type gre --tun-csum\n",
    );
    let saved = concat!(
        "-A -t 10.156.23.66:0 -s wrr -p 3000\n",
        "-A -t 10.156.23.66:443 -s wlc\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.48:443 -i -w 5 --tun-type gue --tun-port 6080 --tun-nocsum\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.78:443 -i -w 65535 --tun-type ipip\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.118:443 -g -w 0\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.176:443 -m -w 3\n",
        "-a -t 10.156.23.66:443 -r 10.1.230.233:443 -i -w 5 --tun-type gre --tun-csum\n",
        "-A -u 10.156.23.66:443 -s rr -p 360\n",
        "-a -u 10.156.23.66:443 -r 10.1.230.176:443 -m -w 1\n",
        "-A -u 10.156.23.66:444 -s mh -p 77 -M 255.255.240.0 -b mh-fallback,mh-port\n",
        "-A -u 10.156.23.66:445 -s rr -o\n",
        "-A --sctp-service 10.156.23.66:443 -s sh -b sh-port\n",
        "-a --sctp-service 10.156.23.66:443 -r 10.1.230.48:443 -m -w 2\n",
        "-A -f 3 -s lblcr -p 50\n",
        "-a -f 3 -r 10.1.230.48:0 -g -w 9\n",
        "-A -f 1585397077 -s dh\n",
    );
    check(rules, NUMERIC, saved);
    check(saved, NUMERIC, saved);
}

// ctl6_list: steps 20
#[test]
fn ipv6_services_are_saved_in_brackets_and_marks_with_6() {
    let saved = concat!(
        "-A -t [fd00:c8b8::4e33]:0 -s wrr -p 3000\n",
        "-A -t [fd00:c8b8::4e33]:9000 -s wlc\n",
        "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:3d3e]:9000 -i -w 5 --tun-type gre --tun-csum\n",
        "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:9881]:9000 -i -w 65535 --tun-type ipip\n",
        "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:ac99]:9000 -i -w 5 --tun-type gue --tun-port 6080 --tun-nocsum\n",
        "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:b882]:9000 -g -w 0\n",
        "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:c163]:8000 -m -w 3\n",
        "-A -u [fd00:c8b8::4e33]:9000 -s rr -p 360\n",
        "-a -u [fd00:c8b8::4e33]:9000 -r [fd01::7:c163]:8000 -m -w 1\n",
        "-A -u [fd00:c8b8::4e33]:9001 -s mh -p 77 -M 56 -b mh-fallback,mh-port\n",
        "-A -u [fd00:c8b8::4e33]:9002 -s rr -o\n",
        "-A --sctp-service [fd00:c8b8::4e33]:9000 -s sh -b sh-port\n",
        "-a --sctp-service [fd00:c8b8::4e33]:9000 -r [fd01::7:ac99]:8000 -m -w 2\n",
        "-A -f 53 -6 -s lblcr -p 50\n",
        "-a -f 53 -6 -r [fd01::7:ac99]:0 -g -w 9\n",
        "-A -f 1919203924 -6 -s dh\n",
    );
    check(saved, NUMERIC, saved);
}

// misc_sip_pe, ctl_longopts
#[test]
fn engine_one_packet_and_flags_come_in_this_order() {
    let saved =
        concat!("-A -u 10.60.206.25:8080 -s sh -o -b sh-port\n", "-A -u 10.82.123.117:5060 -s rr -p 60 --pe sip -o\n",);
    check(saved, NUMERIC, saved);
}

#[test]
fn ports_have_names_unless_numbers_are_asked_for() {
    let rules = "-A -t 192.0.2.80:80 -s rr\n";
    check(rules, SaveOptions::default(), "-A -t 192.0.2.80:http -s rr\n");
    check(rules, NUMERIC, rules);
}

#[test]
fn a_mask_of_all_ones_is_not_written() {
    let mut services = table("-A -t 192.0.2.80:80 -s rr -p 9\n-A -t [2001:db8::80]:80 -s rr -p 9\n");
    let saved = save(&services, NUMERIC, &Names::none());
    services[0].config.netmask = Some(Netmask::host(AddressFamily::Ipv4));
    services[1].config.netmask = Some(Netmask::host(AddressFamily::Ipv6));
    assert_eq!(save(&services, NUMERIC, &Names::none()), saved);
    assert!(!saved.contains("-M"), "{saved}");
}

#[test]
fn thresholds_are_saved_only_when_asked_for() {
    let rules = "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1 -x 9 -y 4\n";
    check(rules, NUMERIC, "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1\n");
    check(rules, SaveOptions { thresholds: true, ..NUMERIC }, rules);
}

#[test]
fn full_nat_is_saved_in_options_of_our_own() {
    let saved = concat!(
        "-A -t 192.0.2.80:80 -s rr --client-address toa --keep-timestamps\n",
        "--add-laddr -t 192.0.2.80:80 --local-address 10.0.0.201\n",
        "--add-laddr -t 192.0.2.80:80 --local-address 10.0.0.200\n",
        "-a -t 192.0.2.80:80 -r 10.0.0.2:8080 --fullnat -w 3\n",
        "-A -u 192.0.2.80:53 -s rr --client-address uoa\n",
        "-A -t [2001:db8::80]:80 -s rr --client-address proxy-v2 --keep-sequence\n",
        "--add-laddr -t [2001:db8::80]:80 --local-address 10.0.0.200\n",
        "-a -t [2001:db8::80]:80 -r 10.0.0.2:8080 --fullnat -w 1\n",
    );
    check(saved, NUMERIC, saved);
}

#[test]
fn what_ipvs_never_had_is_saved_behind_what_it_has() {
    let saved = concat!(
        "-A -t 192.0.2.80:80 -s sh -p 9 -b sh-port --client-address toa --mss-clamp 1400\n",
        "-A -t 192.0.2.81:80 -s rr --mss-clamp 1400 --helper ftp --tcp-timeout 86400 --tcpfin-timeout 0.5 --udp-timeout 30 \
         --slow-start 60,102,1024 --on-server-gone reset --reuse-reschedules --on-reply-conflict refuse --check-window\n",
        "-a -t 192.0.2.81:80 -r 10.0.0.2:80 -m -w 1 -x 9 -y 4 --mtu 1400\n",
        "-A -u 192.0.2.80:53 -s rr -o --mss-clamp 536\n",
    );
    let options = SaveOptions { thresholds: true, ..NUMERIC };
    check(saved, options, saved);
}

#[test]
fn a_director_made_from_rules_is_saved_as_the_same_rules() {
    let rules = concat!(
        "-A -t 192.0.2.80:21 -s wlc -p 9 --mss-clamp 1400 --helper ftp --tcp-timeout 8589934 --tcpfin-timeout 0.5 \
         --udp-timeout 30 --slow-start 60,102,1024 --on-server-gone icmp-unreachable --reuse-reschedules \
         --on-reply-conflict another --check-window\n",
        "-a -t 192.0.2.80:21 -r 10.0.0.2:21 -m -w 3 --mtu 1400 --drain 60 --drain-reset\n",
        "-A -t [2001:db8::80]:80 -s rr --client-address proxy-v2 --keep-sequence --keep-timestamps --mss-clamp 1200\n",
        "--add-laddr -t [2001:db8::80]:80 --local-address 10.0.0.200\n",
        "-a -t [2001:db8::80]:80 -r 10.0.0.2:8080 --fullnat -w 1 --mtu 9000\n",
    );
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    for command in parse_rules(rules).unwrap() {
        director.apply(Instant::ZERO, &command).unwrap();
    }
    assert_eq!(save(&director.services(Instant::ZERO), NUMERIC, &Names::none()), rules);
}

#[test]
fn what_does_nothing_is_not_written() {
    let mut services = table("-A -t 192.0.2.80:80 -s rr\n");
    let saved = save(&services, NUMERIC, &Names::none());
    services[0].config.persistence_engine = Some(String::new());
    services[0].config.timeouts = Some(ServiceTimeouts::default());
    services[0].config.slow_start = Some(SlowStart { window: Duration::ZERO, min_share: 9, aggression: 9 });
    assert_eq!(save(&services, NUMERIC, &Names::none()), saved);
}

#[test]
fn a_share_of_more_than_all_is_written_as_all() {
    let mut services = table("-A -t 192.0.2.80:80 -s rr\n");
    let window = Duration::from_secs(60);
    services[0].config.slow_start = Some(SlowStart { window, min_share: 1025, aggression: 1024 });
    let saved = save(&services, NUMERIC, &Names::none());
    assert_eq!(saved, "-A -t 192.0.2.80:80 -s rr --slow-start 60,1024,1024\n");
}

#[test]
fn blank_lines_and_the_program_s_name_are_skipped() {
    let plain = parse_rules("-A -t 192.0.2.80:80 -s rr\n").unwrap();
    assert_eq!(plain.len(), 1);
    assert_eq!(parse_rules("\n   \n\tipvsadm  -A -t 192.0.2.80:80\t-s rr\r\nipvsadm\n").unwrap(), plain);
    assert_eq!(parse_rules("").unwrap(), []);
}

// ctl_save_restore: step 7
#[test]
fn a_comment_is_no_rule() {
    let text = "# comment\n\n-A -t 10.156.23.66:1 -s rr\n-a -t 10.156.23.66:1 -r 10.1.230.176:2 -m -w 1\n";
    let error = parse_rules(text).unwrap_err();
    assert_eq!((error.line, error.error.exit_status), (1, 255));
    assert_eq!(error.error.message, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.");
    assert!(restore(text, &Names::none()).next().unwrap().is_err());
}

#[test]
fn an_error_has_its_line_in_the_file() {
    let error = parse_rules("\n-A -t 192.0.2.80:80\n\n-a -t 192.0.2.80:80 -w abc\n").unwrap_err();
    assert_eq!(error.to_string(), "line 4: illegal weight specified");
    let error = parse_rules("-L -n\n").unwrap_err();
    assert_eq!(error.to_string(), "line 1: not a rule: it changes nothing");
    for line in ["--start-daemon master --syncid 1\n", "--stop-daemon backup\n"] {
        let error = parse_rules(line).unwrap_err().to_string();
        assert_eq!(error, "line 1: not a rule: there is no connection synchronisation to start or stop");
    }
}

/// A file saved with names, on a host where the virtual address's name has an IPv4 address too. ipvsadm 1.31 makes an
/// IPv4 service on every port of it.
#[test]
fn a_name_in_brackets_is_never_an_ipv4_service_on_every_port() {
    let names = Names::from_files("http 80/tcp\n", "2001:db8::1 v6vip\n192.0.2.7 v6vip\n");
    for line in ["-A -t [v6vip]:http -s rr -p 300", "-a -t [v6vip]:http -r [2001:db8::2]:http -i -w 1"] {
        let error = restore(line, &names).next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "line 1: illegal virtual server address[:port] specified");
    }
    let error = restore("-a -t 192.0.2.7:80 -r [v6vip]:http -m", &names).next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "line 1: illegal real server address[:port] specified");
    assert!(restore("-A -t v6vip:http -s rr", &names).next().unwrap().is_ok());
}

// bug6_text: the last steps
#[test]
fn ipv6_addresses_are_written_as_the_c_library_does() {
    for (written, saved) in [
        ("::1.2.3.4", "::1.2.3.4"),
        ("::1:0", "::0.1.0.0"),
        ("::5", "::5"),
        ("::ffff", "::ffff"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
        ("1:0:0:2:3:0:0:4", "1::2:3:0:0:4"),
    ] {
        let rules = format!("-A -t [{written}]:80 -s rr\n--add-laddr -t [{written}]:80 --local-address {written}\n");
        let expected = format!("-A -t [{saved}]:80 -s rr\n--add-laddr -t [{saved}]:80 --local-address {saved}\n");
        check(&rules, NUMERIC, &expected);
        check(&expected, NUMERIC, &expected);
    }
}

#[test]
fn rules_before_an_error_are_there_to_be_applied() {
    let names = Names::none();
    let mut requests = restore("-C\n-L\n-R\n", &names);
    assert_eq!(requests.next(), Some(Ok(Request::Apply(Command::Flush))));
    assert!(matches!(requests.next(), Some(Ok(Request::List(_)))));
    assert!(matches!(requests.next(), Some(Err(error)) if error.line == 3 && error.error.exit_status == 255));
    assert_eq!(requests.next(), None);
}

proptest! {
    /// Saved and read back, a configuration is the same. Only the order they were added in is lost, as with ipvsadm.
    #[test]
    fn saved_rules_make_the_saved_table(services in prop::collection::vec(any_service(), 0..6)) {
        let mut expected = services;
        expected.sort_by_key(|service| service.key);
        expected.dedup_by_key(|service| service.key);
        let text = save(&expected, SaveOptions { numeric: true, thresholds: true }, &Names::none());
        let mut restored = from_commands(&parse_rules(&text).unwrap());
        restored.sort_by_key(|service| service.key);
        for service in expected.iter_mut().chain(&mut restored) {
            service.added = 0;
            service.servers.sort_by_key(|server| server.config.key);
        }
        prop_assert_eq!(restored, expected, "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "([-a-zA-Z0-9:\\[\\]. ]{0,12}[ \n]){0,9}|.*") {
        let _ = parse_rules(&text);
    }
}

/// A service any command line could have made, with a few servers.
fn any_service() -> impl Strategy<Value = ServiceView> {
    let local_addresses = prop::collection::btree_set(any::<std::net::IpAddr>(), 0..3);
    let parts = (any_key(), any_config(), prop::collection::vec(any_server(), 0..4), local_addresses);
    parts.prop_map(|(key, mut config, mut servers, local_addresses)| {
        // Each of these combinations is one that ipvsadm refuses or writes in another way.
        config.netmask = match (config.netmask, key.family(), config.persistence_timeout_s) {
            (Some(mask), family, Some(_)) if mask != Netmask::host(family) => Some(match (mask, family) {
                (Netmask::V4(mask), AddressFamily::Ipv6) => Netmask::V6(1 + mask.octets()[3] % 127),
                (mask, _) => mask,
            }),
            _ => None,
        };
        if let ServiceKey::Address { protocol, port, .. } = key {
            config.one_packet &= protocol == Protocol::Udp;
            if port == 0 && config.persistence_timeout_s.is_none() {
                config.persistence_timeout_s = Some(1);
            }
            let is_translated = |method| matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat);
            for server in servers.iter_mut().filter(|server| !is_translated(server.forward)) {
                server.key.port = port;
            }
        }
        servers.retain(|server| {
            let reaches_other_family = matches!(server.forward, ForwardMethod::Tunnel | ForwardMethod::FullNat);
            AddressFamily::of(server.key.address) == key.family() || reaches_other_family
        });
        servers.sort_by_key(|server| server.key);
        servers.dedup_by_key(|server| server.key);
        let mut service = table::service(key, config);
        service.local_addresses = local_addresses.into_iter().collect();
        service.servers = servers.into_iter().map(table::server).collect();
        service
    })
}

fn any_key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let family = prop::sample::select(vec![AddressFamily::Ipv4, AddressFamily::Ipv6]);
    prop_oneof![
        (protocol, any::<std::net::SocketAddr>()).prop_map(|(protocol, at)| ServiceKey::address(protocol, at)),
        (family, 1..=u32::MAX).prop_map(|(family, mark)| ServiceKey::FwMark { family, mark }),
    ]
}

fn any_config() -> impl Strategy<Value = ServiceConfig> {
    let scheduler = prop::sample::select(vec!["rr", "wlc", "sh", "mh", "my-own"]);
    let timeout_s = prop::option::of(1..=2_678_400_u32);
    let mask = prop::option::of(any::<std::net::Ipv4Addr>().prop_map(Netmask::V4));
    let engine = prop::option::of(Just("sip".to_owned()));
    (scheduler, 0..8_u8, timeout_s, mask, any::<bool>(), engine, any_additions()).prop_map(
        |(scheduler, flags, timeout_s, netmask, one_packet, persistence_engine, additions)| {
            let mut config = additions;
            config.scheduler = scheduler.to_owned();
            config.scheduler_flags = SchedulerFlags(flags);
            config.persistence_timeout_s = timeout_s;
            config.netmask = netmask;
            config.one_packet = one_packet;
            config.persistence_engine = persistence_engine;
            config
        },
    )
}

/// A service with whatever IPVS never had.
fn any_additions() -> impl Strategy<Value = ServiceConfig> {
    let mss_clamp = prop::option::of(1..=u16::MAX);
    let helper = prop::option::of("[!-~]{1,8}");
    let parts = (any_full_nat(), mss_clamp, helper, any_timeouts(), any_slow_start(), any_on_server_gone());
    let conflict =
        prop::sample::select(vec![OnReplyConflict::Allow, OnReplyConflict::Another, OnReplyConflict::Refuse]);
    (parts, any::<[bool; 2]>(), conflict).prop_map(
        |(
            (full_nat, mss_clamp, helper, timeouts, slow_start, on_server_gone),
            [reuse_reschedules, check_window],
            conflict,
        )| {
            let mut config = ServiceConfig::default();
            config.full_nat = full_nat;
            config.mss_clamp = mss_clamp;
            config.helper = helper;
            config.timeouts = timeouts.filter(|timeouts| *timeouts != ServiceTimeouts::default());
            config.slow_start = slow_start;
            config.on_server_gone = on_server_gone;
            config.reuse_reschedules = reuse_reschedules;
            config.on_reply_conflict = conflict;
            config.check_window = check_window;
            config
        },
    )
}

fn any_timeouts() -> impl Strategy<Value = Option<ServiceTimeouts>> {
    let timeout = || prop::option::of(any_time());
    let timeouts = (timeout(), timeout(), timeout());
    prop::option::of(timeouts.prop_map(|(tcp, tcp_fin, udp)| ServiceTimeouts { tcp, tcp_fin, udp }))
}

fn any_slow_start() -> impl Strategy<Value = Option<SlowStart>> {
    let slow_start = (any_time(), 0..=1024_u16, any::<u16>());
    prop::option::of(slow_start.prop_map(|(window, min_share, aggression)| SlowStart { window, min_share, aggression }))
}

/// Whole seconds and any others, but not zero.
fn any_time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        any::<u32>().prop_map(|seconds| Duration::from_secs(1 + u64::from(seconds))),
        any::<Duration>().prop_map(|time| time.max(Duration::from_nanos(1))),
    ]
}

fn any_on_server_gone() -> impl Strategy<Value = OnServerGone> {
    prop::sample::select(vec![
        OnServerGone::Default,
        OnServerGone::Reschedule,
        OnServerGone::Reset,
        OnServerGone::IcmpUnreachable,
        OnServerGone::Drop,
    ])
}

fn any_full_nat() -> impl Strategy<Value = FullNatOptions> {
    let kinds =
        [ClientAddress::None, ClientAddress::Toa, ClientAddress::Uoa, ClientAddress::ProxyV1, ClientAddress::ProxyV2];
    let booleans = (any::<bool>(), any::<bool>());
    (prop::sample::select(kinds.to_vec()), booleans).prop_map(
        |(client_address, (rewrite_sequence, remove_timestamps))| {
            FullNatOptions::default().with(|options| {
                options.client_address = client_address;
                options.rewrite_sequence = rewrite_sequence;
                options.remove_timestamps = remove_timestamps;
            })
        },
    )
}

fn any_server() -> impl Strategy<Value = ServerConfig> {
    let forward = prop::sample::select(vec![
        ForwardMethod::Nat,
        ForwardMethod::DirectRouting,
        ForwardMethod::Tunnel,
        ForwardMethod::FullNat,
    ]);
    let weight = 0..=i32::MAX as u32;
    let thresholds = (0..=i32::MAX as u32, 0..=i32::MAX as u32);
    let mtu = prop::option::of(1..=u16::MAX);
    (any::<std::net::SocketAddr>(), forward, weight, thresholds, any_tunnel(), mtu, any_drain()).prop_map(
        |(at, forward, weight, (upper, lower), tunnel, mtu, drain)| {
            let mut config = ServerConfig::new(at, forward).weight(weight);
            config.upper_threshold = upper;
            config.lower_threshold = lower;
            config.mtu = mtu;
            config.drain = drain;
            if forward == ForwardMethod::Tunnel {
                config.tunnel = tunnel;
            }
            config
        },
    )
}

fn any_drain() -> impl Strategy<Value = Option<DrainConfig>> {
    let then = prop::sample::select(vec![AfterDrain::Reset, AfterDrain::Silence]);
    let drain = (any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into())), then);
    prop::option::of(drain.prop_map(|(deadline, then)| DrainConfig { deadline, then }))
}

fn any_tunnel() -> impl Strategy<Value = TunnelConfig> {
    let gre = prop::sample::select(vec![TunnelChecksum::None, TunnelChecksum::Full]);
    let gue = prop::sample::select(vec![TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote]);
    prop_oneof![
        Just(TunnelConfig::default()),
        gre.prop_map(|checksum| TunnelConfig { kind: TunnelKind::Gre, port: 0, checksum }),
        (1..=u16::MAX, gue).prop_map(|(port, checksum)| TunnelConfig { kind: TunnelKind::Gue, port, checksum }),
    ]
}
