//! The classic BPF program by which the kernel gives each frame to the queue of its client's shard: the arithmetic of
//! [`lvs_io::Steering`], on addresses, and on ports where FullNAT's local addresses ask for it. What it cannot see,
//! such as which packet an ICMP error is about, `lvs_io::share` makes up for; frames that are no packets go to the
//! first queue.
//!
//! A jump counts from the instruction behind it. The network header is at `SKF_NET_OFF`, whatever comes before it.

use std::net::IpAddr;

use libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD,
    BPF_LDX, BPF_MISC, BPF_MOD, BPF_MSH, BPF_MUL, BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X, BPF_XOR, sock_filter,
};
use lvs_core::{Direction, Protocol};
use lvs_io::steer::{MIX, SHIFTS};
use lvs_io::{Networks, Prefix, Steering};

/// Which queue a frame goes to, as a program that leaves to `lvs_io::share` what it has no room for, or no time.
/// `direction` is the one that packets from this device travel in; `None` where the source tells.
pub(crate) fn program(steering: &Steering, direction: Option<Direction>) -> Vec<sock_filter> {
    // Frames of servers, say, are then taken for clients' and handed on by the worker they come to.
    let few =
        |networks: &Networks| Some(networks.prefixes()).filter(|few| few.len() <= NETWORKS_MAX).unwrap_or_default();
    let networks = Tested { servers: few(steering.servers()), locals: few(steering.local_addresses()) };
    program_of(steering, &networks, direction)
}

/// The networks in which the program looks for addresses.
struct Tested {
    servers: Vec<Prefix>,
    locals: Vec<Prefix>,
}

fn program_of(steering: &Steering, networks: &Tested, direction: Option<Direction>) -> Vec<sock_filter> {
    let [v4, v6] = [&V4, &V6].map(|layout| family(steering, networks, direction, layout));
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

/// Where things are in an IP header, in bytes, and how long addresses are, in words.
struct Layout {
    source: u32,
    target: u32,
    words: u32,
}

const V4: Layout = Layout { source: 12, target: 16, words: 1 };
const V6: Layout = Layout { source: 8, target: 24, words: 4 };

/// The program for packets of one family; ends in a return.
fn family(steering: &Steering, networks: &Tested, direction: Option<Direction>, layout: &Layout) -> Vec<sock_filter> {
    let of_request = hash(steering, layout, layout.source);
    let of_reply = hash(steering, layout, layout.target);
    let mut program = where_in(&networks.locals, layout, layout.target, by_port(steering, layout));
    match direction {
        Some(Direction::Request) => program.extend(of_request),
        Some(Direction::Reply) => program.extend(of_reply),
        None => {
            program.extend(where_in(&networks.servers, layout, layout.source, of_reply));
            program.extend(of_request);
        }
    }
    program
}

/// Runs `then`, which ends in a return, if the address at `offset` is in one of the networks; goes on behind it else.
fn where_in(networks: &[Prefix], layout: &Layout, offset: u32, then: Vec<sock_filter>) -> Vec<sock_filter> {
    let networks = networks.iter().filter(|network| network.address().is_ipv4() == (layout.words == 1));
    let tests: Vec<_> = networks.map(|network| is_in(network, layout, offset)).collect();
    let mut program = Vec::new();
    if tests.is_empty() {
        return program;
    }
    let mut left: usize = tests.iter().map(|test| test.len() + 1).sum();
    for test in tests {
        left -= test.len() + 1;
        program.extend(test);
        // It is: past the other tests and the jump behind them.
        program.push(jump(left + 1));
    }
    program.push(jump(then.len()));
    program.extend(then);
    program
}

/// Goes on behind itself if the address at `offset` is in the network, and else one instruction further.
fn is_in(network: &Prefix, layout: &Layout, offset: u32) -> Vec<sock_filter> {
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
        program.push(instruction(BPF_LD | BPF_W | BPF_ABS, NETWORK_HEADER + offset + index as u32 * 4));
        program.push(instruction(BPF_ALU | BPF_AND | BPF_K, *mask));
        // Past the rest of the test, three instructions a word, and the one behind it.
        let jf = (3 * (count - 1 - index) + 1) as u8;
        program.push(sock_filter { jt: 0, jf, ..instruction(BPF_JMP | BPF_JEQ | BPF_K, word & mask) });
    }
    program
}

/// Returns the shard that leased the local port the packet is for; of what has no ports to be read, fragments among
/// them, the one that sorts them.
fn by_port(steering: &Steering, layout: &Layout) -> Vec<sock_filter> {
    let by_source = hash(steering, layout, layout.source);
    let of_port = [instruction(BPF_ALU | BPF_MOD | BPF_K, steering.shards() as u32), instruction(BPF_RET | BPF_A, 0)];
    let (protocol, port) = if layout.words == 1 {
        let header_len = instruction(BPF_LDX | BPF_B | BPF_MSH, NETWORK_HEADER);
        (NETWORK_HEADER + 9, vec![header_len, instruction(BPF_LD | BPF_H | BPF_IND, NETWORK_HEADER + 2)])
    } else {
        (NETWORK_HEADER + 6, vec![instruction(BPF_LD | BPF_H | BPF_ABS, NETWORK_HEADER + 40 + 2)])
    };
    let with_port = port.len() + of_port.len();
    let mut program = Vec::new();
    if layout.words == 1 {
        // Neither "more fragments" nor an offset; past the protocol's tests and the port otherwise.
        program.push(instruction(BPF_LD | BPF_H | BPF_ABS, NETWORK_HEADER + 6));
        program.push(instruction(BPF_ALU | BPF_AND | BPF_K, 0x3fff));
        program.push(sock_filter { jt: 0, jf: (5 + with_port) as u8, ..instruction(BPF_JMP | BPF_JEQ | BPF_K, 0) });
    }
    program.push(instruction(BPF_LD | BPF_B | BPF_ABS, protocol));
    for (index, protocol) in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().enumerate() {
        let jt = (3 - index) as u8;
        program.push(sock_filter { jt, jf: 0, ..instruction(BPF_JMP | BPF_JEQ | BPF_K, protocol.number().into()) });
    }
    program.push(jump(with_port));
    program.extend(port);
    program.extend(of_port);
    program.extend(by_source);
    program
}

fn jump(count: usize) -> sock_filter {
    instruction(BPF_JMP | BPF_JA, count as u32)
}

/// A word whose `bits` upper bits are set, all of them if there are more.
fn mask(bits: u32) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0)
}

/// Returns the shard of the address at `offset` of the header: [`lvs_io::steer::AddressHash`].
fn hash(steering: &Steering, layout: &Layout, offset: u32) -> Vec<sock_filter> {
    let hash = steering.hash();
    // The sum is kept in the index register.
    let mut program = vec![instruction(BPF_LDX | BPF_IMM, hash.start)];
    for (half, factor) in (0..layout.words * 2).zip(hash.factors) {
        program.push(instruction(BPF_LD | BPF_H | BPF_ABS, NETWORK_HEADER + offset + half * 2));
        program.push(instruction(BPF_ALU | BPF_MUL | BPF_K, factor));
        program.push(instruction(BPF_ALU | BPF_ADD | BPF_X, 0));
        program.push(instruction(BPF_MISC | BPF_TAX, 0));
    }
    for (index, shift) in SHIFTS.into_iter().enumerate() {
        program.push(instruction(BPF_MISC | BPF_TAX, 0));
        program.push(instruction(BPF_ALU | BPF_RSH | BPF_K, shift));
        program.push(instruction(BPF_ALU | BPF_XOR | BPF_X, 0));
        program.extend(MIX.get(index).map(|factor| instruction(BPF_ALU | BPF_MUL | BPF_K, *factor)));
    }
    program.push(instruction(BPF_ALU | BPF_MOD | BPF_K, steering.shards() as u32));
    program.push(instruction(BPF_RET | BPF_A, 0));
    program
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Most networks an address is looked for in: the program takes them one by one, four instructions or more for each,
/// and frame. With as many servers as local addresses, all of IPv6, it has two thirds of the instructions the kernel
/// takes (BPF_MAXINSNS of `linux/bpf_common.h`: 4096).
const NETWORKS_MAX: usize = 100;
/// SKF_NET_OFF of `linux/filter.h`.
const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
/// SKF_AD_OFF + SKF_AD_PROTOCOL.
const OFFSET_OF_PROTOCOL: u32 = -0x1000_i32 as u32;
/// Return the accumulator.
const BPF_A: u32 = 0x10;

#[cfg(test)]
mod tests {
    use lvs_core::Seed;
    use lvs_testkit::{sctp, tcp, udp};

    use super::*;

    /// Runs a program on a packet, as bpf(4) describes the machine.
    fn run(program: &[sock_filter], protocol: u16, packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                0x28 if k == OFFSET_OF_PROTOCOL => a = protocol.into(),
                0x28 | 0x48 => {
                    let offset = k.wrapping_sub(NETWORK_HEADER) as usize + if code == 0x48 { x as usize } else { 0 };
                    let Some(word) = packet.get(offset..offset + 2) else { return 0 };
                    a = u16::from_be_bytes(*word.first_chunk().unwrap()).into();
                }
                0x30 => {
                    let Some(byte) = packet.get(k.wrapping_sub(NETWORK_HEADER) as usize) else { return 0 };
                    a = u32::from(*byte);
                }
                0xb1 => x = u32::from(packet[k.wrapping_sub(NETWORK_HEADER) as usize] & 15) * 4,
                0x20 => {
                    let offset = k.wrapping_sub(NETWORK_HEADER) as usize;
                    let Some(word) = packet.get(offset..offset + 4) else { return 0 };
                    a = u32::from_be_bytes(*word.first_chunk().unwrap());
                }
                0x00 => a = k,
                0x01 => x = k,
                0x0c => a = a.wrapping_add(x),
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

    #[test]
    fn what_is_for_a_local_port_goes_to_the_shard_that_leased_it() {
        let servers = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec();
        let locals = ["10.0.0.200", "10.0.0.201", "fd00::200"].map(|text| text.parse().unwrap()).to_vec();
        let steering = Steering::new(5, servers, Seed::new(7)).with_local_addresses(locals);
        let mut shards = std::collections::BTreeSet::new();
        let mut check = |packet: &[u8]| {
            let protocol = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
            for direction in [Some(Direction::Reply), None] {
                let expected = match direction {
                    Some(direction) => steering.shard_by_direction(packet, direction),
                    None => steering.shard(packet),
                };
                let chosen = run(&program(&steering, direction), protocol, packet) as usize;
                assert_eq!(chosen, expected, "{}, {direction:?}", lvs_testkit::describe(packet));
                shards.insert(chosen);
            }
        };
        for port in 2000..2010 {
            for (server, local) in
                [("10.0.0.2:80", "10.0.0.200"), ("10.9.9.9:80", "10.0.0.201"), ("[fd00::2]:80", "[fd00::200]")]
            {
                let local = format!("{local}:{port}");
                check(&tcp(server, local.as_str()).build());
                check(&udp(server, local.as_str()).payload(b"x").build());
                check(&sctp(server, local.as_str()).chunk(1, &[0; 16]).build());
                udp(server, local.as_str()).payload_len(100).fragments(64).iter().for_each(|part| check(part));
            }
            let local = format!("10.0.0.200:{port}");
            check(&udp("10.0.0.2:80", local.as_str()).ipv4_options(&[1; 8]).build());
        }
        assert_eq!(shards.len(), 5);
    }

    /// The kernel takes no longer program: BPF_MAXINSNS of `linux/bpf_common.h`.
    const LEN_MAX: usize = 4096;

    #[test]
    fn networks_the_kernel_would_look_through_for_too_long_are_left_to_the_workers() {
        // None touches another: each is a network of its own.
        let networks = |count: usize, base: u128| -> Vec<Prefix> {
            let ipv4 = (0..count).map(|number| IpAddr::from((base as u32 + 2 * number as u32).to_be_bytes()));
            let ipv6 = (0..count).map(|number| IpAddr::from(((base << 96) | (2 * number as u128)).to_be_bytes()));
            ipv4.chain(ipv6).map(Prefix::from).collect()
        };
        let program_for = |servers: usize, locals: usize| {
            let steering = Steering::new(2, networks(servers, 0x0a00_0000), Seed::new(7))
                .with_local_addresses(networks(locals, 0x0b00_0000));
            let program = program(&steering, None);
            assert!(program.len() <= LEN_MAX, "{servers} servers, {locals} local addresses: {}", program.len());
            program.len()
        };
        assert!(program_for(50, 50) > program_for(0, 50) && program_for(50, 50) > program_for(50, 0));
        assert_eq!(program_for(10_000, 50), program_for(0, 50));
        assert_eq!(program_for(50, 10_000), program_for(50, 0));
        assert_eq!(program_for(10_000, 10_000), program_for(0, 0));
        // All of IPv6, which takes the most.
        let most =
            |base| networks(NETWORKS_MAX, base).into_iter().filter(|network| network.address().is_ipv6()).collect();
        let steering = Steering::new(2, most(0x0a00_0000), Seed::new(7)).with_local_addresses(most(0x0b00_0000));
        let len = program(&steering, None).len();
        assert!((2700..2800).contains(&len), "{len}");
    }

    #[test]
    fn ten_thousand_servers_in_a_row_are_few_networks() {
        let servers = (0..10_000u32).map(|number| Prefix::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes())));
        let steering = Steering::new(2, servers.collect(), Seed::new(7));
        assert_eq!(steering.servers().prefixes().len(), 5);
        assert!(program(&steering, None).len() < 150);
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
