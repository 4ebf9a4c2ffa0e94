//! How other threads reach a director that a worker thread owns: they post jobs to its inbox and wait for the answer.
//! The worker carries them out between batches, so nothing is locked on the packet path.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use lvs_core::{Command, ControlError, Director, Instant};

use crate::counters::Counters;
use crate::device::PacketSource;
use crate::exits::Exits;
use crate::known::AddressChange;

/// Most jobs carried out between two batches: commands cannot starve the packets.
const JOBS_PER_TURN: usize = 64;

type Job = Box<dyn FnOnce(&mut Parts<'_>) + Send>;

/// What of a worker a job may reach.
pub(crate) struct Parts<'a> {
    pub director: &'a mut Director,
    pub exits: &'a mut Exits,
    pub sources: &'a mut [Box<dyn PacketSource>],
    pub now: Instant,
}

/// The worker has ended; nobody will answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerGone;

impl fmt::Display for WorkerGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker has ended")
    }
}

impl std::error::Error for WorkerGone {}

/// A worker's remote control: cheap to clone, usable from any thread but the worker's own (it would wait for itself).
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    jobs: mpsc::Sender<Job>,
    signal: Arc<Signal>,
}

#[derive(Debug)]
struct Signal {
    stop: AtomicBool,
    /// A byte written here ends the worker's wait.
    wake: UnixStream,
}

impl WorkerHandle {
    /// Asks the worker to end. `run` returns after the batch in hand. Never blocks; safe to call twice.
    pub fn stop(&self) {
        self.signal.stop.store(true, Ordering::Release);
        self.signal.wake();
    }

    /// Carries out a command on the worker's director and waits for the outcome.
    ///
    /// # Errors
    /// [`WorkerGone`] outside, what [`Director::apply`] said inside.
    pub fn apply(&self, command: Command) -> Result<Result<(), ControlError>, WorkerGone> {
        self.with(move |director, now| director.apply(now, &command))
    }

    /// Runs `job` on the worker's thread, with its director, and waits for the result: for listings, explanations and
    /// whatever else needs the director. Packets wait meanwhile; keep it short.
    ///
    /// # Errors
    /// [`WorkerGone`] if the worker ended before it ran the job.
    pub fn with<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Director, Instant) -> R + Send + 'static,
    ) -> Result<R, WorkerGone> {
        self.post(move |parts| job(parts.director, parts.now))
    }

    /// What the worker has counted so far.
    ///
    /// # Errors
    /// [`WorkerGone`] if the worker has ended.
    pub fn counters(&self) -> Result<Counters, WorkerGone> {
        self.post(|parts| parts.exits.counters().clone())
    }

    /// Has the worker run `job` on its thread, after what was posted before, and does not wait: for commands that a
    /// director with the same rules has accepted already.
    ///
    /// # Errors
    /// [`WorkerGone`] if the worker has ended. One that ends before it gets there does not run it.
    pub fn tell(&self, job: impl FnOnce(&mut Director, Instant) + Send + 'static) -> Result<(), WorkerGone> {
        self.leave(move |parts| job(parts.director, parts.now))
    }

    /// Has the worker's sources ([`PacketSource::learn`]) and its host stand-in ([`crate::Host::learn`]) take in that an
    /// address of the services has come or gone, after what was posted before, and does not wait.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn learn(&self, change: AddressChange) -> Result<(), WorkerGone> {
        self.leave(move |parts| {
            parts.sources.iter_mut().for_each(|source| source.learn(&change));
            parts.exits.learn(&change);
        })
    }

    fn leave(&self, job: impl FnOnce(&mut Parts<'_>) + Send + 'static) -> Result<(), WorkerGone> {
        self.jobs.send(Box::new(job)).map_err(|_| WorkerGone)?;
        self.signal.wake();
        Ok(())
    }

    fn post<R: Send + 'static>(&self, job: impl FnOnce(&mut Parts<'_>) -> R + Send + 'static) -> Result<R, WorkerGone> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.leave(move |parts| {
            // Nobody waits for the answer any more: nothing is lost.
            let _ = answer.send(job(parts));
        })?;
        answered.recv().map_err(|_| WorkerGone)
    }
}

impl Signal {
    fn wake(&self) {
        // Full means that unread wake-ups wait already; closed, that the worker is gone.
        let _ = (&self.wake).write(&[1]);
    }
}

/// The worker's end: the jobs that wait and the wake-ups.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Dropped when the worker ends, and with it the jobs: their senders then learn that nobody will answer.
    jobs: Option<mpsc::Receiver<Job>>,
    woken: UnixStream,
    handle: WorkerHandle,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, jobs) = mpsc::channel();
        let handle = WorkerHandle { jobs: sender, signal: Arc::new(Signal { stop: AtomicBool::new(false), wake }) };
        Ok(Self { jobs: Some(jobs), woken, handle })
    }

    pub(crate) fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.handle.signal.stop.load(Ordering::Acquire)
    }

    /// Readable after a wake-up.
    pub(crate) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// Forgets wake-ups. To be called before the jobs are looked at, so that none is missed.
    pub(crate) fn clear_wake_ups(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }

    /// Carries out waiting jobs, a bounded number, and says how many there were.
    pub(crate) fn work(&mut self, parts: &mut Parts<'_>) -> u64 {
        let Some(jobs) = &self.jobs else { return 0 };
        let mut count = 0;
        for job in jobs.try_iter().take(JOBS_PER_TURN) {
            job(parts);
            count += 1;
        }
        count
    }

    pub(crate) fn close(&mut self) {
        self.jobs = None;
    }
}
