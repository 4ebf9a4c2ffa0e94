//! Listings that are asked for piece by piece show what whole ones show.

use lvs_core::Command;
use lvs_core::service::ServicePlace;
use lvs_core::view::ServiceView;
use lvs_testkit::desk::tcp_service;
use lvs_testkit::{Desk, tcp};

/// TCP services and marks of both families; persistent ones, so that there are templates too.
fn desk() -> Desk {
    let mut rules = String::new();
    for last in 1..=40 {
        let vip = if last % 2 == 0 { format!("192.0.2.{last}:80") } else { format!("[2001:db8::{last}]:80") };
        let server = if last % 2 == 0 { "10.0.0.2:8080" } else { "[fd00::2]:8080" };
        rules += &format!("-A -t {vip} -s rr -p 60\n-a -t {vip} -r {server} -m\n-A -f {last} -s wlc\n");
    }
    let mut desk = Desk::new(&rules);
    for port in 1000..1100 {
        let vip = 2 + port % 20 * 2;
        desk.send(&tcp(format!("198.51.100.7:{port}").as_str(), format!("192.0.2.{vip}:80").as_str()).syn().build());
    }
    desk
}

#[test]
fn services_come_in_pieces_of_any_size_as_they_come_whole() {
    let desk = desk();
    let mut whole = desk.director.services(desk.now);
    whole.sort_by_key(ServiceView::place);
    assert_eq!(whole.len(), 80);
    for most in [1, 7, 80, 1000] {
        let (mut pieces, mut after): (Vec<_>, Option<ServicePlace>) = (Vec::new(), None);
        loop {
            let piece = desk.director.services_after(desk.now, after.as_ref(), most);
            assert!(piece.len() <= most);
            let Some(last) = piece.last() else { break };
            after = Some(last.place());
            pieces.extend(piece);
        }
        assert_eq!(pieces, whole, "in pieces of {most}");
    }
}

#[test]
fn connections_come_in_pieces_of_any_size_as_they_come_whole() {
    let mut desk = desk();
    let check = |desk: &Desk| {
        let whole: Vec<_> = desk.director.connections(desk.now).collect();
        for most in [1, 7, 100, 10_000] {
            let (mut pieces, mut cursor) = (Vec::new(), Some(0));
            while let Some(from) = cursor {
                let (piece, next) = desk.director.connections_from(desk.now, from, most);
                assert!(piece.len() <= most);
                pieces.extend(piece);
                cursor = next;
            }
            assert_eq!(pieces, whole, "in pieces of {most}");
        }
        whole.len()
    };
    assert_eq!(check(&desk), 100 + 20);
    // What has ended is not shown, whether or not it was cleared away.
    desk.now = desk.now + core::time::Duration::from_secs(61);
    assert!(check(&desk) < 120);
    assert_eq!(desk.director.connections_from(desk.now, u64::MAX, 10), (vec![], None));
}

#[test]
fn servers_come_in_pieces_and_go_on_where_they_were_though_others_come_and_go() {
    let mut desk = Desk::new("-A -t 192.0.2.1:80 -s rr");
    for last in 1..=30 {
        desk.ipvsadm(&format!("-a -t 192.0.2.1:80 -r 10.0.0.{last}:80 -m"));
    }
    let key = tcp_service("192.0.2.1:80");
    let whole = desk.director.service(desk.now, &key).unwrap().servers;
    let first = desk.director.servers_after(&key, None, 0, 10);
    assert_eq!(first, whole[..10]);
    // A newcomer at the head, and one of those listed goes.
    desk.ipvsadm("-a -t 192.0.2.1:80 -r 10.0.0.99:80 -m\n-d -t 192.0.2.1:80 -r 10.0.0.25:80");
    let last = first[9].config.key;
    assert_eq!(desk.director.servers_after(&key, Some(&last), 10, 100), whole[10..]);
    let at = desk.director.server_config(&key, &last).map(|config| config.key);
    assert_eq!(at, Some(last));
    // The last one that was listed goes: the place counts.
    desk.ipvsadm("-d -t 192.0.2.1:80 -r 10.0.0.99:80");
    desk.director.apply(desk.now, &Command::DeleteServer(key, last)).unwrap();
    assert_eq!(desk.director.servers_after(&key, Some(&last), 8, 100), whole[10..]);
    assert_eq!(desk.director.servers_after(&tcp_service("192.0.2.2:80"), None, 0, 100), []);
}
