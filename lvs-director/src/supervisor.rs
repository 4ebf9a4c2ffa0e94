//! What signals ask of a running `lvsd`, and what the service manager hears of it. SIGINT and SIGTERM end it; SIGQUIT
//! ends it to be started again; SIGHUP has it read its files again, or ends it where the terminal it was started on is gone;
//! SIGUSR1 has it print its tables.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lvs_io::WorkerHandle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

use crate::control::{Order, Orders};
use crate::notify::{self, Watchdog};
use crate::threads::is_ignored;

/// Signals, from the moment they are caught; each is readable once one has come.
#[derive(Debug)]
pub(crate) struct Signals {
    end: UnixStream,
    reload: UnixStream,
    print: UnixStream,
    has_terminal: bool,
    restart: Restart,
    /// The other ends, which are kept so that one that no signal writes to is not closed.
    _written: [UnixStream; 3],
}

impl Signals {
    /// Catches them. A SIGHUP that is ignored (nohup) stays so.
    pub fn catch() -> io::Result<Self> {
        let reload: &[i32] = if is_ignored(SIGHUP) { &[] } else { &[SIGHUP] };
        let restart = Restart::default();
        signal_hook::flag::register(SIGQUIT, Arc::clone(&restart.0))?;
        let [(end, ends), (reload, reloads), (print, prints)] =
            [caught(&[SIGINT, SIGTERM, SIGQUIT])?, caught(reload)?, caught(&[SIGUSR1])?];
        Ok(Self { end, reload, print, has_terminal: has_terminal(), restart, _written: [ends, reloads, prints] })
    }

    /// Whether the end is to be followed by a start.
    pub fn restart(&self) -> Restart {
        self.restart.clone()
    }

    /// Does what they ask until one ends it: then the workers are told to stop.
    pub fn obey(mut self, workers: &[WorkerHandle], orders: &Orders) {
        let is_running = |worker: &WorkerHandle| worker.with(|_, _| ()).is_ok();
        if workers.iter().all(is_running) {
            notify::ready(&status(workers));
        }
        let mut watchdog = Watchdog::of_service_manager(workers);
        while let Ok(asked) = self.wait(watchdog.as_ref()) {
            match asked {
                Asked::End => break,
                Asked::Reload if self.has_terminal && !has_terminal() => break,
                Asked::Reload => orders.give(Order::Reload),
                Asked::Print => orders.give(Order::Print),
                Asked::Nothing => {}
            }
            if let Some(watchdog) = &mut watchdog {
                watchdog.check();
            }
        }
        notify::stopping();
        workers.iter().for_each(WorkerHandle::stop);
    }

    fn wait(&mut self, watchdog: Option<&Watchdog>) -> io::Result<Asked> {
        let pause = watchdog.and_then(|watchdog| Timespec::try_from(watchdog.pause()).ok());
        let ready = loop {
            let mut fds = [&self.end, &self.reload, &self.print].map(|fd| PollFd::new(fd, PollFlags::IN));
            match poll(&mut fds, pause.as_ref()) {
                Ok(_) => break fds.map(|fd| !fd.revents().is_empty()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        // Several of one kind ask once.
        let mut bytes = [0; 64];
        Ok(match ready {
            [true, _, _] => Asked::End,
            [_, true, _] => self.reload.read(&mut bytes).map(|_| Asked::Reload)?,
            [_, _, true] => self.print.read(&mut bytes).map(|_| Asked::Print)?,
            _ => Asked::Nothing,
        })
    }
}

/// Whether a start is to follow: SIGQUIT says so (systemd.kill(5), `RestartKillSignal=`), and what it takes over is left in
/// place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restart(Arc<AtomicBool>);

impl Restart {
    pub fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

enum Asked {
    End,
    Reload,
    Print,
    Nothing,
}

fn status(workers: &[WorkerHandle]) -> String {
    match workers.len() {
        0 => "no devices: nothing is forwarded".to_owned(),
        count => format!("forwarding with {count} workers"),
    }
}

/// Readable once one of these signals has come, and the end that they write to.
fn caught(signals: &[i32]) -> io::Result<(UnixStream, UnixStream)> {
    let (read, write) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, write.try_clone()?)?;
    }
    Ok((read, write))
}

/// Whether this process has a terminal that controls it (tty(4)): one that has hung up is none.
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}
