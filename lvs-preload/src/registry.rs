//! Which descriptors are ours, and what each is. Asking whether one is ours takes no lock, so that a signal handler may:
//! keepalived's write to pipes.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::conversation::Conversation;

/// What a descriptor stands for.
#[derive(Clone)]
pub enum Ours {
    /// A generic-netlink socket.
    Socket(Arc<Conversation>),
    /// A file below `/proc/sys/net/ipv4/vs`, open for writing: the setting of this name.
    Setting(Arc<str>),
}

/// Descriptors from here on are never ours. The system's own limit for a process is usually 1,024.
pub const FDS_MAX: RawFd = 65_536;

static IS_OURS: [AtomicU64; FDS_MAX as usize / 64] = [const { AtomicU64::new(0) }; FDS_MAX as usize / 64];
static OURS: Mutex<BTreeMap<RawFd, Ours>> = Mutex::new(BTreeMap::new());

/// What this descriptor is, if it is ours.
pub fn get(fd: RawFd) -> Option<Ours> {
    is_ours(fd).then(|| lock().get(&fd).cloned()).flatten()
}

/// The netlink socket behind this descriptor.
pub fn socket(fd: RawFd) -> Option<Arc<Conversation>> {
    match get(fd)? {
        Ours::Socket(conversation) => Some(conversation),
        Ours::Setting(_) => None,
    }
}

/// Remembers what a descriptor is. `false` if its number is beyond [`FDS_MAX`].
#[must_use]
pub fn insert(fd: RawFd, ours: Ours) -> bool {
    let Some((word, bit)) = place(fd) else { return false };
    lock().insert(fd, ours);
    word.fetch_or(bit, Ordering::Release);
    true
}

/// Forgets a descriptor: it is about to be closed or to become something else.
pub fn remove(fd: RawFd) {
    if let Some((word, bit)) = place(fd).filter(|_| is_ours(fd)) {
        word.fetch_and(!bit, Ordering::Release);
        lock().remove(&fd);
    }
}

/// `new` is `old` now, whatever it was.
pub fn copy(old: RawFd, new: RawFd) {
    match get(old) {
        Some(ours) => {
            let _ = insert(new, ours);
        }
        None => remove(new),
    }
}

fn is_ours(fd: RawFd) -> bool {
    place(fd).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
}

fn place(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((IS_OURS.get(fd / 64)?, 1 << (fd % 64)))
}

fn lock() -> MutexGuard<'static, BTreeMap<RawFd, Ours>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}
