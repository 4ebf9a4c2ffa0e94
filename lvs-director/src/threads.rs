//! The workers' threads and what ends them: a signal, or the failure of one, which ends all. Half of the clients served
//! and the other half not is worse than a process that ends and says why.

use std::any::Any;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::thread::{self, ScopedJoinHandle};

use lvs_io::{Worker, WorkerHandle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Runs every worker on a thread of its own until they are stopped. Where one fails or panics, all end.
///
/// # Errors
/// What ended the first one that did not end as it was told to.
pub(crate) fn run_all(workers: &mut [Worker]) -> Result<(), String> {
    let handles: Vec<WorkerHandle> = workers.iter().map(Worker::handle).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let ends_all = EndsAll(&handles);
                scope.spawn(move || {
                    let _ends_all = ends_all;
                    worker.run()
                })
            })
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(outcome).collect();
        outcomes.into_iter().collect()
    })
}

/// Stops all workers when the one that holds it ends, also by a panic.
struct EndsAll<'a>(&'a [WorkerHandle]);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(WorkerHandle::stop);
    }
}

fn outcome(thread: ScopedJoinHandle<'_, io::Result<()>>) -> Result<(), String> {
    match thread.join() {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("a worker panicked, which is a fault in lvsd: {}", message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}

/// Ends the workers on SIGINT (Ctrl-C), SIGTERM and, unless it is ignored (nohup), SIGHUP.
pub(crate) fn stop_on_signals(workers: Vec<WorkerHandle>) -> io::Result<()> {
    let signalled = signals()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        wait(signalled);
        workers.iter().for_each(WorkerHandle::stop);
    })?;
    Ok(())
}

/// Readable once a signal that ends the process has come: from then on these signals do no more than that.
fn signals() -> io::Result<UnixStream> {
    let (signalled, signal) = UnixStream::pair()?;
    for number in [SIGINT, SIGTERM, SIGHUP] {
        if number != SIGHUP || !is_ignored(SIGHUP) {
            signal_hook::low_level::pipe::register(number, signal.try_clone()?)?;
        }
    }
    Ok(signalled)
}

/// Waits for such a signal.
fn wait(mut signalled: UnixStream) {
    // Whatever ends the wait, it is time to go.
    let _ = signalled.read(&mut [0]);
}

/// Whether whoever started this process had it ignore the signal (proc(5), `SigIgn`).
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use lvs_core::{Director, DirectorConfig, PacketBuf, Seed};
    use lvs_io::{MemoryPort, PacketSource};

    use super::*;

    /// A device that panics or fails as soon as it is asked.
    struct Broken {
        panics: bool,
    }

    impl PacketSource for Broken {
        fn receive(&mut self, _: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
            if self.panics { panic!("a broken invariant") } else { Err(io::Error::other("the device burns")) }
        }

        fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    fn worker(broken: Option<Broken>) -> Worker {
        let (_test, device) = MemoryPort::pair(4);
        let mut arm = device.into_arm();
        if let Some(broken) = broken {
            arm.source = Box::new(broken);
        }
        Worker::new(Director::new(DirectorConfig::default(), Seed::new(1)), arm, None).expect("it can be had")
    }

    #[test]
    fn where_one_worker_fails_or_panics_all_end_and_the_reason_is_told() {
        for (panics, told) in [(false, "the device burns"), (true, "a fault in lvsd: a broken invariant")] {
            let mut workers = [worker(None), worker(Some(Broken { panics })), worker(None)];
            let handles = workers.each_ref().map(Worker::handle);
            let complaint = run_all(&mut workers).expect_err("one of them is broken");
            assert!(complaint.contains(told), "{complaint}");
            // Nobody waits for an answer of one that has gone.
            for handle in handles {
                assert!(handle.counters().is_err());
            }
        }
    }

    #[test]
    fn workers_that_are_told_to_stop_end_well() {
        let mut workers = [worker(None), worker(None)];
        workers[1].handle().stop();
        assert_eq!(run_all(&mut workers), Ok(()));
    }

    #[test]
    fn a_signal_nobody_ignores_is_not_ignored() {
        assert!(!is_ignored(SIGTERM));
    }
}
