//! Counters, and the 2-second samples and rates made of them (`ipvsadm --stats`, `--rate`).

/// What is counted for the director, each service and each server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets from servers.
    pub out_packets: u64,
    /// Bytes from clients, IP header included.
    pub in_bytes: u64,
    /// Bytes from servers, IP header included.
    pub out_bytes: u64,
}

/// Rates per second, as `ipvsadm --rate` prints them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// Connections per second (`CPS`).
    pub connections: u64,
    /// Packets from clients per second (`InPPS`).
    pub in_packets: u64,
    /// Packets from servers per second (`OutPPS`).
    pub out_packets: u64,
    /// Bytes from clients per second (`InBPS`).
    pub in_bytes: u64,
    /// Bytes from servers per second (`OutBPS`).
    pub out_bytes: u64,
}

/// Live counters and what is published of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// As of this moment.
    pub live: Counters,
    /// As of the last 2-second sample, less the zero base: what ipvsadm shows.
    pub published: Counters,
    /// Rates as of the last sample.
    pub rates: Rates,
}

impl Counters {
    /// Packets from clients, with their length together.
    #[inline]
    pub(crate) fn count_in(&mut self, packets: u64, bytes: u64) {
        self.in_packets += packets;
        self.in_bytes += bytes;
    }

    /// Packets from servers.
    #[inline]
    pub(crate) fn count_out(&mut self, packets: u64, bytes: u64) {
        self.out_packets += packets;
        self.out_bytes += bytes;
    }

    /// Both together: of two directors that share a service.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.wrapping_add(other.connections),
            in_packets: self.in_packets.wrapping_add(other.in_packets),
            out_packets: self.out_packets.wrapping_add(other.out_packets),
            in_bytes: self.in_bytes.wrapping_add(other.in_bytes),
            out_bytes: self.out_bytes.wrapping_add(other.out_bytes),
        }
    }

    fn words(self) -> [u64; 5] {
        [self.connections, self.in_packets, self.out_packets, self.in_bytes, self.out_bytes]
    }

    /// From the first five of these.
    fn of_words(words: &[u64]) -> Self {
        let word = |at| words.get(at).copied().unwrap_or_default();
        Self { connections: word(0), in_packets: word(1), out_packets: word(2), in_bytes: word(3), out_bytes: word(4) }
    }

    fn less(self, base: Self) -> Self {
        Self {
            connections: self.connections.wrapping_sub(base.connections),
            in_packets: self.in_packets.wrapping_sub(base.in_packets),
            out_packets: self.out_packets.wrapping_sub(base.out_packets),
            in_bytes: self.in_bytes.wrapping_sub(base.in_bytes),
            out_bytes: self.out_bytes.wrapping_sub(base.out_bytes),
        }
    }
}

/// Counters of one object with their 2-second estimator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    pub live: Counters,
    /// What the last tick saw.
    sample: Counters,
    /// What a zero took as its base: the last sample, not the live value, as Linux does.
    base: Counters,
    /// What the rates were last computed from.
    last: Counters,
    /// Moving averages: connections and packets scaled by 2¹⁰, bytes by 2⁵.
    averages: [i64; 5],
}

impl Meter {
    /// How many numbers there are in one.
    pub const WORDS: usize = 25;

    /// All its numbers, for a snapshot.
    pub fn words(&self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        for (of, counters) in [self.live, self.sample, self.base, self.last].into_iter().enumerate() {
            words[5 * of..][..5].copy_from_slice(&counters.words());
        }
        for (word, average) in words[20..].iter_mut().zip(self.averages) {
            *word = average as u64;
        }
        words
    }

    /// Counts what another has counted too.
    pub fn add_words(&mut self, words: &[u64; Self::WORDS]) {
        for (of, counters) in [&mut self.live, &mut self.sample, &mut self.base, &mut self.last].into_iter().enumerate()
        {
            *counters = counters.plus(Counters::of_words(&words[5 * of..]));
        }
        for (average, word) in self.averages.iter_mut().zip(&words[20..]) {
            *average = average.wrapping_add(*word as i64);
        }
    }

    /// One tick of the 2-second estimator.
    pub fn tick(&mut self) {
        self.sample = self.live;
        let now = self.sample;
        let last = self.last;
        let deltas = [
            (now.connections.wrapping_sub(last.connections), 9),
            (now.in_packets.wrapping_sub(last.in_packets), 9),
            (now.out_packets.wrapping_sub(last.out_packets), 9),
            (now.in_bytes.wrapping_sub(last.in_bytes), 4),
            (now.out_bytes.wrapping_sub(last.out_bytes), 4),
        ];
        for (average, (delta, shift)) in self.averages.iter_mut().zip(deltas) {
            let rate = (delta as i64).wrapping_shl(shift);
            *average = average.wrapping_add(rate.wrapping_sub(*average) >> 2);
        }
        self.last = now;
    }

    /// Makes the published counters zero.
    pub fn zero(&mut self) {
        self.base = self.sample;
        self.last = self.sample;
        self.averages = [0; 5];
    }

    pub fn statistics(&self) -> Statistics {
        let packets = |average: i64| (average.wrapping_add(511) >> 10).max(0) as u64;
        let bytes = |average: i64| (average.wrapping_add(15) >> 5).max(0) as u64;
        let [connections, in_packets, out_packets, in_bytes, out_bytes] = self.averages;
        Statistics {
            live: self.live,
            published: self.sample.less(self.base),
            rates: Rates {
                connections: packets(connections),
                in_packets: packets(in_packets),
                out_packets: packets(out_packets),
                in_bytes: bytes(in_bytes),
                out_bytes: bytes(out_bytes),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_decays_by_a_quarter_with_every_idle_tick() {
        // By hand from the rule: average 600·16/4 = 2400, then 1800, 1350, 1012, 759; shown as (average + 15) / 32.
        let mut meter = Meter::default();
        meter.live.connections = 6;
        meter.live.in_packets = 6;
        meter.live.in_bytes = 600;
        let mut seen = [0; 5];
        for rate in &mut seen {
            meter.tick();
            *rate = meter.statistics().rates.in_bytes;
        }
        assert_eq!(seen, [75, 56, 42, 32, 24]);
    }

    #[test]
    fn zeroing_uses_the_last_sample_not_the_live_counters() {
        let mut meter = Meter::default();
        meter.live.in_packets = 5;
        meter.tick();
        meter.live.in_packets = 7;
        meter.zero();
        assert_eq!(meter.statistics().published.in_packets, 0);
        meter.tick();
        assert_eq!(meter.statistics().published.in_packets, 2);
    }
}
