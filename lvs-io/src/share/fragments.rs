//! Which shard the fragments of a datagram belong to, where only the first one tells: those to FullNAT's local
//! addresses. What comes before the first waits for it, as a copy, so that it holds nothing others need.
//! Bounded, without a clock: the oldest gives way to the newest, and no source has more than a share
//! ([`lvs_core::fragment::Follower`]).

use std::hash::{BuildHasher, Hasher, RandomState};

use lvs_core::fragment::{Follower, Waited};
use lvs_core::wire::parse::Headers;
use lvs_core::{Instant, PacketBuf, Seed};

/// Datagrams whose shard is remembered, or whose fragments wait.
const DATAGRAMS_MAX: u32 = 1_024;
/// Memory for fragments that wait for their datagram's first.
const BYTES_MAX: u32 = 4 << 20;
/// Time stands still here: what is old gives way only to what is new.
const NOW: Instant = Instant::ZERO;

/// The memory of one shard.
pub(super) struct Fragments {
    owners: Follower<usize>,
}

impl Fragments {
    pub fn new() -> Self {
        // Nobody outside may guess where a datagram is filed.
        let seed = Seed::new(RandomState::new().build_hasher().finish());
        Self { owners: Follower::new(DATAGRAMS_MAX, BYTES_MAX, seed) }
    }

    /// The shard that a later fragment's first one named.
    pub fn owner(&mut self, headers: &Headers) -> Option<usize> {
        self.owners.follow(NOW, headers)
    }

    /// Notes what a first fragment says. Returns those that waited for it, in the order they came.
    pub fn learn(&mut self, headers: &Headers, owner: usize) -> Vec<Waited> {
        self.owners.learn(NOW, headers, owner)
    }

    /// Lets a copy of a fragment wait. Returns how many are lost by that: older ones that made room, or itself.
    #[must_use]
    pub fn wait(&mut self, fragment: &PacketBuf<'_>, headers: &Headers) -> u64 {
        let is_lost = self.owners.wait(NOW, fragment, headers).is_err();
        u64::from(self.owners.take_given_up()) + u64::from(is_lost)
    }
}

#[cfg(test)]
mod tests {
    use lvs_core::wire::parse::parse;
    use lvs_testkit::{Storage, udp};

    use super::*;

    /// The parts of datagram `id` from 10.0.`source`.2.
    fn parts(source: u32, id: u32) -> Vec<Vec<u8>> {
        let from = format!("10.{}.{}.2:53", source / 256, source % 256);
        udp(from.as_str(), "10.0.0.200:2000").identification(id).payload_len(150).fragments(56)
    }

    fn wait(fragments: &mut Fragments, part: &[u8]) -> u64 {
        fragments.wait(&Storage::new(part).packet(), &parse(part).unwrap())
    }

    fn learn(fragments: &mut Fragments, first: &[u8], owner: usize) -> Vec<Vec<u8>> {
        let mut waited = fragments.learn(&parse(first).unwrap(), owner);
        waited.iter_mut().map(|fragment| fragment.packet().bytes().to_vec()).collect()
    }

    fn owner(fragments: &mut Fragments, part: &[u8]) -> Option<usize> {
        fragments.owner(&parse(part).unwrap())
    }

    #[test]
    fn what_waits_comes_back_in_order_with_the_first() {
        let mut fragments = Fragments::new();
        let (one, two) = (parts(0, 1), parts(0, 2));
        for part in [&one[2], &two[1], &one[1]] {
            assert_eq!(wait(&mut fragments, part), 0);
        }
        assert_eq!(learn(&mut fragments, &one[0], 5), [one[2].clone(), one[1].clone()]);
        assert_eq!((owner(&mut fragments, &two[2]), owner(&mut fragments, &one[1])), (None, None));
        assert_eq!(learn(&mut fragments, &two[0], 6), [two[1].clone()]);
        assert_eq!(owner(&mut fragments, &two[2]), Some(6));
        // All of it has come: there is nothing to be remembered.
        assert_eq!(owner(&mut fragments, &two[2]), None);
    }

    #[test]
    fn the_oldest_gives_way_and_of_a_greedy_source_its_own() {
        let mut fragments = Fragments::new();
        assert_eq!(wait(&mut fragments, &parts(1, 7)[1]), 0);
        let lost: u64 = (0..5_000).map(|id| wait(&mut fragments, &parts(2, id)[1])).sum();
        assert_eq!(lost, 5_000 - u64::from(DATAGRAMS_MAX / 8));
        assert_eq!(learn(&mut fragments, &parts(1, 7)[0], 1).len(), 1);
        assert_eq!(wait(&mut fragments, &parts(1, 8)[1]), 0);
        for source in 1_000..3_000 {
            let _ = learn(&mut fragments, &parts(source, 7)[0], 3);
        }
        assert!(learn(&mut fragments, &parts(1, 8)[0], 1).is_empty(), "it was the oldest");
        assert_eq!(owner(&mut fragments, &parts(1_000, 7)[1]), None);
        assert_eq!(owner(&mut fragments, &parts(2_999, 7)[1]), Some(3));
    }

    #[test]
    fn the_first_of_another_datagram_of_the_same_number_tells_anew() {
        let mut fragments = Fragments::new();
        assert!(learn(&mut fragments, &parts(1, 7)[0], 1).is_empty());
        assert_eq!(owner(&mut fragments, &parts(1, 7)[1]), Some(1));
        assert!(learn(&mut fragments, &parts(1, 7)[0], 2).is_empty());
        assert_eq!(owner(&mut fragments, &parts(1, 7)[1]), Some(2));
    }
}
