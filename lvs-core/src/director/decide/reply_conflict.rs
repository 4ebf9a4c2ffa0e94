//! Replies that might be two connections'. One client endpoint asks two virtual endpoints, and both connections go to
//! one server endpoint by NAT: nothing in the server's answers tells them apart, and all of them reach the client from
//! the newer connection's virtual endpoint. Linux lets that happen. Here it is told and counted, and a service may have
//! another server chosen, or the newer connection refused ([`OnReplyConflict`]). FullNAT, which gives each connection a
//! local endpoint, has no such conflict.

use crate::connection::Connection;
use crate::director::decide::classify::FirstPacket;
use crate::director::tables::Tables;
use crate::drop_reason::DropReason;
use crate::flow::{Endpoint, Protocol};
use crate::service::table::Service;
use crate::service::{ForwardMethod, OnReplyConflict};
use crate::time::Instant;

/// How many servers are looked at in place of the chosen one.
const LOOKED_AT_MAX: usize = 64;

/// A flow that would be opened, or is.
struct Flow {
    protocol: Protocol,
    client: Endpoint,
    virtual_endpoint: Endpoint,
}

impl Tables<'_> {
    /// The virtual endpoint of a connection, not over yet, whose replies a new one of this flow would take.
    fn reply_conflict(&self, now: Instant, flow: &Flow, forward: ForwardMethod, real: Endpoint) -> Option<Endpoint> {
        let answers_as = match forward {
            ForwardMethod::FullNat | ForwardMethod::Bypass => return None,
            ForwardMethod::Nat => real,
            _ => flow.virtual_endpoint,
        };
        let id = self.flows.connections.find_reply(now, flow.protocol, answers_as, flow.client)?;
        let other = self.flows.connections.get(id).expect("it was just found");
        let is_another = other.virtual_endpoint != flow.virtual_endpoint && !other.state.is_over();
        is_another.then_some(other.virtual_endpoint)
    }

    /// The place of the server to use where the scheduler chose the one at `position`, by the service's rule. `port_of`
    /// is the port the client reaches at a server with this one.
    pub(in crate::director) fn without_conflict(
        &self,
        now: Instant,
        first: &FirstPacket,
        service: &Service,
        position: usize,
        port_of: impl Fn(u16) -> u16,
    ) -> Result<usize, DropReason> {
        let rule = service.config.on_reply_conflict;
        let is_in_conflict = |position: usize| {
            let server = &service.servers[position];
            let forward = self.services.servers.get(server.id).map(|record| record.config.forward);
            let real = Endpoint::new(server.key.address, port_of(server.key.port));
            forward.is_some_and(|forward| self.reply_conflict(now, &flow_of(first), forward, real).is_some())
        };
        if rule == OnReplyConflict::Allow || !is_in_conflict(position) {
            return Ok(position);
        }
        let count = service.servers.len();
        let others = (1..count).map(|step| (position + step) % count).take(LOOKED_AT_MAX);
        let mut eligible = others.filter(|&other| service.servers[other].is_eligible());
        match rule {
            OnReplyConflict::Another => eligible.find(|&other| !is_in_conflict(other)),
            _ => None,
        }
        .ok_or(DropReason::ReplyConflict)
    }

    /// Whether the server that persistence holds a client to is not to be used for this flow.
    pub(in crate::director) fn refuses_conflict(
        &self,
        now: Instant,
        first: &FirstPacket,
        service: &Service,
        forward: ForwardMethod,
        real: Endpoint,
    ) -> bool {
        service.config.on_reply_conflict != OnReplyConflict::Allow
            && self.reply_conflict(now, &flow_of(first), forward, real).is_some()
    }

    /// The same of a connection that is about to be opened.
    pub(in crate::director) fn conflict_of(&self, now: Instant, connection: &Connection) -> Option<Endpoint> {
        let &Connection { protocol, client, virtual_endpoint, forward, real, .. } = connection;
        // Whose replies an announced connection gets is known once its client's port is.
        let flow = Flow { protocol, client, virtual_endpoint };
        self.reply_conflict(now, &flow, forward, real).filter(|_| !connection.no_client_port)
    }
}

fn flow_of(first: &FirstPacket) -> Flow {
    Flow { protocol: first.protocol, client: first.client, virtual_endpoint: first.destination }
}
