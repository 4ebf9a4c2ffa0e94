//! Faults on purpose: a device that drops, repeats, reorders and corrupts what it sends, from a seed, so that a run can
//! be repeated. For tests and for trying out what a service does on a bad link.

use std::io;
use std::net::IpAddr;

use lvs_core::rng::Rng;
use lvs_core::{HEADROOM, Offload, PacketBuf, Seed};

use crate::device::{Arm, PacketSink, SinkOffloads};

/// How often each fault happens, in packets of a million. At most one happens to a packet; the order below decides
/// which. The default is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The packet is lost.
    pub drop: u32,
    /// The packet is sent twice.
    pub duplicate: u32,
    /// The packet is kept until the next has been sent.
    pub reorder: u32,
    /// One bit of the packet is flipped. Partial checksums are completed too late to notice; others catch it.
    pub corrupt: u32,
}

impl Arm {
    /// The device with faults in what it sends.
    ///
    /// ```
    /// use lvs_core::Seed;
    /// use lvs_io::{MemoryPort, faults::Faults};
    /// let (test, device) = MemoryPort::pair(16);
    /// let one_percent_loss = Faults { drop: 10_000, ..Faults::default() };
    /// let arm = device.into_arm().with_faults(one_percent_loss, Seed::new(7));
    /// ```
    pub fn with_faults(self, faults: Faults, seed: Seed) -> Self {
        let sink = FaultySink { inner: self.sink, faults, rng: Rng::new(seed), dropped: 0, kept: None };
        Self { source: self.source, sink: Box::new(sink) }
    }
}

struct FaultySink {
    inner: Box<dyn PacketSink>,
    faults: Faults,
    rng: Rng,
    /// Packets lost on purpose.
    dropped: u64,
    /// A packet that waits for the next to overtake it.
    kept: Option<Kept>,
}

struct Kept {
    storage: Vec<u8>,
    offload: Offload,
    mark: u32,
    next_hop: IpAddr,
}

enum Fault {
    None,
    Drop,
    Duplicate,
    Reorder,
    Corrupt,
}

impl FaultySink {
    fn next_fault(&mut self) -> Fault {
        let mut drawn = self.rng.up_to(999_999);
        let Faults { drop, duplicate, reorder, corrupt } = self.faults;
        for (rate, fault) in
            [(drop, Fault::Drop), (duplicate, Fault::Duplicate), (reorder, Fault::Reorder), (corrupt, Fault::Corrupt)]
        {
            match drawn.checked_sub(rate) {
                None => return fault,
                Some(rest) => drawn = rest,
            }
        }
        Fault::None
    }

    fn send_kept(&mut self) -> io::Result<()> {
        let Some(mut kept) = self.kept.take() else { return Ok(()) };
        let len = kept.storage.len() - HEADROOM;
        let mut packet = PacketBuf::new(&mut kept.storage, HEADROOM, len);
        packet.offload = kept.offload;
        packet.mark = kept.mark;
        self.inner.send(&mut packet, kept.next_hop)
    }
}

impl PacketSink for FaultySink {
    fn send(&mut self, packet: &mut PacketBuf<'_>, next_hop: IpAddr) -> io::Result<()> {
        match self.next_fault() {
            Fault::Drop => {
                self.dropped += 1;
                return Ok(());
            }
            Fault::Duplicate => {
                // The sink may write into the headroom, not into the packet.
                self.inner.send(packet, next_hop)?;
            }
            Fault::Reorder if self.kept.is_none() => {
                let mut storage = vec![0; HEADROOM];
                storage.extend_from_slice(packet.bytes());
                self.kept = Some(Kept { storage, offload: packet.offload, mark: packet.mark, next_hop });
                return Ok(());
            }
            Fault::Corrupt if !packet.is_empty() => {
                let bit = self.rng.up_to(packet.len() as u32 * 8 - 1) as usize;
                packet.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            }
            Fault::None | Fault::Reorder | Fault::Corrupt => {}
        }
        self.inner.send(packet, next_hop)?;
        self.send_kept()
    }

    fn offloads(&self) -> SinkOffloads {
        self.inner.offloads()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn lost(&self) -> u64 {
        self.dropped + self.inner.lost()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::memory::MemoryPort;

    /// What arrives of the packets `[0]`, `[1]`, … of `count`.
    fn arrived(faults: Faults, count: u8) -> Vec<Vec<u8>> {
        let (far, device) = MemoryPort::pair(1000);
        let mut arm = device.into_arm().with_faults(faults, Seed::new(7));
        for number in 0..count {
            let mut storage = [number];
            arm.sink.send(&mut PacketBuf::new(&mut storage, 0, 1), Ipv4Addr::LOCALHOST.into()).unwrap();
        }
        std::iter::from_fn(|| far.pop()).map(|packet| packet.bytes).collect()
    }

    const ALWAYS: u32 = 1_000_000;

    #[test]
    fn without_faults_everything_arrives_in_order() {
        assert_eq!(arrived(Faults::default(), 3), [[0], [1], [2]]);
    }

    #[test]
    fn each_fault_does_what_it_says() {
        assert_eq!(arrived(Faults { drop: ALWAYS, ..Faults::default() }, 3), [[0; 1]; 0]);
        assert_eq!(arrived(Faults { duplicate: ALWAYS, ..Faults::default() }, 2), [[0], [0], [1], [1]]);
        assert_eq!(arrived(Faults { reorder: ALWAYS, ..Faults::default() }, 4), [[1], [0], [3], [2]]);
        let corrupted = arrived(Faults { corrupt: ALWAYS, ..Faults::default() }, 1);
        assert_eq!(corrupted[0][0].count_ones(), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_at_about_the_rate_asked_for() {
        let faults = Faults { drop: 100_000, duplicate: 100_000, reorder: 100_000, corrupt: 100_000 };
        assert_eq!(arrived(faults, 250), arrived(faults, 250));
        let lost = 250 - arrived(Faults { drop: 100_000, ..Faults::default() }, 250).len();
        assert!((10..=45).contains(&lost), "{lost} of 250 lost at 10 %");
    }
}
