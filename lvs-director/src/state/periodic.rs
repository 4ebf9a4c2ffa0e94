//! Saves every few seconds while packets flow, so that a process that is killed loses little. Each worker writes in steps
//! of some 100 µs, with pauses between them.

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lvs_core::snapshot::Snapshot;
use lvs_io::{Steering, WorkerHandle};

use super::{Header, State};
use crate::say;

/// The thread that saves. It ends with this.
pub(crate) struct Periodic {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Periodic {
    /// Saves what these workers have, every so often.
    ///
    /// # Errors
    /// There can be no other thread.
    pub fn start(state: State, workers: Vec<WorkerHandle>, steering: Steering, every: Duration) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("state".to_owned()).spawn(move || {
            let mut has_failed = false;
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let is_over = || ended.try_recv() == Err(mpsc::TryRecvError::Disconnected);
                match state.folder.write(|file| save(file, &workers, &steering, &is_over)) {
                    Ok(()) => has_failed = false,
                    Err(_) if is_over() => return,
                    // Told once, until it goes well again.
                    Err(error) if !has_failed => {
                        has_failed = true;
                        say::warning(state.failed(&error));
                    }
                    Err(_) => {}
                }
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn save(
    file: &mut dyn Write,
    workers: &[WorkerHandle],
    steering: &Steering,
    is_over: &dyn Fn() -> bool,
) -> io::Result<()> {
    let gone = || io::Error::other("a worker has ended");
    file.write_all(&Header::now(steering).bytes())?;
    let mut chunk = vec![0; Snapshot::CHUNK];
    for worker in workers {
        let mut snapshot = Snapshot::new();
        loop {
            let step = worker.with(move |director, now| {
                let len = director.save(now, &mut snapshot, &mut chunk);
                (snapshot, chunk, len)
            });
            let len;
            (snapshot, chunk, len) = step.map_err(|_| gone())?;
            if len == 0 {
                break;
            }
            file.write_all(&chunk[..len])?;
            if is_over() {
                return Err(gone());
            }
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Between two steps: a worker gives at most a tenth of its time.
const PAUSE: Duration = Duration::from_millis(1);
