//! The worker loop: one thread, one director, one or two devices. Reads batches, lets the director decide, and hands
//! packets and verdicts to the ways out ([`Exits`]). It decides what is done when.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
use std::{array, io, iter};

use lvs_core::{Director, HEADROOM, Instant, PacketBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::{Clock, MonotonicClock};
use crate::control::{Inbox, Parts, WorkerHandle};
use crate::counters::Counters;
use crate::device::{Arm, BATCH, PacketSource};
use crate::exits::{Exits, OnPass};
use crate::loss::{DeviceChange, OnDeviceLoss, Presence};

/// One thread's loop around a director.
///
/// ```
/// use lvs_core::{Director, DirectorConfig, Seed};
/// use lvs_io::{ManualClock, MemoryPort, Worker};
///
/// let director = Director::new(DirectorConfig::default(), Seed::new(7));
/// let (test, device) = MemoryPort::pair(16);
/// let mut worker = Worker::new(director, device.into_arm(), None)?.with_clock(ManualClock::new());
/// test.push([0x45]);
/// worker.turn()?;
/// assert_eq!(worker.counters().client.received, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Worker {
    director: Director,
    clock: Box<dyn Clock>,
    inbox: Inbox,
    sources: Vec<Box<dyn PacketSource>>,
    presence: Presence,
    exits: Exits,
    /// Where the director writes packets of its own.
    outbox: Box<[u8]>,
}

impl Worker {
    /// A worker with one device (`server` is `None`: clients and servers are behind the same one) or two.
    /// Packets that are not the director's are dropped; see [`Self::with_on_pass`].
    ///
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn new(director: Director, client: Arm, server: Option<Arm>) -> io::Result<Self> {
        let mut sources = vec![client.source];
        let mut sinks = vec![client.sink];
        if let Some(server) = server {
            sources.push(server.source);
            sinks.push(server.sink);
        }
        Ok(Self {
            director,
            clock: Box::new(MonotonicClock::new()),
            inbox: Inbox::new()?,
            sources,
            presence: Presence::default(),
            exits: Exits::new(sinks),
            outbox: vec![0; HEADROOM + usize::from(u16::MAX)].into_boxed_slice(),
        })
    }

    /// Sets where the time comes from. Default: the machine's monotonic clock, zero when the worker was made.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Sets what becomes of packets that are not the director's. Default: [`OnPass::Drop`].
    pub fn with_on_pass(mut self, on_pass: OnPass) -> Self {
        self.exits.set_on_pass(on_pass);
        self
    }

    /// Sets what happens when a device goes down or is deleted. Default: [`OnDeviceLoss::Wait`].
    pub fn with_on_device_loss(mut self, on_loss: OnDeviceLoss) -> Self {
        self.presence.on_loss = on_loss;
        self
    }

    /// Calls `on_change`, on the worker's thread, when a device goes down, is deleted, or is back. Default: nobody is
    /// told but by [`crate::ArmCounters::device_lost`].
    pub fn with_on_device_change(mut self, on_change: impl FnMut(DeviceChange) + Send + 'static) -> Self {
        self.presence.on_change = Box::new(on_change);
        self
    }

    /// The remote control for other threads.
    pub fn handle(&self) -> WorkerHandle {
        self.inbox.handle()
    }

    /// Runs until [`WorkerHandle::stop`], sleeping while nothing happens. After it, handles answer `WorkerGone`.
    ///
    /// # Errors
    /// A device failed for good.
    pub fn run(&mut self) -> io::Result<()> {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.run_until_stopped()));
        // Also after a panic: whoever waits for an answer would wait for ever. Nothing but the inbox is touched then.
        self.inbox.close();
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    fn run_until_stopped(&mut self) -> io::Result<()> {
        while !self.inbox.is_stopped() {
            if !self.turn()? {
                self.wait()?;
            }
        }
        Ok(())
    }

    /// One pass, without blocking: waiting jobs, some batches from each device, timers that are due, packets the
    /// director owes. `true` if there was anything to do.
    ///
    /// # Errors
    /// A device failed for good.
    pub fn turn(&mut self) -> io::Result<bool> {
        let now = self.clock.now();
        let mut busy = self.work(now);
        for index in 0..self.sources.len() {
            let (director, exits) = (&mut self.director, &mut self.exits);
            for _ in 0..BATCHES_PER_TURN {
                let count = self.sources[index].receive(&mut |packets| {
                    exits.count_received(index, packets);
                    director
                        .handle_batch(now, packets, |_, packet, verdict| exits.carry_out(now, index, packet, verdict));
                })?;
                busy |= count > 0;
                if count < BATCH {
                    break;
                }
            }
            exits.arm_counters(index).receive_lost = self.sources[index].lost();
            let is_lost = self.presence.follow(index, self.sources[index].state())?;
            exits.arm_counters(index).device_lost += u64::from(is_lost);
            // What is owed now was held until a packet of this batch came: it came from the same device.
            busy |= self.transmit(now, index);
        }
        for _ in 0..TIMEOUTS_PER_TURN {
            if self.director.poll_timeout().is_none_or(|due| due > now) {
                break;
            }
            self.director.handle_timeout(now);
            self.transmit(now, 0);
            busy = true;
        }
        self.exits.flush();
        Ok(busy)
    }

    /// Carries out waiting jobs, and has the host stand-in answer as often as the director's settings then say.
    fn work(&mut self, now: Instant) -> bool {
        let rates = self.director.settings().answer_rates();
        let Self { director, exits, sources, inbox, .. } = self;
        let count = inbox.work(&mut Parts { director, exits, sources, now });
        if count == 0 {
            return false;
        }
        let took = self.clock.now().duration_since(now);
        self.exits.count_jobs(count, took);
        let set = self.director.settings().answer_rates();
        if set != rates {
            self.exits.set_answer_rates(set);
        }
        true
    }

    /// Sends what the director's own servers have answered, and what the director itself owes the wire; `arm` is the
    /// device that counts as its origin.
    fn transmit(&mut self, now: Instant, arm: usize) -> bool {
        let mut busy = self.exits.hear_host(now, &mut self.director);
        loop {
            let mut packet = PacketBuf::new(&mut self.outbox, HEADROOM, 0);
            let Some(verdict) = self.director.poll_transmit(&mut packet) else { return busy };
            self.exits.count_owed();
            self.exits.carry_out(now, arm, &mut packet, verdict);
            busy = true;
        }
    }

    /// Sleeps until a device is readable, a timer is due or a handle calls.
    fn wait(&mut self) -> io::Result<()> {
        let inbox = self.inbox.poll_fd();
        let asks_again = self.sources.iter().any(|source| source.poll_fd().is_none());
        // At most two devices; in place of what they have not, the inbox again.
        let mut fds: [PollFd<'_>; 5] = {
            let of_sources = self.sources.iter().flat_map(|source| [source.poll_fd(), source.wake_fd()]).flatten();
            let mut wanted = of_sources.chain(iter::repeat(inbox));
            array::from_fn(|_| PollFd::from_borrowed_fd(wanted.next().unwrap_or(inbox), PollFlags::IN))
        };
        let until_due = self.director.poll_timeout().map(|due| due.duration_since(self.clock.now()));
        let longest = if asks_again { Some(ASK_AGAIN_AFTER) } else { None };
        let timeout = match (until_due, longest) {
            (Some(due), Some(longest)) => Some(due.min(longest)),
            (due, longest) => due.or(longest),
        };
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.inbox.clear_wake_ups();
        Ok(())
    }

    /// The director, to look at.
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// The director, to configure before the loop runs (afterwards: [`Self::handle`]).
    pub fn director_mut(&mut self) -> &mut Director {
        &mut self.director
    }

    /// What has been counted so far.
    pub fn counters(&self) -> &Counters {
        self.exits.counters()
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("counters", self.exits.counters()).finish_non_exhaustive()
    }
}

/// What came from one device may be so many full batches before it is the other's turn, and before what was sent is
/// handed to the devices.
const BATCHES_PER_TURN: usize = 4;

/// Timers that are due are worked off in bounded steps; after this many it is the packets' turn again.
const TIMEOUTS_PER_TURN: usize = 16;

/// How soon a source that cannot say when it is readable is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(1);
