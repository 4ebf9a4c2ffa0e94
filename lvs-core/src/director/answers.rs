//! Which answers may not be sent for now: the limits of `answer_limit`, asked before an answer is made, and charged once
//! it is on its way.

use core::net::IpAddr;

use super::Director;
use super::tables::Tables;
use crate::answer_limit::Refused;
use crate::time::Instant;
use crate::wire::parse::parse;

impl Tables<'_> {
    /// What this receiver may not be answered now.
    #[inline]
    pub(super) fn refused_answers(&self, now: Instant, receiver: IpAddr) -> Refused {
        self.outlet.answer_limit.refused(now, || self.site.config.settings.answer_rates(), receiver)
    }
}

impl Director {
    /// Charges an answer that is sent.
    pub(super) fn spend_answer(&mut self, bytes: &[u8]) {
        if let Ok(headers) = parse(bytes) {
            self.outlet.answer_limit.spend(self.clock.now, &self.site.config.settings.answer_rates(), &headers, bytes);
        }
    }
}
