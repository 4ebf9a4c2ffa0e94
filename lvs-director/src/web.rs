//! What operators look at, by HTTP: metrics for Prometheus, everything as JSON, and a page. One thread serves it; it has no
//! director of its own and asks the control thread, piece by piece, as `lvsadm` does.
//!
//! | file | what it decides |
//! |---|---|
//! | `door.rs` | where it is served; `token.rs`: what else lets somebody in |
//! | `guard.rs` | what a request may ask for, by its door, its token and where it comes from |
//! | `server.rs`, `patient.rs` | connections: how many, how long, how slow |
//! | `routes.rs` | which paths there are and what each answers; `answer.rs`: what answers look like |
//! | `types.rs` | the JSON; `openapi.json` describes it |
//! | `lists.rs`, `query.rs` | listings, page by page; `gather.rs`: how one is put together of pieces |
//! | `events.rs` | events as they happen |
//! | `explain.rs`, `changes.rs` | what is asked about packets, and what changes the director |
//! | `metrics.rs` | which metrics there are |

mod answer;
mod changes;
mod door;
mod events;
mod explain;
mod gather;
mod guard;
mod lists;
mod metrics;
mod patient;
mod query;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod token;
pub mod types;

pub use door::{Doors, HttpAt};
pub use guard::Access;
pub(crate) use server::Web;
