//! Persistence templates: which server a client stays with, and until when.
//! This file stores them; when one is made, consulted or refused is decided in `director/`.

pub mod sip;

use alloc::boxed::Box;
use core::net::IpAddr;
use core::time::Duration;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::client_group::ClientGroups;
use crate::connection::index::HashIndex;
use crate::connection::queue::{KeyedQueues, Links, Queue};
use crate::connection::store::{Handle, Store, Timed};
use crate::flow::Protocol;
use crate::reserve::Refused;
use crate::rng::Seed;
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;

/// Names one template for as long as the director lives. The id of a template that has ended finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TemplateId(Handle);

impl TemplateId {
    pub(crate) fn handle(self) -> Handle {
        self.0
    }
}

/// Whom a template is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TemplateKey {
    /// `None` for fwmark services, whose templates serve every protocol (printed `IP`).
    pub protocol: Option<Protocol>,
    /// The client's address under the service's netmask.
    pub client: IpAddr,
    /// The virtual address; for fwmark services one whose first four bytes are the mark.
    pub virtual_address: IpAddr,
    /// The virtual port; 0 if the template serves more than one.
    pub virtual_port: u16,
    /// What a persistence engine found in the packet (SIP: the Call-ID). It does not replace the addresses.
    pub engine_key: Option<Box<[u8]>>,
}

/// A client's tie to a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template {
    pub key: TemplateKey,
    pub server: ServerId,
    /// The port its connections go to; 0 keeps the packet's.
    pub real_port: u16,
    pub forward: ForwardMethod,
    /// How long it lives after a new connection was made from it.
    pub timeout: Duration,
    /// When it ends.
    pub deadline: Instant,
    /// Connections made from it that still live. While there are any it does not end.
    pub children: u32,
    /// One of them was seen to work: `drop_entry` spares it.
    pub assured: bool,
    /// Whether the client is there. A datagram's answer assures a template and proves nothing, for made-up clients are
    /// answered too.
    pub proof: Proof,
    /// Packets from the client, with one-packet scheduling.
    pub in_packets: u64,
    /// The firewall mark of the packet that made it.
    pub mark: u32,
    /// Its server is gone or quiesced: it is never found again and listed with ports 65535 until it ends.
    pub invalidated: bool,
}

/// What says that a template's client is there. The more, the later it gives way to others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Proof {
    Nothing,
    /// The client talked on after an answer, which a made-up address does too where it guesses the answer's time.
    Talk,
    /// A connection was established. Others do not make it give way.
    Handshake,
}

/// In which line a template stands that may have to make room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Line {
    /// It makes room first: its client has proved nothing, or it is of no use.
    First,
    /// It makes room where nobody stands in the first line.
    Last,
}

impl Line {
    const ALL: [Self; 2] = [Self::First, Self::Last];
}

impl Template {
    const fn line(&self) -> Option<Line> {
        match self.proof {
            _ if self.invalidated => Some(Line::First),
            Proof::Nothing => Some(Line::First),
            Proof::Talk => Some(Line::Last),
            Proof::Handshake => None,
        }
    }
}

impl Timed for Template {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn set_timer(&mut self, timeout: Duration, deadline: Instant) {
        self.timeout = timeout;
        self.deadline = deadline;
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

/// The templates of one director. All memory but the engines' keys (≤ 255 bytes each) and the
/// clients' counts is reserved at creation.
pub(crate) struct TemplateTable {
    store: Store<Template>,
    index: HashIndex,
    hasher: RandomState,
    /// Most templates of one client.
    per_client_max: u32,
    groups: ClientGroups,
    /// Templates by client, and those of them that stand in a line, in the order they were last used.
    of_client: HashMap<IpAddr, u32, RandomState>,
    lines_of_client: KeyedQueues<(Line, IpAddr)>,
    /// All that stand in a line, in the same order.
    links: Links,
    lines: [Queue; Line::ALL.len()],
}

/// Why there is no room for a template of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TemplatesFull {
    /// There are as many as the table holds, those included that have ended and were not removed yet.
    Capacity,
    /// The client has as many as one may have.
    Client,
}

/// Whether there is room for one more template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TemplateRoom {
    Free,
    /// Once this one has given way.
    After(TemplateId),
    Full(TemplatesFull),
}

impl TemplateTable {
    /// A table for `capacity` templates, of which one client, told apart by `groups`, has at most `per_client_max`.
    /// The seed keys the hash.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn try_new(
        capacity: u32,
        per_client_max: u32,
        groups: ClientGroups,
        seed: Seed,
    ) -> Result<Self, Refused> {
        let key = |part| seed.derive(part).value();
        Ok(Self {
            store: Store::try_new(capacity)?,
            index: HashIndex::try_new(capacity, capacity)?,
            hasher: RandomState::with_seeds(key(0), key(1), key(2), key(3)),
            per_client_max,
            groups,
            of_client: HashMap::with_hasher(RandomState::with_seeds(key(4), key(5), key(6), key(7))),
            lines_of_client: KeyedQueues::new(seed.derive(8)),
            links: Links::try_new(capacity)?,
            lines: [Queue::EMPTY; Line::ALL.len()],
        })
    }

    /// The same for tests.
    #[cfg(test)]
    pub(crate) fn new(capacity: u32, per_client_max: u32, groups: ClientGroups, seed: Seed) -> Self {
        let table = Self::try_new(capacity, per_client_max, groups, seed);
        table.unwrap_or_else(|Refused| panic!("there is no memory for a table"))
    }

    /// How many bytes a table for so many templates takes.
    pub(crate) fn bytes(capacity: u32) -> u64 {
        Store::<Template>::bytes(capacity) + HashIndex::bytes(capacity, capacity) + Links::bytes(capacity)
    }

    /// Whether there is room for one more template of this client, and which one gives way to it.
    pub(crate) fn room_for(&self, client: IpAddr) -> TemplateRoom {
        let client = self.groups.of(client);
        let mut lines = Line::ALL.into_iter();
        let (oldest, full) = if self.count_of(client) >= self.per_client_max {
            (lines.find_map(|line| self.lines_of_client.oldest(&(line, client))), TemplatesFull::Client)
        } else if self.store.len() == self.store.capacity() {
            let oldest = lines.find_map(|line| self.links.oldest_first(&self.lines[line as usize]).next());
            (oldest, TemplatesFull::Capacity)
        } else {
            return TemplateRoom::Free;
        };
        let gives_way = oldest.and_then(|place| self.at(place));
        gives_way.map_or(TemplateRoom::Full(full), |(id, _)| TemplateRoom::After(id))
    }

    /// The live template with this key, the newest if there are several; never an invalidated one.
    pub(crate) fn find(&self, now: Instant, key: &TemplateKey) -> Option<TemplateId> {
        self.index
            .with_hash(self.hasher.hash_one(key))
            .filter_map(|place| self.store.at(place))
            .find(|(_, template)| template.deadline > now && template.key == *key)
            .map(|(handle, _)| TemplateId(handle))
    }

    /// Adds a template that ends its `timeout` after `now`; what its `deadline` said is overwritten.
    /// On `Err` nothing has changed.
    /// Who gives way to it has done so already: see [`TemplateTable::room_for`].
    pub(crate) fn insert(&mut self, now: Instant, template: Template) -> Result<TemplateId, TemplatesFull> {
        let deadline = now + template.timeout;
        self.insert_until(template, deadline)
    }

    /// The same of a template that ends at `deadline`, unless it is used.
    pub(crate) fn insert_until(
        &mut self,
        mut template: Template,
        deadline: Instant,
    ) -> Result<TemplateId, TemplatesFull> {
        let client = self.groups.of(template.key.client);
        if self.count_of(client) >= self.per_client_max {
            return Err(TemplatesFull::Client);
        }
        let hash = self.hasher.hash_one(&template.key);
        let (is_found, line) = (!template.invalidated, template.line());
        template.deadline = deadline;
        let handle = self.store.insert(template).ok_or(TemplatesFull::Capacity)?;
        if is_found {
            self.index.insert(handle.index, hash);
        }
        *self.of_client.entry(client).or_insert(0) += 1;
        self.file(handle.index, client, (None, line));
        Ok(TemplateId(handle))
    }

    /// The template's client is there, as far as this proves it.
    pub(crate) fn prove(&mut self, id: TemplateId, proof: Proof) {
        self.change(id, |template| template.proof = template.proof.max(proof));
    }

    /// Changes what a template's line follows from.
    fn change(&mut self, id: TemplateId, change: impl FnOnce(&mut Template)) {
        let Some(template) = self.store.get_mut(id.0) else { return };
        let before = template.line();
        change(template);
        let (after, client) = (template.line(), template.key.client);
        if before != after {
            self.file(id.0.index, self.groups.of(client), (before, after));
        }
    }

    /// One more connection hangs on the template, or comes from it and is gone again: others give way before it.
    /// Returns whether it is still there.
    pub(crate) fn renew(&mut self, id: TemplateId, now: Instant) -> bool {
        let Some(template) = self.store.get(id.0) else { return false };
        let (timeout, client, line) = (template.timeout, self.groups.of(template.key.client), template.line());
        if line.is_some() {
            self.file(id.0.index, client, (line, line));
        }
        self.rearm(id, now, timeout)
    }

    fn count_of(&self, client: IpAddr) -> u32 {
        self.of_client.get(&client).copied().unwrap_or(0)
    }

    /// Takes a template out of the line it stands in, and puts it at the end of another or the same.
    fn file(&mut self, place: u32, client: IpAddr, (before, after): (Option<Line>, Option<Line>)) {
        for (line, is_in) in [(before, false), (after, true)] {
            let Some(line) = line else { continue };
            self.links.set(&mut self.lines[line as usize], place, is_in);
            self.lines_of_client.set((line, client), place, is_in);
        }
    }

    /// Templates that are not proven.
    pub(crate) fn unproven_len(&self) -> u32 {
        self.lines[Line::First as usize].len()
    }

    /// Templates that others make give way, sooner or later.
    pub(crate) fn in_line_len(&self) -> u32 {
        self.lines.iter().map(Queue::len).sum()
    }

    /// Removes a template; `None` if it is gone.
    pub(crate) fn remove(&mut self, id: TemplateId) -> Option<Template> {
        let template = self.store.remove(id.0)?;
        if !template.invalidated {
            self.index.remove(id.0.index);
        }
        let client = self.groups.of(template.key.client);
        self.file(id.0.index, client, (template.line(), None));
        if let Some(count) = self.of_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.of_client.remove(&client);
            }
        }
        Some(template)
    }

    /// Makes a template unfindable: it keeps its place, timer and counts, and its ports become 65535. As it is of no use
    /// to anybody, others make it give way. Returns whether it is still there.
    pub(crate) fn invalidate(&mut self, id: TemplateId) -> bool {
        let Some(template) = self.store.get(id.0) else { return false };
        if !template.invalidated {
            self.index.remove(id.0.index);
            self.change(id, |template| {
                template.invalidated = true;
                template.key.virtual_port = INVALIDATED_PORT;
                template.real_port = INVALIDATED_PORT;
            });
        }
        true
    }

    /// The template, unless it is gone. It may have ended: see its `deadline`.
    pub(crate) fn get(&self, id: TemplateId) -> Option<&Template> {
        self.store.get(id.0)
    }

    /// The template, unless it is gone. Its key, timer, proof and invalidation are not for the caller to write.
    pub(crate) fn get_mut(&mut self, id: TemplateId) -> Option<&mut Template> {
        self.store.get_mut(id.0)
    }

    /// Restarts a template's timer with this timeout. Returns whether it is still there.
    pub(crate) fn rearm(&mut self, id: TemplateId, now: Instant, timeout: Duration) -> bool {
        self.store.rearm(id.0, now, timeout)
    }

    /// The next template that has ended; the caller removes it or, if it has children, restarts its timer.
    /// Each step costs one unit of `budget`; `None` if nothing has ended or the budget ran out.
    pub(crate) fn pop_expired(&mut self, now: Instant, budget: &mut u32) -> Option<TemplateId> {
        self.store.pop_expired(now, budget).map(TemplateId)
    }

    /// Whether any template in the table may have ended: `false` promises that none has, to the nanosecond.
    pub(crate) fn may_have_expired(&self, now: Instant) -> bool {
        self.store.may_have_expired(now)
    }

    /// When to call [`TemplateTable::pop_expired`] next; `None` only while the table is empty.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.store.next_deadline()
    }

    /// Templates in the table, those that have ended and were not removed yet included.
    pub(crate) fn len(&self) -> u32 {
        self.store.len()
    }

    /// The most templates there can be.
    pub(crate) fn capacity(&self) -> u32 {
        self.store.capacity()
    }

    /// Places there are, empty ones included.
    pub(crate) fn places(&self) -> u32 {
        self.store.places()
    }

    /// All templates in the order of their places, those that have ended and were not removed yet included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TemplateId, &Template)> {
        self.store.iter().map(|(handle, template)| (TemplateId(handle), template))
    }

    /// The template in place `place` of `0..capacity`, if there is one: for random samples (`drop_entry`).
    pub(crate) fn at(&self, place: u32) -> Option<(TemplateId, &Template)> {
        self.store.at(place).map(|(handle, template)| (TemplateId(handle), template))
    }
}

/// The port an invalidated template is listed with, as Linux does.
pub(crate) const INVALIDATED_PORT: u16 = 65535;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn template(client: &str) -> Template {
        Template {
            key: TemplateKey {
                protocol: Some(Protocol::Tcp),
                client: client.parse().unwrap(),
                virtual_address: "192.0.2.80".parse().unwrap(),
                virtual_port: 80,
                engine_key: None,
            },
            server: ServerId(1),
            real_port: 8080,
            forward: ForwardMethod::Nat,
            timeout: MINUTE,
            deadline: Instant::ZERO,
            children: 0,
            assured: false,
            proof: Proof::Nothing,
            in_packets: 0,
            mark: 0,
            invalidated: false,
        }
    }

    fn table(capacity: u32) -> TemplateTable {
        TemplateTable::new(capacity, capacity, ClientGroups::new(64), Seed::new(1))
    }

    #[test]
    fn a_template_is_found_by_every_part_of_its_key_until_its_time_is_over() {
        let start = Instant::from_secs(10);
        let mut table = table(4);
        let key = template("198.51.100.0").key;
        let id = table.insert(start, template("198.51.100.0")).unwrap();
        assert_eq!(table.find(start, &key), Some(id));
        let others = [
            TemplateKey { protocol: None, ..key.clone() },
            TemplateKey { protocol: Some(Protocol::Udp), ..key.clone() },
            TemplateKey { client: "198.51.101.0".parse().unwrap(), ..key.clone() },
            TemplateKey { virtual_address: "192.0.2.81".parse().unwrap(), ..key.clone() },
            TemplateKey { virtual_port: 0, ..key.clone() },
            TemplateKey { engine_key: Some(Box::from(*b"a@b")), ..key.clone() },
        ];
        for other in others {
            assert_eq!(table.find(start, &other), None, "{other:?}");
        }
        assert_eq!(table.find(start + MINUTE, &key), None);
        table.rearm(id, start + MINUTE / 2, MINUTE);
        assert_eq!(table.find(start + MINUTE, &key), Some(id));
    }

    #[test]
    fn an_invalidated_template_stays_listed_until_its_time_is_over_and_is_never_found() {
        let start = Instant::from_secs(10);
        let mut table = table(4);
        let old = table.insert(start, template("198.51.100.7")).unwrap();
        assert!(table.invalidate(old) && table.invalidate(old));
        assert_eq!(table.find(start, &template("198.51.100.7").key), None);
        assert_eq!(table.find(start, &table.get(old).unwrap().key), None);
        let new = table.insert(start, template("198.51.100.7")).unwrap();
        assert_eq!(table.find(start, &template("198.51.100.7").key), Some(new));
        let ports: alloc::vec::Vec<_> =
            table.iter().map(|(_, listed)| (listed.key.virtual_port, listed.real_port)).collect();
        assert_eq!(ports, [(65535, 65535), (80, 8080)]);

        let mut budget = 100;
        assert_eq!(table.pop_expired(start + MINUTE, &mut budget), Some(old));
        table.remove(old);
        assert_eq!(table.pop_expired(start + MINUTE, &mut budget), Some(new));
        table.remove(new);
        assert_eq!((table.len(), table.next_deadline()), (0, None));
    }

    #[test]
    fn a_full_table_takes_no_template_and_keeps_those_it_has() {
        let start = Instant::from_secs(10);
        let mut table = table(1);
        let id = table.insert(start, template("198.51.100.7")).unwrap();
        table.prove(id, Proof::Handshake);
        assert_eq!(table.insert(start, template("198.51.100.8")), Err(TemplatesFull::Capacity));
        assert_eq!(table.room_for("198.51.100.8".parse().unwrap()), TemplateRoom::Full(TemplatesFull::Capacity));
        assert_eq!(table.find(start, &template("198.51.100.7").key), Some(id));
    }

    #[test]
    fn the_one_that_is_not_proven_and_was_used_longest_ago_gives_way() {
        let start = Instant::from_secs(10);
        let mut table = table(3);
        let [a, b, c] = ["198.51.100.1", "198.51.100.2", "198.51.100.3"]
            .map(|client| table.insert(start, template(client)).unwrap());
        let newcomer = || "198.51.100.9".parse().unwrap();
        assert_eq!(table.room_for(newcomer()), TemplateRoom::After(a));
        table.prove(a, Proof::Handshake);
        table.renew(b, start);
        assert_eq!(table.room_for(newcomer()), TemplateRoom::After(c));
        table.remove(c);
        assert_eq!((table.room_for(newcomer()), table.unproven_len()), (TemplateRoom::Free, 1));
    }

    #[test]
    fn a_client_at_its_bound_gives_way_to_itself_only() {
        let start = Instant::from_secs(10);
        let mut table = TemplateTable::new(9, 2, ClientGroups::new(64), Seed::new(1));
        let client = |n: u8| alloc::format!("2001:db8:0:1::{n}");
        table.insert(start, template("2001:db8:0:2::1")).unwrap();
        let [one, two] = [1, 2].map(|n| table.insert(start, template(&client(n))).unwrap());
        let third = || client(3).parse().unwrap();
        assert_eq!(table.room_for(third()), TemplateRoom::After(one));
        [one, two].into_iter().for_each(|id| table.prove(id, Proof::Handshake));
        assert_eq!(table.room_for(third()), TemplateRoom::Full(TemplatesFull::Client));
        assert_eq!(table.insert(start, template(&client(3))), Err(TemplatesFull::Client));
        assert_eq!(table.room_for("2001:db8:0:3::1".parse().unwrap()), TemplateRoom::Free);
        table.remove(two);
        assert!(table.insert(start, template(&client(3))).is_ok());
    }
}
