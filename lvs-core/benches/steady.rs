//! Packets of 640 open connections, one each, the steady way: what the table in `README.md` counts. By itself it prints
//! nothing; valgrind counts what `one_by_one` and `in_batches` take.
//! Arguments: ipvsadm's words for the server, `request` or `reply`, `tcp` or `udp`, the virtual service and the server.

use std::hint::black_box;

use lvs_core::{Command, Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Protocol, Seed, ServiceKey, Verdict};
use lvs_testkit::{tcp, udp};

const CONNECTIONS: usize = 640;
const BATCH: usize = 32;
const ROOM: usize = 192;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [method, direction, protocol, service, server] = &args.iter().map(String::as_str).collect::<Vec<_>>()[..]
    else {
        println!("steady: needs valgrind and arguments, see lvs-core/benches/README.md");
        return;
    };
    let mut director = director(method, protocol, service, server);
    let mut requests: Vec<_> = (1..=CONNECTIONS).map(|number| request(number, protocol, service)).collect();
    for number in 1..=CONNECTIONS {
        if *protocol == "tcp" {
            send(&mut director, tcp(client(number, service).as_str(), *service).syn().build());
        }
        // The first of them still moves the state; the second computes what is kept.
        send(&mut director, requests[number - 1].clone());
        send(&mut director, requests[number - 1].clone());
    }
    if *direction == "reply" {
        let views: Vec<_> = director.connections(Instant::ZERO).collect();
        let replies = views.iter().map(|view| {
            let to = view.local.unwrap_or(view.client).to_string();
            tcp(*server, to.as_str()).ack().payload(b"hello").build()
        });
        requests = replies.collect();
        requests.iter().for_each(|reply| send(&mut director, reply.clone()));
    }
    one_by_one(&mut director, &mut buffers(&mut stored(&requests), requests[0].len()));
    in_batches(&mut director, &mut buffers(&mut stored(&requests), requests[0].len()));
}

#[inline(never)]
fn one_by_one(director: &mut Director, packets: &mut [PacketBuf<'_>]) {
    for packet in packets {
        let _ = black_box(director.handle_packet(Instant::ZERO, packet));
    }
}

#[inline(never)]
fn in_batches(director: &mut Director, packets: &mut [PacketBuf<'_>]) {
    for batch in packets.chunks_mut(BATCH) {
        director.handle_batch(Instant::ZERO, batch, |_, _, verdict| {
            let _ = black_box(verdict);
        });
    }
}

fn director(method: &str, protocol: &str, service: &str, server: &str) -> Director {
    let mut config = DirectorConfig::default();
    config.server_side.ipv4 = Some([10, 0, 0, 254].into());
    config.server_side.ipv6 = Some([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xfe].into());
    let mut director = Director::new(config, Seed::new(1));
    let (flag, protocol) = if protocol == "tcp" { ("-t", Protocol::Tcp) } else { ("-u", Protocol::Udp) };
    let rules = format!("-A {flag} {service} -s rr\n-a {flag} {service} -r {server} {method}");
    let key = ServiceKey::address(protocol, service.parse().expect("an address"));
    let mut commands = lvs_admin::parse_rules(&rules).expect("the rules are right");
    let local = if service.starts_with('[') { "2001:db8:2::c8" } else { "10.0.0.200" };
    commands.push(Command::AddLocalAddress(key, local.parse().expect("an address")));
    for command in commands {
        director.apply(Instant::ZERO, &command).expect("it is accepted");
    }
    director
}

fn client(number: usize, service: &str) -> String {
    if service.starts_with('[') {
        format!("[2001:db8:1::{number:x}]:1024")
    } else {
        format!("203.0.{}.{}:1024", number / 200, number % 200 + 1)
    }
}

fn request(number: usize, protocol: &str, service: &str) -> Vec<u8> {
    let client = client(number, service);
    match protocol {
        "tcp" => tcp(client.as_str(), service).ack().payload(b"hello").build(),
        _ => udp(client.as_str(), service).payload(b"hello").build(),
    }
}

fn send(director: &mut Director, packet: Vec<u8>) {
    let mut storages = stored(std::slice::from_ref(&packet));
    let verdict = director.handle_packet(Instant::ZERO, &mut buffers(&mut storages, packet.len())[0]);
    assert!(matches!(verdict, Verdict::Forward { .. }));
}

fn stored(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let store = |packet: &Vec<u8>| {
        let mut storage = vec![0; ROOM];
        storage[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        storage
    };
    packets.iter().map(store).collect()
}

fn buffers(storages: &mut [Vec<u8>], len: usize) -> Vec<PacketBuf<'_>> {
    storages.iter_mut().map(|storage| PacketBuf::new(storage, HEADROOM, len)).collect()
}
