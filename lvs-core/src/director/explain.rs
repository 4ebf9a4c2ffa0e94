//! Explaining a packet: `decide`, with every step told, and its plan written into a copy. No decision is made here.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::connection::Connection;
use crate::director::decide::fragment::Fate;
use crate::director::plan::Act;
use crate::director::plan::Plan;
use crate::director::plan::Sending;
use crate::director::schedulers::Lend;
use crate::director::tables::Tables;
use crate::director::view::connection_view;
use crate::explanation::{Explanation, PassReason, Step};
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::full_nat::client_address::UOA_PROTOCOL;
use crate::packet::PacketBuf;
use crate::verdict::Verdict;
use crate::wire::parse::{self, Headers};
use crate::wire::read_u16;

impl Tables<'_> {
    pub(super) fn explain_packet(&self, packet: &PacketBuf<'_>, schedulers: &mut dyn Lend) -> Explanation {
        let mut storage = alloc::vec![0; packet.headroom() + packet.len() + packet.tailroom()];
        let start = packet.headroom();
        storage[start..start + packet.len()].copy_from_slice(packet.bytes());
        let mut copy = PacketBuf::new(&mut storage, start, packet.len());
        (copy.offload, copy.mark, copy.from_host) = (packet.offload, packet.mark, packet.from_host);
        let mut steps = Vec::new();
        let verdict = match parse::parse(packet.bytes()) {
            Ok(headers) => {
                steps.push(arrival(packet, &headers));
                self.explain_parsed(&mut copy, &headers, schedulers, &mut steps)
            }
            Err(reason) => Verdict::Drop(reason),
        };
        match verdict {
            Verdict::Drop(reason) => steps.push(Step::Dropped(reason)),
            Verdict::Reply { .. } => steps.extend(answer(copy.bytes())),
            _ => {}
        }
        let bytes = copy.bytes().to_vec();
        tell_changes(&mut steps, packet.bytes(), &bytes, verdict);
        Explanation { steps, verdict, bytes }
    }

    fn explain_parsed(
        &self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        schedulers: &mut dyn Lend,
        steps: &mut Vec<Step>,
    ) -> Verdict {
        let Some(part) = headers.fragment else { return self.explain_whole(packet, headers, schedulers, steps) };
        match self.fragment_fate(self.now, packet, headers, &part) {
            Fate::Pass | Fate::PassedOn(_) => {
                steps.push(Step::Passed(PassReason::UnknownFragment));
                Verdict::Pass
            }
            Fate::Drop(reason) => Verdict::Drop(reason),
            Fate::First => self.explain_whole(packet, headers, schedulers, steps),
            Fate::Wait => {
                steps.push(Step::FragmentWaits);
                Verdict::Held
            }
            Fate::Follow(_, route) => {
                steps.push(Step::FollowsFirstFragment);
                self.write_route(&route, packet, headers)
            }
        }
    }

    fn explain_whole(
        &self,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        schedulers: &mut dyn Lend,
        steps: &mut Vec<Step>,
    ) -> Verdict {
        let classified = self.classify(self.now, packet, headers);
        let plan = self.decide(classified, packet, headers, schedulers, steps);
        let said = self.said(&plan, packet);
        let verdict = self.write(&plan.act, packet, headers);
        match &plan.act {
            Act::Send(..) | Act::SendOnce(_) => self.tell_sent(&plan, verdict, said, steps),
            Act::RefuseReply if verdict == Verdict::Pass => steps.push(Step::Passed(PassReason::LastHop)),
            _ => {}
        }
        verdict
    }

    /// What a helper is about to replace, and by what.
    fn said(&self, plan: &Plan, packet: &PacketBuf<'_>) -> Option<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let help = sending(&plan.act)?.help.as_ref()?.as_ref().ok()?;
        let (range, said) = help.edit.as_ref()?;
        Some((text(&packet.bytes()[range.clone()]), text(said)))
    }

    /// Tells what comes of a packet that was sent.
    fn tell_sent(&self, plan: &Plan, verdict: Verdict, said: Option<(String, String)>, steps: &mut Vec<Step>) {
        let Some(sending) = sending(&plan.act) else { return };
        if let Some(help) = sending.heard_help(verdict) {
            let expected = help.expected.as_ref().map(|connection| {
                let ends = Connection { deadline: self.now + connection.timeout, ..connection.clone() };
                connection_view(&ends, self.now)
            });
            if expected.is_some() || said.is_some() {
                steps.push(Step::Helped { expected, said });
            }
        }
        let connection = match (&plan.act, &plan.opening) {
            (_, Some(opening)) => Some(&opening.connection),
            (Act::Send(id, _), None) => id.and_then(|id| self.flows.connections.get(id)),
            _ => None,
        };
        let moved = sending.moved.filter(|_| sending.is_counted(verdict));
        if let (Some(connection), Some(moved)) = (connection, moved) {
            steps.push(self.state_step(connection, moved));
        }
    }
}

fn sending(act: &Act) -> Option<&Sending> {
    match act {
        Act::Send(_, sending) | Act::SendOnce(sending) => Some(sending),
        _ => None,
    }
}
fn arrival(packet: &PacketBuf<'_>, headers: &Headers) -> Step {
    let (source, destination) = ports(headers, packet.bytes()).unwrap_or((0, 0));
    Step::Packet {
        source: Endpoint::new(headers.source, source),
        destination: Endpoint::new(headers.destination, destination),
        protocol: headers.protocol,
        len: headers.packet_len,
    }
}

/// The ports of protocols that have them, also behind the header by which UOA says whose a datagram is.
fn ports(headers: &Headers, bytes: &[u8]) -> Option<(u16, u16)> {
    if headers.protocol != UOA_PROTOCOL {
        return headers.ports(bytes).filter(|_| Protocol::from_number(headers.protocol).is_some());
    }
    let transport = headers.transport + usize::from(read_u16(bytes, headers.transport + 2)?);
    Some((read_u16(bytes, transport)?, read_u16(bytes, transport + 2)?))
}

/// What the sender is told.
fn answer(bytes: &[u8]) -> Option<Step> {
    let headers = parse::parse(bytes).ok()?;
    if headers.protocol == Protocol::Tcp.number() {
        return Some(Step::AnsweredByReset);
    }
    let &[icmp_type, code] = headers.transport_header(bytes)?;
    Some(Step::AnsweredByIcmp { icmp_type, code })
}

/// Adds a step for every header field that differs.
fn tell_changes(steps: &mut Vec<Step>, before: &[u8], after: &[u8], verdict: Verdict) {
    if !matches!(verdict, Verdict::Forward { .. } | Verdict::Local) {
        return;
    }
    let (Ok(old), Ok(new)) = (parse::parse(before), parse::parse(after)) else { return };
    let mut tell = |field, before: String, after: String| {
        if before != after {
            steps.push(Step::Changed { field, before, after });
        }
    };
    let shown = |headers: &Headers, bytes: &[u8], is_source: bool| {
        let address = if is_source { headers.source } else { headers.destination };
        match ports(headers, bytes) {
            Some((source, destination)) => {
                Endpoint::new(address, if is_source { source } else { destination }).to_string()
            }
            None => address.to_string(),
        }
    };
    tell("source", shown(&old, before, true), shown(&new, after, true));
    tell("destination", shown(&old, before, false), shown(&new, after, false));
    let hop_limit = if old.family == AddressFamily::Ipv4 { "TTL" } else { "hop limit" };
    tell(hop_limit, old.hop_limit.to_string(), new.hop_limit.to_string());
    tell("protocol", old.protocol.to_string(), new.protocol.to_string());
    tell("length", format!("{} bytes", old.packet_len), format!("{} bytes", new.packet_len));
}
