//! How many programs may be connected at a time, and who makes room for one more: always somebody with no more rights, so
//! that those who may only read never end the conversations of those who may do everything. A user other than the
//! director's own and root has a part of the places alone.

use std::fs;
use std::time::{Duration, Instant};

use lvs_genl::server::Access;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::say;

/// Who has a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// What it may do.
    pub access: Access,
    /// Whose it is.
    pub uid: u32,
    /// When it was last heard of.
    pub heard: Instant,
}

/// How many places there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// For those who may do everything.
    full: usize,
    /// For all others together.
    others: usize,
    /// For one user among the others.
    user: usize,
}

impl Places {
    /// As many as the descriptors allow that this process may have. What it may have is raised to what it could have
    /// (setrlimit(2): the soft limit to the hard one).
    pub fn of_process() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
        let limit = if raised { maximum } else { current }.unwrap_or(u64::MAX);
        let open = fs::read_dir("/proc/self/fd").map_or(OPEN_GUESS, Iterator::count);
        Self::with(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open).saturating_sub(RESERVE))
    }

    fn with(descriptors: usize) -> Self {
        let others = (descriptors / 4).clamp(1, OTHERS_MAX);
        let full = descriptors.saturating_sub(others).clamp(1, FULL_MAX);
        Self { full, others, user: (others / 4).max(1) }
    }

    /// The index of the one that makes room for `newcomer`; `None` where there is a place.
    pub fn who_goes(&self, holders: &[Holder], newcomer: Access, uid: u32) -> Option<usize> {
        let is_full = |access: Access| access == Access::Full;
        let alike = |holder: &Holder| is_full(holder.access) == is_full(newcomer);
        let most = if is_full(newcomer) { self.full } else { self.others };
        if !is_full(newcomer) && holders.iter().filter(|holder| alike(holder) && holder.uid == uid).count() >= self.user
        {
            return quietest(holders, |holder| alike(holder) && holder.uid == uid);
        }
        (holders.iter().filter(|holder| alike(holder)).count() >= most).then(|| quietest(holders, alike)).flatten()
    }
}

/// The one with no more rights than `access` that has been quiet for longest.
pub fn quietest_below(holders: &[Holder], access: Access) -> Option<usize> {
    quietest(holders, |holder| holder.access <= access)
}

fn quietest(holders: &[Holder], may_go: impl Fn(&Holder) -> bool) -> Option<usize> {
    let holders = holders.iter().enumerate().filter(|(_, holder)| may_go(holder));
    holders.min_by_key(|(_, holder)| holder.heard).map(|(index, _)| index)
}

/// A warning that strangers can bring about: told once a minute at most, with how often it was not.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Tells it, or counts it.
    pub fn warn(&mut self, text: impl std::fmt::Display) {
        if self.told.is_some_and(|told| told.elapsed() < PAUSE) {
            self.left_out += 1;
            return;
        }
        match std::mem::take(&mut self.left_out) {
            0 => say::warning(text),
            count => say::warning(format_args!("{text} (and {count} more since the last time this was said)")),
        }
        self.told = Some(Instant::now());
    }
}

/// Programs that may do everything, at once.
const FULL_MAX: usize = 1024;
/// All others, at once.
const OTHERS_MAX: usize = 256;
/// Descriptors for files that are read, and devices that are opened again.
const RESERVE: usize = 64;
/// Where /proc cannot be read.
const OPEN_GUESS: usize = 128;
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(of: &[(Access, u32)]) -> Vec<Holder> {
        let start = Instant::now();
        let holder = |(age, (access, uid)): (usize, &(Access, u32))| Holder {
            access: *access,
            uid: *uid,
            heard: start + Duration::from_secs(age as u64),
        };
        of.iter().enumerate().map(holder).collect()
    }

    #[test]
    fn who_may_only_read_never_takes_the_place_of_who_may_do_everything() {
        let places = Places { full: 2, others: 2, user: 1 };
        let held = holders(&[(Access::Full, 0), (Access::Read, 1000), (Access::Full, 0), (Access::Read, 1001)]);
        assert_eq!(places.who_goes(&held, Access::Read, 1002), Some(1), "the quietest of its own kind");
        assert_eq!(places.who_goes(&held, Access::Read, 1001), Some(3), "its own, where it has its part");
        assert_eq!(places.who_goes(&held, Access::Full, 0), Some(0));
        assert_eq!(places.who_goes(&held[..2], Access::Full, 0), None);
        assert_eq!(quietest_below(&held, Access::Read), Some(1), "also where the descriptors are used up");
        assert_eq!(quietest_below(&held[..1], Access::Read), None);
    }

    #[test]
    fn there_are_as_many_places_as_descriptors() {
        assert_eq!(Places::with(1 << 20), Places { full: FULL_MAX, others: OTHERS_MAX, user: 64 });
        let Places { full, others, .. } = Places::with(800);
        assert!(full + others <= 800 && full > others);
        assert_eq!(Places::with(0), Places { full: 1, others: 1, user: 1 });
    }
}
