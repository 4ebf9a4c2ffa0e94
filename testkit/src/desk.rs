//! A director on a desk: configured by `ipvsadm-save` lines or by commands, fed packets by hand, its clock moved by hand.
//! Each packet that passes through [`Desk::send`] holds the director to the promises it makes for every packet.

use core::time::Duration;
use std::net::SocketAddr;

use lvs_core::view::{ConnectionView, ServerView};
use lvs_core::{
    Command, Director, DirectorConfig, Event, Instant, Offload, Protocol, Seed, ServerConfig, ServiceConfig,
    ServiceKey, Settings, Side, Verdict,
};

use self::told::Measures;
use crate::Storage;
use crate::oracle;

mod told;

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
    /// The bytes of the last packet sent, as the director left them.
    pub bytes: Vec<u8>,
}

/// What became of a packet.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet's bytes after it.
    pub bytes: Vec<u8>,
    /// What the device is to do with it when it is sent.
    pub offload: Offload,
}

/// A TCP service.
///
/// # Panics
/// If this is no address with a port.
pub fn tcp_service(at: &str) -> ServiceKey {
    ServiceKey::address(Protocol::Tcp, socket(at))
}

/// A UDP service.
///
/// # Panics
/// If this is no address with a port.
pub fn udp_service(at: &str) -> ServiceKey {
    ServiceKey::address(Protocol::Udp, socket(at))
}

/// A NAT server of weight 1.
///
/// # Panics
/// If this is no address with a port.
pub fn nat(at: &str) -> ServerConfig {
    ServerConfig::nat(socket(at))
}

fn socket(at: &str) -> SocketAddr {
    at.parse().expect("an address with a port")
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
        DirectorConfig::default().with(|config| {
            config.client_side = Side::default().with(|side| {
                side.mtu = 1500;
                side.ipv4 = "203.0.113.254".parse().ok();
                side.ipv6 = "2001:db8:ffff::1".parse().ok();
            });
            config.server_side = Side::default().with(|side| {
                side.mtu = 1500;
                side.ipv4 = "10.0.0.254".parse().ok();
                side.ipv6 = "fd00::ff".parse().ok();
            });
        })
    }

    /// A director with this configuration and these lines in force.
    ///
    /// # Panics
    /// If a line is wrong or refused.
    pub fn with_config(config: DirectorConfig, rules: &str) -> Self {
        Self::seeded(config, Seed::new(1), rules)
    }

    /// The same with a seed of one's own.
    ///
    /// # Panics
    /// If a line is wrong or refused.
    pub fn seeded(config: DirectorConfig, seed: Seed, rules: &str) -> Self {
        let mut desk = Self { director: Director::new(config, seed), now: Instant::from_secs(1), bytes: Vec::new() };
        desk.ipvsadm(rules);
        desk
    }

    /// A director with this configuration and no service.
    pub fn bare(config: DirectorConfig) -> Self {
        Self::with_config(config, "")
    }

    /// A director with this configuration, after these commands.
    ///
    /// # Panics
    /// If one is refused.
    pub fn with_commands<'a>(config: DirectorConfig, commands: impl IntoIterator<Item = &'a Command>) -> Self {
        let mut desk = Self::bare(config);
        commands.into_iter().for_each(|command| desk.apply(command));
        desk
    }

    /// Runs ipvsadm command lines (without the program's name).
    ///
    /// # Panics
    /// If one is wrong or refused.
    pub fn ipvsadm(&mut self, lines: &str) {
        for command in lvs_admin::parse_rules(lines).expect("the lines are right") {
            self.apply(&command);
        }
    }

    /// Carries out a command.
    ///
    /// # Panics
    /// If it is refused.
    pub fn apply(&mut self, command: &Command) {
        self.director.apply(self.now, command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }

    /// Adds a service with its servers.
    ///
    /// # Panics
    /// If one is refused.
    pub fn add(&mut self, key: ServiceKey, config: ServiceConfig, servers: impl IntoIterator<Item = ServerConfig>) {
        self.apply(&Command::AddService(key, config));
        for server in servers {
            self.apply(&Command::AddServer(key, server));
        }
    }

    /// Changes settings.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.director.settings().clone();
        change(&mut settings);
        self.apply(&Command::SetSettings(settings));
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
    /// `explain` changes nothing and says what `handle_packet` then does to the packet and the tables, and what leaves
    /// has right checksums where what came had.
    pub fn send(&mut self, packet: &[u8]) -> Outcome {
        self.send_storage(Storage::with_room(packet, 64, 2048))
    }

    /// The same, whatever becomes of the packet.
    ///
    /// # Panics
    /// As [`Desk::send`].
    pub fn feed(&mut self, packet: &[u8]) {
        let _ = self.send(packet);
    }

    /// The same for a packet with a firewall mark.
    ///
    /// # Panics
    /// As [`Desk::send`].
    pub fn send_marked(&mut self, mark: u32, packet: &[u8]) -> Outcome {
        self.send_storage(Storage::with_room(packet, 64, 2048).mark(mark))
    }

    /// The same with a mark, an offload context or little room.
    ///
    /// # Panics
    /// As [`Desk::send`].
    pub fn send_storage(&mut self, storage: Storage) -> Outcome {
        let (before, offload) = (storage.bytes().to_vec(), storage.offload);
        let sent = hand_over(&mut self.director, self.now, storage);
        if offload == Offload::default() && oracle::checksum_errors(&before).is_empty() {
            let errors = oracle::checksum_errors(&sent.bytes);
            assert!(errors.is_empty(), "{errors:?} in {}", crate::describe(&sent.bytes));
        }
        self.bytes.clone_from(&sent.bytes);
        sent
    }

    /// The next packet the director itself owes the wire.
    pub fn transmit(&mut self) -> Option<Outcome> {
        let mut storage = Storage::with_room(&[], 64, 65_535);
        let mut packet = storage.packet();
        let verdict = self.director.poll_transmit(&mut packet)?;
        Some(Outcome { verdict, bytes: packet.bytes().to_vec(), offload: packet.offload })
    }

    /// Everything `poll_transmit` has to give.
    pub fn transmits(&mut self) -> Vec<Outcome> {
        std::iter::from_fn(|| self.transmit()).collect()
    }

    /// All events not polled yet.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.director.poll_event()).collect()
    }

    /// The connections, templates excluded, by client.
    pub fn connections(&self) -> Vec<ConnectionView> {
        self.rows(false)
    }

    /// The persistence templates, by client.
    pub fn templates(&self) -> Vec<ConnectionView> {
        self.rows(true)
    }

    fn rows(&self, templates: bool) -> Vec<ConnectionView> {
        let rows = self.director.connections(self.now);
        let mut rows: Vec<_> = rows.filter(|row| row.is_template == templates).collect();
        rows.sort_by_key(|row| (row.client, row.virtual_endpoint));
        rows
    }

    /// The states of all connections, sorted.
    pub fn states(&self) -> Vec<&'static str> {
        let mut states: Vec<_> = self.connections().iter().map(|row| row.state).collect();
        states.sort_unstable();
        states
    }

    /// A server as it is listed.
    ///
    /// # Panics
    /// If it is not.
    pub fn server(&self, service: ServiceKey, at: &str) -> ServerView {
        let key = nat(at).key;
        let service = self.director.service(self.now, &service).expect("the service exists");
        service.servers.into_iter().find(|server| server.config.key == key).expect("the server is listed")
    }
}

/// Hands a packet to a director and holds it to what it promises of any bytes: a dropped, passed or held packet stays as
/// it was, and `explain` changes nothing and says what `handle_packet` then does, to the packet and to the tables.
///
/// # Panics
/// If it breaks a promise.
pub fn hand_over(director: &mut Director, now: Instant, mut storage: Storage) -> Outcome {
    let (before, offload) = (storage.bytes().to_vec(), storage.offload);
    let untouched = Measures::of(director, now);
    let explanation = director.explain(now, &storage.packet());
    assert_eq!(Measures::of(director, now), untouched, "explain changes nothing:\n{explanation}");
    let mut packet = storage.packet();
    let verdict = director.handle_packet(now, &mut packet);
    let sent = Outcome { verdict, bytes: packet.bytes().to_vec(), offload: packet.offload };
    assert_eq!((explanation.verdict, &explanation.bytes), (verdict, &sent.bytes), "explain agrees:\n{explanation}");
    if matches!(verdict, Verdict::Pass | Verdict::Drop(_) | Verdict::Held) {
        assert_eq!((&sent.bytes, sent.offload), (&before, offload), "{verdict:?} leaves the packet alone");
    }
    untouched.check(&explanation, director, now);
    sent
}

impl Outcome {
    /// One line: the packet as [`crate::describe()`] prints it, after `->` and the next hop; or the verdict.
    pub fn line(&self) -> String {
        match self.verdict {
            Verdict::Forward { next_hop, .. } => format!("-> {next_hop}: {}", crate::describe(&self.bytes)),
            Verdict::Reply { next_hop, .. } => format!("<- {next_hop}: {}", crate::describe(&self.bytes)),
            verdict => format!("{verdict:?}"),
        }
    }
}
