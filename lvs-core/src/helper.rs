//! Protocol helpers: protocols that carry addresses and ports in what they say (FTP) need somebody who listens, expects
//! the connections that were agreed on, and rewrites what must not get through.
//!
//! This file says what a helper is and which there are. A helper only reads text and says what it found; the director
//! opens the expected connections, rewrites the packet and keeps both sides' sequence numbers in step afterwards.
//! Helpers are off unless a service asks for one ([`crate::ServiceConfig::helper`]), and work for TCP behind NAT and
//! FullNAT.

pub mod ftp;
pub(crate) mod sequence;
pub(crate) mod table;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::flow::Endpoint;

/// Listens to one protocol. Sees the payload of each TCP segment of an established connection by itself, as IPVS's
/// helpers do: text that is split over two segments is not understood.
///
/// ```
/// use lvs_core::helper::{Findings, Helper, HelperRegistry, Notes, Session};
/// use lvs_core::{Command, Director, DirectorConfig, Instant, Protocol, Seed, ServiceConfig, ServiceKey};
///
/// /// Hides what the server says it is.
/// struct Discreet;
///
/// impl Helper for Discreet {
///     fn port(&self) -> u16 {
///         25
///     }
///     fn reply(&self, _session: &Session, _notes: &mut Notes, payload: &[u8]) -> Findings {
///         let name = payload.windows(4).position(|window| window == b"Xmta");
///         name.map_or(Findings::default(), |at| Findings::edit(at..at + 4, "mail"))
///     }
/// }
///
/// let mut helpers = HelperRegistry::default();
/// helpers.register("discreet", Discreet);
/// let mut director = Director::new(DirectorConfig::default().with(|config| config.helpers = helpers), Seed::new(1));
/// let mail = ServiceKey::address(Protocol::Tcp, "192.0.2.25:25".parse().unwrap());
/// let service = ServiceConfig::new("rr").helper("discreet");
/// director.apply(Instant::ZERO, &Command::AddService(mail, service)).unwrap();
/// ```
pub trait Helper: Send + Sync {
    /// The protocol's own port: connections to it get the helper where a service takes more than one port (any-port and
    /// firewall-mark services). Where a service has a port, that counts instead.
    fn port(&self) -> u16;

    /// Whether a segment that is sent again is changed again as it was the first time. Without, whoever lost it gets
    /// other bytes than he is told to expect; Linux's FTP helper is like that. With FullNAT, which Linux does not have,
    /// it always is.
    fn repeats(&self) -> bool {
        true
    }

    /// A segment from the client with payload, as it came; of a longer one the first 1,500 bytes, so that nobody can
    /// make a packet costly.
    fn request(&self, session: &Session, notes: &mut Notes, payload: &[u8]) -> Findings {
        let _ = (session, notes, payload);
        Findings::default()
    }

    /// What `payload`, a segment in which the client announces where it expects a connection, must say to the server
    /// with FullNAT, where the director takes that connection at `local`, an endpoint of its own.
    fn announce(&self, session: &Session, payload: &[u8], local: Endpoint) -> Option<Edit> {
        let _ = (session, payload, local);
        None
    }

    /// The same of a segment from the server.
    fn reply(&self, session: &Session, notes: &mut Notes, payload: &[u8]) -> Findings {
        let _ = (session, notes, payload);
        Findings::default()
    }
}

/// Who speaks with whom on the connection a helper listens to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// The client.
    pub client: Endpoint,
    /// Whom the client addresses.
    pub virtual_endpoint: Endpoint,
    /// The real server.
    pub real: Endpoint,
}

/// What a helper remembers of one connection from one segment to the next: a number of its own meaning, 0 at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Notes(pub u64);

/// What a helper found in a segment. The default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// A connection the two have agreed on.
    pub expected: Option<Expected>,
    /// What must be said differently.
    pub edit: Option<Edit>,
}

impl Findings {
    /// Only text to be said differently: these bytes of the payload become `text`.
    pub fn edit(range: Range<usize>, text: impl Into<Vec<u8>>) -> Self {
        Self { expected: None, edit: Some(Edit { range, text: text.into() }) }
    }
}

/// A connection that will be opened. It goes to the same server, lives in state LISTEN until its first packet, and
/// keeps the connection it belongs to alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The client's end. Port 0: not known yet; the first packet tells. IPVS: `NO_CPORT`.
    pub client: Endpoint,
    /// The port on the virtual address.
    pub virtual_port: u16,
    /// The server's end.
    pub real: Endpoint,
}

/// Text that replaces a part of a payload, of the same length or not. Nothing is done if `range` is not inside the
/// payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edit {
    /// Which bytes of the payload go.
    pub range: Range<usize>,
    /// What comes in their place.
    pub text: Vec<u8>,
}

/// Which helpers there are, by name. The default holds `ftp`; register your own beside it.
#[derive(Clone)]
pub struct HelperRegistry {
    helpers: BTreeMap<String, Arc<dyn Helper>>,
}

impl HelperRegistry {
    /// No helper at all.
    pub const fn empty() -> Self {
        Self { helpers: BTreeMap::new() }
    }

    /// Adds a helper under a name; replaces one of the same name.
    pub fn register(&mut self, name: impl Into<String>, helper: impl Helper + 'static) {
        self.helpers.insert(name.into(), Arc::new(helper));
    }

    /// The helper of this name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Helper>> {
        self.helpers.get(name).cloned()
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.helpers.keys().map(String::as_str)
    }
}

impl Default for HelperRegistry {
    fn default() -> Self {
        let mut registry = Self::empty();
        registry.register("ftp", ftp::Ftp::default());
        registry
    }
}

impl fmt::Debug for HelperRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
