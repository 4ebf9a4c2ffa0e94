//! Which answers may not be sent for now: the limits of `answer_limit`, asked before an answer is made. What is sent is
//! charged in `carry_out/answers.rs`.

use crate::answer_limit::Refused;
use crate::director::tables::Tables;
use crate::time::Instant;
use core::net::IpAddr;

impl Tables<'_> {
    /// What this receiver may not be answered now.
    #[inline]
    pub(in crate::director) fn refused_answers(&self, now: Instant, receiver: IpAddr) -> Refused {
        self.outlet.answer_limit.refused(now, || self.site.config.settings.answer_rates(), receiver)
    }
}
