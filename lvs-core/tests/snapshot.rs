//! A director that is given another one's snapshot goes on where that one was.

#[path = "snapshot/damage.rs"]
mod damage;
#[path = "snapshot/golden.rs"]
mod golden;
#[path = "snapshot/law.rs"]
mod law;
#[path = "snapshot/loading.rs"]
mod loading;

use core::time::Duration;

use lvs_core::Director;
use lvs_core::snapshot::{Broken, Restore, Restored, Saved, Snapshot};
use lvs_testkit::Desk;

/// Four ways to a server, persistence, both families, all protocols; FTP in both NATs.
const RULES: &str = "
-A -t 192.0.2.1:80 -s wrr
-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 3
-a -t 192.0.2.1:80 -r 10.0.0.3:8080 -m -w 1 -x 3 -y 1
-a -t 192.0.2.1:80 -r 10.0.0.4:80 -g -w 2
-a -t 192.0.2.1:80 -r 10.0.0.5:80 -i --tun-type gue --tun-port 6080 -w 1
-A -u 192.0.2.1:80 -s rr -p 60 -M 255.255.255.0
-a -u 192.0.2.1:80 -r 10.0.0.2:8080 -m
-a -u 192.0.2.1:80 -r 10.0.0.3:8080 -m
-A --sctp-service 192.0.2.1:80 -s twos
-a --sctp-service 192.0.2.1:80 -r 10.0.0.2:8080 -m
-a --sctp-service 192.0.2.1:80 -r 10.0.0.3:8080 -m
-A -t 192.0.2.1:21 -s rr --helper ftp
-a -t 192.0.2.1:21 -r 10.0.0.2:21 -m
-a -t 192.0.2.1:21 -r 10.0.0.3:21 -m
-A -t [2001:db8::1]:80 -s rr
-a -t [2001:db8::1]:80 -r [fd00::2]:8080 -m
-a -t [2001:db8::1]:80 -r [fd00::3]:8080 -m
-A -u [2001:db8::1]:80 -s wlc -p 30
-a -u [2001:db8::1]:80 -r [fd00::2]:8080 -m
-a -u [2001:db8::1]:80 -r [fd00::3]:8080 -m
-A --sctp-service [2001:db8::1]:80 -s rr
-a --sctp-service [2001:db8::1]:80 -r [fd00::2]:8080 -m
";

/// A director's snapshot.
fn save(desk: &Desk) -> Vec<u8> {
    let (mut snapshot, mut saved) = (Snapshot::new(), Vec::new());
    while step(&desk.director, desk, &mut snapshot, &mut saved) {}
    saved
}

/// One step of it; returns whether there are more.
fn step(director: &Director, desk: &Desk, snapshot: &mut Snapshot, saved: &mut Vec<u8>) -> bool {
    let mut chunk = vec![0; Snapshot::CHUNK];
    let len = director.save(desk.now, snapshot, &mut chunk);
    saved.extend_from_slice(&chunk[..len]);
    len > 0
}

fn read(bytes: &[u8]) -> Result<Saved, Broken> {
    let mut restore = Restore::new();
    restore.feed(bytes)?;
    restore.finish()
}

/// A new director with these rules, given that snapshot `away` later.
fn restored(rules: &str, bytes: &[u8], now: lvs_core::Instant, away: Duration) -> (Desk, Restored) {
    let mut desk = Desk::new("");
    desk.now = now;
    desk.ipvsadm(rules);
    let saved = read(bytes).expect("a snapshot");
    let outcome = desk.director.restore(now, &saved, away, |_| true);
    (desk, outcome)
}
