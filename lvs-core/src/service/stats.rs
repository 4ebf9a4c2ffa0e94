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
