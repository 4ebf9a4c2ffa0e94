//! A director's tables as `ipvsadm -Ln` and `ipvsadm -Ln --stats` print them.

use std::time::Duration;

use lvs_admin::{Columns, ListOptions, Listing, Names};

use lvs_core::{Director, Instant};

/// Services and servers with weights and connections: `ipvsadm -Ln`.
pub fn load(director: &Director, now: Instant) -> String {
    list(director, now, Columns::Load)
}

/// Services and servers with counters as last published: `ipvsadm -Ln --stats`.
pub fn statistics(director: &Director, now: Instant) -> String {
    list(director, now, Columns::Statistics)
}

/// Has the director publish its counters as they are `now`, at the end of its work, and returns the time it then has.
/// It publishes every 2 s, as Linux does; time is an argument, so nobody has to wait for that.
pub fn publish_counters(director: &mut Director, now: Instant) -> Instant {
    let later = now + Duration::from_secs(2);
    while director.poll_timeout().is_some_and(|due| due <= later) {
        director.handle_timeout(later);
    }
    later
}

fn list(director: &Director, now: Instant, columns: Columns) -> String {
    let options = ListOptions { listing: Listing::Services(columns), numeric: true, ..ListOptions::default() };
    lvs_admin::list(&director.services(now), &options, &Names::none()).expect("only a named service can be missing")
}
