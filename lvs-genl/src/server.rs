//! The director's end of a conversation: requests in, answers out, by the kernel's rules. No sockets, no threads: bytes
//! are handed in and pulled out, and what is asked goes to a [`Table`].

mod answer;
mod daemons;
mod dump;
mod master;
mod session;
mod table;
mod transaction;

pub use daemons::SyncDaemons;
pub use master::Master;
pub(crate) use session::{AT, HAS_TEXT, TEXT};
pub use session::{Access, DATAGRAM_MAX, Session, TooLong};
pub use table::{Refusal, ServerCursor, Table};
pub use transaction::{KEPT_BYTES_MAX, KEPT_MAX};
