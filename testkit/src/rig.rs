//! A director with a clock of its own: the shortest way from a packet in a test to what became of it.
//! Every step keeps the promise that `explain` says beforehand what `handle_packet` then does.

use std::net::SocketAddr;
use std::time::Duration;

use lvs_core::view::{ConnectionView, ServerView};
use lvs_core::{
    Command, Director, DirectorConfig, Event, HEADROOM, Instant, PacketBuf, Protocol, Seed, ServerConfig,
    ServiceConfig, ServiceKey, Settings, Verdict,
};

use crate::Storage;

/// A director, the time it is told, and what it said last.
///
/// ```
/// use lvs_core::{DirectorConfig, ServerConfig, ServiceConfig, Verdict};
/// use lvs_testkit::rig::{Rig, tcp_service};
/// use lvs_testkit::tcp;
///
/// let mut rig = Rig::new(DirectorConfig::default());
/// let web = tcp_service("192.0.2.80:80");
/// rig.add(web, ServiceConfig::new("rr"), [ServerConfig::nat("10.0.0.2:80".parse().unwrap())]);
/// let verdict = rig.send(&tcp("198.51.100.7:1024", "192.0.2.80:80").syn().build());
/// assert!(matches!(verdict, Verdict::Forward { .. }));
/// assert_eq!(rig.states(), ["SYN_RECV"]);
/// ```
#[derive(Debug)]
pub struct Rig {
    /// The director under test.
    pub director: Director,
    /// Its time.
    pub now: Instant,
    /// The bytes of the last packet, as the director left them.
    pub bytes: Vec<u8>,
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

impl Rig {
    /// A director of this configuration, at a time that is not the beginning of all.
    pub fn new(config: DirectorConfig) -> Self {
        Self { director: Director::new(config, Seed::new(0x5eed)), now: Instant::from_secs(1_000), bytes: vec![] }
    }

    /// Carries out a command.
    ///
    /// # Panics
    /// If it is refused.
    pub fn apply(&mut self, command: &Command) {
        self.director.apply(self.now, command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }

    /// Adds a service with its servers.
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

    /// Hands a packet to the director; the bytes it leaves are in [`Rig::bytes`].
    ///
    /// # Panics
    /// If `explain` foretold something else, or a packet passed or dropped was changed.
    pub fn send(&mut self, packet: &[u8]) -> Verdict {
        self.send_marked(0, packet)
    }

    /// The same, whatever becomes of the packet.
    pub fn feed(&mut self, packet: &[u8]) {
        let _ = self.send(packet);
    }

    /// The same for a packet with a firewall mark.
    pub fn send_marked(&mut self, mark: u32, packet: &[u8]) -> Verdict {
        let mut storage = Storage::with_room(packet, HEADROOM, 256).mark(mark);
        let foretold = self.director.explain(self.now, &storage.packet());
        let mut lent = storage.packet();
        let verdict = self.director.handle_packet(self.now, &mut lent);
        self.bytes = lent.bytes().to_vec();
        assert_eq!(foretold.verdict, verdict, "{foretold}");
        if matches!(verdict, Verdict::Pass | Verdict::Drop(_)) {
            assert_eq!(self.bytes, packet, "{verdict:?} leaves the bytes as they came");
        } else {
            assert_eq!(foretold.bytes, self.bytes, "{foretold}");
        }
        verdict
    }

    /// Lets time pass, doing what is due when it is due.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.director.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.director.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// The next packet the director itself owes the wire, with its verdict.
    pub fn transmit(&mut self) -> Option<(Verdict, Vec<u8>)> {
        let mut storage = vec![0; HEADROOM + 2048];
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, 0);
        let verdict = self.director.poll_transmit(&mut packet)?;
        Some((verdict, packet.bytes().to_vec()))
    }

    /// All events not polled yet.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.director.poll_event()).collect()
    }

    /// Connections without templates.
    pub fn connections(&self) -> Vec<ConnectionView> {
        self.director.connections(self.now).filter(|row| !row.is_template).collect()
    }

    /// Persistence templates.
    pub fn templates(&self) -> Vec<ConnectionView> {
        self.director.connections(self.now).filter(|row| row.is_template).collect()
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
