//! Snapshots that earlier versions wrote are read by this one. A file here is never written anew: a change that cannot
//! read it is a new format.

use core::time::Duration;

use lvs_core::Instant;
use lvs_testkit::{Desk, sctp, tcp, udp};

use super::{RULES, restored, save};

const FORMAT_1: &[u8] = include_bytes!("format-1.bin");

/// One of everything.
fn desk() -> Desk {
    let mut desk = Desk::new(RULES);
    for (client, service) in [("198.51.100.7:1024", "192.0.2.1:80"), ("[2001:db8:c::7]:1024", "[2001:db8::1]:80")] {
        for port in 0..4 {
            let client = client.replace("1024", &(1024 + port).to_string());
            desk.send(&tcp(client.as_str(), service).syn().build());
            desk.send(&udp(client.as_str(), service).payload(b"data").build());
            desk.send(
                &sctp(client.as_str(), service)
                    .tag(0)
                    .chunk(1, &[0, 0, 0, 9, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1])
                    .build(),
            );
        }
    }
    let (client, ftp) = ("198.51.100.7:1021", "192.0.2.1:21");
    desk.send(&tcp(client, ftp).syn().numbers(999, 0).build());
    let server = desk.connections().iter().find(|one| one.virtual_endpoint.port == 21).expect("FTP").real;
    desk.send(&tcp(server, client).syn().ack().numbers(8_999, 1_000).build());
    desk.send(&tcp(client, ftp).ack().numbers(1_000, 9_000).payload(b"PASV\r\n").build());
    let at = server.address.to_string().replace('.', ",");
    let passive = format!("227 Entering Passive Mode ({at},195,80).\r\n");
    desk.send(&tcp(server, client).ack().numbers(9_000, 1_006).payload(passive.as_bytes()).build());
    desk.ipvsadm("-d -t 192.0.2.1:80 -r 10.0.0.4:80");
    desk.pass(Duration::from_secs(2));
    desk
}

#[test]
fn a_snapshot_of_format_1_is_read() {
    let first = desk();
    assert_eq!(first.now, Instant::from_secs(3));
    if std::env::var_os("LVS_SNAPSHOT_WRITE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshot/format-1.bin");
        std::fs::write(path, save(&first)).unwrap();
        return;
    }
    let rules = RULES.replace("-a -t 192.0.2.1:80 -r 10.0.0.4:80 -g -w 2\n", "");
    let (second, outcome) = restored(&rules, FORMAT_1, first.now, Duration::ZERO);
    assert_eq!(first.connections(), second.connections());
    assert_eq!(first.templates(), second.templates());
    let services = |desk: &Desk| desk.director.services(desk.now);
    assert_eq!(services(&first), services(&second));
    assert_eq!((outcome.connections as usize, outcome.no_server), (first.connections().len(), 0));
    assert!(outcome.connections > 20 && outcome.templates > 1, "{outcome:?}");
}
