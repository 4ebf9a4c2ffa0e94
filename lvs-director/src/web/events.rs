//! Events as they happen, as a stream (server-sent events, WHATWG HTML §9.2). Workers keep theirs until they are taken, once
//! a second; so many are kept here for whoever reads slowly, who is told how many were lost. Whoever takes nothing at all
//! is parted from, and so many read at a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Either;
use http_body_util::channel::{Channel, Sender};
use hyper::StatusCode;
use hyper::body::Bytes;
use lvs_admin::words::service_word;
use lvs_core::Event;
use lvs_core::event::Table;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::answer::{Answer, Complaint, dressed};
use super::guard::Access;
use crate::control::Asker;

/// What readers are told from.
pub(super) struct Events {
    told: broadcast::Sender<Arc<Told>>,
    places: Arc<Semaphore>,
}

/// An event for those who may know everything, and for the others.
#[derive(Clone, Debug)]
struct Told {
    full: Bytes,
    public: Bytes,
}

impl Events {
    pub fn new() -> Self {
        Self { told: broadcast::channel(KEPT).0, places: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// Takes events from the workers, for as long as there is a control thread.
    pub async fn collect(self: Arc<Self>, asker: Asker) {
        let mut number = 0_u64;
        loop {
            tokio::time::sleep(PAUSE).await;
            let Ok(events) = asker.ask(|tables| tables.events()).await else { return };
            for (worker, event) in events {
                number += 1;
                let line = |access| Bytes::from(line(number, worker, &event, access));
                // Nobody reads: it is gone, as it would be without HTTP.
                let _ = self.told.send(Arc::new(Told { full: line(Access::Full), public: line(Access::Read) }));
            }
        }
    }

    /// The stream for one reader.
    pub fn answer(&self, access: Access) -> Result<Answer, Complaint> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Complaint::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{READERS_MAX} read events already: ask again later"),
            )
        })?;
        let (sender, channel) = Channel::new(1);
        tokio::task::spawn_local(tell(self.told.subscribe(), sender, access, place));
        Ok(dressed("text/event-stream", Either::Right(channel)))
    }
}

/// Tells one reader until it goes.
async fn tell(
    mut events: broadcast::Receiver<Arc<Told>>,
    mut reader: Sender<Bytes, Infallible>,
    access: Access,
    _place: OwnedSemaphorePermit,
) {
    let mut next = Bytes::from_static(b": events of lvsd\n\n");
    loop {
        if reader.send_data(next).await.is_err() {
            return;
        }
        next = match tokio::time::timeout(BEAT, events.recv()).await {
            Ok(Ok(told)) if access == Access::Full => told.full.clone(),
            Ok(Ok(told)) => told.public.clone(),
            Ok(Err(broadcast::error::RecvError::Lagged(count))) => {
                Bytes::from(format!("event: lost\ndata: {{\"event\":\"lost\",\"count\":{count}}}\n\n"))
            }
            Ok(Err(broadcast::error::RecvError::Closed)) => return,
            // Who has gone is noticed.
            Err(_) => Bytes::from_static(b": still here\n\n"),
        };
    }
}

fn line(number: u64, worker: usize, event: &Event, access: Access) -> String {
    let (name, mut document) = told(event, access);
    document["event"] = name.into();
    document["worker"] = worker.into();
    format!("id: {number}\nevent: {name}\ndata: {document}\n\n")
}

/// An event's name and what it says. Only those who may know everything are told of clients.
fn told(event: &Event, access: Access) -> (&'static str, Value) {
    match event {
        Event::ServerOverloaded { service, server } => {
            ("server_overloaded", json!({ "service": service_word(service), "server": server.to_string() }))
        }
        Event::ServerAvailable { service, server } => {
            ("server_available", json!({ "service": service_word(service), "server": server.to_string() }))
        }
        Event::ServerForgotten { service, server } => {
            ("server_forgotten", json!({ "service": service_word(service), "server": server.to_string() }))
        }
        Event::TableFull { table } => ("table_full", json!({ "table": table_name(*table) })),
        Event::ServiceUnavailable { service } => ("service_unavailable", json!({ "service": service_word(service) })),
        Event::Drained { service, server, remaining } => (
            "drained",
            json!({ "service": service_word(service), "server": server.to_string(), "remaining": remaining }),
        ),
        Event::LocalPortsExhausted { service, server } => {
            ("local_ports_exhausted", json!({ "service": service_word(service), "server": server.to_string() }))
        }
        Event::ReplyConflict { service, server, client, other } => {
            let mut document =
                json!({ "service": service_word(service), "server": server.to_string(), "other": other.to_string() });
            if access == Access::Full {
                document["client"] = client.to_string().into();
            }
            ("reply_conflict", document)
        }
        Event::Lost { count } => ("lost", json!({ "count": count })),
        _ => ("other", json!({})),
    }
}

/// As metrics call it.
fn table_name(table: Table) -> &'static str {
    match table {
        Table::Connections => "connections",
        Table::Templates => "templates",
        Table::Fragments => "fragments",
        Table::HalfOpen => "half_open",
    }
}

/// How many events wait for a reader who is slow.
const KEPT: usize = 256;
/// Most readers at a time.
pub(super) const READERS_MAX: usize = 32;
/// Between two looks at the workers.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a stream says nothing.
const BEAT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use lvs_core::{Endpoint, Protocol, ServiceKey};

    use super::*;

    #[test]
    fn a_client_is_named_to_those_alone_who_may_know_everything() {
        let service = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
        let at = |last| Endpoint::new([10, 0, 0, last].into(), 80);
        let event = Event::ReplyConflict { service, server: at(2), client: at(77), other: at(3) };
        assert!(line(1, 0, &event, Access::Full).contains("10.0.0.77:80"));
        let public = line(1, 0, &event, Access::Read);
        assert!(!public.contains("10.0.0.77") && public.contains("\"service\":\"tcp:192.0.2.80:80\""), "{public}");
    }
}
