//! The live progress line on a terminal's standard error; silent anywhere else.
//! Decides how often to draw: at most twenty times a second.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts requests as they finish, and shows the count.
#[derive(Debug)]
pub struct Progress {
    total: usize,
    answered: AtomicUsize,
    failed: AtomicUsize,
    /// When the line was last drawn; `None` where nobody watches.
    drawn: Option<Mutex<Instant>>,
}

impl Progress {
    /// Shows progress if standard error is a terminal.
    pub fn on_terminal(total: usize) -> Self {
        let drawn = std::io::stderr().is_terminal().then(|| Mutex::new(Instant::now()));
        Self { drawn, ..Self::silent(total) }
    }

    /// Only counts.
    pub fn silent(total: usize) -> Self {
        Self { total, answered: AtomicUsize::new(0), failed: AtomicUsize::new(0), drawn: None }
    }

    /// One more request is over.
    pub fn finished(&self, is_answered: bool) {
        let counter = if is_answered { &self.answered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        // Whoever finds the line locked leaves the drawing to its holder.
        let Some(Ok(mut drawn)) = self.drawn.as_ref().map(Mutex::try_lock) else { return };
        if drawn.elapsed() >= REDRAW_EVERY {
            *drawn = Instant::now();
            self.draw();
        }
    }

    /// Removes the line, so that the report starts on a clean one.
    pub fn clear(&self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn draw(&self) {
        let (answered, failed) = (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        let filled = (answered + failed) * BAR_WIDTH / self.total.max(1);
        let bar: String = (0..BAR_WIDTH).map(|cell| if cell < filled { '█' } else { '░' }).collect();
        let _ = write!(std::io::stderr(), "\r\x1b[K  {bar} {answered} of {} requests answered", self.total);
        if failed > 0 {
            let _ = write!(std::io::stderr(), ", {failed} failed");
        }
    }
}

const REDRAW_EVERY: Duration = Duration::from_millis(50);
const BAR_WIDTH: usize = 30;
