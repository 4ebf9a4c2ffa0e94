//! What `lblc` and `lblcr` remember about each destination address, and how it is forgotten: unused entries age out,
//! and a crowded cache is thinned. Sizes, periods and the order of buckets are those of Linux.
//!
//! Linux ages by a timer; here the time of the requests drives the same 60 s ticks, from the first request on. A tick
//! only decides what has expired, which lookups respect at once; the entries are then cleared away some buckets in each
//! call, so that no packet waits for a whole pass, unless requests are more than a minute apart: then one may wait for
//! two passes over at most 24,576 entries.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::hash::{fold_address, hash32};
use crate::rng::{Rng, Seed};
use crate::time::Instant;

/// A bounded memory: destination address → `T`.
#[derive(Clone, Debug)]
pub(super) struct DestinationCache<T> {
    hasher: RandomState,
    /// From the address to its slot.
    index: HashTable<u32>,
    slots: Vec<Option<Entry<T>>>,
    free: Vec<u32>,
    /// Linux's buckets, as chains of slots: they set the order in which entries are cleared away.
    chains: Vec<u32>,
    ageing: Ageing,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    destination: IpAddr,
    last_use: Instant,
    value: T,
    next: u32,
}

#[derive(Clone, Debug)]
struct Ageing {
    /// The latest time told; a clock that goes back is not believed.
    now: Instant,
    next_tick: Option<Instant>,
    /// Counts ticks up to the next full check.
    tick: u64,
    /// The bucket scanned last.
    rover: usize,
    sweep: Option<Sweep>,
}

/// A pass over the buckets that is under way.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    started: Instant,
    /// Entries that were unused for this long then are dropped.
    idle: Duration,
    /// How many are wanted; a full check wants all.
    goal: Option<usize>,
    buckets_left: usize,
    /// What is still to be looked at of the bucket that was begun.
    rest: u32,
}

impl Sweep {
    fn drops(&self, last_use: Instant) -> bool {
        self.started >= last_use + self.idle
    }
}

impl<T> DestinationCache<T> {
    pub(super) fn new(seed: Seed) -> Self {
        let mut random = Rng::new(seed);
        let [k0, k1, k2, k3] = [(); 4].map(|()| random.next_u64());
        Self {
            hasher: RandomState::with_seeds(k0, k1, k2, k3),
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            chains: Vec::new(),
            ageing: Ageing { now: Instant::ZERO, next_tick: None, tick: 1, rover: 0, sweep: None },
        }
    }

    /// Brings the cache up to `now`; `forget` is given what is dropped.
    pub(super) fn advance(&mut self, now: Instant, expiration: Duration, mut forget: impl FnMut(T)) {
        self.ageing.now = self.ageing.now.max(now);
        self.ageing.skip_cycles();
        while self.ageing.is_tick_due() {
            // Requests are rarer than ticks, or the last pass would have ended by itself.
            self.sweep(usize::MAX, &mut forget);
            self.ageing.tick(expiration, self.index.len());
        }
        self.sweep(BUCKETS_A_CALL, &mut forget);
    }

    /// The entry of `destination`, used now; with the time.
    pub(super) fn touch(&mut self, destination: IpAddr) -> Option<(&mut T, Instant)> {
        let slot = self.find(destination)?;
        let entry = self.slots[slot as usize].as_mut().expect("indexed slots are filled");
        if self.ageing.sweep.is_some_and(|sweep| sweep.goal.is_none() && sweep.drops(entry.last_use)) {
            return None;
        }
        entry.last_use = self.ageing.now;
        Some((&mut entry.value, self.ageing.now))
    }

    /// Sets the entry of `destination`. What gives way is returned: its old value, or, in a full cache, the new one.
    pub(super) fn store(&mut self, destination: IpAddr, value: T) -> Option<T> {
        if let Some(slot) = self.find(destination) {
            let entry = self.slots[slot as usize].as_mut().expect("indexed slots are filled");
            entry.last_use = self.ageing.now;
            return Some(core::mem::replace(&mut entry.value, value));
        }
        if self.index.len() >= ENTRIES_CAP {
            return Some(value);
        }
        if self.chains.is_empty() {
            self.chains = vec![END; 1 << BUCKET_BITS];
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        let chain = &mut self.chains[bucket(destination)];
        self.slots[slot as usize] = Some(Entry { destination, last_use: self.ageing.now, value, next: *chain });
        *chain = slot;
        let (hasher, slots) = (&self.hasher, &self.slots);
        self.index.insert_unique(hasher.hash_one(destination), slot, |slot| {
            hasher.hash_one(slots[*slot as usize].as_ref().expect("indexed slots are filled").destination)
        });
        None
    }

    pub(super) fn now(&self) -> Instant {
        self.ageing.now
    }

    fn find(&self, destination: IpAddr) -> Option<u32> {
        let is_it =
            |slot: &u32| self.slots[*slot as usize].as_ref().is_some_and(|entry| entry.destination == destination);
        self.index.find(self.hasher.hash_one(destination), is_it).copied()
    }

    /// Goes on with the pass under way, for so many buckets.
    fn sweep(&mut self, buckets_max: usize, forget: &mut impl FnMut(T)) {
        let Some(mut sweep) = self.ageing.sweep else { return };
        let mut entries_left = if buckets_max > BUCKETS_A_CALL { usize::MAX } else { ENTRIES_A_CALL };
        for _ in 0..buckets_max {
            if sweep.rest == END {
                if sweep.buckets_left == 0 || sweep.goal == Some(0) {
                    self.ageing.sweep = None;
                    return;
                }
                self.ageing.rover = (self.ageing.rover + 1) % (1 << BUCKET_BITS);
                sweep.buckets_left -= 1;
                let begun = self.chains.get_mut(self.ageing.rover);
                sweep.rest = begun.map_or(END, |chain| core::mem::replace(chain, END));
            }
            let dropped = self.clear_bucket(self.ageing.rover, &mut sweep, &mut entries_left, forget);
            sweep.goal = sweep.goal.map(|goal| goal.saturating_sub(dropped));
            if entries_left == 0 {
                break;
            }
        }
        self.ageing.sweep = Some(sweep);
    }

    /// Drops what the sweep drops of the rest of a bucket, looking at so many entries; how many.
    fn clear_bucket(
        &mut self,
        bucket: usize,
        sweep: &mut Sweep,
        entries_left: &mut usize,
        forget: &mut impl FnMut(T),
    ) -> usize {
        let mut slot = sweep.rest;
        let mut dropped = 0;
        while slot != END && *entries_left > 0 {
            *entries_left -= 1;
            let entry = self.slots[slot as usize].as_mut().expect("chained slots are filled");
            let next = entry.next;
            if sweep.drops(entry.last_use) {
                let hash = self.hasher.hash_one(entry.destination);
                self.index.find_entry(hash, |found| *found == slot).expect("chained slots are indexed").remove();
                forget(self.slots[slot as usize].take().expect("seen above").value);
                self.free.push(slot);
                dropped += 1;
            } else {
                entry.next = self.chains[bucket];
                self.chains[bucket] = slot;
            }
            slot = next;
        }
        sweep.rest = slot;
        dropped
    }
}

impl Ageing {
    fn is_tick_due(&self) -> bool {
        self.next_tick.is_some_and(|tick| tick <= self.now)
    }

    /// After a long silence only the last of the full checks that are due matters: skips whole cycles before it.
    fn skip_cycles(&mut self) {
        let next_tick = *self.next_tick.get_or_insert(self.now + TICK);
        let due = self.now.duration_since(next_tick).as_secs() / TICK.as_secs() + 1;
        let until_full_check = FULL_CHECK_TICKS + 1 - self.tick;
        let cycles = due.saturating_sub(until_full_check) / FULL_CHECK_TICKS;
        self.next_tick = Some(next_tick + Duration::from_secs(cycles * FULL_CHECK_TICKS * TICK.as_secs()));
    }

    /// Runs the tick that is due.
    fn tick(&mut self, expiration: Duration, entries: usize) {
        let Some(started) = self.next_tick else { return };
        self.next_tick = Some(started + TICK);
        let buckets_left = 1 << BUCKET_BITS;
        if self.tick == FULL_CHECK_TICKS {
            self.tick = 1;
            self.sweep = Some(Sweep { started, idle: expiration, goal: None, buckets_left, rest: END });
        } else if entries <= ENTRIES_MAX {
            self.tick += 1;
        } else if !self.is_tick_due() {
            // Of several ticks that are due, thinning at the last is enough.
            let goal = ((entries - ENTRIES_MAX) * 4 / 3).min(ENTRIES_MAX / 2);
            self.sweep = Some(Sweep { started, idle: PRESSED_IDLE, goal: Some(goal), buckets_left, rest: END });
        }
    }
}

fn bucket(destination: IpAddr) -> usize {
    hash32(fold_address(destination), BUCKET_BITS) as usize
}

/// The end of a chain.
const END: u32 = u32::MAX;
/// 1,024 buckets: `CONFIG_IP_VS_LBLC_TAB_BITS`.
const BUCKET_BITS: u32 = 10;
/// More entries than this are thinned: 16 a bucket.
const ENTRIES_MAX: usize = 16 << BUCKET_BITS;
/// No more than this are kept at all: one and a half times as many. Linux 6.1.191 and later.
const ENTRIES_CAP: usize = ENTRIES_MAX / 2 * 3;
/// How often ageing is looked at.
const TICK: Duration = Duration::from_secs(60);
/// Every this many ticks everything is checked: 30 minutes.
const FULL_CHECK_TICKS: u64 = 30;
/// A crowded cache drops what was unused for six minutes.
const PRESSED_IDLE: Duration = Duration::from_secs(360);
/// Buckets cleared in one call: a pass takes 32 calls, some 500 entries each in a full cache.
const BUCKETS_A_CALL: usize = 32;
/// Entries looked at in one call: strangers may aim all of theirs at one bucket.
const ENTRIES_A_CALL: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    const DAY: Duration = Duration::from_secs(86_400);

    fn cache() -> DestinationCache<u32> {
        DestinationCache::new(Seed::new(1))
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    fn at(cache: &mut DestinationCache<u32>, seconds: u64, expiration: Duration) -> usize {
        let mut dropped = 0;
        cache.advance(Instant::from_secs(seconds), expiration, |_| dropped += 1);
        dropped
    }

    #[test]
    fn an_entry_unused_for_its_time_is_gone_at_the_next_full_check() {
        let mut cache = cache();
        let expiration = Duration::from_secs(600);
        at(&mut cache, 0, expiration);
        cache.store(address(1), 10);
        // 29 ticks later nothing has been checked, however old it is.
        at(&mut cache, 1_799, expiration);
        assert!(cache.find(address(1)).is_some());
        at(&mut cache, 1_800, expiration);
        assert_eq!(cache.touch(address(1)), None);
    }

    #[test]
    fn an_entry_in_use_outlives_full_checks() {
        let mut cache = cache();
        at(&mut cache, 0, DAY);
        cache.store(address(1), 10);
        for seconds in (0..200_000).step_by(1_000) {
            at(&mut cache, seconds, DAY);
            assert!(cache.touch(address(1)).is_some(), "{seconds}");
        }
        // Last used at 199,000 s: a day is over at 285,400 s; the full check after that is at 286,200 s.
        at(&mut cache, 286_199, DAY);
        assert!(cache.find(address(1)).is_some());
        let mut later = cache.clone();
        at(&mut later, 286_200, DAY);
        assert_eq!(later.touch(address(1)), None);
    }

    #[test]
    fn a_long_silence_ends_in_one_check() {
        let mut cache = cache();
        at(&mut cache, 0, DAY);
        cache.store(address(1), 10);
        assert_eq!(at(&mut cache, 1_000_000_000, DAY), 1);
        assert_eq!(cache.touch(address(1)), None);
    }

    #[test]
    fn a_clock_that_goes_back_is_not_believed() {
        let mut cache = cache();
        at(&mut cache, 5_000, DAY);
        cache.store(address(1), 10);
        at(&mut cache, 10, DAY);
        assert_eq!(cache.touch(address(1)), Some((&mut 10, Instant::from_secs(5_000))));
    }

    #[test]
    fn a_full_cache_takes_no_more() {
        let mut cache = cache();
        at(&mut cache, 0, DAY);
        for number in 0..24_576 {
            assert_eq!(cache.store(address(number), number), None);
        }
        assert_eq!(cache.store(address(24_576), 7), Some(7));
        assert_eq!(cache.store(address(5), 7), Some(5), "an entry that exists can still change");
    }

    #[test]
    fn a_crowded_cache_is_thinned_by_four_thirds_of_the_surplus() {
        let mut cache = cache();
        at(&mut cache, 0, DAY);
        for number in 0..16_384 + 300 {
            cache.store(address(number), number);
        }
        // Nothing is idle long enough until the tick at 360 s.
        let mut dropped = 0;
        for second in 0..420 {
            for _ in 0..64 {
                dropped += at(&mut cache, second, DAY);
            }
            assert_eq!(dropped > 0, second >= 360, "{second} s");
        }
        // 400 were wanted; the pass ends with the bucket (of some 16) in which they were reached.
        assert!((400..420).contains(&dropped), "{dropped}");
        assert_eq!(cache.index.len(), 16_684 - dropped);
    }

    #[test]
    fn a_bucket_that_all_addresses_are_aimed_at_is_cleared_a_part_at_a_time() {
        let mut cache = cache();
        at(&mut cache, 0, DAY);
        let aimed = (0..).filter(|number| bucket(address(*number)) == 5).take(10_000);
        aimed.for_each(|number| assert_eq!(cache.store(address(number), number), None));
        let dropped: Vec<_> = (0..200)
            .map(|call| {
                let dropped = at(&mut cache, 88_200 + call / 100, DAY);
                // What comes meanwhile stays.
                cache.store(address(u32::MAX), 1);
                dropped
            })
            .collect();
        assert_eq!(dropped.iter().max(), Some(&ENTRIES_A_CALL), "the most in one call");
        assert_eq!((dropped.iter().sum::<usize>(), cache.index.len()), (10_000, 1));
        assert!(cache.touch(address(u32::MAX)).is_some());
    }
}
