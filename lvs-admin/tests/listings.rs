//! The texts of `ipvsadm -L`, byte for byte as recorded from ipvsadm 1.31 on Linux 6.1.

mod table;

use std::time::Duration;

use lvs_admin::{Listing, Names, Request, SaveOptions};
use lvs_admin::{list, list_connections, list_daemons, list_timeouts, parse, save, split_words};
use lvs_core::service::stats::{Counters, Rates, Statistics};
use lvs_core::view::{ConnectionView, ServiceView, TimeoutsView};
use lvs_core::{Endpoint, ForwardMethod, Protocol};
use table::table;

/// `ipvsadm <arguments>` over `services` prints `expected`.
#[track_caller]
fn check(services: &[ServiceView], arguments: &str, expected: &str) {
    let Ok(Request::List(options)) = parse(&split_words(arguments)) else { panic!("{arguments} is no listing") };
    let names = Names::from_files("http-alt 8080/tcp webcache\n", "");
    let printed = list(services, &options, &names).unwrap_or_else(|error| error.to_string());
    assert_eq!(printed, expected, "{arguments}");
}

// ctl_list
#[test]
fn load_of_every_kind_of_ipv4_service() {
    check(
        &table(EVERY_KIND),
        "-Ln",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
            "TCP  10.45.46.172:0 wrr persistent 3000\n",
            "TCP  10.45.46.172:8080 wlc\n",
            "  -> 10.1.25.20:8000              Masq    3      0          0         \n",
            "  -> 10.1.25.43:8080              Tunnel  5      0          0         \n",
            "  -> 10.1.25.86:8080              Tunnel  65535  0          0         \n",
            "  -> 10.1.25.149:8080             Route   0      0          0         \n",
            "  -> 10.1.25.247:8080             Tunnel  5      0          0         \n",
            "UDP  10.45.46.172:8080 rr persistent 360\n",
            "  -> 10.1.25.20:8000              Masq    1      0          0         \n",
            "UDP  10.45.46.172:8081 mh (mh-fallback,mh-port) persistent 77 mask 255.255.240.0\n",
            "UDP  10.45.46.172:8082 rr ops\n",
            "SCTP 10.45.46.172:8080 sh (sh-port)\n",
            "  -> 10.1.25.247:8000             Masq    2      0          0         \n",
            "FWM  97 lblcr persistent 50\n",
            "  -> 10.1.25.247:0                Route   9      0          0         \n",
            "FWM  1393799689 dh\n",
        ),
    );
}

// ctl_list
#[test]
fn thresholds_of_every_kind_of_ipv4_service() {
    check(
        &table(EVERY_KIND),
        "-Ln --thresholds",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n",
            "TCP  10.45.46.172:0 wrr persistent 3000\n",
            "TCP  10.45.46.172:8080 wlc\n",
            "  -> 10.1.25.20:8000              0          0          0          0         \n",
            "  -> 10.1.25.43:8080              0          0          0          0         \n",
            "  -> 10.1.25.86:8080              1000       500        0          0         \n",
            "  -> 10.1.25.149:8080             0          0          0          0         \n",
            "  -> 10.1.25.247:8080             0          0          0          0         \n",
            "UDP  10.45.46.172:8080 rr persistent 360\n",
            "  -> 10.1.25.20:8000              0          0          0          0         \n",
            "UDP  10.45.46.172:8081 mh (mh-fallback,mh-port) persistent 77 mask 255.255.240.0\n",
            "UDP  10.45.46.172:8082 rr ops\n",
            "SCTP 10.45.46.172:8080 sh (sh-port)\n",
            "  -> 10.1.25.247:8000             0          0          0          0         \n",
            "FWM  97 lblcr persistent 50\n",
            "  -> 10.1.25.247:0                0          0          0          0         \n",
            "FWM  1393799689 dh\n",
        ),
    );
}

// ctl_list
#[test]
fn persistent_connections_of_every_kind_of_ipv4_service() {
    check(
        &table(EVERY_KIND),
        "-Ln --persistent-conn",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n",
            "TCP  10.45.46.172:0 wrr persistent 3000\n",
            "TCP  10.45.46.172:8080 wlc\n",
            "  -> 10.1.25.20:8000              3         0           0          0         \n",
            "  -> 10.1.25.43:8080              5         0           0          0         \n",
            "  -> 10.1.25.86:8080              65535     0           0          0         \n",
            "  -> 10.1.25.149:8080             0         0           0          0         \n",
            "  -> 10.1.25.247:8080             5         0           0          0         \n",
            "UDP  10.45.46.172:8080 rr persistent 360\n",
            "  -> 10.1.25.20:8000              1         0           0          0         \n",
            "UDP  10.45.46.172:8081 mh (mh-fallback,mh-port) persistent 77 mask 255.255.240.0\n",
            "UDP  10.45.46.172:8082 rr ops\n",
            "SCTP 10.45.46.172:8080 sh (sh-port)\n",
            "  -> 10.1.25.247:8000             2         0           0          0         \n",
            "FWM  97 lblcr persistent 50\n",
            "  -> 10.1.25.247:0                9         0           0          0         \n",
            "FWM  1393799689 dh\n",
        ),
    );
}

// ctl_list
#[test]
fn tunnels_of_every_kind_of_ipv4_service() {
    check(
        &table(EVERY_KIND),
        "-Ln --tun-info",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n",
            "TCP  10.45.46.172:0 wrr persistent 3000\n",
            "TCP  10.45.46.172:8080 wlc\n",
            "  -> 10.1.25.20:8000              Masq    n/a           3      0          0         \n",
            "  -> 10.1.25.43:8080              Tunnel  gre:+c        5      0          0         \n",
            "  -> 10.1.25.86:8080              Tunnel  ipip          65535  0          0         \n",
            "  -> 10.1.25.149:8080             Route   n/a           0      0          0         \n",
            "  -> 10.1.25.247:8080             Tunnel  gue:6080:-c   5      0          0         \n",
            "UDP  10.45.46.172:8080 rr persistent 360\n",
            "  -> 10.1.25.20:8000              Masq    n/a           1      0          0         \n",
            "UDP  10.45.46.172:8081 mh (mh-fallback,mh-port) persistent 77 mask 255.255.240.0\n",
            "UDP  10.45.46.172:8082 rr ops\n",
            "SCTP 10.45.46.172:8080 sh (sh-port)\n",
            "  -> 10.1.25.247:8000             Masq    n/a           2      0          0         \n",
            "FWM  97 lblcr persistent 50\n",
            "  -> 10.1.25.247:0                Route   n/a           9      0          0         \n",
            "FWM  1393799689 dh\n",
        ),
    );
}

// ctl_list
#[test]
fn statistics_of_every_kind_of_ipv4_service() {
    check(
        &table(EVERY_KIND),
        "-Ln --stats",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n",
            "  -> RemoteAddress:Port\n",
            "TCP  10.45.46.172:0                      0        0        0        0        0\n",
            "TCP  10.45.46.172:8080                   0        0        0        0        0\n",
            "  -> 10.1.25.20:8000                     0        0        0        0        0\n",
            "  -> 10.1.25.43:8080                     0        0        0        0        0\n",
            "  -> 10.1.25.86:8080                     0        0        0        0        0\n",
            "  -> 10.1.25.149:8080                    0        0        0        0        0\n",
            "  -> 10.1.25.247:8080                    0        0        0        0        0\n",
            "UDP  10.45.46.172:8080                   0        0        0        0        0\n",
            "  -> 10.1.25.20:8000                     0        0        0        0        0\n",
            "UDP  10.45.46.172:8081                   0        0        0        0        0\n",
            "UDP  10.45.46.172:8082                   0        0        0        0        0\n",
            "SCTP 10.45.46.172:8080                   0        0        0        0        0\n",
            "  -> 10.1.25.247:8000                    0        0        0        0        0\n",
            "FWM  97                                  0        0        0        0        0\n",
            "  -> 10.1.25.247:0                       0        0        0        0        0\n",
            "FWM  1393799689                          0        0        0        0        0\n",
        ),
    );
}

// ctl_list
#[test]
fn names_of_every_kind_of_ipv4_service() {
    check(
        &table(EVERY_KIND),
        "-L",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
            "TCP  10.45.46.172:0 wrr persistent 3000\n",
            "TCP  10.45.46.172:http-alt wlc\n",
            "  -> 10.1.25.20:8000              Masq    3      0          0         \n",
            "  -> 10.1.25.43:http-alt          Tunnel  5      0          0         \n",
            "  -> 10.1.25.86:http-alt          Tunnel  65535  0          0         \n",
            "  -> 10.1.25.149:http-alt         Route   0      0          0         \n",
            "  -> 10.1.25.247:http-alt         Tunnel  5      0          0         \n",
            "UDP  10.45.46.172:8080 rr persistent 360\n",
            "  -> 10.1.25.20:8000              Masq    1      0          0         \n",
            "UDP  10.45.46.172:8081 mh (mh-fallback,mh-port) persistent 77 mask 255.255.240.0\n",
            "UDP  10.45.46.172:8082 rr ops\n",
            "SCTP 10.45.46.172:8080 sh (sh-port)\n",
            "  -> 10.1.25.247:8000             Masq    2      0          0         \n",
            "FWM  97 lblcr persistent 50\n",
            "  -> 10.1.25.247:0                Route   9      0          0         \n",
            "FWM  1393799689 dh\n",
        ),
    );
}

// ctl6_list
#[test]
fn load_of_every_kind_of_ipv6_service() {
    check(
        &table(EVERY_KIND_IPV6),
        "-Ln",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
            "TCP  [fd00:c8b8::4e33]:0 wrr persistent 3000\n",
            "TCP  [fd00:c8b8::4e33]:9000 wlc\n",
            "  -> [fd01::7:3d3e]:9000          Tunnel  5      0          0         \n",
            "  -> [fd01::7:9881]:9000          Tunnel  65535  0          0         \n",
            "  -> [fd01::7:ac99]:9000          Tunnel  5      0          0         \n",
            "  -> [fd01::7:b882]:9000          Route   0      0          0         \n",
            "  -> [fd01::7:c163]:8000          Masq    3      0          0         \n",
            "UDP  [fd00:c8b8::4e33]:9000 rr persistent 360\n",
            "  -> [fd01::7:c163]:8000          Masq    1      0          0         \n",
            "UDP  [fd00:c8b8::4e33]:9001 mh (mh-fallback,mh-port) persistent 77 mask 56\n",
            "UDP  [fd00:c8b8::4e33]:9002 rr ops\n",
            "SCTP [fd00:c8b8::4e33]:9000 sh (sh-port)\n",
            "  -> [fd01::7:ac99]:8000          Masq    2      0          0         \n",
            "FWM  53 IPv6 lblcr persistent 50\n",
            "  -> [fd01::7:ac99]:0             Route   9      0          0         \n",
            "FWM  1919203924 IPv6 dh\n",
        ),
    );
}

// ctl6_list
#[test]
fn tunnels_of_every_kind_of_ipv6_service() {
    check(
        &table(EVERY_KIND_IPV6),
        "-Ln --tun-info",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n",
            "TCP  [fd00:c8b8::4e33]:0 wrr persistent 3000\n",
            "TCP  [fd00:c8b8::4e33]:9000 wlc\n",
            "  -> [fd01::7:3d3e]:9000          Tunnel  gre:+c        5      0          0         \n",
            "  -> [fd01::7:9881]:9000          Tunnel  ipip          65535  0          0         \n",
            "  -> [fd01::7:ac99]:9000          Tunnel  gue:6080:-c   5      0          0         \n",
            "  -> [fd01::7:b882]:9000          Route   n/a           0      0          0         \n",
            "  -> [fd01::7:c163]:8000          Masq    n/a           3      0          0         \n",
            "UDP  [fd00:c8b8::4e33]:9000 rr persistent 360\n",
            "  -> [fd01::7:c163]:8000          Masq    n/a           1      0          0         \n",
            "UDP  [fd00:c8b8::4e33]:9001 mh (mh-fallback,mh-port) persistent 77 mask 56\n",
            "UDP  [fd00:c8b8::4e33]:9002 rr ops\n",
            "SCTP [fd00:c8b8::4e33]:9000 sh (sh-port)\n",
            "  -> [fd01::7:ac99]:8000          Masq    n/a           2      0          0         \n",
            "FWM  53 IPv6 lblcr persistent 50\n",
            "  -> [fd01::7:ac99]:0             Route   n/a           9      0          0         \n",
            "FWM  1919203924 IPv6 dh\n",
        ),
    );
}

// ctl6_list
#[test]
fn statistics_of_every_kind_of_ipv6_service() {
    check(
        &table(EVERY_KIND_IPV6),
        "-Ln --stats",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n",
            "  -> RemoteAddress:Port\n",
            "TCP  [fd00:c8b8::4e33]:0                 0        0        0        0        0\n",
            "TCP  [fd00:c8b8::4e33]:9000              0        0        0        0        0\n",
            "  -> [fd01::7:3d3e]:9000                 0        0        0        0        0\n",
            "  -> [fd01::7:9881]:9000                 0        0        0        0        0\n",
            "  -> [fd01::7:ac99]:9000                 0        0        0        0        0\n",
            "  -> [fd01::7:b882]:9000                 0        0        0        0        0\n",
            "  -> [fd01::7:c163]:8000                 0        0        0        0        0\n",
            "UDP  [fd00:c8b8::4e33]:9000              0        0        0        0        0\n",
            "  -> [fd01::7:c163]:8000                 0        0        0        0        0\n",
            "UDP  [fd00:c8b8::4e33]:9001              0        0        0        0        0\n",
            "UDP  [fd00:c8b8::4e33]:9002              0        0        0        0        0\n",
            "SCTP [fd00:c8b8::4e33]:9000              0        0        0        0        0\n",
            "  -> [fd01::7:ac99]:8000                 0        0        0        0        0\n",
            "FWM  53 IPv6                             0        0        0        0        0\n",
            "  -> [fd01::7:ac99]:0                    0        0        0        0        0\n",
            "FWM  1919203924 IPv6                     0        0        0        0        0\n",
        ),
    );
}

// ctl_list
#[test]
fn one_service_has_no_version_line() {
    check(
        &table(EVERY_KIND),
        "-L -n -t 10.45.46.172:8080",
        concat!(
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
            "TCP  10.45.46.172:8080 wlc\n",
            "  -> 10.1.25.20:8000              Masq    3      0          0         \n",
            "  -> 10.1.25.43:8080              Tunnel  5      0          0         \n",
            "  -> 10.1.25.86:8080              Tunnel  65535  0          0         \n",
            "  -> 10.1.25.149:8080             Route   0      0          0         \n",
            "  -> 10.1.25.247:8080             Tunnel  5      0          0         \n",
        ),
    );
    check(&table(EVERY_KIND), "-Ln -f 4294967", "No such service");
}

#[test]
fn an_unsorted_table_is_printed_as_it_comes() {
    let rules = concat!(
        "-A -u 192.0.2.80:53 -s rr\n",
        "-A -t 192.0.2.80:80 -s rr\n",
        "-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m\n",
        "-a -t 192.0.2.80:80 -r 10.0.0.10:80 -m\n",
    );
    let header = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n";
    let unsorted = concat!(
        "UDP  192.0.2.80:53 rr\n",
        "TCP  192.0.2.80:80 rr\n",
        "  -> 10.0.0.10:80                 Masq    1      0          0         \n",
        "  -> 10.0.0.2:80                  Masq    1      0          0         \n",
    );
    let sorted = concat!(
        "TCP  192.0.2.80:80 rr\n",
        "  -> 10.0.0.2:80                  Masq    1      0          0         \n",
        "  -> 10.0.0.10:80                 Masq    1      0          0         \n",
        "UDP  192.0.2.80:53 rr\n",
    );
    check(&table(rules), "-Ln --nosort", &format!("{header}{unsorted}"));
    check(&table(rules), "-Ln", &format!("{header}{sorted}"));
}

// misc_sip_pe
#[test]
fn a_persistence_engine_stands_before_one_packet_scheduling() {
    check(
        &table("-A -u 10.82.123.117:5060 -s rr -p 60 --pe sip -o\n"),
        "-Ln",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
            "UDP  10.82.123.117:5060 rr persistent 60 pe sip ops\n",
        ),
    );
}

// ctl_restore_status
#[test]
fn a_persistence_engine_without_persistence_is_only_in_rules() {
    let heading = concat!(
        "IP Virtual Server version 1.2.1 (size=4096)\n",
        "Prot LocalAddress:Port Scheduler Flags\n",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
    );
    let rules = "-A -f 1 -s wlc --pe sip\n";
    check(&table(rules), "-Ln", &format!("{heading}FWM  1 wlc\n"));
    assert_eq!(save(&table(rules), SaveOptions::default(), &Names::none()), rules);
}

// ctl_sort_addresses
#[test]
fn addresses_are_in_the_order_of_signed_differences_and_families_apart() {
    let rules = concat!(
        "-A -t [2001:db8::1]:80 -s rr\n",
        "-A -f 7 -6 -s rr\n",
        "-A -f 7 -s rr\n",
        "-A -u 10.0.0.1:53 -s rr\n",
        "-A -t 10.0.0.1:443 -s rr\n",
        "-A -t 10.0.0.1:80 -s rr\n",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m\n",
        "-a -t 10.0.0.1:80 -r 192.168.0.2:80 -m\n",
        "-a -t 10.0.0.1:80 -r [fd00::2]:80 -i\n",
        "-A -t 192.168.0.1:80 -s rr\n",
        "-A -t [fd00::1]:80 -s rr\n",
    );
    check(
        &table(rules),
        "-Ln",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
            "TCP  192.168.0.1:80 rr\n",
            "TCP  10.0.0.1:80 rr\n",
            "  -> 192.168.0.2:80               Masq    1      0          0         \n",
            "  -> [fd00::2]:80                 Tunnel  1      0          0         \n",
            "  -> 10.0.0.2:80                  Masq    1      0          0         \n",
            "TCP  10.0.0.1:443 rr\n",
            "UDP  10.0.0.1:53 rr\n",
            "TCP  [fd00::1]:80 rr\n",
            "TCP  [2001:db8::1]:80 rr\n",
            "FWM  7 rr\n",
            "FWM  7 IPv6 rr\n",
        ),
    );
}

// ctl_large_marks
#[test]
fn marks_are_printed_as_signed_numbers_but_kept_as_they_can_be_read() {
    let rules = "-A -f 2147483648 -s rr\n";
    let heading = concat!(
        "IP Virtual Server version 1.2.1 (size=4096)\n",
        "Prot LocalAddress:Port Scheduler Flags\n",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
    );
    check(&table(rules), "-Ln", &format!("{heading}FWM  -2147483648 rr\n"));
    assert_eq!(save(&table(rules), SaveOptions::default(), &Names::none()), rules);
}

// stats_counters, steps 56 and 60
#[test]
fn published_counters_and_rates_are_shown() {
    let mut services = table("-A -t 10.71.143.229:53 -s rr\n-a -t 10.71.143.229:53 -r 10.1.82.142:53 -m\n");
    let published = Counters { connections: 5, in_packets: 30, out_packets: 20, in_bytes: 1812, out_bytes: 1229 };
    let rates = Rates { connections: 1, in_packets: 4, out_packets: 2, in_bytes: 226, out_bytes: 154 };
    let live = Counters { connections: 99, ..published };
    services[0].statistics = Statistics { live, published, rates };
    let published = Counters { connections: 3, in_packets: 18, out_packets: 12, in_bytes: 1118, out_bytes: 821 };
    let rates = Rates { connections: 0, in_packets: 2, out_packets: 1, in_bytes: 140, out_bytes: 103 };
    services[0].servers[0].statistics = Statistics { live, published, rates };
    check(
        &services,
        "-Ln --stats",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n",
            "  -> RemoteAddress:Port\n",
            "TCP  10.71.143.229:53                    5       30       20     1812     1229\n",
            "  -> 10.1.82.142:53                      3       18       12     1118      821\n",
        ),
    );
    check(
        &services,
        "-Ln --rate",
        concat!(
            "IP Virtual Server version 1.2.1 (size=4096)\n",
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n",
            "  -> RemoteAddress:Port\n",
            "TCP  10.71.143.229:53                    1        4        2      226      154\n",
            "  -> 10.1.82.142:53                      0        2        1      140      103\n",
        ),
    );
}

/// Seen by running ipvsadm 1.31 itself, with its kernel calls answered by a stand-in.
#[test]
fn large_counters_are_cut_to_thousands_unless_exact() {
    let row = |in_bytes, arguments: &str| {
        let mut services = table("-A -u 10.0.0.1:80 -s rr\n");
        services[0].statistics.published = Counters { in_bytes, out_bytes: 12_345_678, ..Counters::default() };
        let Ok(Request::List(options)) = parse(&split_words(arguments)) else { panic!("{arguments} is no listing") };
        list(&services, &options, &Names::none()).unwrap().lines().last().unwrap().to_owned()
    };
    let check = |in_bytes, shown: &str| {
        let expected = format!("UDP  10.0.0.1:80                         0        0        0{shown} 12345678");
        assert_eq!(row(in_bytes, "-Ln --stats"), expected);
    };
    check(99_999_999, " 99999999");
    check(100_000_000, "  100000K");
    check(999_999_999, "  999999K");
    check(1_000_000_000, "    1000M");
    check(99_999_999_999, "   99999M");
    check(100_000_000_000, "     100G");
    check(99_999_999_999_999, "   99999G");
    check(100_000_000_000_000, "     100T");
    check(u64::MAX, "18446744T");
    assert_eq!(
        row(1_000_000_000, "-Ln --stats --exact"),
        "UDP  10.0.0.1:80                         0        0        0 1000000000 12345678"
    );
}

/// Seen by running ipvsadm 1.31 itself, with its kernel calls answered by a stand-in.
#[test]
fn an_endpoint_longer_than_its_column_is_cut() {
    let rules = "-A -u 10.0.0.1:80 -s rr\n-a -u 10.0.0.1:80 -r 1.2.3.4:8080 -m\n";
    let hosts = "10.0.0.1 avirtualhostwithaverylongname.example.com\n1.2.3.4 averyveryverylonghostname.example.org\n";
    let printed = list(&table(rules), &Default::default(), &Names::from_files("", hosts)).unwrap();
    let expected = concat!(
        "IP Virtual Server version 1.2.1 (size=4096)\n",
        "Prot LocalAddress:Port Scheduler Flags\n",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        "UDP  avirtualhostwithaverylongnam rr\n",
        "  -> averyveryverylonghostname.ex Masq    1      0          0         \n",
    );
    assert_eq!(printed, expected);
}

#[test]
fn connections_have_their_time_left_in_minutes() {
    let connections = [
        connection(
            Some(Protocol::Tcp),
            "198.51.100.163:61023",
            "10.154.3.120:443",
            "10.1.196.18:443",
            "CLOSE_WAIT",
            59,
        ),
        connection(Some(Protocol::Udp), "100.64.7.102:0", "10.154.3.120:443", "10.1.196.18:443", "NONE", 99),
        connection(
            Some(Protocol::Udp),
            "[2001:db8:f221:a0f3::7a35]:61726",
            "[fd00:96eb::a45]:9000",
            "[fd01::24:d2c8]:8000",
            "UDP",
            299,
        ),
        connection(None, "172.20.33.210:0", "0.0.212.133:0", "10.1.176.182:0", "ASSURED", 6000),
    ];
    let Ok(Request::List(options)) = parse(&["-Lcn"]) else { panic!("a listing") };
    // Rows of ctl_conns_list and ctl6_conns_list; the last one as ipvsadm 1.31 prints that template's line of
    // ip_vs_conn.
    let expected = concat!(
        "IPVS connection entries\n",
        "pro expire state       source             virtual            destination\n",
        "TCP 00:59  CLOSE_WAIT  198.51.100.163:61023 10.154.3.120:443   10.1.196.18:443\n",
        "UDP 01:39  NONE        100.64.7.102:0     10.154.3.120:443   10.1.196.18:443\n",
        "UDP 04:59  UDP         [2001:db8:f221:a0f3::7a35]:61726 [fd00:96eb::a45]:9000 [fd01::24:d2c8]:8000\n",
        "IP  100:00 ASSURED     172.20.33.210:0    0.0.212.133:0      10.1.176.182:0\n",
    );
    assert_eq!(list_connections(&connections, &options, &Names::none()), expected);
}

/// Seen by running ipvsadm 1.31 itself on a line of misc_sip_pe.
#[test]
fn persistence_engine_data_is_shown_when_asked_for() {
    let mut template =
        connection(Some(Protocol::Udp), "198.51.100.78:0", "10.82.123.117:5060", "10.1.45.115:5060", "NONE", 59);
    template.persistence_key = Some(("sip".to_owned(), b"1e0f96df61@host".to_vec()));
    let text = |arguments: &[&str]| {
        let Ok(Request::List(options)) = parse(arguments) else { panic!("a listing") };
        assert!(matches!(options.listing, Listing::Connections { .. }));
        list_connections(std::slice::from_ref(&template), &options, &Names::none())
    };
    assert_eq!(
        text(&["-Lcn", "--persistent-conn"]),
        concat!(
            "IPVS connection entries\n",
            "pro expire state       source             virtual            destination        pe name          pe_data\n",
            "UDP 00:59  NONE        198.51.100.78:0    10.82.123.117:5060 10.1.45.115:5060 sip                1e0f96df61@host\n",
        )
    );
    assert!(text(&["-Lcn"]).ends_with("10.82.123.117:5060 10.1.45.115:5060\n"));
}

fn connection(
    protocol: Option<Protocol>,
    client: &str,
    virtual_endpoint: &str,
    real: &str,
    state: &'static str,
    seconds: u64,
) -> ConnectionView {
    let endpoint = |text: &str| {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint::new(address.ip(), address.port())
    };
    let client = endpoint(client);
    ConnectionView::new(protocol, client, endpoint(virtual_endpoint), endpoint(real), ForwardMethod::Nat).with(|view| {
        view.is_template = client.port == 0;
        view.state = state;
        view.expires_in = Duration::from_secs(seconds);
    })
}

// ctl_timeouts
#[test]
fn timeouts_are_in_seconds() {
    let [tcp, tcp_fin, udp] = [100, 20, 30].map(Duration::from_secs);
    assert_eq!(list_timeouts(&TimeoutsView::new(tcp, tcp_fin, udp)), "Timeout (tcp tcpfin udp): 100 20 30\n");
}

// ctl_daemon, steps 7 and 19
#[test]
fn daemons_have_a_line_each() {
    let daemon = |arguments: &str| match parse(&split_words(arguments)) {
        Ok(Request::StartDaemon(daemon)) => daemon,
        other => panic!("{other:?}"),
    };
    let daemons = [
        daemon(
            "--start-daemon master --mcast-interface c0 --sync-maxlen 1000 --mcast-group 224.1.2.3 --mcast-port 9999 --mcast-ttl 5",
        ),
        daemon("--start-daemon backup --mcast-interface r0"),
    ];
    let expected = concat!(
        "master sync daemon (mcast=c0, syncid=0, maxlen=1000, group=224.1.2.3, port=9999, ttl=5)\n",
        "backup sync daemon (mcast=r0, syncid=0, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n",
    );
    assert_eq!(list_daemons(&daemons), expected);
    assert_eq!(list_daemons(&[]), "");
}

// ctl_list
#[test]
fn the_version_is_ipvsadm_s_and_the_usage_names_every_command() {
    assert_eq!(lvs_admin::version(), "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n");
    assert!(lvs_admin::usage().starts_with(lvs_admin::version()));
    // The words are ours; ipvsadm's help text is not copied.
    for command in ["-A", "-E", "-D", "-C", "-a", "-e", "-d", "-L", "-Z", "-S", "-R", "--set", "--start-daemon", "-h"] {
        assert!(lvs_admin::usage().lines().any(|line| line.trim_start().starts_with(command)), "{command}");
    }
    for option in [
        "--fullnat",
        "--add-laddr",
        "--del-laddr",
        "--client-address",
        "--keep-sequence",
        "--keep-timestamps",
        "--mss-clamp",
        "--helper",
        "--tcp-timeout",
        "--tcpfin-timeout",
        "--udp-timeout",
        "--slow-start",
        "--on-server-gone",
        "--reuse-reschedules",
        "--mtu",
    ] {
        assert!(lvs_admin::usage().contains(option), "{option}");
    }
}

#[test]
fn what_ipvs_never_had_changes_no_listing() {
    let plain = "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m\n";
    let more = "-A -t 192.0.2.80:80 -s rr --mss-clamp 1400 --helper ftp --slow-start 60 --udp-timeout 9 --keep-sequence\n\
                -a -t 192.0.2.80:80 -r 10.0.0.2:80 -m --mtu 1400\n";
    for arguments in ["-Ln", "-Ln --thresholds", "-Ln --persistent-conn", "-Ln --tun-info"] {
        let Ok(Request::List(options)) = parse(&split_words(arguments)) else { panic!("{arguments} is no listing") };
        let printed = |rules| list(&table(rules), &options, &Names::none());
        assert_eq!(printed(more), printed(plain), "{arguments}");
    }
}

/// The services of ctl_list.
const EVERY_KIND: &str = concat!(
    "-A -t 10.45.46.172:8080 -s wlc\n",
    "-a -t 10.45.46.172:8080 -r 10.1.25.20:8000 -m -w 3\n",
    "-a -t 10.45.46.172:8080 -r 10.1.25.149:8080 -g -w 0\n",
    "-a -t 10.45.46.172:8080 -r 10.1.25.86:8080 -i -w 65535 -x 1000 -y 500\n",
    "-A -u 10.45.46.172:8080 -s rr -p\n",
    "-a -u 10.45.46.172:8080 -r 10.1.25.20:8000 -m\n",
    "-A -u 10.45.46.172:8081 -s mh -p 77 -M 255.255.240.0 -b mh-port,mh-fallback\n",
    "-A -u 10.45.46.172:8082 -s rr -o\n",
    "-A --sctp-service 10.45.46.172:8080 -s sh -b sh-port\n",
    "-a --sctp-service 10.45.46.172:8080 -r 10.1.25.247:8000 -m -w 2\n",
    "-A -f 1393799689 -s dh\n",
    "-A -f 97 -s lblcr -p 50\n",
    "-a -f 97 -r 10.1.25.247 -g -w 9\n",
    "-A -t 10.45.46.172:0 -s wrr -p 3000\n",
    "-a -t 10.45.46.172:8080 -r 10.1.25.247:8080 -i -w 5 --tun-type gue --tun-port 6080\n",
    "-a -t 10.45.46.172:8080 -r 10.1.25.43:8080 -i -w 5 --tun-type gre --tun-csum\n",
);

/// The services of ctl6_list.
const EVERY_KIND_IPV6: &str = concat!(
    "-A -t [fd00:c8b8::4e33]:9000 -s wlc\n",
    "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:c163]:8000 -m -w 3\n",
    "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:b882]:9000 -g -w 0\n",
    "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:9881]:9000 -i -w 65535 -x 1000 -y 500\n",
    "-A -u [fd00:c8b8::4e33]:9000 -s rr -p\n",
    "-a -u [fd00:c8b8::4e33]:9000 -r [fd01::7:c163]:8000 -m\n",
    "-A -u [fd00:c8b8::4e33]:9001 -s mh -p 77 -M 56 -b mh-port,mh-fallback\n",
    "-A -u [fd00:c8b8::4e33]:9002 -s rr -o\n",
    "-A --sctp-service [fd00:c8b8::4e33]:9000 -s sh -b sh-port\n",
    "-a --sctp-service [fd00:c8b8::4e33]:9000 -r [fd01::7:ac99]:8000 -m -w 2\n",
    "-A -f 1919203924 -6 -s dh\n",
    "-A -f 53 -6 -s lblcr -p 50\n",
    "-a -f 53 -6 -r fd01::7:ac99 -g -w 9\n",
    "-A -t [fd00:c8b8::4e33]:0 -s wrr -p 3000\n",
    "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:ac99]:9000 -i -w 5 --tun-type gue --tun-port 6080\n",
    "-a -t [fd00:c8b8::4e33]:9000 -r [fd01::7:3d3e]:9000 -i -w 5 --tun-type gre --tun-csum\n",
);
