//! Listings: what each answers. Long ones come page by page; `next` of one is `after` of the next.

use lvs_admin::words;
use lvs_core::view::ConnectionView;
use lvs_genl::server::{ServerCursor, Table};

use super::answer::{Answer, Complaint, json};
use super::gather::{self, Most};
use super::guard::Access;
use super::query::Query;
use super::routes::Site;
use super::types;
use crate::control::{Asker, ROWS};

pub(super) async fn services(site: &Site, query: &Query) -> Result<Answer, Complaint> {
    let after = query.get("after").map(gather::read_place).transpose()?;
    let services = query.number("limit", 1, SERVICES_MAX)?.unwrap_or(PAGE.services);
    let page = site.alone(gather::services(&site.asker, after, Most { services, ..PAGE })).await?;
    Ok(json(&types::Services {
        services: page.services.iter().map(|(service, more)| types::Service::of(service, *more)).collect(),
        next: page.next.as_ref().map(gather::place_text),
        generation: page.generation,
    }))
}

pub(super) async fn servers(asker: &Asker, query: &Query) -> Result<Answer, Complaint> {
    let key = query.get("service").ok_or_else(|| Complaint::bad("say which service: ?service=tcp:192.0.2.80:80"))?;
    let key = words::service(key).map_err(Complaint::bad)?;
    let mut cursor = query.get("after").map(gather::read_cursor).transpose()?.unwrap_or_default();
    let limit = query.number("limit", 1, SERVERS_MAX)?.unwrap_or(SERVERS_MAX);
    if asker.ask(move |tables| tables.service_config(&key).is_none()).await? {
        return Err(Complaint::new(hyper::StatusCode::NOT_FOUND, "there is no such service"));
    }
    let mut servers = Vec::new();
    let mut next = None;
    while servers.len() < limit {
        let most = (limit - servers.len()).min(ROWS);
        let some = gather::servers_of(asker, key, cursor, most).await?;
        cursor.advance(&some);
        servers.extend(some.iter().map(types::Server::of));
        next = (some.len() == most).then_some(cursor);
        if next.is_none() {
            break;
        }
    }
    Ok(json(&types::Servers { servers, next: next.as_ref().map(|cursor: &ServerCursor| gather::cursor_text(cursor)) }))
}

/// Looks at so many places of the tables at most, whatever matches: where few do, pages are short, and many.
pub(super) async fn connections(asker: &Asker, query: &Query) -> Result<Answer, Complaint> {
    let after = query.get("after").map(|after| after.parse::<u64>().map_err(|_| Complaint::bad(AFTER))).transpose()?;
    let limit = query.number("limit", 1, CONNECTIONS_MAX)?.unwrap_or(100);
    let wanted = Wanted::of(query);
    let (mut cursor, mut found) = (after.unwrap_or(0), Vec::new());
    let mut next = None;
    for _ in 0..PIECES_MAX {
        let (at, most) = (cursor, (limit - found.len()).min(ROWS));
        let (some, following) = asker.ask(move |tables| tables.connections(at, most)).await?;
        found.extend(some.iter().filter(|view| wanted.has(view)).map(types::Connection::of));
        next = following;
        let Some(following) = following else { break };
        cursor = following;
        if found.len() >= limit {
            break;
        }
    }
    Ok(json(&types::Connections { connections: found, next: next.map(|next| next.to_string()) }))
}

/// What of a connection is to be as asked for; an address alone stands for all its ports.
struct Wanted<'a> {
    client: Option<&'a str>,
    r#virtual: Option<&'a str>,
    real: Option<&'a str>,
    state: Option<&'a str>,
    protocol: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn of(query: &'a Query) -> Self {
        Self {
            client: query.get("client"),
            r#virtual: query.get("virtual"),
            real: query.get("real"),
            state: query.get("state"),
            protocol: query.get("protocol"),
        }
    }

    fn has(&self, view: &ConnectionView) -> bool {
        let is_at = |wanted: Option<&str>, endpoint: lvs_core::Endpoint| {
            wanted.is_none_or(|wanted| endpoint.to_string() == wanted || endpoint.address.to_string() == wanted)
        };
        let is = |wanted: Option<&str>, word: &str| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(word));
        let protocol = view.protocol.map_or_else(String::new, |protocol| protocol.to_string());
        is_at(self.client, view.client)
            && is_at(self.r#virtual, view.virtual_endpoint)
            && is_at(self.real, view.real)
            && is(self.state, view.state)
            && is(self.protocol, &protocol)
    }
}

pub(super) async fn settings(asker: &Asker) -> Result<Answer, Complaint> {
    let (settings, timeouts) = asker.ask(|tables| (tables.settings(), tables.timeouts())).await?;
    Ok(json(&types::Settings {
        settings: settings.into_iter().collect(),
        timeouts: types::Timeouts {
            tcp_s: timeouts.tcp.as_secs(),
            tcp_fin_s: timeouts.tcp_fin.as_secs(),
            udp_s: timeouts.udp.as_secs(),
        },
    }))
}

pub(super) async fn drops(asker: &Asker) -> Result<Answer, Complaint> {
    let counts = gather::counts(asker).await?;
    let drops = counts.drops();
    let drops: Vec<_> = drops
        .map(|(reason, packets)| types::Dropped { reason: reason.name(), advice: reason.advice(), packets })
        .collect();
    Ok(json(&types::Drops { total: drops.iter().map(|dropped| dropped.packets).sum(), drops }))
}

pub(super) async fn gauges(asker: &Asker, access: Access) -> Result<Answer, Complaint> {
    let counts = gather::counts(asker).await?;
    let table = |(table, entries, bound)| types::TableFill { table, entries, bound };
    Ok(json(&types::Gauges {
        is_ready: counts.is_ready,
        version: env!("CARGO_PKG_VERSION"),
        workers: u32::try_from(counts.workers.len()).unwrap_or(u32::MAX),
        may_change: access == Access::Full,
        tables: counts.tables().into_iter().map(table).collect(),
        statistics: (&counts.statistics).into(),
    }))
}

const AFTER: &str = "after is what the page before called next";
/// What one page of services has.
const PAGE: Most = Most { services: 100, servers: 10_000, servers_of_one: 256 };
const SERVICES_MAX: usize = 1000;
const SERVERS_MAX: usize = 1000;
const CONNECTIONS_MAX: usize = 1000;
/// Pieces of a table that one page of connections looks at.
const PIECES_MAX: usize = 1024;
