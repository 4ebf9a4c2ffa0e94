//! The texts of `/proc/net/ip_vs*`, byte for byte as recorded from Linux 6.1.

mod table;

use std::time::Duration;

use lvs_admin::proc::{ip_vs, ip_vs_conn, ip_vs_conn_sync, ip_vs_stats, ip_vs_stats_percpu};
use lvs_core::service::stats::{Counters, Rates, Statistics};
use lvs_core::view::ConnectionView;
use lvs_core::{Endpoint, ForwardMethod, Protocol};
use table::table;

/// Each of these rules makes these lines of `/proc/net/ip_vs`.
#[track_caller]
fn check(rules: &str, expected: &str) {
    let header = concat!(
        "IP Virtual Server version 1.2.1 (size=4096)\n",
        "Prot LocalAddress:Port Scheduler Flags\n",
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n",
    );
    assert_eq!(ip_vs(&table(rules)), format!("{header}{expected}"));
}

// ctl_list, step 31
#[test]
fn ipv4_services_are_in_hexadecimal() {
    check(
        concat!(
            "-A --sctp-service 10.45.46.172:8080 -s sh -b sh-port\n",
            "-a --sctp-service 10.45.46.172:8080 -r 10.1.25.247:8000 -m -w 2\n",
            "-A -u 10.45.46.172:8082 -s rr -o\n",
            "-A -u 10.45.46.172:8081 -s mh -p 77 -M 255.255.240.0\n",
            "-A -f 1393799689 -s dh\n",
            "-A -f 97 -s lblcr -p 50\n",
            "-a -f 97 -r 10.1.25.247 -g -w 9\n",
        ),
        concat!(
            "SCTP  0A2D2EAC:1F90 sh  \n",
            "  -> 0A0119F7:1F40      Masq    2      0          0         \n",
            "UDP  0A2D2EAC:1F92 rr ops  \n",
            "UDP  0A2D2EAC:1F91 mh  persistent 19250 FFFFF000\n",
            "FWM  5313B209 dh \n",
            "FWM  00000061 lblcr persistent 12500 FFFFFFFF\n",
            "  -> 0A0119F7:0000      Route   9      0          0         \n",
        ),
    );
}

// ctl6_list, step 31
#[test]
fn ipv6_services_have_no_ops_and_their_prefix_bytes_swapped() {
    check(
        concat!(
            "-A -u [fd00:c8b8::4e33]:9001 -s mh -p 77 -M 56\n",
            "-A -u [fd00:c8b8::4e33]:9000 -s rr -p\n",
            "-a -u [fd00:c8b8::4e33]:9000 -r [fd01::7:c163]:8000 -m\n",
            "-A -u [fd00:c8b8::4e33]:9002 -s rr -o\n",
        ),
        concat!(
            "UDP  [fd00:c8b8:0000:0000:0000:0000:0000:4e33]:2329 mh persistent 19250 38000000\n",
            "UDP  [fd00:c8b8:0000:0000:0000:0000:0000:4e33]:2328 rr persistent 90000 80000000\n",
            "  -> [fd01:0000:0000:0000:0000:0000:0007:c163]:1F40      Masq    1      0          0         \n",
            "UDP  [fd00:c8b8:0000:0000:0000:0000:0000:4e33]:232A rr \n",
        ),
    );
}

// ctl_conns_list, mix_15, misc_sip_pe, tun_6over4_gre
#[test]
fn connections_of_all_kinds_have_a_row() {
    let mut sip =
        connection(Some(Protocol::Udp), "198.51.100.78:0", "10.82.123.117:5060", "10.1.45.115:5060", "NONE", 59);
    sip.persistence_key = Some(("sip".to_owned(), b"1e0f96df61@host".to_vec()));
    let connections = [
        connection(
            Some(Protocol::Tcp),
            "198.51.100.163:61023",
            "10.154.3.120:443",
            "10.1.196.18:443",
            "CLOSE_WAIT",
            59,
        ),
        connection(None, "172.20.33.210:0", "0.0.212.133:0", "10.1.176.182:0", "ASSURED", 99),
        sip,
        connection(
            Some(Protocol::Udp),
            "[2001:db8:96e1:a087::f17e]:30660",
            "[fd00:6459::4aa2]:1194",
            "10.1.48.133:1194",
            "UDP",
            299,
        ),
    ];
    let expected = concat!(
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n",
        "TCP C63364A3 EE5F 0A9A0378 01BB 0A01C412 01BB CLOSE_WAIT       59\n",
        "IP  AC1421D2 0000 0000D485 0000 0A01B0B6 0000 ASSURED          99\n",
        "UDP C633644E 0000 0A527B75 13C4 0A012D73 13C4 NONE             59 sip 1e0f96df61@host\n",
        "UDP 2001:0db8:96e1:a087:0000:0000:0000:f17e 77C4 fd00:6459:0000:0000:0000:0000:0000:4aa2 04AA 0A013085 04AA UDP             299\n",
    );
    assert_eq!(ip_vs_conn(&connections), expected);
}

// ctl_conns_list
#[test]
fn connections_tell_their_origin_in_another_file() {
    let row = connection(
        Some(Protocol::Tcp),
        "198.51.100.163:61023",
        "10.154.3.120:443",
        "10.1.196.18:443",
        "CLOSE_WAIT",
        59,
    );
    let expected = concat!(
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n",
        "TCP C63364A3 EE5F 0A9A0378 01BB 0A01C412 01BB CLOSE_WAIT  LOCAL       59\n",
    );
    assert_eq!(ip_vs_conn_sync(&[row]), expected);
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
        view.expires_in = Duration::from_millis(seconds * 1000 + 999);
    })
}

// stats_counters, steps 58 and 59
#[test]
fn totals_are_published_counters_and_rates() {
    let published = Counters { connections: 6, in_packets: 31, out_packets: 21, in_bytes: 1940, out_bytes: 1457 };
    let rates = Rates { connections: 1, in_packets: 4, out_packets: 3, in_bytes: 242, out_bytes: 182 };
    let totals = Statistics { live: Counters::default(), published, rates };
    assert_eq!(
        ip_vs_stats(&totals),
        concat!(
            "   Total Incoming Outgoing         Incoming         Outgoing\n",
            "   Conns  Packets  Packets            Bytes            Bytes\n",
            "       6       1F       15              794              5B1\n",
            "\n",
            " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n",
            "       1        4        3               F2               B6\n",
        )
    );
    assert_eq!(
        ip_vs_stats_percpu(&[published], &totals),
        concat!(
            "       Total Incoming Outgoing         Incoming         Outgoing\n",
            "CPU    Conns  Packets  Packets            Bytes            Bytes\n",
            "  0        6       1F       15              794              5B1\n",
            "  ~        6       1F       15              794              5B1\n",
            "\n",
            "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n",
            "           1        4        3               F2               B6\n",
        )
    );
}
