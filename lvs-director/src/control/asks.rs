//! What the HTTP thread asks of the tables, piece by piece. Each piece is a short job on the control thread, between those
//! of programs at the control socket; whoever wants much asks many times. As many wait as there is room for, and nobody
//! waits for a thread that has ended.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::orders::{Order, Orders};
use super::tables::Tables;

type Ask = Box<dyn FnOnce(&mut Tables) + Send>;

/// Asks the control thread.
#[derive(Clone)]
pub struct Asker {
    asks: SyncSender<Ask>,
    orders: Arc<Orders>,
}

/// The control thread has ended, or too much waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unanswered;

/// The control thread's end.
pub struct Asks {
    asks: Receiver<Ask>,
    orders: Orders,
}

/// Both ends; `orders` wakes the control thread.
///
/// # Errors
/// The process has no descriptor left.
pub fn pair(orders: &Orders) -> io::Result<(Asker, Asks)> {
    let (give, take) = sync_channel(WAITING_MAX);
    let asker = Asker { asks: give, orders: Arc::new(orders.try_clone()?) };
    Ok((asker, Asks { asks: take, orders: orders.try_clone()? }))
}

impl Asker {
    /// Has the control thread run `job`, unless nobody waits for the answer any more.
    ///
    /// # Errors
    /// [`Unanswered`]: the job has not been run.
    pub async fn ask<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tables) -> R + Send + 'static,
    ) -> Result<R, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let ask = Box::new(move |tables: &mut Tables| {
            if !answer.is_closed() {
                let _ = answer.send(job(tables));
            }
        });
        self.asks.try_send(ask).map_err(|_| Unanswered)?;
        self.orders.give(Order::Answer);
        answered.await.map_err(|_| Unanswered)
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

impl Asks {
    /// Answers what waits, and comes back to what is left after others had their turn.
    pub fn answer(&mut self, tables: &mut Tables) {
        for _ in 0..ANSWERED_AT_ONCE {
            let Ok(ask) = self.asks.try_recv() else { return };
            ask(tables);
        }
        self.orders.give(Order::Answer);
    }
}

/// More than connections, of which each asks for one piece at a time.
const WAITING_MAX: usize = 1024;
/// After so many it is the others' turn.
const ANSWERED_AT_ONCE: usize = 16;
