//! Parts of datagrams: kept, sent after their first one, or put together and handled whole.

use crate::director::Director;
use crate::director::decide::classify::Route;
use crate::director::decide::fragment::Fate;
use crate::director::outbox::Packet;
use crate::drop_reason::DropReason;
use crate::event::Table;
use crate::flow::Protocol;
use crate::fragment::{DatagramId, DatagramKey, Decision, Fit, GivenUp, Part};
use crate::packet::{HEADROOM, PacketBuf};
use crate::service::ForwardMethod;
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::parse::{self, FragmentPart, Headers};
use crate::wire::reassembly::Assembly;

impl Director {
    /// A packet with a fragment header.
    pub(in crate::director) fn fragment(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
    ) -> Verdict {
        let Some(part) = headers.fragment else { return Verdict::Pass };
        match self.tables().fragment_fate(now, packet, headers, &part) {
            Fate::Pass => Verdict::Pass,
            Fate::Drop(reason) => {
                if reason == DropReason::FragmentTableFull {
                    self.tell_full(Table::Fragments);
                }
                Verdict::Drop(reason)
            }
            Fate::First => self.first_fragment(now, packet, headers, &part),
            Fate::Follow(id, end) => {
                self.note_part(id, headers, &part);
                self.follow(packet, headers, &end)
            }
            Fate::PassedOn(id) => {
                self.note_part(id, headers, &part);
                Verdict::Pass
            }
            Fate::Wait => match self.wait(now, packet, headers, &part) {
                Ok(()) => Verdict::Held,
                Err(reason) => Verdict::Drop(reason),
            },
        }
    }

    fn first_fragment(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        part: &FragmentPart,
    ) -> Verdict {
        if !is_tracked(headers, part) {
            return self.whole_packet(now, packet, headers, |_| ()).0;
        }
        let id = self.place_for_first(now, packet, headers, part);
        let (verdict, flow) = self.whole_packet(now, packet, headers, |plan| plan.route().copied());
        let decision = match (verdict, flow) {
            (Verdict::Forward { .. }, Some(end)) => Decision::Follow(end),
            (Verdict::Pass, _) => Decision::Pass,
            (Verdict::Drop(reason), _) => Decision::Drop(reason),
            _ => Decision::Drop(DropReason::FirstFragmentRefused),
        };
        let id = match (id, decision) {
            // Nobody waits for what is not ours: without a memory of it, its other parts go the same way.
            (None, Decision::Pass) => return verdict,
            (None, _) => self.remember(now, headers, part, decision),
            (id, _) => id,
        };
        let Some(id) = id else { return verdict };
        let is_proved = flow.is_some_and(|end| end.direction == Direction::Reply);
        self.fragments.memory.decide(id, decision, is_proved);
        let is_complete = self.fragments.memory.note(id, headers, part);
        let waiting = self.fragments.memory.take_waiting(id);
        if let Err((reason, count)) = self.outlet.outbox.push_parts(waiting, decision) {
            self.count_drops(reason, count);
        }
        if is_complete {
            self.forget_datagram(id);
        }
        self.count_given_up();
        verdict
    }

    /// The place of a first part's datagram, if it may be ours: the one of parts that wait for it, or a new one.
    fn place_for_first(
        &mut self,
        now: Instant,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        part: &FragmentPart,
    ) -> Option<DatagramId> {
        let memory = &self.fragments.memory;
        let key = DatagramKey::of(headers, part);
        if let Some(id) = memory.find(now, &key) {
            let is_open = matches!(memory.decision(id), Decision::Open);
            if is_open && memory.fit(id, packet.bytes(), headers, part) == Fit::Fits {
                return Some(id);
            }
            self.abandon(id);
        }
        let is_maybe_ours = self.tables().is_maybe_ours(headers, packet.mark);
        is_maybe_ours.then(|| self.remember(now, headers, part, Decision::Open)).flatten()
    }

    fn remember(
        &mut self,
        now: Instant,
        headers: &Headers,
        part: &FragmentPart,
        decision: Decision<Route>,
    ) -> Option<DatagramId> {
        let is_server = self.services.servers.has_address(headers.source);
        self.fragments.memory.remember(now, (DatagramKey::of(headers, part), is_server), decision)
    }

    /// A part that waited goes the way of its datagram's first fragment.
    pub(in crate::director) fn release(&mut self, part: Part, decision: Decision<Route>) -> Packet {
        let Part { mut storage, mark, .. } = part;
        let len = storage.len() - HEADROOM;
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
        packet.mark = mark;
        let verdict = match (decision, parse::parse(packet.bytes())) {
            (Decision::Follow(end), Ok(headers)) => self.follow(&mut packet, &headers, &end),
            (Decision::Pass, _) => Verdict::Pass,
            (Decision::Drop(reason), _) | (_, Err(reason)) => Verdict::Drop(reason),
            _ => Verdict::Drop(DropReason::FirstFragmentRefused),
        };
        let (start, len) = (packet.start(), packet.len());
        if matches!(verdict, Verdict::Reply { .. }) {
            self.spend_answer(&storage[start..start + len]);
        }
        Packet { storage, start, len, mark, verdict }
    }

    /// A later fragment of a datagram whose first one was forwarded.
    fn follow(&mut self, packet: &mut PacketBuf<'_>, headers: &Headers, end: &Route) -> Verdict {
        let payload = (headers.packet_len - headers.transport) as u64;
        if end.direction == Direction::Request {
            self.count_in(end.server, 0, payload);
        }
        let verdict = self.send_along(end, packet, headers);
        if end.direction == Direction::Reply && matches!(verdict, Verdict::Forward { .. }) {
            self.count_out(end.server, 0, payload);
        }
        verdict
    }

    fn note_part(&mut self, id: DatagramId, headers: &Headers, part: &FragmentPart) {
        if self.fragments.memory.note(id, headers, part) {
            self.forget_datagram(id);
        }
    }

    /// Keeps a fragment; handles the datagram once all parts of one that is collected are there.
    fn wait(
        &mut self,
        now: Instant,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        part: &FragmentPart,
    ) -> Result<(), DropReason> {
        let key = DatagramKey::of(headers, part);
        let known = self.fragments.memory.find(now, &key).filter(|id| self.is_joined_by(*id, packet, headers, part));
        let id = match known {
            Some(id) => id,
            None => {
                let is_collected = self.tables().is_needed_whole(headers, part, packet.mark);
                let decision = if is_collected { Decision::Collecting } else { Decision::Open };
                self.remember(now, headers, part, decision).ok_or(DropReason::FragmentTableFull)?
            }
        };
        let memory = &mut self.fragments.memory;
        if !matches!(memory.decision(id), Decision::Collecting) {
            memory.wait(id, packet, headers, part)?;
            memory.note(id, headers, part);
        } else if memory.collect(id, packet, headers)? {
            let (assembly, mark) = memory.take_assembly(id);
            self.forget_datagram(id);
            self.handle_joined(now, &assembly, mark);
        }
        self.count_given_up();
        Ok(())
    }

    /// Whether a part that is to wait belongs to this datagram; one that it contradicts is abandoned.
    fn is_joined_by(&mut self, id: DatagramId, packet: &PacketBuf<'_>, headers: &Headers, part: &FragmentPart) -> bool {
        let memory = &self.fragments.memory;
        let is_waiting = matches!(memory.decision(id), Decision::Open | Decision::Collecting);
        let is_joined = is_waiting && memory.fit(id, packet.bytes(), headers, part) == Fit::Fits;
        if !is_joined {
            self.abandon(id);
        }
        is_joined
    }

    /// Handles a datagram put together, and sends it in pieces no longer than those it came in.
    fn handle_joined(&mut self, now: Instant, assembly: &Assembly, mark: u32) {
        let mut storage = alloc::vec![0; HEADROOM];
        if let Err(reason) = assembly.join(&mut storage) {
            return self.count_drop(reason);
        }
        let longest = assembly.longest();
        let len = storage.len() - HEADROOM;
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
        packet.mark = mark;
        let (verdict, flow) = match parse::parse(packet.bytes()) {
            Ok(headers) => self.whole_packet(now, &mut packet, &headers, |plan| plan.route().copied()),
            Err(reason) => (Verdict::Drop(reason), None),
        };
        let (start, len) = (packet.start(), packet.len());
        let is_tunnelled = flow.is_some_and(|flow| flow.path.method == ForwardMethod::Tunnel);
        let verdict = match verdict {
            // A tunnel's packets are our own: how the client cut the datagram says nothing about their way.
            Verdict::Forward { next_hop, direction, mtu } if !is_tunnelled => {
                Verdict::Forward { next_hop, direction, mtu: mtu.min(u16::try_from(longest).unwrap_or(u16::MAX)) }
            }
            other => other,
        };
        self.transmit_later(storage, (start, len), mark, verdict);
    }

    /// Forgets a datagram; how many of its parts were waiting.
    fn forget_datagram(&mut self, id: DatagramId) -> u32 {
        let parts = self.fragments.memory.forget(id);
        if self.fragments.memory.is_relaxed() {
            self.outlet.full_announced[Table::Fragments as usize] = false;
        }
        parts
    }

    /// Forgets a datagram of whose number there is another one.
    fn abandon(&mut self, id: DatagramId) {
        let parts = self.forget_datagram(id);
        self.count_drops(DropReason::OverlappingFragment, parts);
    }

    /// Counts what gave way to others.
    fn count_given_up(&mut self) {
        let GivenUp { datagrams, parts } = self.fragments.memory.take_given_up();
        self.defence.datagrams_given_up += u64::from(datagrams);
        self.count_drops(DropReason::FragmentTableFull, parts);
        if datagrams > 0 {
            self.tell_full(Table::Fragments);
        }
    }

    /// Forgets datagrams whose parts did not come in time.
    pub(in crate::director) fn expire_fragments(&mut self, now: Instant, budget: &mut u32) {
        while let Some(id) = self.fragments.memory.pop_expired(now, budget) {
            let parts = self.forget_datagram(id);
            *budget = budget.saturating_sub(parts);
            self.count_drops(DropReason::FragmentTimeout, parts);
        }
    }
}

/// Whether the rest of this first fragment's datagram will follow it.
fn is_tracked(headers: &Headers, part: &FragmentPart) -> bool {
    part.more && Protocol::from_number(headers.protocol).is_some()
}
