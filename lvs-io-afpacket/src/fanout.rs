//! The classic BPF program by which the kernel gives each frame to the queue of its client's shard: the arithmetic of
//! [`lvs_io::Steering`], on addresses only. What it cannot see, such as which packet an ICMP error is about, `lvs_io::share`
//! makes up for; frames that are no packets go to the first queue.
//!
//! A jump counts from the instruction behind it. The network header is at `SKF_NET_OFF`, whatever comes before it.

use std::net::IpAddr;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_H, BPF_IMM, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MISC, BPF_MOD, BPF_MUL,
    BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X, BPF_XOR, sock_filter,
};
use lvs_core::Direction;
use lvs_io::Steering;
use lvs_io::steer::{MIX, SHIFT};

/// Which queue a frame goes to, as a program. `direction` is the one that packets from this device travel in; `None`
/// where the source tells.
pub(crate) fn program(steering: &Steering, direction: Option<Direction>) -> Vec<sock_filter> {
    let (v4, v6) = (family(steering, direction, &V4), family(steering, direction, &V6));
    let mut program = vec![instruction(BPF_LD | BPF_H | BPF_ABS, OFFSET_OF_PROTOCOL)];
    program.extend([unless(0x0800, v4.len())].into_iter().flatten());
    program.extend(v4);
    program.extend([unless(0x86dd, v6.len())].into_iter().flatten());
    program.extend(v6);
    program.push(instruction(BPF_LD | BPF_IMM, 0));
    program.push(instruction(BPF_RET | BPF_A, 0));
    program
}

/// Goes on with the next instruction if the accumulator holds `value`, and else past `count` of them.
fn unless(value: u32, count: usize) -> [sock_filter; 2] {
    let equal = sock_filter { jt: 1, jf: 0, ..instruction(BPF_JMP | BPF_JEQ | BPF_K, value) };
    [equal, instruction(BPF_JMP | BPF_JA, count as u32)]
}

/// Where the addresses of an IP header are, and how long.
struct Layout {
    source: u32,
    target: u32,
    words: u32,
}

const V4: Layout = Layout { source: 12, target: 16, words: 1 };
const V6: Layout = Layout { source: 8, target: 24, words: 4 };

/// The program for packets of one family; ends in a return.
fn family(steering: &Steering, direction: Option<Direction>, layout: &Layout) -> Vec<sock_filter> {
    let of_request = hash(steering, layout, layout.source);
    let of_reply = hash(steering, layout, layout.target);
    match direction {
        Some(Direction::Request) => of_request,
        Some(Direction::Reply) => of_reply,
        None => {
            let networks =
                steering.servers().iter().filter(|network| network.address().is_ipv4() == (layout.words == 1));
            let tests: Vec<_> = networks.map(|network| is_from(network, layout)).collect();
            let mut program = Vec::new();
            let mut left: usize = tests.iter().map(|test| test.len() + 1).sum();
            for test in tests {
                left -= test.len() + 1;
                program.extend(test);
                // It is from there: past the other tests and the hash of the source.
                program.push(instruction(BPF_JMP | BPF_JA, (left + of_request.len()) as u32));
            }
            program.extend(of_request);
            program.extend(of_reply);
            program
        }
    }
}

/// Goes on behind itself if the source is in the network, and else one instruction further.
fn is_from(network: &lvs_io::Prefix, layout: &Layout) -> Vec<sock_filter> {
    let (words, bits): (Vec<u32>, u32) = match network.address() {
        IpAddr::V4(address) => (vec![address.to_bits()], network.bits().into()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            ([96, 64, 32, 0].map(|shift| (bits >> shift) as u32).to_vec(), network.bits().into())
        }
    };
    let masks: Vec<u32> = (0..layout.words).map(|index| mask(bits.saturating_sub(index * 32))).collect();
    let count = masks.iter().filter(|mask| **mask != 0).count();
    let mut program = Vec::new();
    for (index, (word, mask)) in words.iter().zip(&masks).take(count).enumerate() {
        program.push(instruction(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER + layout.source + index as u32 * 4));
        program.push(instruction(BPF_ALU | BPF_AND | BPF_K, *mask));
        // Past the rest of the test, three instructions a word, and the one behind it.
        let jf = (3 * (count - 1 - index) + 1) as u8;
        program.push(sock_filter { jt: 0, jf, ..instruction(BPF_JMP | BPF_JEQ | BPF_K, word & mask) });
    }
    program
}

/// A word whose `bits` upper bits are set, all of them if there are more.
fn mask(bits: u32) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0)
}

/// Returns the shard of the address at `offset` of the header: [`lvs_io::steer::address_hash`].
fn hash(steering: &Steering, layout: &Layout, offset: u32) -> Vec<sock_filter> {
    let mut program = vec![instruction(BPF_LD | BPF_IMM, steering.secret())];
    for index in 0..layout.words {
        program.push(instruction(BPF_MISC | BPF_TAX, 0));
        program.push(instruction(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER + offset + index * 4));
        program.push(instruction(BPF_ALU | BPF_XOR | BPF_X, 0));
        for (factor, shift) in MIX.into_iter().zip(SHIFT) {
            program.push(instruction(BPF_ALU | BPF_MUL | BPF_K, factor));
            program.push(instruction(BPF_MISC | BPF_TAX, 0));
            program.push(instruction(BPF_ALU | BPF_RSH | BPF_K, shift));
            program.push(instruction(BPF_ALU | BPF_XOR | BPF_X, 0));
        }
    }
    program.push(instruction(BPF_ALU | BPF_MOD | BPF_K, steering.shards() as u32));
    program.push(instruction(BPF_RET | BPF_A, 0));
    program
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// SKF_NET_OFF of `linux/filter.h`.
const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
/// SKF_AD_OFF + SKF_AD_PROTOCOL.
const OFFSET_OF_PROTOCOL: u32 = -0x1000_i32 as u32;
/// Return the accumulator.
const BPF_A: u32 = 0x10;

#[cfg(test)]
mod tests {
    use lvs_core::Seed;

    use super::*;

    /// Runs a program on a packet, as bpf(4) describes the machine.
    fn run(program: &[sock_filter], protocol: u16, packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                0x28 => a = if k == OFFSET_OF_PROTOCOL { protocol.into() } else { panic!("load of {k:#x}") },
                0x20 => {
                    let offset = k.wrapping_sub(NETWORK_HEADER) as usize;
                    let Some(word) = packet.get(offset..offset + 4) else { return 0 };
                    a = u32::from_be_bytes(*word.first_chunk().unwrap());
                }
                0x00 => a = k,
                0x07 => x = a,
                0xac => a ^= x,
                0x24 => a = a.wrapping_mul(k),
                0x74 => a >>= k,
                0x54 => a &= k,
                0x94 => a %= k,
                0x15 => at += usize::from(if a == k { jt } else { jf }),
                0x05 => at += k as usize,
                0x16 => return a,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn the_kernel_steers_as_the_workers_do() {
        let servers = ["10.0.0.0/8", "192.168.7.0/25", "fd00::/8", "2001:db8:7::/70", "2001:db8:8::1/128"];
        let steering = Steering::new(5, servers.map(|text| text.parse().unwrap()).to_vec(), Seed::new(7));
        let addresses = [
            ["203.0.113.7", "10.1.2.3", "192.168.7.9", "192.168.7.200", "0.0.0.0", "255.255.255.255"],
            ["2001:db8::7", "fd12::3", "2001:db8:7::9", "2001:db8:7:0:400::", "2001:db8:8::1", "2001:db8:8::2"],
        ];
        let mut shards = std::collections::BTreeSet::new();
        for (family, protocol) in addresses.iter().zip([0x0800, 0x86dd]) {
            for (source, target) in family.iter().flat_map(|source| family.iter().map(move |target| (source, target))) {
                let packet = packet(source.parse().unwrap(), target.parse().unwrap());
                for direction in [Some(Direction::Request), Some(Direction::Reply), None] {
                    let expected = match direction {
                        Some(direction) => steering.shard_by_direction(&packet, direction),
                        None => steering.shard(&packet),
                    };
                    let chosen = run(&program(&steering, direction), protocol, &packet) as usize;
                    assert_eq!(chosen, expected, "{source} > {target}, {direction:?}");
                    shards.insert(chosen);
                }
            }
        }
        assert_eq!(shards.len(), 5);
        assert_eq!(run(&program(&steering, None), 0x0806, &[1; 28]), 0);
    }

    /// An empty UDP datagram.
    fn packet(source: IpAddr, target: IpAddr) -> Vec<u8> {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let head = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
                let mut packet = [&head[..], &source.octets(), &target.octets(), &[0, 1, 0, 2, 0, 8, 0, 0]].concat();
                let checksum = lvs_core::wire::checksum::checksum(&packet[..20]);
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let head = [0x60, 0, 0, 0, 0, 8, 17, 64];
                [&head[..], &source.octets(), &target.octets(), &[0, 1, 0, 2, 0, 8, 0, 0]].concat()
            }
            _ => unreachable!("of one family"),
        }
    }
}
