//! Wakes a worker that sleeps: what one queue hears about the link concerns the edges of all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use lvs_io::l2::LinkMessage;
use rustix::event::{EventfdFlags, eventfd};

/// Rung by others, heard by one.
#[derive(Debug)]
pub(crate) struct Bell {
    is_rung: AtomicBool,
    fd: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> rustix::io::Result<Arc<Self>> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self { is_rung: AtomicBool::new(false), fd }))
    }

    pub(crate) fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            // It cannot be full: 2⁶⁴ rings.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Silences the bell. To be called before looking for what it was rung for.
    pub(crate) fn hear(&self) {
        if self.is_rung.swap(false, Ordering::AcqRel) {
            // Whoever rings has said so and not written yet: the next time.
            if rustix::io::read(&self.fd, &mut [0; 8]).is_err() {
                self.is_rung.store(true, Ordering::Release);
            }
        }
    }

    /// Readable while it rings.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The way to the sending half of one queue.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub messages: SyncSender<LinkMessage>,
    pub bell: Arc<Bell>,
}

impl Post {
    /// Passes a message on. Where the receiver has not kept up it is lost, and will be asked for again.
    pub(crate) fn send(&self, message: LinkMessage) {
        if self.messages.try_send(message).is_ok() {
            self.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// Enough for a ring to be heard half-way, once in some hundred times.
    const ROUNDS: usize = 20_000;

    #[test]
    fn a_bell_heard_after_it_was_rung_is_silent_whatever_was_heard_before() {
        let bell = Bell::new().expect("a descriptor");
        let (asked, rung) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut still_rings = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    while asked.load(Ordering::Acquire) != round {
                        thread::yield_now();
                    }
                    bell.ring();
                    rung.store(round, Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                asked.store(round, Ordering::Release);
                while rung.load(Ordering::Acquire) != round {
                    bell.hear();
                }
                bell.hear();
                let mut fds = [PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN)];
                let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
                still_rings += poll(&mut fds, Some(&at_once)).expect("a descriptor");
            }
        });
        assert_eq!(still_rings, 0);
    }
}
