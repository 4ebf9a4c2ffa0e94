//! Every outcome, told step by step: what `explain` says is compared with `../snapshots/explain/*.txt`, and each packet is
//! then handled, so that `Desk` holds the telling against the deed. After a wanted change of words, run the test with
//! `UPDATE_SNAPSHOTS=1` and read the difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use lvs_core::explanation::{PassReason, Step};
use lvs_core::{DropReason, Verdict};
use lvs_testkit::{Desk, Outcome, Storage};

mod drops;
mod full_nat;
mod icmp;
mod known;
mod opening;
mod parts;

/// Packets and what was said of them, one topic a page.
#[derive(Default)]
struct Page {
    text: String,
    steps: BTreeSet<String>,
    verdicts: BTreeSet<String>,
    drops: BTreeSet<DropReason>,
}

impl Page {
    /// A packet is explained, then handled.
    fn tell(&mut self, title: &str, desk: &mut Desk, packet: &[u8]) -> Outcome {
        self.tell_storage(title, desk, Storage::with_room(packet, 64, 2048))
    }

    fn tell_storage(&mut self, title: &str, desk: &mut Desk, mut storage: Storage) -> Outcome {
        let explanation = desk.director.explain(desk.now, &storage.packet());
        write!(self.text, "== {title}\n{explanation}").unwrap();
        self.steps.extend(explanation.steps.iter().map(kind));
        self.verdicts.insert(kind(&explanation.verdict));
        if let Verdict::Drop(reason) = explanation.verdict {
            self.drops.insert(reason);
        }
        let sent = desk.send_storage(storage);
        for owed in desk.transmits() {
            writeln!(self.text, "    owed: {}", owed.line()).unwrap();
        }
        self.text.push('\n');
        sent
    }
}

/// The variant's name; of a passed packet also why.
fn kind(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    if text.starts_with("Passed") { text } else { text.split([' ', '(']).next().unwrap_or_default().to_owned() }
}

type Topic = (&'static str, fn(&mut Page));

const TOPICS: [Topic; 6] = [
    ("opening", opening::tell),
    ("known", known::tell),
    ("icmp", icmp::tell),
    ("parts", parts::tell),
    ("full_nat", full_nat::tell),
    ("drops", drops::tell),
];

#[test]
fn every_step_is_told_as_in_the_snapshots() {
    for (name, tell) in TOPICS {
        let mut page = Page::default();
        tell(&mut page);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/explain/{name}.txt"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &page.text).expect("the snapshots can be written");
        }
        let snapshot = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, (told, expected)) in page.text.lines().zip(snapshot.lines()).enumerate() {
            assert_eq!(told, expected, "{name}.txt, line {}", number + 1);
        }
        assert_eq!(page.text, snapshot, "{name}.txt");
    }
}

#[test]
fn the_snapshots_meet_every_verdict_step_and_reason() {
    let mut all = Page::default();
    TOPICS.iter().for_each(|(_, tell)| tell(&mut all));
    let verdicts = ["Drop", "Forward", "Held", "Local", "Pass", "Reply"];
    assert_eq!(all.verdicts.iter().map(String::as_str).collect::<Vec<_>>(), verdicts);
    let missing: Vec<_> = STEPS.iter().filter(|name| !all.steps.contains(**name)).collect();
    assert!(missing.is_empty(), "steps that no page tells: {missing:?}");
    let missing: Vec<_> = PASSED.iter().filter(|why| !all.steps.contains(&kind(&Step::Passed(**why)))).collect();
    assert!(missing.is_empty(), "reasons to pass that no page tells: {missing:?}");
    let missing: Vec<_> =
        DropReason::ALL.iter().filter(|reason| !ELSEWHERE.contains(reason) && !all.drops.contains(reason)).collect();
    assert!(missing.is_empty(), "drop reasons that no page tells: {missing:?}");
    let both: Vec<_> = ELSEWHERE.iter().filter(|reason| all.drops.contains(reason)).collect();
    assert!(both.is_empty(), "told after all: {both:?}");
}

const STEPS: [&str; 23] = [
    "Packet",
    "IcmpAbout",
    "KnownFlow",
    "FollowsFirstFragment",
    "Rescheduled",
    "GivenUp",
    "ServerGone",
    "Service",
    "Template",
    "TemplateInvalid",
    "Scheduled",
    "Evicted",
    "NewConnection",
    "OnePacket",
    "State",
    "NotBelieved",
    "Helped",
    "Changed",
    "Dropped",
    "FragmentWaits",
    "UnknownReply",
    "AnsweredByIcmp",
    "AnsweredByReset",
];

const PASSED: [PassReason; 12] = [
    PassReason::NoServiceOfFamily,
    PassReason::UnknownProtocol,
    PassReason::NoService,
    PassReason::NotATcpOpening,
    PassReason::NotAnSctpOpening,
    PassReason::FtpDataSource,
    PassReason::FtpDataPort,
    PassReason::UnrelatedIcmp,
    PassReason::IcmpForTheHost,
    PassReason::UnknownFragment,
    PassReason::NoPorts,
    PassReason::LastHop,
];

/// Reasons of what happens without a packet to explain, or to packets that no director is asked about: ends of tunnels,
/// the worker loop, fragments that waited in vain, the queue of what the director owes, cutting a packet.
const ELSEWHERE: [DropReason; 8] = [
    DropReason::UnknownTunnelPeer,
    DropReason::FragmentTimeout,
    DropReason::TransmitQueueFull,
    DropReason::NoTailroom,
    DropReason::MalformedTunnel,
    DropReason::BadTunnelChecksum,
    DropReason::CongestionLost,
    DropReason::NotOurs,
];
