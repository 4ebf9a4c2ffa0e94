//! What the control thread is told to do, beside what it hears at its sockets. An order is never lost, and one that is given
//! again before it was done is done once.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// One order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// End.
    End,
    /// Read the files again and carry out what has changed.
    Reload,
    /// Print the tables to standard output.
    Print,
    /// Answer what another thread asks.
    Answer,
}

impl Order {
    const ALL: [Self; 4] = [Self::End, Self::Reload, Self::Print, Self::Answer];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Gives orders to the control thread.
#[derive(Debug)]
pub struct Orders {
    given: Arc<AtomicU8>,
    /// A byte in it wakes the thread.
    wake: UnixStream,
}

/// Where orders arrive: readable when there is one, or when whoever gave them is gone.
#[derive(Debug)]
pub struct Inbox {
    given: Arc<AtomicU8>,
    wake: UnixStream,
}

/// Both ends.
///
/// # Errors
/// The process has no descriptor left.
pub fn pair() -> io::Result<(Orders, Inbox)> {
    let (write, read) = UnixStream::pair()?;
    write.set_nonblocking(true)?;
    read.set_nonblocking(true)?;
    let given = Arc::new(AtomicU8::new(0));
    Ok((Orders { given: Arc::clone(&given), wake: write }, Inbox { given, wake: read }))
}

impl Orders {
    /// Gives one. Never blocks.
    pub fn give(&self, order: Order) {
        self.given.fetch_or(order.bit(), Ordering::AcqRel);
        // Where there is no room for a byte, there are bytes that wake it.
        let _ = (&self.wake).write(&[0]);
    }

    /// Another one that gives orders to the same thread.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { given: Arc::clone(&self.given), wake: self.wake.try_clone()? })
    }
}

impl Inbox {
    /// What there is to do, each once; to end where nobody is left who could say so.
    pub fn take(&mut self) -> Vec<Order> {
        let is_over = match self.wake.read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        let given = self.given.swap(0, Ordering::AcqRel);
        let is_given = |order: &Order| given & order.bit() != 0 || (is_over && *order == Order::End);
        Order::ALL.into_iter().filter(is_given).collect()
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control thread that is busy reads none of them meanwhile.
    #[test]
    fn no_order_is_lost_however_many_come_before_it_and_each_is_done_once() {
        let (orders, mut inbox) = pair().unwrap();
        for _ in 0..100_000 {
            orders.give(Order::Print);
        }
        orders.try_clone().unwrap().give(Order::End);
        assert_eq!(inbox.take(), [Order::End, Order::Print]);
        assert_eq!(inbox.take(), []);
        drop(orders);
        while inbox.take().is_empty() {}
    }
}
