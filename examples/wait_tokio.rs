//! A director as a task of tokio's: the loop of `wait_mio.rs`, sleeping by `AsyncFd`.
//!
//! ```text
//! cargo run --release -p lvs-examples --example wait_tokio -- lvs0
//! ```
//!
//! The source is asked until it has nothing before it is slept on, and its descriptors, which may be others after its
//! device was lost, are registered for one sleep at a time.
use std::error::Error;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use lvs_core::{Director, DirectorConfig, HEADROOM, PacketBuf, Seed};
use lvs_io::{Arm, Clock, Exits, MonotonicClock, PacketSource};
use lvs_io_tun::{TunOptions, TunQueue};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("usage: wait_tokio DEVICE")?;
    let arm = TunQueue::open(&name, &TunOptions::default())?.into_arm();
    let director = Director::new(DirectorConfig::default(), Seed::new(std::process::id().into()));
    tokio::select! {
        outcome = balance(director, arm) => Ok(outcome?),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Balances until the device fails.
async fn balance(mut director: Director, Arm { mut source, sink }: Arm) -> std::io::Result<()> {
    let mut exits = Exits::new(vec![sink]);
    let clock = MonotonicClock::new();
    let mut storage = vec![0; HEADROOM + 65_535];
    loop {
        let now = clock.now();
        let received = source.receive(&mut |packets| {
            director.handle_batch(now, packets, |_, packet, verdict| exits.carry_out(now, 0, packet, verdict));
        })?;
        if director.poll_timeout().is_some_and(|due| due <= now) {
            director.handle_timeout(now);
        }
        exits.hear_host(now, &mut director);
        loop {
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, 0);
            let Some(verdict) = director.poll_transmit(&mut packet) else { break };
            exits.carry_out(now, 0, &mut packet, verdict);
        }
        exits.flush();
        if received == 0 {
            let until_due = director.poll_timeout().map(|due| due.duration_since(clock.now()));
            sleep(&*source, until_due).await?;
        } else {
            // Other tasks have their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// Sleeps until the source wants to be asked, at most so long.
async fn sleep(source: &dyn PacketSource, longest: Option<Duration>) -> std::io::Result<()> {
    let asks_again = source.poll_fd().is_none().then_some(Duration::from_millis(1));
    tokio::select! {
        outcome = readable(source.poll_fd()) => outcome,
        outcome = readable(source.wake_fd()) => outcome,
        () = pass(longest.into_iter().chain(asks_again).min()) => Ok(()),
    }
}

/// Ends when the descriptor is readable; never without one.
#[allow(deprecated, reason = "a borrowed descriptor stays open as long as this waits; what is in its place is unsafe")]
async fn readable(fd: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
    match fd {
        Some(fd) => AsyncFd::with_interest(fd, Interest::READABLE)?.readable().await.map(drop),
        None => std::future::pending().await,
    }
}

async fn pass(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
