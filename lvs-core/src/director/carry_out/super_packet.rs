//! Segments of a super-packet that enters a tunnel, behind the first one, leave through `poll_transmit`.

use crate::director::Director;
use crate::director::decide::classify::Route;
use crate::forward;
use crate::packet::{HEADROOM, PacketBuf};
use crate::verdict::Verdict;
use crate::wire::parse::parse;
use alloc::vec::Vec;

impl Director {
    /// Sends the segments behind the first one, which went its way.
    pub(in crate::director) fn send_segments(&mut self, segments: Vec<Vec<u8>>, end: &Route) {
        for mut storage in segments {
            let len = storage.len() - HEADROOM;
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
            let mut path = end.path;
            path.identification = self.tables().identification();
            let verdict = match parse(packet.bytes()) {
                Ok(headers) => forward::request(&mut packet, &headers, &path),
                Err(reason) => Verdict::Drop(reason),
            };
            let place = (packet.start(), packet.len());
            self.outlet.answers += 1;
            self.transmit_later(storage, place, 0, verdict);
        }
    }

    /// Leaves a packet for `poll_transmit`; counts one that is not to be sent.
    pub(in crate::director) fn transmit_later(
        &mut self,
        storage: Vec<u8>,
        place: (usize, usize),
        mark: u32,
        verdict: Verdict,
    ) {
        if matches!(verdict, Verdict::Reply { .. }) {
            self.spend_answer(&storage[place.0..place.0 + place.1]);
        }
        let outcome = match verdict {
            Verdict::Drop(reason) => Err(reason),
            verdict => self.outlet.outbox.push(storage, place, mark, verdict),
        };
        if let Err(reason) = outcome {
            self.count_drop(reason);
        }
    }
}
