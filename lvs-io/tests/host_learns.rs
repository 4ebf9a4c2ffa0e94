//! What the host stand-in learns while its worker runs: addresses that come and go, and how often it may answer.

use lvs_core::answer_limit::AnswerRates;
use lvs_core::{Command, Director, DirectorConfig, Seed, Settings};
use lvs_io::{AddressChange, AddressRole, Host, HostConfig, ManualClock, MemoryPort, OnPass, Worker, WorkerHandle};
use lvs_testkit::tcp;

const VIRTUAL: &str = "192.0.2.80";
const VIRTUAL_V6: &str = "2001:db8::80";

struct Bed {
    wire: MemoryPort,
    worker: Worker,
    handle: WorkerHandle,
}

impl Bed {
    fn new() -> Self {
        let director = Director::new(DirectorConfig::default(), Seed::new(7));
        let (wire, device) = MemoryPort::pair(64);
        let config = HostConfig { answer_rates: AnswerRates::UNLIMITED, ..HostConfig::default() };
        let host = Box::new(Host::new(config, Seed::new(1)));
        let worker = Worker::new(director, device.into_arm(), None).expect("descriptors are left");
        let worker = worker.with_clock(ManualClock::new()).with_on_pass(OnPass::Route(host));
        let handle = worker.handle();
        Self { wire, worker, handle }
    }

    fn learn(&self, role: AddressRole, address: &str, is_there: bool) {
        let address = address.parse().expect("an address");
        self.handle.learn(AddressChange { role, address, is_there }).expect("it is there");
    }

    /// Sends a stray segment; what was answered, and what was routed.
    fn send(&mut self, to: &str) -> (u64, u64) {
        let from = if to.contains(':') { "[2001:db8:1::7]:1024" } else { "198.51.100.7:1024" };
        let to = if to.contains(':') { format!("[{to}]:80") } else { format!("{to}:80") };
        let before = self.worker.counters().host;
        assert!(self.wire.push(tcp(from, to.as_str()).build()));
        self.worker.turn().expect("memory does not fail");
        let after = self.worker.counters().host;
        assert_eq!(self.worker.counters().unaccounted(), 0);
        (after.answered - before.answered, after.routed - before.routed)
    }
}

#[test]
fn the_host_answers_for_an_address_while_it_is_virtual_and_routes_nothing_there_afterwards() {
    for address in [VIRTUAL, VIRTUAL_V6] {
        let mut bed = Bed::new();
        assert_eq!(bed.send(address), (0, 1));
        bed.learn(AddressRole::Virtual, address, true);
        assert_eq!(bed.send(address), (1, 0));
        bed.learn(AddressRole::Virtual, address, false);
        assert_eq!(bed.send(address), (0, 0));
        bed.learn(AddressRole::Virtual, address, true);
        assert_eq!(bed.send(address), (1, 0));
    }
}

#[test]
fn the_host_answers_as_often_as_the_settings_say_at_the_time() {
    let mut bed = Bed::new();
    bed.learn(AddressRole::Virtual, VIRTUAL, true);
    assert_eq!((0..3).map(|_| bed.send(VIRTUAL).0).sum::<u64>(), 3);
    let settings = Settings::default().with(|settings| settings.resets_per_sec = 1);
    bed.handle
        .tell(move |director, now| _ = director.apply(now, &Command::SetSettings(settings)))
        .expect("it is there");
    assert_eq!((0..3).map(|_| bed.send(VIRTUAL).0).sum::<u64>(), 1);
}
