//! Defence under pressure: which of `drop_entry`, `drop_packet` and `secure_tcp` are on, which new connection
//! `drop_packet` refuses, and which idle connection `drop_entry` may end. Decides by numbers only; whose they are, and
//! when to ask, is `director/upkeep/flood_defence.rs`'s business. Source: Linux IPVS, as recorded in `conformance/`.
//!
//! Linux compares free memory pages with `amemthresh`. A director's memory are its tables, reserved at the start; so what
//! is compared here are free places: those of the connection table, or of the table that is shorter of them for its
//! size.

use crate::rng::{Rng, Seed};
use crate::settings::Settings;
use crate::time::Instant;

/// Whether a mode's defence is on: 2 (automatic, and needed) or 3 (always).
pub(crate) const fn is_on(mode: u8) -> bool {
    mode >= 2
}

/// The automatic modes change places by themselves, as Linux's do: 1 is off until places are scarce, then 2.
const fn evaluated(mode: u8, is_scarce: bool) -> u8 {
    match (mode, is_scarce) {
        (1, true) => 2,
        (2, false) => 1,
        (mode, _) => mode,
    }
}

/// The state of all three defences.
#[derive(Debug)]
pub(crate) struct Defence {
    /// When the modes are evaluated next; `None` while all of them are 0.
    pub due: Option<Instant>,
    pub drop_packet: DropPacket,
    pub drop_entry: DropEntry,
    /// Who made room for new ones, by what was short: see [`crate::view::DefenceCounters`].
    pub half_open_evicted: u64,
    pub newcomers_evicted: u64,
    pub talked_evicted: u64,
    pub templates_evicted: u64,
    pub expectations_evicted: u64,
    pub ports_taken_back: u64,
    pub datagrams_given_up: u64,
}

/// Places for connections that are free, in the table that has the fewest for its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Available {
    /// Free now.
    pub free: u32,
    /// Free now, or taken by somebody who gives way to a newcomer. At least as many.
    pub for_newcomers: u32,
}

impl Defence {
    pub fn new(seed: Seed) -> Self {
        Self {
            due: None,
            drop_packet: DropPacket::default(),
            drop_entry: DropEntry::new(seed),
            half_open_evicted: 0,
            newcomers_evicted: 0,
            talked_evicted: 0,
            templates_evicted: 0,
            expectations_evicted: 0,
            ports_taken_back: 0,
            datagrams_given_up: 0,
        }
    }

    /// Evaluates the modes of `settings`, which change between 1 and 2, and sets the rate of `drop_packet`.
    ///
    /// Free places say whether a mode is needed. `drop_packet` refuses whoever comes, so it goes by the places that
    /// nobody could be made to give up: a flood that others evict does not make it shut the door.
    pub fn evaluate(&mut self, settings: &mut Settings, available: Available) {
        let is_scarce = available.free < settings.amemthresh;
        for mode in [&mut settings.drop_entry, &mut settings.drop_packet, &mut settings.secure_tcp] {
            *mode = evaluated(*mode, is_scarce);
        }
        match settings.drop_packet {
            2 => {
                // The fewer places are left, the more are refused; with none left, all of them.
                let missing = settings.amemthresh.saturating_sub(available.for_newcomers);
                let rate = settings.amemthresh.checked_div(missing).unwrap_or(0);
                self.drop_packet = DropPacket { rate, counter: rate };
            }
            3 => self.drop_packet.rate = settings.am_droprate,
            _ => self.drop_packet.rate = 0,
        }
    }
}

/// Refuses one new connection in `rate`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DropPacket {
    /// 0 refuses nothing, 1 everything.
    rate: u32,
    counter: u32,
}

impl DropPacket {
    /// Whether the next new connection is refused. Does not count it.
    pub const fn is_due(&self) -> bool {
        self.rate != 0 && self.counter <= 1
    }

    /// Counts a new connection; whether it is refused. The first one is, then every `rate`-th.
    pub const fn refuses(&mut self) -> bool {
        if self.rate == 0 {
            return false;
        }
        let is_due = self.is_due();
        self.counter = if is_due { self.rate } else { self.counter - 1 };
        is_due
    }
}

/// Ends connections that look abandoned, at random.
#[derive(Debug)]
pub(crate) struct DropEntry {
    random: Rng,
    /// Places still to be looked at in this second.
    picks_left: u32,
    /// By packets from the client: how many more candidates are kept before one is removed.
    counters: [u64; PACKETS_MAX as usize + 1],
    /// Connections and templates removed so far.
    pub removed: u64,
}

impl DropEntry {
    fn new(seed: Seed) -> Self {
        Self { random: Rng::new(seed), picks_left: 0, counters: [0; PACKETS_MAX as usize + 1], removed: 0 }
    }

    /// Begins a second's look at one in 32 of `places`, at least at one.
    pub fn start(&mut self, places: u32) {
        self.picks_left = if places == 0 { 0 } else { (places / PLACES_PER_PICK).max(1) };
    }

    /// Leaves out what is left of this second.
    pub fn stop(&mut self) {
        self.picks_left = 0;
    }

    /// Whether places are still to be looked at.
    pub const fn is_under_way(&self) -> bool {
        self.picks_left > 0
    }

    /// A random place below `places`, while there is one left to look at. The same one may come twice.
    pub fn pick(&mut self, places: u32) -> Option<u32> {
        self.picks_left = self.picks_left.checked_sub(1)?;
        Some(self.random.up_to(places.saturating_sub(1)))
    }

    /// Whether a connection that has been idle for a minute, after so many packets from its client, is removed: of
    /// those with `n` packets (1 to 8) the first, and then every `n`-th.
    pub fn takes(&mut self, packets: u64) -> bool {
        if packets == 0 || packets > PACKETS_MAX {
            return false;
        }
        let counter = &mut self.counters[packets as usize];
        if *counter > 1 {
            *counter -= 1;
            return false;
        }
        *counter = packets;
        true
    }
}

/// Connections with more packets than this from their client are kept.
const PACKETS_MAX: u64 = 8;
/// Linux looks at 128 of 4,096 chains.
const PLACES_PER_PICK: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn settings(drop_packet: u8) -> Settings {
        Settings { drop_packet, amemthresh: 100, am_droprate: 3, ..Settings::default() }
    }

    fn free(free: u32) -> Available {
        Available { free, for_newcomers: free }
    }

    fn refused(defence: &mut Defence, count: usize) -> Vec<usize> {
        (1..=count).filter(|_| defence.drop_packet.refuses()).collect()
    }

    #[test]
    fn drop_packet_refuses_the_first_and_then_every_nth() {
        let mut defence = Defence::new(Seed::new(1));
        defence.evaluate(&mut settings(3), free(1000));
        assert_eq!(refused(&mut defence, 10), [1, 4, 7, 10]);
    }

    #[test]
    fn a_new_rate_counts_only_from_the_next_refusal() {
        let mut defence = Defence::new(Seed::new(1));
        defence.evaluate(&mut settings(3), free(1000));
        assert_eq!(refused(&mut defence, 2), [1]);
        defence.evaluate(&mut Settings { am_droprate: 1, ..settings(3) }, free(1000));
        assert_eq!(refused(&mut defence, 4), [2, 3, 4]);
    }

    #[test]
    fn the_automatic_rate_grows_as_places_run_out() {
        for (available, expected) in [
            (100, &[] as &[usize]),
            (99, &[100]),
            (75, &[4, 8, 12]),
            (50, &[2, 4, 6, 8]),
            (20, &[1, 2, 3, 4]),
            (0, &[1, 2, 3, 4]),
        ] {
            let mut defence = Defence::new(Seed::new(1));
            let mut settings = settings(1);
            defence.evaluate(&mut settings, free(available));
            assert_eq!(settings.drop_packet, if available < 100 { 2 } else { 1 });
            let count = expected.last().copied().unwrap_or(100);
            assert_eq!(refused(&mut defence, count), expected, "{available}");
            defence.evaluate(&mut settings, free(100));
            assert_eq!((settings.drop_packet, defence.drop_packet.refuses()), (1, false));
        }
    }

    #[test]
    fn the_automatic_rate_counts_places_that_others_would_give_up_as_free() {
        let mut defence = Defence::new(Seed::new(1));
        let mut settings = settings(1);
        defence.evaluate(&mut settings, Available { free: 0, for_newcomers: 100 });
        assert_eq!((settings.drop_packet, refused(&mut defence, 100)), (2, Vec::new()));
        defence.evaluate(&mut settings, Available { free: 0, for_newcomers: 50 });
        assert_eq!(refused(&mut defence, 4), [2, 4]);
    }

    #[test]
    fn of_idle_connections_with_n_packets_the_first_and_every_nth_are_taken() {
        let mut drop_entry = DropEntry::new(Seed::new(1));
        let taken = |drop_entry: &mut DropEntry, packets| (1..=9).filter(|_| drop_entry.takes(packets)).count();
        let expected = [(0, 0), (1, 9), (2, 5), (3, 3), (4, 3), (8, 2), (9, 0), (u64::MAX, 0)];
        for (packets, count) in expected {
            assert_eq!(taken(&mut drop_entry, packets), count, "{packets}");
        }
    }

    #[test]
    fn each_second_looks_at_one_place_in_32() {
        let mut drop_entry = DropEntry::new(Seed::new(1));
        for (places, picks) in [(0, 0), (1, 1), (63, 1), (4096, 128)] {
            drop_entry.start(places);
            let picked: Vec<_> = core::iter::from_fn(|| drop_entry.pick(places)).collect();
            assert_eq!(picked.len(), picks);
            assert!(picked.iter().all(|place| *place < places));
        }
    }
}
