//! Persistence templates: which server a client stays with, and until when.
//! This file stores them; when one is made, consulted or refused is decided in `director/`.

pub mod sip;

use alloc::boxed::Box;
use core::net::IpAddr;
use core::time::Duration;

use ahash::RandomState;

use crate::connection::index::HashIndex;
use crate::connection::store::{Handle, Store, Timed};
use crate::flow::Protocol;
use crate::rng::Seed;
use crate::service::{ForwardMethod, ServerId};
use crate::time::Instant;

/// Names one template for as long as the director lives. The id of a template that has ended finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TemplateId(Handle);

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
    /// Packets from the client, with one-packet scheduling.
    pub in_packets: u64,
    /// The firewall mark of the packet that made it.
    pub mark: u32,
    /// Its server is gone or quiesced: it is never found again and listed with ports 65535 until it ends.
    pub invalidated: bool,
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

/// The templates of one director. All memory but the engines' keys (≤ 255 bytes each) is reserved at creation.
pub(crate) struct TemplateTable {
    store: Store<Template>,
    index: HashIndex,
    hasher: RandomState,
}

/// There are as many templates as the table holds, those included that have ended and were not removed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TemplateTableFull;

impl TemplateTable {
    /// A table for `capacity` templates. The seed keys the hash.
    pub(crate) fn new(capacity: u32, seed: Seed) -> Self {
        let key = |part| seed.derive(part).value();
        Self {
            store: Store::new(capacity),
            index: HashIndex::new(capacity, capacity),
            hasher: RandomState::with_seeds(key(0), key(1), key(2), key(3)),
        }
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
    pub(crate) fn insert(&mut self, now: Instant, mut template: Template) -> Result<TemplateId, TemplateTableFull> {
        let hash = self.hasher.hash_one(&template.key);
        let is_found = !template.invalidated;
        template.deadline = now + template.timeout;
        let handle = self.store.insert(template).ok_or(TemplateTableFull)?;
        if is_found {
            self.index.insert(handle.index, hash);
        }
        Ok(TemplateId(handle))
    }

    /// Removes a template; `None` if it is gone.
    pub(crate) fn remove(&mut self, id: TemplateId) -> Option<Template> {
        let template = self.store.remove(id.0)?;
        if !template.invalidated {
            self.index.remove(id.0.index);
        }
        Some(template)
    }

    /// Makes a template unfindable: it keeps its place, timer and counts, and its ports become 65535.
    /// Returns whether it is still there.
    pub(crate) fn invalidate(&mut self, id: TemplateId) -> bool {
        let Some(template) = self.store.get_mut(id.0) else { return false };
        if !core::mem::replace(&mut template.invalidated, true) {
            template.key.virtual_port = INVALIDATED_PORT;
            template.real_port = INVALIDATED_PORT;
            self.index.remove(id.0.index);
        }
        true
    }

    /// The template, unless it is gone. It may have ended: see its `deadline`.
    pub(crate) fn get(&self, id: TemplateId) -> Option<&Template> {
        self.store.get(id.0)
    }

    /// The template, unless it is gone. Its key, timer and invalidation are not for the caller to write.
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
            in_packets: 0,
            mark: 0,
            invalidated: false,
        }
    }

    #[test]
    fn a_template_is_found_by_every_part_of_its_key_until_its_time_is_over() {
        let start = Instant::from_secs(10);
        let mut table = TemplateTable::new(4, Seed::new(1));
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
        let mut table = TemplateTable::new(4, Seed::new(1));
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
        let mut table = TemplateTable::new(1, Seed::new(1));
        let id = table.insert(start, template("198.51.100.7")).unwrap();
        assert_eq!(table.insert(start, template("198.51.100.8")), Err(TemplateTableFull));
        assert_eq!(table.find(start, &template("198.51.100.7").key), Some(id));
    }
}
