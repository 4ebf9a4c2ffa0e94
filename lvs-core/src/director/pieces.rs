//! Listings in pieces, for callers who must neither hold the tables for long nor keep a listing whole.
//! Between two pieces anything may change: each row is right as of its own piece.

use alloc::vec::Vec;

use super::Director;
use crate::director::view::connection_view;
use crate::service::{ServerConfig, ServerKey, ServiceConfig, ServiceKey, ServicePlace};
use crate::time::Instant;
use crate::view::{ConnectionView, ServerView, ServiceView};

impl Director {
    /// At most `most` services behind `after`, with their servers, in the order in which a kernel would tell them
    /// ([`ServicePlace`]); fewer only at the end. Without `after`: the first ones. Looks at every service, and copies only
    /// what it returns.
    pub fn services_after(&self, now: Instant, after: Option<&ServicePlace>, most: usize) -> Vec<ServiceView> {
        let now = self.clock.time_at(now);
        let ended = self.tables().ended(now);
        let places = self.places_after(after, most);
        let services = places.iter().filter_map(|place| self.services.find(&place.key()));
        services.map(|service| self.tables().service_view(now, service, &ended)).collect()
    }

    /// A service without its servers.
    pub fn service_alone(&self, key: &ServiceKey) -> Option<ServiceView> {
        let service = self.services.find(key)?;
        Some(self.tables().service_row(service))
    }

    /// As [`Self::services_after`], without their servers.
    pub fn services_alone(&self, after: Option<&ServicePlace>, most: usize) -> Vec<ServiceView> {
        self.places_after(after, most).iter().filter_map(|place| self.service_alone(&place.key())).collect()
    }

    fn places_after(&self, after: Option<&ServicePlace>, most: usize) -> Vec<ServicePlace> {
        let places = self.services.table.iter().map(|service| ServicePlace::new(service.key, service.added));
        let mut places: Vec<_> = places.filter(|place| after.is_none_or(|after| place > after)).collect();
        if places.len() > most {
            places.select_nth_unstable(most);
            places.truncate(most);
        }
        places.sort_unstable();
        places
    }

    /// At most `most` servers of a service, newest first: those behind `last` where it is still listed, else from
    /// `position` on. Counts are those of the last call that did work for time: connections whose time has just come may
    /// still be among them. Copies only what it returns.
    pub fn servers_after(
        &self,
        key: &ServiceKey,
        last: Option<&ServerKey>,
        position: usize,
        most: usize,
    ) -> Vec<ServerView> {
        let service = self.services.find(key);
        let Some(servers) = service.map(|service| &service.servers) else { return Vec::new() };
        let is_last = |id| {
            last.is_some_and(|last| self.services.servers.get(id).is_some_and(|record| record.config.key == *last))
        };
        // Nearly always it is where it was.
        let was = position.checked_sub(1).filter(|index| servers.get(*index).is_some_and(|server| is_last(server.id)));
        let found = was.or_else(|| servers.iter().position(|server| is_last(server.id)));
        let start = found.map_or(position, |index| index + 1);
        servers.iter().skip(start).take(most).filter_map(|server| self.tables().server_row(server)).collect()
    }

    /// How a service is configured; `None` if there is none with this key.
    pub fn service_config(&self, service: &ServiceKey) -> Option<&ServiceConfig> {
        Some(&self.services.find(service)?.config)
    }

    /// How a server of a service is configured; `None` if service or server is not there.
    pub fn server_config(&self, service: &ServiceKey, server: &ServerKey) -> Option<&ServerConfig> {
        let service = self.services.find(service)?;
        let id = service.servers.get(service.position(server)?)?.id;
        Some(&self.services.servers.get(id)?.config)
    }

    /// Living connections and templates, from `cursor` on, which is 0 at first, and the cursor to go on with; `None` at
    /// the end. Looks at `most` places of the tables, empty ones included: a piece may be empty though more follow.
    ///
    /// ```
    /// use lvs_core::{Director, DirectorConfig, Instant, Seed};
    /// let director = Director::new(DirectorConfig::default(), Seed::new(1));
    /// assert_eq!(director.connections_from(Instant::ZERO, 0, 100), (vec![], None));
    /// ```
    pub fn connections_from(&self, now: Instant, cursor: u64, most: usize) -> (Vec<ConnectionView>, Option<u64>) {
        let now = self.clock.time_at(now);
        let (mut views, mut cursor) = (Vec::new(), cursor);
        for _ in 0..most {
            let place = cursor as u32;
            if cursor < TEMPLATES && place < self.flows.connections.places() {
                let connection = self
                    .flows
                    .connections
                    .at(place)
                    .map(|(_, connection)| connection)
                    .filter(|connection| connection.deadline > now);
                views.extend(connection.map(|connection| connection_view(connection, now)));
                cursor += 1;
            } else if cursor < TEMPLATES {
                cursor = TEMPLATES;
            } else if place < self.flows.templates.places() {
                let template = self
                    .flows
                    .templates
                    .at(place)
                    .map(|(_, template)| template)
                    .filter(|template| template.deadline > now);
                views.extend(template.map(|template| self.tables().template_view(template, now)));
                cursor += 1;
            } else {
                return (views, None);
            }
        }
        let ends = cursor >= TEMPLATES && cursor as u32 >= self.flows.templates.places();
        (views, (!ends).then_some(cursor))
    }
}

/// Cursors from here on are places of templates, those below of connections.
const TEMPLATES: u64 = 1 << 32;
