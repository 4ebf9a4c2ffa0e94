//! Charging an answer that is sent to the limits of `answer_limit`.

use crate::director::Director;
use crate::wire::parse::parse;

impl Director {
    /// Charges an answer that is sent.
    pub(in crate::director) fn spend_answer(&mut self, bytes: &[u8]) {
        if let Ok(headers) = parse(bytes) {
            self.outlet.answer_limit.spend(self.clock.now, &self.site.config.settings.answer_rates(), &headers, bytes);
        }
    }
}
