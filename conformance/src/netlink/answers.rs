//! Our end against the recorded kernel: a session is asked what was asked, and must answer the same datagrams. The order
//! of services in a listing is the kernel's hash and is not compared; nor are, where the kernel pads, the bytes, but what
//! they say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_core::{Director, DirectorConfig, Instant, PacketBuf, Seed, Side};
use lvs_genl::Errno;
use lvs_genl::client::Client;
use lvs_genl::ctrl::IPVS_ID;
use lvs_genl::ipvs::command;
use lvs_genl::server::{Access, DATAGRAM_MAX, Master, Session, SyncDaemons};
use lvs_genl::wire::{DONE, Message, Messages};

use super::Fault;
use super::recording::{Action, Exchange, Recording, Step};

/// Plays a recording and tells each step that is answered differently.
pub fn replay(recording: &Recording) -> Vec<Fault> {
    let mut stand = Stand::new();
    let mut faults = Vec::new();
    for (index, step) in recording.steps.iter().enumerate() {
        stand.now = Instant::ZERO + step.at;
        stand.run_timers();
        stand.meet(&step.action);
        if let Some(difference) = stand.exchange(recording, step) {
            faults.push(Fault { step: index, what: step.what(), difference });
        }
    }
    faults
}

/// A director and what is around it.
struct Stand {
    director: Director,
    daemons: SyncDaemons,
    interfaces: BTreeMap<String, u32>,
    now: Instant,
}

impl Stand {
    fn new() -> Self {
        let config =
            DirectorConfig::default().with(|config| config.server_side = Side::default().with(|side| side.mtu = 1500));
        Self {
            director: Director::new(config, Seed::new(1)),
            daemons: SyncDaemons::default(),
            // The recorder's loopback device, and one of keepalived's recordings.
            interfaces: [("lo".to_owned(), 65_536), ("k0".to_owned(), 1500)].into(),
            now: Instant::ZERO,
        }
    }

    fn run_timers(&mut self) {
        while let Some(due) = self.director.poll_timeout().filter(|due| *due <= self.now) {
            self.director.handle_timeout(due);
        }
    }

    fn meet(&mut self, action: &Action) {
        match action {
            Action::Packet(bytes) => {
                let mut storage = vec![0; lvs_core::HEADROOM + bytes.len()];
                storage[lvs_core::HEADROOM..].copy_from_slice(bytes);
                let mut packet = PacketBuf::new(&mut storage, lvs_core::HEADROOM, bytes.len());
                let _ = self.director.handle_packet(self.now, &mut packet);
            }
            Action::Interface(words) => {
                // `link add NAME type veth peer name OTHER`
                let words: Vec<_> = words.split(' ').collect();
                if let ["link", "add", name, _, _, _, _, other] = words[..] {
                    self.interfaces.extend([(name.to_owned(), 1500), (other.to_owned(), 1500)]);
                }
            }
            _ => {}
        }
    }

    /// Asks what was asked; the first difference.
    fn exchange(&mut self, recording: &Recording, step: &Step) -> Option<String> {
        let mut session = match &step.action {
            Action::Raw { port, caps_errors, .. } => {
                let mut session = Session::new(Access::Full).port(*port);
                session.cap_errors(*caps_errors);
                session
            }
            Action::Program(program) if program.is_ordinary_user => Session::new(Access::None),
            _ => Session::new(Access::Full),
        };
        let reads_all = matches!(step.action, Action::Raw { .. });
        let interfaces = &self.interfaces;
        let interface = |name: &str, group: IpAddr| match interfaces.get(name) {
            None => Err(Errno::NO_DEVICE),
            // The recorded loopback device has no route to IPv6 multicast groups.
            Some(_) if name == "lo" && group.is_ipv6() => Err(Errno::UNREACHABLE),
            Some(mtu) => Ok(*mtu),
        };
        let mut table = Master::new(&mut self.director, &mut self.daemons, self.now).interfaces(&interface);
        let mut first = None;
        for exchange in &step.exchanges {
            let asked = of_our_family(&exchange.asked, recording.family);
            session.receive(&asked).expect("recorded datagrams are short");
            let mut answered = Vec::new();
            let mut datagram = Vec::new();
            while session.next_datagram(&mut table, &mut datagram) {
                answered.push(datagram.clone());
            }
            let difference = compare(recording, exchange, answered, reads_all);
            first = first.or(difference);
        }
        first
    }
}

/// The first difference between what was answered and what we answer.
fn compare(recording: &Recording, exchange: &Exchange, mut ours: Vec<Vec<u8>>, reads_all: bool) -> Option<String> {
    let theirs: Vec<_> = exchange.answered.iter().map(|datagram| of_our_family(datagram, recording.family)).collect();
    // Programs close the socket before they read the acknowledgment behind an answer.
    if !reads_all && ours.len() == theirs.len() + 1 && ours.last().is_some_and(|last| is_ack(last)) {
        ours.pop();
    }
    if let Some(long) = ours.iter().find(|datagram| datagram.len() > DATAGRAM_MAX) {
        return Some(format!("a datagram has {} bytes", long.len()));
    }
    if is_list_of_services(&exchange.asked) {
        return compare_unordered(recording, &theirs, &ours);
    }
    if reads_all && is_dump(&exchange.asked) {
        // How much a kernel puts into a datagram depends on the buffers that the socket was read with before.
        let together = |datagrams: &[Vec<u8>]| hex(&datagrams.concat());
        return (together(&theirs) != together(&ours))
            .then(|| format!("listed {}, not {}", describe(&ours), describe(&theirs)));
    }
    if theirs.len() != ours.len() {
        return Some(format!("answered {}, not {}", describe(&ours), describe(&theirs)));
    }
    let differs = |(theirs, ours): &(&Vec<u8>, &Vec<u8>)| said(recording, theirs) != said(recording, ours);
    let (theirs, ours) = theirs.iter().zip(&ours).find(differs)?;
    Some(format!("answered {}, not {}", describe(std::slice::from_ref(ours)), describe(std::slice::from_ref(theirs))))
}

/// The same messages in any order, each datagram filled while the next message of any length fits.
fn compare_unordered(recording: &Recording, theirs: &[Vec<u8>], ours: &[Vec<u8>]) -> Option<String> {
    let sorted = |datagrams: &[Vec<u8>]| {
        let messages = datagrams.iter().flat_map(|datagram| Messages::new(datagram));
        let mut said: Vec<_> = messages.map(|message| said(recording, message.bytes())).collect();
        said.sort();
        said
    };
    if sorted(theirs) != sorted(ours) {
        return Some(format!("listed {}, not {}", describe(ours), describe(theirs)));
    }
    let is_end = |datagram: &Vec<u8>| Messages::new(datagram).next().is_some_and(|first| first.header.kind == DONE);
    let ends_alone = ours.last().is_some_and(is_end);
    let is_full = ours.windows(2).all(|pair| {
        let next = Messages::new(&pair[1]).next().map_or(0, |message| message.bytes().len());
        is_end(&pair[1]) || pair[0].len() + next > DATAGRAM_MAX
    });
    (!ends_alone || !is_full).then(|| "the listing is packed otherwise".to_owned())
}

/// What a datagram says: its bytes, or of a kernel that pads, what is read of them.
fn said(recording: &Recording, datagram: &[u8]) -> String {
    if recording.is_padded {
        return format!("{:?}", Client::new(0).replies(datagram).collect::<Vec<_>>());
    }
    hex(datagram)
}

fn describe(datagrams: &[Vec<u8>]) -> String {
    let lines: Vec<_> = datagrams.iter().map(|datagram| describe_one(datagram)).collect();
    format!("[{}]", lines.join(", "))
}

fn describe_one(datagram: &[u8]) -> String {
    let messages: Vec<_> = Messages::new(datagram).collect();
    match &messages[..] {
        [one] => match one.header.kind {
            lvs_genl::wire::ERROR => format!("error {} flags {:#x}", one.error().unwrap_or(1), one.header.flags),
            DONE => "done".to_owned(),
            _ => hex(one.bytes()),
        },
        many => format!("{} messages in {} bytes", many.len(), datagram.len()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_ack(datagram: &[u8]) -> bool {
    let error = |message: Message<'_>| (message.header.kind == lvs_genl::wire::ERROR).then(|| message.error())?;
    Messages::new(datagram).next().and_then(error) == Some(0)
}

fn is_dump(asked: &[u8]) -> bool {
    let is_one = |message: Message<'_>| message.header.flags & lvs_genl::wire::DUMP == lvs_genl::wire::DUMP;
    Messages::new(asked).next().is_some_and(is_one)
}

fn is_list_of_services(asked: &[u8]) -> bool {
    let generic = Messages::new(asked).next().and_then(|message| message.generic());
    is_dump(asked) && generic.is_some_and(|(generic, _)| generic.command == command::GET_SERVICE)
}

/// A datagram with the number the IPVS family has here, where the recording's is another: as the type of messages, also
/// quoted ones, and in the answer to the look-up.
fn of_our_family(datagram: &[u8], family: u16) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    if family == IPVS_ID {
        return bytes;
    }
    let mut replace = |at: usize| {
        if bytes.get(at..at + 2) == Some(&family.to_ne_bytes()) {
            bytes[at..at + 2].copy_from_slice(&IPVS_ID.to_ne_bytes());
        }
    };
    // The type; the type inside an error; FAMILY_ID behind FAMILY_NAME in an answer of nlctrl.
    for at in [4, 24, 36] {
        replace(at);
    }
    bytes
}
