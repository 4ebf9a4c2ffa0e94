//! What the most expensive packets cost, in instructions that valgrind counts: none more than 20 times what a known
//! packet costs that takes the general way. `cargo bench -p lvs-core --bench worst` counts them all in half a minute,
//! prints a table and fails if one costs more. It runs itself under valgrind; without valgrind it says so.
//! It fails too if a case takes over 3 % more than `instructions.txt` says, so that nothing creeps in: whoever has a reason
//! writes the counts anew, with `cargo bench -p lvs-core --bench worst -- --record`, and tells it in the commit.

use std::hint::black_box;
use std::process::{Command, ExitCode};

use lvs_core::{Instant, PacketBuf};
use lvs_testkit::desk::{nat, tcp_service};
use lvs_testkit::{Desk, Storage, icmp_error, tcp, udp};

/// How many times as much as [`NORMAL`] a packet may cost.
const TIMES_MAX: u64 = 20;
/// What the cases took when somebody last looked at them.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// How much more a case may take than recorded.
const TOLERANCE_PERCENT: u64 = 3;
/// The measure.
const NORMAL: &str = "known, the general way";
const CLIENT: &str = "198.51.100.7:1024";
const WEB: &str = "192.0.2.1:80";
const SERVERS: u32 = 1_000;

/// A director in its state, and the packet that is counted.
type Case = (&'static str, fn() -> (Desk, Vec<u8>));

const CASES: [Case; 18] = [
    (NORMAL, || {
        let mut desk = small("-m");
        establish(&mut desk);
        (desk, tcp(CLIENT, WEB).ack().psh().urgent(1).ipv4_options(&[1, 1, 1, 1]).payload(b"hello").build())
    }),
    ("known, the short way", || plain("-m")),
    ("known, the short way, direct routing", || plain("-g")),
    ("known, the short way, IPIP", || plain("-i")),
    ("known, the short way, FullNAT", || plain("--fullnat")),
    ("new, rr", || (many("rr", ""), syn())),
    ("new, wlc", || (many("wlc", ""), syn())),
    ("new, mh", || (many("mh", ""), syn())),
    ("new, rr, all over their thresholds", || (overloaded("rr", "", 0), syn())),
    ("new, mh with fallback, all over their thresholds", || (overloaded("mh", "-b mh-fallback", 0), syn())),
    ("new, mh with fallback, one left of 1,000", || (overloaded("mh", "-b mh-fallback", 1), syn())),
    ("new, sh with fallback, all over their thresholds", || (overloaded("sh", "-b sh-fallback", 0), syn())),
    ("known, the last of 256 of one client's port", || (chain(), from_one_port(1))),
    ("new, one more than 256 of one client's port", || (chain(), from_one_port(257))),
    ("new, FullNAT, for a port that another one gives back", || {
        let mut desk = full_nat();
        (0..100).for_each(|number| desk.feed(&tcp(&*format!("203.0.113.{number}:1024"), WEB).syn().build()));
        (desk, syn())
    }),
    ("a super-packet of 64 kB to an FTP server", || {
        let mut desk = ftp();
        desk.feed(&tcp(CLIENT, "192.0.2.1:21").ack().numbers(1001, 5001).payload(b"PASV\r\n").build());
        let text = vec![b'E'; 60_000];
        (desk, tcp(CLIENT, "192.0.2.1:21").ack().numbers(1007, 5001).payload(&text).partial_checksum().build())
    }),
    ("a super-packet of 64 kB from an FTP server", || {
        let mut desk = ftp();
        desk.feed(&tcp(CLIENT, "192.0.2.1:21").ack().numbers(1001, 5001).payload(b"PASV\r\n").build());
        let text = [b"227 ".to_vec(), vec![b'x'; 60_000]].concat();
        (desk, tcp("10.0.0.2:21", CLIENT).ack().numbers(5001, 1007).payload(&text).partial_checksum().build())
    }),
    ("an ICMP error about a known flow", || {
        let mut desk = small("-m");
        establish(&mut desk);
        let quoted = udp(CLIENT, "10.0.0.2:80").payload_len(500).build();
        (desk, icmp_error("10.0.0.1", 3, 1, 0, &quoted).build())
    }),
];

fn syn() -> Vec<u8> {
    tcp(CLIENT, WEB).syn().build()
}

fn small(method: &str) -> Desk {
    Desk::new(&format!("-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 {method}"))
}

/// A packet of a connection that goes on as it was.
fn plain(method: &str) -> (Desk, Vec<u8>) {
    let mut desk = small(method);
    let key = lvs_core::ServiceKey::address(lvs_core::Protocol::Tcp, WEB.parse().expect("an address"));
    let local = lvs_core::Command::AddLocalAddress(key, [10, 0, 0, 200].into());
    desk.director.apply(desk.now, &local).expect("it is accepted");
    establish(&mut desk);
    (desk, tcp(CLIENT, WEB).ack().payload(b"hello").build())
}

fn establish(desk: &mut Desk) {
    desk.feed(&syn());
    desk.feed(&tcp(CLIENT, WEB).ack().build());
    desk.feed(&tcp(CLIENT, WEB).ack().build());
}

fn address(number: u32) -> String {
    format!("10.1.{}.{}", number / 250, number % 250 + 1)
}

fn many(scheduler: &str, options: &str) -> Desk {
    let servers = (0..SERVERS).map(|number| format!("-a -t 192.0.2.1:80 -r {}:80 -m\n", address(number)));
    let mut desk = Desk::new(&format!("-A -t 192.0.2.1:80 -s {scheduler} {options}\n{}", servers.collect::<String>()));
    desk.feed(&tcp("198.51.100.9:9", WEB).syn().build());
    desk
}

/// All servers but the first `left` are over their thresholds.
fn overloaded(scheduler: &str, options: &str, left: u32) -> Desk {
    let servers = (0..SERVERS)
        .map(|number| format!("-a -t 192.0.2.1:80 -r {}:80 -m -x {}\n", address(number), u32::from(number >= left)));
    let mut desk = Desk::new(&format!("-A -t 192.0.2.1:80 -s rr\n{}", servers.collect::<String>()));
    for number in 0..SERVERS {
        let client = std::net::SocketAddr::from(([203, 0, 113, 1], 1024 + number as u16));
        let _ = desk.director.handle_packet(desk.now, &mut Storage::new(&tcp(client, WEB).syn().build()).packet());
    }
    desk.ipvsadm(&format!("-E -t 192.0.2.1:80 -s {scheduler} {options}"));
    desk
}

/// One client's port has as many connections as it may have.
fn chain() -> Desk {
    let mut desk = Desk::new("-A -u 192.0.2.1:0 -s rr -p 300\n-a -u 192.0.2.1:0 -r 10.0.0.2:0 -m");
    (1..=256).for_each(|port| desk.feed(&from_one_port(port)));
    desk
}

fn from_one_port(port: u16) -> Vec<u8> {
    udp(CLIENT, &*format!("192.0.2.1:{port}")).payload(b"?").build()
}

/// One local port on each of 64 local addresses, all towards one server.
fn full_nat() -> Desk {
    let mut config = Desk::config();
    (config.local_ports.first, config.local_ports.last) = (2_000, 2_000);
    let locals = (1..=64).map(|n| format!("--add-laddr -t {WEB} --local-address 10.0.1.{n}\n")).collect::<String>();
    Desk::with_config(config, &format!("-A -t {WEB} -s rr\n-a -t {WEB} -r 10.0.0.2:80 --fullnat\n{locals}"))
}

fn ftp() -> Desk {
    let mut desk = Desk::bare(Desk::config());
    let ftp = "192.0.2.1:21";
    desk.add(tcp_service(ftp), lvs_core::ServiceConfig::new("rr").helper("ftp"), [nat("10.0.0.2:21")]);
    desk.feed(&tcp(CLIENT, ftp).syn().numbers(1000, 0).build());
    desk.feed(&tcp("10.0.0.2:21", CLIENT).syn().ack().numbers(5000, 1001).build());
    desk.feed(&tcp(CLIENT, ftp).ack().numbers(1001, 5001).build());
    desk
}

#[inline(never)]
fn counted(desk: &mut Desk, packet: &mut PacketBuf<'_>, now: Instant) {
    let _ = black_box(desk.director.handle_packet(now, packet));
}

fn main() -> ExitCode {
    let name = std::env::args().skip(1).find(|arg| arg != "--bench");
    if let Some((_, case)) = CASES.iter().find(|(case, _)| Some(*case) == name.as_deref()) {
        let (mut desk, packet) = case();
        let partial = tcp(CLIENT, WEB).partial_checksum().offload();
        let mut storage = Storage::with_room(&packet, 64, 2048);
        if packet.len() > 1500 {
            let gso = Some(lvs_core::Gso { kind: lvs_core::GsoKind::TcpV4, size: 1400, ecn: false });
            storage = storage.offload(lvs_core::Offload { checksum: partial, gso });
        }
        let now = desk.now;
        counted(&mut desk, &mut storage.packet(), now);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("worst: skipped: valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let counts: Vec<_> = CASES.iter().map(|(case, _)| (*case, instructions(case))).collect();
    if std::env::args().any(|arg| arg == "--record") {
        let lines = counts.iter().map(|(case, count)| format!("{count:>8} {case}\n"));
        std::fs::write(RECORDED, lines.collect::<String>()).expect("the record can be written");
    }
    let recorded = std::fs::read_to_string(RECORDED).expect("the record is there");
    let normal = counts[0].1;
    let mut outcome = ExitCode::SUCCESS;
    for (case, count) in counts {
        let before = recorded.lines().find_map(|line| line.trim().strip_suffix(case)?.trim().parse::<u64>().ok());
        let verdict = match before {
            _ if count > TIMES_MAX * normal => "  TOO MUCH",
            None => "  NOT RECORDED",
            Some(before) if count > before + before * TOLERANCE_PERCENT / 100 => "  MORE THAN RECORDED",
            Some(_) => "",
        };
        println!("{count:>8} instructions, {:>5.1} times: {case}{verdict}", count as f64 / normal as f64);
        if !verdict.is_empty() {
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}

/// What one packet of this case takes.
fn instructions(case: &str) -> u64 {
    let itself = std::env::current_exe().expect("this program has a path");
    let callgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=worst::counted"];
    let run = Command::new("valgrind").args(callgrind).arg(itself).arg(case).output().expect("valgrind runs");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    let count = said.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    count.unwrap_or_else(|| panic!("{case}: valgrind says\n{said}"))
}
