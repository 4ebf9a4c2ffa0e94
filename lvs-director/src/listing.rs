//! The tables of directors that share the work, as `ipvsadm -Ln` and `ipvsadm -Ln --stats` print them.

use std::time::Duration;

use lvs_admin::{Columns, ListOptions, Listing, Names};

use lvs_core::view::ServiceView;
use lvs_core::{Director, Instant};

/// Services and servers with weights and connections: `ipvsadm -Ln`.
pub fn load(services: &[ServiceView]) -> String {
    list(services, Columns::Load)
}

/// Services and servers with counters as last published: `ipvsadm -Ln --stats`.
pub fn statistics(services: &[ServiceView]) -> String {
    list(services, Columns::Statistics)
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

/// The services of several directors with the same rules as if one had them all: connections and counters together.
/// Rates and what only one director knows are the first one's.
pub fn together(mut directors: impl Iterator<Item = Vec<ServiceView>>) -> Vec<ServiceView> {
    let mut all = directors.next().unwrap_or_default();
    for service in directors.flatten() {
        let Some(sum) = all.iter_mut().find(|sum| sum.key == service.key) else { continue };
        sum.statistics.live = sum.statistics.live.plus(service.statistics.live);
        sum.statistics.published = sum.statistics.published.plus(service.statistics.published);
        for server in service.servers {
            let Some(sum) = sum.servers.iter_mut().find(|sum| sum.config.key == server.config.key) else { continue };
            sum.active_connections += server.active_connections;
            sum.inactive_connections += server.inactive_connections;
            sum.persistent_connections += server.persistent_connections;
            sum.is_overloaded |= server.is_overloaded;
            if let (Some(sum), Some(drain)) = (&mut sum.drain, server.drain) {
                sum.open += drain.open;
            }
            sum.statistics.live = sum.statistics.live.plus(server.statistics.live);
            sum.statistics.published = sum.statistics.published.plus(server.statistics.published);
        }
    }
    all
}

fn list(services: &[ServiceView], columns: Columns) -> String {
    let options = ListOptions { listing: Listing::Services(columns), numeric: true, ..ListOptions::default() };
    lvs_admin::list(services, &options, &Names::none()).expect("only a named service can be missing")
}
