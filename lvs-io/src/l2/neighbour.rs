//! Who is where on the link: a cache of neighbours that asks, asks again, keeps packets while it waits, and forgets.
//! States follow RFC 4861 §7.3, for ARP as well; there is no delay state, because nobody above tells us of progress.
//!
//! Asks and packets that may go are fetched with [`Neighbours::poll_ask`] and [`Neighbours::poll_ready`].
//! Everything is bounded: neighbours, packets waiting for one and for all, bytes waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use lvs_core::{Instant, Offload, PacketBuf};

use super::address::MacAddress;
use super::message::{Advertisement, Solicitation};

/// Most neighbours known at once; then the one unused for longest gives way. Linux: `gc_thresh3`.
pub const NEIGHBOURS_MAX: usize = 1024;
/// Most packets that wait for one neighbour; then the oldest gives way.
pub const WAITING_EACH_MAX: usize = 16;
/// Most packets that wait in all; then new ones are refused.
pub const WAITING_MAX: usize = 256;
/// Most bytes that wait in all; then new packets are refused.
pub const WAITING_BYTES_MAX: usize = 1 << 20;

/// RFC 4861 §10: RETRANS_TIMER; RFC 1122 §2.3.2.1 for ARP.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// RFC 4861 §10: MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT.
const ASKS_MAX: u32 = 3;
/// RFC 4861 §10: REACHABLE_TIME.
const REACHABLE_FOR: Duration = Duration::from_secs(30);
/// How long an unreachable neighbour is not asked for again.
const UNREACHABLE_FOR: Duration = Duration::from_secs(3);
/// A neighbour unused for so long is forgotten. Linux: `gc_stale_time`.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Most timers worked off in one call.
const TIMERS_PER_CALL: usize = 64;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub bytes: Vec<u8>,
    pub offload: Offload,
    pub link_priority: u8,
}

/// A question to be sent, to the group or to where the neighbour was last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub address: IpAddr,
    pub to: Option<MacAddress>,
}

/// What is known about where to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resolution {
    Known(MacAddress),
    /// It has been asked for: hand the packet to [`Neighbours::wait`].
    Asked,
    /// It did not answer.
    Unreachable,
}

/// What happened to packets and neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Packets that were kept.
    pub kept: u64,
    /// Packets lost because too many waited.
    pub waiting_full: u64,
    /// Packets lost because the neighbour did not answer, or was forgotten.
    pub unreachable: u64,
    /// Neighbours forgotten because there were too many.
    pub evicted: u64,
}

#[derive(Debug)]
struct Neighbour {
    state: State,
    used: Instant,
    /// The timer, which every neighbour but a static one has.
    due: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// Never heard of; asked `asks` times.
    Incomplete {
        asks: u32,
        waiting: VecDeque<Waiting>,
    },
    /// It answered a question not long ago.
    Reachable {
        mac: MacAddress,
        until: Instant,
    },
    /// Known from hearsay or from long ago; asked when it is used.
    Stale {
        mac: MacAddress,
    },
    /// In use, and asked `asks` times whether it is still there.
    Probing {
        mac: MacAddress,
        asks: u32,
    },
    Unreachable,
    /// Set by the administrator.
    Static {
        mac: MacAddress,
    },
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    entries: BTreeMap<IpAddr, Neighbour>,
    timers: BTreeSet<(Instant, IpAddr)>,
    asks: VecDeque<Ask>,
    ready: VecDeque<(MacAddress, Waiting)>,
    /// Packets and bytes that wait, the ready ones included.
    waiting: usize,
    waiting_bytes: usize,
    counts: Counts,
}

impl Neighbours {
    /// Sets a neighbour that is never asked and never forgotten.
    pub(super) fn set_static(&mut self, address: IpAddr, mac: MacAddress) {
        self.remove(address);
        self.entries.insert(address, Neighbour { state: State::Static { mac }, used: Instant::ZERO, due: None });
    }

    /// Where the neighbour is. Asks, where that is not known or has not been confirmed for a while.
    pub(super) fn resolve(&mut self, now: Instant, address: IpAddr) -> Resolution {
        let Some(neighbour) = self.entries.get_mut(&address) else {
            self.make_room();
            let state = State::Incomplete { asks: 1, waiting: VecDeque::new() };
            self.entries.insert(address, Neighbour { state, used: now, due: None });
            self.ask(address, None);
            self.set_timer(address, now + ASK_AGAIN_AFTER);
            return Resolution::Asked;
        };
        neighbour.used = now;
        match neighbour.state {
            State::Reachable { mac, until } if now < until => Resolution::Known(mac),
            State::Static { mac } | State::Probing { mac, .. } => Resolution::Known(mac),
            State::Reachable { mac, .. } | State::Stale { mac } => {
                neighbour.state = State::Probing { mac, asks: 1 };
                self.ask(address, Some(mac));
                self.set_timer(address, now + ASK_AGAIN_AFTER);
                Resolution::Known(mac)
            }
            State::Incomplete { .. } => Resolution::Asked,
            State::Unreachable => Resolution::Unreachable,
        }
    }

    /// Keeps a packet for a neighbour that has been asked for; `false` if too many wait.
    pub(super) fn wait(&mut self, address: IpAddr, packet: &PacketBuf<'_>) -> bool {
        let bytes = packet.bytes();
        let Some(Neighbour { state: State::Incomplete { waiting, .. }, .. }) = self.entries.get_mut(&address) else {
            return false;
        };
        if waiting.len() == WAITING_EACH_MAX
            && let Some(oldest) = waiting.pop_front()
        {
            self.waiting -= 1;
            self.waiting_bytes -= oldest.bytes.len();
            self.counts.waiting_full += 1;
        }
        if self.waiting == WAITING_MAX || self.waiting_bytes + bytes.len() > WAITING_BYTES_MAX {
            self.counts.waiting_full += 1;
            return false;
        }
        self.waiting += 1;
        self.waiting_bytes += bytes.len();
        self.counts.kept += 1;
        waiting.push_back(Waiting {
            bytes: bytes.to_vec(),
            offload: packet.offload,
            link_priority: packet.link_priority,
        });
        true
    }

    /// Somebody on the link says where an address is (RFC 4861 §7.2.5). Addresses nobody asked about are not learned.
    pub(super) fn handle_advertisement(&mut self, now: Instant, advertisement: &Advertisement) {
        let address = advertisement.address;
        let Some(neighbour) = self.entries.get_mut(&address) else { return };
        // An answer nobody waits for confirms nothing.
        let (known, is_awaited) = match neighbour.state {
            State::Static { .. } => return,
            State::Incomplete { .. } => (None, true),
            State::Unreachable => (None, false),
            State::Probing { mac, .. } => (Some(mac), true),
            State::Reachable { mac, .. } | State::Stale { mac } => (Some(mac), false),
        };
        let Some(mac) = advertisement.mac.or(known) else { return };
        let is_confirmed = advertisement.is_solicited && is_awaited;
        let is_moved = known.is_some_and(|known| known != mac);
        if is_moved && !advertisement.overrides {
            if let (State::Reachable { .. }, Some(mac)) = (&neighbour.state, known) {
                neighbour.state = State::Stale { mac };
            }
            return;
        }
        if is_confirmed {
            self.settle(now, address, State::Reachable { mac, until: now + REACHABLE_FOR }, mac);
        } else if known.is_none() || is_moved {
            self.settle(now, address, State::Stale { mac }, mac);
        }
    }

    /// Somebody on the link asked us and so told where it is itself (RFC 4861 §7.2.3, RFC 826). Never takes another
    /// neighbour's place.
    pub(super) fn handle_sender(&mut self, now: Instant, solicitation: &Solicitation) {
        let (Some(address), mac) = (solicitation.sender, solicitation.sender_mac) else { return };
        let is_news = match self.entries.get(&address).map(|neighbour| &neighbour.state) {
            None if self.entries.len() < NEIGHBOURS_MAX => {
                let state = State::Stale { mac };
                self.entries.insert(address, Neighbour { state, used: now, due: None });
                true
            }
            None | Some(State::Static { .. }) => false,
            Some(State::Incomplete { .. } | State::Unreachable) => true,
            Some(
                State::Reachable { mac: known, .. } | State::Stale { mac: known } | State::Probing { mac: known, .. },
            ) => *known != mac,
        };
        if is_news {
            self.settle(now, address, State::Stale { mac }, mac);
        }
    }

    /// Puts a neighbour into a state with a known `mac` and lets the packets that waited go.
    fn settle(&mut self, now: Instant, address: IpAddr, state: State, mac: MacAddress) {
        let Some(neighbour) = self.entries.get_mut(&address) else { return };
        if let State::Incomplete { waiting, .. } = std::mem::replace(&mut neighbour.state, state) {
            self.ready.extend(waiting.into_iter().map(|packet| (mac, packet)));
        }
        let due = neighbour.used.max(now) + FORGOTTEN_AFTER;
        self.set_timer(address, due);
    }

    /// The next question to be sent.
    pub(super) fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// The next packet that has waited and may go, and where to.
    pub(super) fn poll_ready(&mut self) -> Option<(MacAddress, Waiting)> {
        let (mac, packet) = self.ready.pop_front()?;
        self.waiting -= 1;
        self.waiting_bytes -= packet.bytes.len();
        Some((mac, packet))
    }

    /// Whether there is something to fetch.
    pub(super) fn has_output(&self) -> bool {
        !self.asks.is_empty() || !self.ready.is_empty()
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Works off what is due, a bounded number of timers.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(&(due, address)) = self.timers.first() else { return };
            if due > now {
                return;
            }
            self.timers.pop_first();
            self.handle_timer(now, address);
        }
    }

    fn handle_timer(&mut self, now: Instant, address: IpAddr) {
        let Some(neighbour) = self.entries.get_mut(&address) else { return };
        neighbour.due = None;
        match &mut neighbour.state {
            State::Incomplete { asks, .. } if *asks < ASKS_MAX => {
                *asks += 1;
                self.ask(address, None);
                self.set_timer(address, now + ASK_AGAIN_AFTER);
            }
            State::Incomplete { .. } => {
                let before = std::mem::replace(&mut neighbour.state, State::Unreachable);
                self.give_up(before);
                self.set_timer(address, now + UNREACHABLE_FOR);
            }
            State::Probing { mac, asks } if *asks < ASKS_MAX => {
                *asks += 1;
                let to = Some(*mac);
                self.ask(address, to);
                self.set_timer(address, now + ASK_AGAIN_AFTER);
            }
            State::Probing { .. } => {
                // It has gone, or moved without a word: ask everybody.
                neighbour.state = State::Incomplete { asks: 1, waiting: VecDeque::new() };
                self.ask(address, None);
                self.set_timer(address, now + ASK_AGAIN_AFTER);
            }
            State::Unreachable => self.remove(address),
            State::Reachable { .. } | State::Stale { .. } => {
                let forgotten = neighbour.used + FORGOTTEN_AFTER;
                if forgotten <= now {
                    self.remove(address);
                } else {
                    self.set_timer(address, forgotten);
                }
            }
            State::Static { .. } => {}
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many packets wait for answers, or to be fetched after one.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets the neighbour unused for longest if there are too many.
    fn make_room(&mut self) {
        if self.entries.len() < NEIGHBOURS_MAX {
            return;
        }
        let evictable = self.entries.iter().filter(|(_, neighbour)| neighbour.due.is_some());
        if let Some(address) = evictable.min_by_key(|(_, neighbour)| neighbour.used).map(|(address, _)| *address) {
            self.counts.evicted += 1;
            self.remove(address);
        }
    }

    fn remove(&mut self, address: IpAddr) {
        let Some(neighbour) = self.entries.remove(&address) else { return };
        if let Some(due) = neighbour.due {
            self.timers.remove(&(due, address));
        }
        self.give_up(neighbour.state);
    }

    /// Counts the packets that waited in this state as lost.
    fn give_up(&mut self, state: State) {
        if let State::Incomplete { waiting, .. } = state {
            self.waiting -= waiting.len();
            self.waiting_bytes -= waiting.iter().map(|packet| packet.bytes.len()).sum::<usize>();
            self.counts.unreachable += waiting.len() as u64;
        }
    }

    fn ask(&mut self, address: IpAddr, to: Option<MacAddress>) {
        // Where nobody fetches them the next timer asks again.
        if self.asks.len() < NEIGHBOURS_MAX {
            self.asks.push_back(Ask { address, to });
        }
    }

    fn set_timer(&mut self, address: IpAddr, due: Instant) {
        let Some(neighbour) = self.entries.get_mut(&address) else { return };
        if let Some(before) = neighbour.due.replace(due) {
            self.timers.remove(&(before, address));
        }
        self.timers.insert((due, address));
    }
}
