//! Gives packets a firewall mark, for virtual services by mark (ipvsadm `-f`) on devices that deliver none.
//! Rules are tried in order; the first that matches decides. Linux does this with `nft … meta mark set`.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use lvs_core::PacketBuf;
use lvs_core::wire::parse::{Headers, parse};

use crate::device::{Arm, DeviceState, PacketSource};
use crate::known::AddressChange;
use crate::prefix::Prefix;

/// Which packets get which mark. Every condition must hold; `None` holds for every packet.
///
/// ```
/// use lvs_io::classify::MarkRule;
/// // HTTP and HTTPS to one address are one service: mark 80.
/// let rule = MarkRule {
///     destination: Some("192.0.2.80/32".parse().unwrap()),
///     protocol: Some(6),
///     destination_ports: Some(80..=443),
///     ..MarkRule::new(80)
/// };
/// # let _ = rule;
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkRule {
    /// The source address lies in this network.
    pub source: Option<Prefix>,
    /// The destination address lies in this network.
    pub destination: Option<Prefix>,
    /// IANA number of the transport protocol.
    pub protocol: Option<u8>,
    /// The source port lies in this range; never true of later fragments and of protocols without ports.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// The same of the destination port.
    pub destination_ports: Option<RangeInclusive<u16>>,
    /// The mark such packets get; 0 is none.
    pub mark: u32,
}

impl MarkRule {
    /// A rule that gives every packet this mark, to be narrowed.
    pub const fn new(mark: u32) -> Self {
        Self { source: None, destination: None, protocol: None, source_ports: None, destination_ports: None, mark }
    }

    fn matches(&self, headers: &Headers, ports: Option<(u16, u16)>) -> bool {
        let in_network = |network: &Option<Prefix>, address: IpAddr| network.is_none_or(|net| net.contains(address));
        let in_range = |range: &Option<RangeInclusive<u16>>, port: Option<u16>| match (range, port) {
            (None, _) => true,
            (Some(range), Some(port)) => range.contains(&port),
            (Some(_), None) => false,
        };
        in_network(&self.source, headers.source)
            && in_network(&self.destination, headers.destination)
            && self.protocol.is_none_or(|protocol| protocol == headers.protocol)
            && in_range(&self.source_ports, ports.map(|ports| ports.0))
            && in_range(&self.destination_ports, ports.map(|ports| ports.1))
    }
}

/// The mark of a packet by the first rule that matches; `None` if none does or it is no IP packet.
pub fn mark_of(rules: &[MarkRule], packet: &[u8]) -> Option<u32> {
    let headers = parse(packet).ok()?;
    let has_ports = matches!(headers.protocol, 6 | 17 | 132);
    let ports = headers.ports(packet).filter(|_| has_ports);
    rules.iter().find(|rule| rule.matches(&headers, ports)).map(|rule| rule.mark)
}

impl Arm {
    /// The device with marks set by these rules on what it receives. A packet no rule matches keeps its mark.
    pub fn with_marks(self, rules: Vec<MarkRule>) -> Self {
        Self { source: Box::new(MarkingSource { inner: self.source, rules }), sink: self.sink }
    }
}

struct MarkingSource {
    inner: Box<dyn PacketSource>,
    rules: Vec<MarkRule>,
}

impl PacketSource for MarkingSource {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let rules = &self.rules;
        self.inner.receive(&mut |packets| {
            for packet in packets.iter_mut() {
                if let Some(mark) = mark_of(rules, packet.bytes()) {
                    packet.mark = mark;
                }
            }
            handle(packets);
        })
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.poll_fd()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wake_fd()
    }

    fn lost(&self) -> u64 {
        self.inner.lost()
    }

    fn state(&self) -> DeviceState {
        self.inner.state()
    }

    fn learn(&mut self, change: &AddressChange) {
        self.inner.learn(change);
    }
}

#[cfg(test)]
mod tests {
    use lvs_testkit::{icmp, tcp, udp};

    use super::*;
    use crate::memory::MemoryPort;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = [
            MarkRule { destination_ports: Some(443..=443), protocol: Some(6), ..MarkRule::new(1) },
            MarkRule { source: Some("203.0.113.0/24".parse().unwrap()), ..MarkRule::new(2) },
            MarkRule { source_ports: Some(1024..=2047), ..MarkRule::new(3) },
        ];
        let check = |packet: Vec<u8>, mark| assert_eq!(mark_of(&rules, &packet), mark);
        check(tcp("203.0.113.7:1024", "192.0.2.1:443").build(), Some(1));
        check(udp("203.0.113.7:1024", "192.0.2.1:443").build(), Some(2));
        check(udp("198.51.100.7:1024", "192.0.2.1:443").build(), Some(3));
        check(udp("198.51.100.7:4000", "192.0.2.1:443").build(), None);
        check(tcp("[2001:db8::7]:4000", "[2001:db8::1]:443").build(), Some(1));
        // Type, code and checksum are no ports.
        check(icmp("198.51.100.7", "192.0.2.1", 4, 0, 0).build(), None);
        check(vec![0x45], None);
    }

    #[test]
    fn a_device_marks_what_it_receives() {
        let (far, device) = MemoryPort::pair(4);
        let mut arm = device.into_arm().with_marks(vec![MarkRule { protocol: Some(17), ..MarkRule::new(9) }]);
        far.push(udp("203.0.113.7:1", "192.0.2.1:2").build());
        far.push(tcp("203.0.113.7:1", "192.0.2.1:2").build());
        let mut marks = Vec::new();
        arm.source.receive(&mut |packets| marks.extend(packets.iter().map(|packet| packet.mark))).unwrap();
        assert_eq!(marks, [9, 0]);
    }
}
