//! A director on a desk: configured by `ipvsadm-save` lines, fed packets by hand, its clock moved by hand.

use core::time::Duration;

use lvs_core::view::ConnectionView;
use lvs_core::{Director, DirectorConfig, Instant, Seed, Side, Verdict};

use crate::Storage;
use crate::oracle;

/// A director under test. Its client side has 203.0.113.254 and 2001:db8:ffff::1, its server side 10.0.0.254 and
/// fd00::ff; both links take 1500 bytes.
///
/// ```
/// use lvs_testkit::{Desk, describe, tcp};
///
/// let mut desk = Desk::new("-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m");
/// let sent = desk.send(&tcp("198.51.100.7:1024", "192.0.2.1:80").syn().build());
/// assert!(describe(&sent.bytes).starts_with("198.51.100.7.1024 > 10.0.0.2.8080 TCP S"));
/// ```
#[derive(Debug)]
pub struct Desk {
    /// The director.
    pub director: Director,
    /// The time.
    pub now: Instant,
}

/// What became of a packet.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet's bytes after it.
    pub bytes: Vec<u8>,
}

impl Desk {
    /// A director with these `ipvsadm-save` lines in force.
    ///
    /// # Panics
    /// If a line is wrong or refused.
    pub fn new(rules: &str) -> Self {
        Self::with_config(Self::config(), rules)
    }

    /// The configuration [`Desk::new`] uses, to be changed.
    pub fn config() -> DirectorConfig {
        DirectorConfig {
            client_side: Side { mtu: 1500, ipv4: "203.0.113.254".parse().ok(), ipv6: "2001:db8:ffff::1".parse().ok() },
            server_side: Side { mtu: 1500, ipv4: "10.0.0.254".parse().ok(), ipv6: "fd00::ff".parse().ok() },
            ..DirectorConfig::default()
        }
    }

    /// A director with this configuration and these lines in force.
    ///
    /// # Panics
    /// If a line is wrong or refused.
    pub fn with_config(config: DirectorConfig, rules: &str) -> Self {
        let mut desk = Self { director: Director::new(config, Seed::new(1)), now: Instant::from_secs(1) };
        for command in lvs_admin::parse_rules(rules).expect("the rules are right") {
            desk.director.apply(desk.now, &command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        }
        desk
    }

    /// Runs one ipvsadm command line (without the program's name).
    ///
    /// # Panics
    /// If it is wrong or refused.
    pub fn ipvsadm(&mut self, line: &str) {
        for command in lvs_admin::parse_rules(line).expect("the line is right") {
            self.director.apply(self.now, &command).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    /// Changes settings.
    pub fn set(&mut self, change: impl FnOnce(&mut lvs_core::Settings)) {
        let mut settings = self.director.settings().clone();
        change(&mut settings);
        let command = lvs_core::Command::SetSettings(settings);
        self.director.apply(self.now, &command).expect("the settings are valid");
    }

    /// Lets time pass; what is due is done.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.director.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.director.handle_timeout(self.now);
        }
        self.now = end;
        self.director.handle_timeout(end);
    }

    /// Hands a packet to the director.
    ///
    /// # Panics
    /// If the director breaks a promise it makes for every packet: a dropped, passed or held packet stays as it was,
    /// `explain` says what `handle_packet` does, and what leaves has right checksums where what came had.
    pub fn send(&mut self, packet: &[u8]) -> Outcome {
        self.send_storage(Storage::with_room(packet, 64, 2048))
    }

    /// The same with a mark, an offload context or little room.
    ///
    /// # Panics
    /// As [`Desk::send`].
    pub fn send_storage(&mut self, mut storage: Storage) -> Outcome {
        let before = storage.packet().bytes().to_vec();
        let explanation = self.director.explain(self.now, &storage.packet());
        let mut packet = storage.packet();
        let verdict = self.director.handle_packet(self.now, &mut packet);
        let bytes = packet.bytes().to_vec();
        if matches!(verdict, Verdict::Pass | Verdict::Drop(_) | Verdict::Held) {
            assert_eq!(bytes, before, "{verdict:?} leaves the bytes alone");
        }
        assert_eq!((explanation.verdict, &explanation.bytes), (verdict, &bytes), "explain agrees:\n{explanation}");
        if storage.offload == Default::default() && oracle::checksum_errors(&before).is_empty() {
            let errors = oracle::checksum_errors(&bytes);
            assert!(errors.is_empty(), "{errors:?} in {}", crate::describe(&bytes));
        }
        Outcome { verdict, bytes }
    }

    /// Everything `poll_transmit` has to give.
    pub fn transmits(&mut self) -> Vec<Outcome> {
        let mut all = Vec::new();
        let mut storage = Storage::with_room(&[], 64, 65_535);
        loop {
            let mut packet = storage.packet();
            let Some(verdict) = self.director.poll_transmit(&mut packet) else { return all };
            all.push(Outcome { verdict, bytes: packet.bytes().to_vec() });
        }
    }

    /// The connections, templates excluded, by client.
    pub fn connections(&self) -> Vec<ConnectionView> {
        let mut all: Vec<_> = self.director.connections(self.now).filter(|view| !view.is_template).collect();
        all.sort_by_key(|view| (view.client, view.virtual_endpoint));
        all
    }
}

impl Outcome {
    /// One line: the packet as [`crate::describe()`] prints it, after `->` and the next hop; or the verdict.
    pub fn line(&self) -> String {
        match self.verdict {
            Verdict::Forward { next_hop, .. } => format!("-> {next_hop}: {}", crate::describe(&self.bytes)),
            Verdict::Reply { next_hop } => format!("<- {next_hop}: {}", crate::describe(&self.bytes)),
            verdict => format!("{verdict:?}"),
        }
    }
}
