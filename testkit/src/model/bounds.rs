//! Who gives way where a table is full, in the plainest words: the oldest half-open connection; of the flows of
//! datagrams that have proved nothing, one of the first four; then what is over, then of the flows whose clients have
//! talked on one of the first sixteen; the template used longest ago whose client has proved nothing, then whose client has
//! talked.

use std::net::IpAddr;

use lvs_core::{DropReason, Protocol};

use super::{Connection, Model, Template};

/// How much there may be. By default, more than any run needs.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections.
    pub connections: usize,
    /// Of them, half-open ones.
    pub half_open: usize,
    /// Templates.
    pub templates: usize,
    /// Templates of one client.
    pub client_templates: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: usize::MAX, half_open: usize::MAX, templates: usize::MAX, client_templates: usize::MAX }
    }
}

/// What has to end before a connection is opened.
#[derive(Default)]
pub(super) struct Room {
    half_open: Option<usize>,
    place: Option<usize>,
    template: Option<u32>,
}

impl Model {
    /// Who gives way to a connection of this client, which makes a template or not.
    pub(super) fn room(&self, client: IpAddr, makes_template: bool, is_syn: bool) -> Result<Room, DropReason> {
        let mut room = Room::default();
        if makes_template {
            let of_client = |known: &&Template| same_client(known.client, client);
            let own = self.templates.iter().filter(of_client);
            room.template = if own.clone().count() >= self.bounds.client_templates {
                Some(longest_unused(own).ok_or(DropReason::ClientTemplatesFull)?)
            } else if self.templates.len() >= self.bounds.templates {
                Some(longest_unused(self.templates.iter()).ok_or(DropReason::TemplateTableFull)?)
            } else {
                None
            };
        }
        if is_syn && self.half_open().len() >= self.bounds.half_open {
            room.half_open = self.half_open().first().copied();
        }
        if self.connections.len() >= self.bounds.connections && room.half_open.is_none() {
            let over = || self.in_line(|known| is_over(known.state)).first().copied();
            let giving = self.idlest().or_else(over).or_else(|| self.idlest_talked());
            room.place = Some(giving.ok_or(DropReason::ConnectionTableFull)?);
        }
        Ok(room)
    }

    /// Ends what gives way, but not the template `kept`.
    pub(super) fn make_room(&mut self, room: &Room, kept: Option<u32>) {
        if let Some(index) = room.half_open.or(room.place) {
            self.evict(index, kept);
        }
        // With the connection it may have gone already.
        self.templates.retain(|known| Some(known.name) != room.template);
    }

    /// Ends a connection for another one, and its template with it, if that is of no use to anybody else.
    pub(super) fn evict(&mut self, index: usize, kept: Option<u32>) {
        if self.connections[index].protocol == Protocol::Udp {
            let is_talked = self.connections[index].heard == 2;
            let (line, compared) = if is_talked { (self.talked(), 16) } else { (self.unproven(), 4) };
            let passed_over = line.into_iter().take(compared).take_while(|other| *other != index);
            for other in passed_over.collect::<Vec<_>>() {
                self.connections[other].came = self.next_turn();
            }
        }
        let template = self.connections[index].template;
        self.end(index);
        let Some(name) = template.filter(|name| Some(*name) != kept && self.children(*name) == 0) else { return };
        self.templates.retain(|known| known.name != name || known.is_assured);
    }

    /// The half-open connections, the one that came first first.
    pub(super) fn half_open(&self) -> Vec<usize> {
        self.in_line(|known| is_half_open(known.state))
    }

    fn unproven(&self) -> Vec<usize> {
        self.in_line(|known| known.protocol == Protocol::Udp && known.heard < 2)
    }

    fn talked(&self) -> Vec<usize> {
        self.in_line(|known| known.protocol == Protocol::Udp && known.heard == 2)
    }

    fn last_use(&self, index: usize) -> u64 {
        self.connections[index].deadline_s - self.connections[index].timeout_s
    }

    fn idlest_talked(&self) -> Option<usize> {
        self.talked().into_iter().take(16).min_by_key(|index| self.last_use(*index))
    }

    /// The newcomer that has been silent longest.
    fn idlest(&self) -> Option<usize> {
        let last_use = |index: &usize| self.last_use(*index);
        let mut first_four = self.unproven().into_iter().take(4);
        let unused = first_four.clone().find(|index| self.connections[*index].packets <= 1);
        let unproven = unused.or_else(|| {
            let first = first_four.next()?;
            Some(first_four.fold(first, |least, other| if last_use(&other) < last_use(&least) { other } else { least }))
        });
        let half_open = self.half_open().first().copied();
        match (half_open, unproven) {
            (Some(one), Some(other)) => Some(if last_use(&other) < last_use(&one) { other } else { one }),
            (one, other) => one.or(other),
        }
    }

    fn in_line(&self, is_it: impl Fn(&Connection) -> bool) -> Vec<usize> {
        let mut found: Vec<_> = (0..self.connections.len()).filter(|index| is_it(&self.connections[*index])).collect();
        found.sort_by_key(|index| self.connections[*index].came);
        found
    }

    /// A number above all that were given before.
    pub(super) fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// The template's client talks on.
    pub(super) fn note_talk(&mut self, template: Option<u32>) {
        let turn = self.next_turn();
        let known = self.templates.iter_mut().find(|known| Some(known.name) == template);
        if let Some(known) = known.filter(|known| !known.is_talked) {
            known.is_talked = true;
            if !known.is_proven && !known.is_invalid {
                known.used = turn;
            }
        }
    }
}

/// TCP that only waits to be forgotten.
pub(super) fn is_over(state: &str) -> bool {
    ["TW", "CL"].contains(&state)
}

/// TCP that has not come about.
pub(super) fn is_half_open(state: &str) -> bool {
    ["NO", "SR", "SA"].contains(&state)
}

fn longest_unused<'a>(templates: impl Iterator<Item = &'a Template> + Clone) -> Option<u32> {
    let first = |known: &&Template| known.is_invalid || !(known.is_proven || known.is_talked);
    let last = |known: &&Template| known.is_invalid || !known.is_proven;
    let longest = |templates: &mut dyn Iterator<Item = &'a Template>| templates.min_by_key(|known| known.used);
    let unproven = longest(&mut templates.clone().filter(first));
    unproven.or_else(|| longest(&mut templates.filter(last))).map(|known| known.name)
}

/// An IPv6 client has a whole /64.
fn same_client(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V6(one), IpAddr::V6(other)) => one.octets()[..8] == other.octets()[..8],
        (one, other) => one == other,
    }
}
