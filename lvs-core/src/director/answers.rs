//! Which answers may not be sent for now: the limits of `answer_limit`, asked before an answer is made, and charged once
//! it is on its way.

use core::net::IpAddr;

use super::Director;
use crate::answer_limit::Refused;
use crate::time::Instant;
use crate::wire::parse::parse;

impl Director {
    /// What this receiver may not be answered now.
    #[inline]
    pub(super) fn refused_answers(&self, now: Instant, receiver: IpAddr) -> Refused {
        self.answer_limit.refused(now, || self.config.settings.answer_rates(), receiver)
    }

    /// Charges an answer that is sent.
    pub(super) fn spend_answer(&mut self, bytes: &[u8]) {
        if let Ok(headers) = parse(bytes) {
            self.answer_limit.spend(self.now, &self.config.settings.answer_rates(), &headers, bytes);
        }
    }
}
