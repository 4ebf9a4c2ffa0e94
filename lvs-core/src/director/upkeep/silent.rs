//! Making silent connections speak at the end of a drain that resets them: nobody remembers sequence numbers, and a RST
//! without the right one is ignored (RFC 5961 §3.2). So each side is sent segments that nobody could have expected; it
//! answers with its true numbers (RFC 9293 §3.10.7.4), and that answer meets what any segment does (`decide/server_gone.rs`).
//! A walk over the connections, in bounded steps. What finds no room in the queue hears of it when it speaks by itself.

use crate::command::AfterDrain;
use crate::connection::tcp::TcpState;
use crate::connection::{Connection, ConnectionId, State};
use crate::director::Director;
use crate::director::tables::Tables;
use crate::flow::{Endpoint, Protocol};
use crate::forward;
use crate::forward::full_nat::sequence::Translation;
use crate::packet::{HEADROOM, PacketBuf};
use crate::service::FullNatOptions;
use crate::time::Instant;
use crate::verdict::{Direction, Verdict};
use crate::wire::parse;
use crate::wire::reset;
use alloc::vec::Vec;

/// A walk over the table of connections.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct Probing {
    /// When the next part of it is due.
    pub due: Instant,
    /// The place in the table that comes next.
    next: u32,
    /// Another drain has ended meanwhile.
    again: bool,
}

/// Two numbers half the number space apart: whatever a peer expects, one of them is outside its window.
const NUMBERS: [u32; 2] = [0, 1 << 31];

impl Director {
    /// A drain is over whose connections are to be reset.
    pub(in crate::director) fn start_probing(&mut self, now: Instant) {
        match &mut self.upkeep.probing {
            Some(probing) => probing.again = true,
            None => self.upkeep.probing = Some(Probing { due: now, next: 0, again: false }),
        }
    }

    /// Goes on with the walk, if one is under way.
    pub(in crate::director) fn probe_some(&mut self, now: Instant, budget: &mut u32) {
        let Some(mut probing) = self.upkeep.probing else { return };
        let end = self.flows.connections.capacity();
        while *budget > 0 && probing.next < end {
            *budget -= 1;
            let silent = self
                .flows
                .connections
                .at(probing.next)
                .filter(|(_, connection)| self.tables().is_to_speak(now, connection));
            probing.next += 1;
            if let Some((id, _)) = silent {
                self.probe(now, id);
            }
        }
        probing.due = now;
        if probing.next == end && probing.again {
            (probing.next, probing.again) = (0, false);
        }
        self.upkeep.probing = (probing.next < end).then_some(probing);
    }
}

impl Tables<'_> {
    /// A live TCP connection whose server's drain is over and has it reset. Not a half-open one: its client may be made
    /// up, and whoever has the address is not to hear from us.
    fn is_to_speak(&self, now: Instant, connection: &Connection) -> bool {
        let is_over = matches!(connection.state, State::Tcp(TcpState::Close | TcpState::TimeWait | TcpState::Listen));
        let is_open = !is_over && !connection.state.is_half_open();
        let drain = connection.server.and_then(|id| self.services.servers.get(id)?.drain);
        let is_over = drain.is_some_and(|drain| drain.deadline <= now && drain.then == AfterDrain::Reset);
        is_over && is_open && connection.protocol == Protocol::Tcp && connection.deadline > now
    }
}

impl Director {
    fn probe(&mut self, now: Instant, id: ConnectionId) {
        let connection = self.flows.connections.get(id).expect("it was just found");
        let (client, service) = (connection.client, connection.virtual_endpoint);
        for number in NUMBERS {
            let (storage, place) = segment(service, client, number);
            let mtu = self.site.config.client_side.mtu;
            let verdict = Verdict::Forward { next_hop: client.address, direction: Direction::Reply, mtu };
            self.transmit_later(storage, place, 0, verdict);
            self.probe_server(now, id, segment(client, service, number));
        }
    }

    /// Sends a segment of the client's to the server, as any other.
    fn probe_server(&mut self, now: Instant, id: ConnectionId, (mut storage, (start, len)): (Vec<u8>, (usize, usize))) {
        let connection = self.flows.connections.get(id).expect("it was just found");
        let mut packet = PacketBuf::new(&mut storage, start, len);
        let Ok(headers) = parse::parse(packet.bytes()) else { return };
        // Its numbers are nobody's: FullNAT has nothing to translate but its ends.
        let mut end = self.tables().route_of(now, connection, Direction::Request, &headers);
        end.path.full_nat.translation = Some(Translation::new(FullNatOptions::default(), 0));
        let verdict = forward::request(&mut packet, &headers, &end.path);
        let place = (packet.start(), packet.len());
        self.outlet.answers += 1;
        self.transmit_later(storage, place, 0, verdict);
    }
}

/// An acknowledgment with this for both its numbers, and where it is.
fn segment(from: Endpoint, to: Endpoint, number: u32) -> (Vec<u8>, (usize, usize)) {
    let mut storage = alloc::vec![0; HEADROOM + reset::LEN_MAX];
    let mut packet = PacketBuf::new(&mut storage, HEADROOM, reset::LEN_MAX);
    reset::write_probe(&mut packet, from, to, number);
    let place = (packet.start(), packet.len());
    (storage, place)
}
