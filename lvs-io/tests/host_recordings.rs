//! The host stand-in answers what a recorded Linux host answered, byte for byte outside what differs between
//! recordings. The data and its origin: `data/host_answers.txt`.

use std::net::IpAddr;

use lvs_core::{Direction, HEADROOM, Instant, PacketBuf, Seed, Side};
use lvs_io::{Host, HostConfig};

#[test]
fn the_host_answers_as_linux_did() {
    let text = include_str!("data/host_answers.txt");
    let failures = check(text);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Replays every line; one message for each difference.
fn check(text: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let mut scenario = "";
    let mut config = HostConfig::default();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["scenario", name] => scenario = name,
            ["virtual", ref addresses @ ..] => config.local_addresses = addresses.iter().map(|a| address(a)).collect(),
            ["servers", ref addresses @ ..] => {
                config.servers =
                    addresses.iter().map(|a| (address(a), if a.contains(':') { 128 } else { 32 })).collect();
            }
            ["client-side", mtu, ipv4, ipv6] => config.client_side = side(mtu, ipv4, ipv6),
            ["server-side", mtu, ipv4, ipv6] => config.server_side = side(mtu, ipv4, ipv6),
            [step, came, packet, "->", ref expected @ ..] => {
                let mut host = Host::new(config.clone(), Seed::new(1));
                if let Err(difference) = check_step(&mut host, came, packet, expected) {
                    failures.push(format!("{scenario} step {step}: {difference}"));
                }
            }
            _ => panic!("cannot read: {line}"),
        }
    }
    failures
}

fn check_step(host: &mut Host, came: &str, packet: &str, expected: &[&str]) -> Result<(), String> {
    let bytes = hex(packet);
    let mut storage = vec![0; HEADROOM + 2048];
    storage[HEADROOM..][..bytes.len()].copy_from_slice(&bytes);
    let mut packet = PacketBuf::new(&mut storage, HEADROOM, bytes.len());
    let came = if came == "C" { Direction::Request } else { Direction::Reply };
    let sent = host.handle_packet(Instant::ZERO, came, &mut packet);
    match (sent, expected) {
        (None, ["nothing"]) => Ok(()),
        (None, _) => Err("no answer".into()),
        (Some(_), ["nothing"]) => Err(format!("answered {}", to_hex(packet.bytes()))),
        (Some(sent), [side, answer, volatile @ ..]) => {
            let way = if *side == "C" { Direction::Reply } else { Direction::Request };
            if sent.direction != way {
                return Err(format!("left by the wrong side: {sent:?}"));
            }
            let mut got = packet.bytes().to_vec();
            let mut wanted = hex(answer);
            for range in volatile {
                let (offset, len) = range.split_once('+').expect("offset+len");
                let (offset, len): (usize, usize) = (offset.parse().unwrap(), len.parse().unwrap());
                for bytes in [&mut got, &mut wanted] {
                    if let Some(bytes) = bytes.get_mut(offset..offset + len) {
                        bytes.fill(0);
                    }
                }
            }
            if got == wanted {
                Ok(())
            } else {
                Err(format!("\n  got    {}\n  wanted {}", to_hex(&got), to_hex(&wanted)))
            }
        }
        (Some(_), _) => panic!("no expectation"),
    }
}

fn side(mtu: &str, ipv4: &str, ipv6: &str) -> Side {
    Side::default().with(|side| {
        side.mtu = mtu.parse().unwrap();
        side.ipv4 = Some(ipv4.parse().unwrap());
        side.ipv6 = Some(ipv6.parse().unwrap());
    })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|digit| (digit as char).to_digit(16).expect("a hex digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
