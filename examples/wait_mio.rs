//! A loop of one's own around a director, sleeping by mio until a packet comes or a timer is due. What
//! `lvs_io::Worker` does with `poll`, for programs that have an event loop already.
//!
//! ```text
//! cargo run --release -p lvs-examples --example wait_mio -- lvs0
//! ```
//!
//! A source has up to two descriptors, `poll_fd` for packets and `wake_fd` for everything else; they may be others after
//! its device was lost, so they are registered for one sleep at a time. Without `poll_fd` it has to be asked again.
use std::error::Error;
use std::os::fd::AsRawFd;
use std::time::Duration;

use lvs_core::{Director, DirectorConfig, HEADROOM, PacketBuf, Seed};
use lvs_io::{Arm, Clock, Exits, MonotonicClock, PacketSource};
use lvs_io_tun::{TunOptions, TunQueue};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("usage: wait_mio DEVICE")?;
    let Arm { mut source, sink } = TunQueue::open(&name, &TunOptions::default())?.into_arm();
    let mut director = Director::new(DirectorConfig::default(), Seed::new(std::process::id().into()));
    // It fragments what a verdict lets pass up to its `mtu`: a sink is not told that.
    let mut exits = Exits::new(vec![sink]);
    let clock = MonotonicClock::new();
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    loop {
        let now = clock.now();
        let received = source.receive(&mut |packets| {
            director.handle_batch(now, packets, |_, packet, verdict| exits.carry_out(now, 0, packet, verdict));
        })?;
        if director.poll_timeout().is_some_and(|due| due <= now) {
            director.handle_timeout(now);
        }
        // What the host has answered, and what the director has to say by itself.
        exits.hear_host(now, &mut director);
        let mut storage = [0; HEADROOM + 65_535];
        loop {
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, 0);
            let Some(verdict) = director.poll_transmit(&mut packet) else { break };
            exits.carry_out(now, 0, &mut packet, verdict);
        }
        exits.flush();
        // Only a source that had nothing is slept on.
        if received == 0 {
            let until_due = director.poll_timeout().map(|due| due.duration_since(clock.now()));
            sleep(&mut poll, &mut events, &*source, until_due)?;
        }
    }
}

/// Sleeps until the source wants to be asked, at most so long.
fn sleep(
    poll: &mut Poll,
    events: &mut Events,
    source: &dyn PacketSource,
    longest: Option<Duration>,
) -> std::io::Result<()> {
    let fds = [source.poll_fd(), source.wake_fd()].map(|fd| fd.map(|fd| fd.as_raw_fd()));
    for (token, fd) in fds.iter().enumerate().filter_map(|(token, fd)| Some((token, fd.as_ref()?))) {
        poll.registry().register(&mut SourceFd(fd), Token(token), Interest::READABLE)?;
    }
    let asks_again = fds[0].is_none().then_some(Duration::from_millis(1));
    let outcome = poll.poll(events, longest.into_iter().chain(asks_again).min());
    for fd in fds.iter().flatten() {
        poll.registry().deregister(&mut SourceFd(fd))?;
    }
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}
