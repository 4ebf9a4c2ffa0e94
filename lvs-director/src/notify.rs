//! What the service manager is told (sd_notify(3)), where there is one: ready once packets flow, not while files are read
//! again, and alive as long as every worker is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lvs_io::WorkerHandle;
use sd_notify::NotifyState;

/// It serves; `status` says what.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Files were read again: it serves as before.
pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// Files are read again; [`reloaded`] ends it.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// It ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// Asks the workers again and again whether they live, and tells the service manager while all do.
#[derive(Debug)]
pub struct Watchdog {
    workers: Vec<WorkerHandle>,
    /// How many have answered since they were asked last.
    answered: Arc<AtomicUsize>,
    pause: Duration,
}

impl Watchdog {
    /// `None` where the service manager keeps none.
    pub fn of_service_manager(workers: &[WorkerHandle]) -> Option<Self> {
        // A quarter: the question, its answer, and half in reserve.
        sd_notify::watchdog_enabled().map(|timeout| Self::new(workers, timeout / 4))
    }

    fn new(workers: &[WorkerHandle], pause: Duration) -> Self {
        let watchdog = Self { workers: workers.to_vec(), answered: Arc::default(), pause };
        watchdog.ask();
        watchdog
    }

    /// How long to wait between two calls of [`Self::check`].
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Tells the service manager that all workers live, if all have answered since they were asked.
    pub fn check(&mut self) {
        if self.all_live() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    fn all_live(&mut self) -> bool {
        if self.answered.load(Ordering::Acquire) < self.workers.len() {
            return false;
        }
        // A new count: a late answer to an earlier question is none to the next one.
        self.answered = Arc::default();
        self.ask();
        true
    }

    fn ask(&self) {
        for worker in &self.workers {
            let answered = self.answered.clone();
            // One that has ended never answers.
            let _ = worker.tell(move |_, _| _ = answered.fetch_add(1, Ordering::AcqRel));
        }
    }
}

#[cfg(test)]
mod tests {
    use lvs_core::{Director, DirectorConfig, Seed};
    use lvs_io::{MemoryPort, Worker};

    use super::*;

    fn worker() -> Worker {
        let (_test, device) = MemoryPort::pair(4);
        let director = Director::new(DirectorConfig::default(), Seed::new(1));
        Worker::new(director, device.into_arm(), None).expect("it can be had")
    }

    #[test]
    fn the_watchdog_is_fed_only_while_every_worker_answers() {
        let mut works = worker();
        let hangs = worker();
        let handle = works.handle();
        std::thread::scope(|scope| {
            scope.spawn(|| works.run());
            let mut both = Watchdog::new(&[handle.clone(), hangs.handle()], Duration::ZERO);
            let mut one = Watchdog::new(std::slice::from_ref(&handle), Duration::ZERO);
            for _ in 0..3 {
                // Jobs are done in order: once this one is, those before it are.
                handle.with(|_, _| ()).expect("it works");
                assert!(one.all_live() && !both.all_live());
            }
            handle.stop();
        });
        drop(hangs);
    }
}
