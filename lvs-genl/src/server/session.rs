//! One conversation: a datagram with requests goes in, datagrams with answers are pulled out, one at a time. A request
//! is carried out when its first answer is pulled, so nothing is kept but the datagram that came in and, of a listing,
//! one piece.
//! Source: the recordings in `conformance/netlink/`, above all `raw_header`.

use alloc::vec::Vec;

use super::answer::{Asked, Outcome};
use super::dump::Dump;
use super::transaction::{self, Kept};
use super::{Refusal, Table};
use crate::ctrl::{self, Family, IPVS_ID, LVS_ID};
use crate::errno::Errno;
use crate::lvs::command;
use crate::wire::{ACK, CAPPED, DUMP, ERROR, FIRST_FAMILY, HEADER_LEN, Header, Message, Messages, REQUEST, Writer};

/// The longest datagram of answers, except an error that quotes a longer request: what stock programs make room for.
pub const DATAGRAM_MAX: usize = 16_384;
/// The longest datagram of requests.
const REQUESTS_MAX: usize = 1 << 20;

/// What a program may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// Look families up, and nothing else: an ordinary user. The first real request is answered EPERM, as Linux does.
    None,
    /// Read.
    Read,
    /// Everything.
    Full,
}

/// A datagram of requests that is longer than any program sends: 1 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

/// One program's conversation with a director.
///
/// ```
/// use lvs_core::{Director, DirectorConfig, Instant, Seed};
/// use lvs_genl::client::{Client, Reply};
/// use lvs_genl::convert::Request;
/// use lvs_genl::ipvs::command;
/// use lvs_genl::server::{Access, Master, Session, SyncDaemons};
///
/// let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
/// let mut daemons = SyncDaemons::default();
/// let mut table = Master::new(&mut director, &mut daemons, Instant::ZERO);
///
/// let mut client = Client::new(1);
/// let mut session = Session::new(Access::Full);
/// session.receive(&client.request(&Request::new(command::GET_INFO))).unwrap();
/// let mut answer = Vec::new();
/// assert!(session.next_datagram(&mut table, &mut answer));
/// assert_eq!(client.replies(&answer).next(), Some(Ok(Reply::Info { version: 0x10201, table_size: 4096 })));
/// assert!(session.next_datagram(&mut table, &mut answer)); // the acknowledgment
/// assert!(!session.next_datagram(&mut table, &mut answer));
/// ```
#[derive(Debug)]
pub struct Session {
    access: Access,
    /// The port id answers carry; without one, that of each request.
    port: Option<u32>,
    caps_errors: bool,
    requests: Vec<u8>,
    /// Where the next request begins.
    next: usize,
    pending: Pending,
    transaction: Option<Kept>,
}

/// What is still to be sent for the request that was carried out last.
#[derive(Debug)]
enum Pending {
    Nothing,
    Ack(Header),
    Dump(Dump),
}

impl Session {
    /// A conversation with a program that may do this much.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            port: None,
            caps_errors: false,
            requests: Vec::new(),
            next: 0,
            pending: Pending::Nothing,
            transaction: None,
        }
    }

    /// Answers carry this port id instead of the one each request says.
    #[must_use]
    pub fn port(mut self, port: u32) -> Self {
        self.port = Some(port);
        self
    }

    /// Errors quote the request's header alone, as a program asks for by the socket option `NETLINK_CAP_ACK`.
    pub fn cap_errors(&mut self, caps: bool) {
        self.caps_errors = caps;
    }

    /// Whether every request was answered: then the next datagram can be taken.
    pub fn is_idle(&self) -> bool {
        matches!(self.pending, Pending::Nothing) && self.next >= self.requests.len()
    }

    /// Takes a datagram of requests. What was asked before and not answered yet is given up, so wait until the session
    /// [`is_idle`](Self::is_idle).
    ///
    /// # Errors
    /// [`TooLong`], and nothing is taken.
    pub fn receive(&mut self, datagram: &[u8]) -> Result<(), TooLong> {
        if datagram.len() > REQUESTS_MAX {
            return Err(TooLong);
        }
        self.pending = Pending::Nothing;
        self.requests.clear();
        self.requests.extend_from_slice(datagram);
        self.next = 0;
        Ok(())
    }

    /// Writes the next datagram of answers over `out`; `false` if there is none until more is received.
    pub fn next_datagram(&mut self, table: &mut impl Table, out: &mut Vec<u8>) -> bool {
        out.clear();
        loop {
            match core::mem::replace(&mut self.pending, Pending::Nothing) {
                Pending::Ack(header) => {
                    write_ack(out, header, self.port);
                    return true;
                }
                Pending::Dump(mut dump) => {
                    if dump.write(table, out, DATAGRAM_MAX) {
                        self.pending = Pending::Dump(dump);
                    }
                    return true;
                }
                Pending::Nothing => {}
            }
            let requests = core::mem::take(&mut self.requests);
            let mut messages = Messages::new(requests.get(self.next..).unwrap_or_default());
            let Some(message) = messages.next() else {
                self.next = requests.len();
                self.requests = requests;
                return false;
            };
            self.next = requests.len() - messages.rest_len();
            let (header, quoted) = (message.header, message.bytes());
            self.pending = match self.answer(message, table, out) {
                Ok(pending) => pending,
                Err((mut refusal, tells_why)) => {
                    refusal.text = refusal.text.filter(|_| tells_why);
                    out.clear();
                    write_error(out, Quote { header, port: self.port, quoted, caps: self.caps_errors }, &refusal);
                    Pending::Nothing
                }
            };
            self.requests = requests;
            if !out.is_empty() {
                return true;
            }
        }
    }

    /// Carries one request out, or keeps it. A refusal comes with whether its sentence may be told.
    fn answer(
        &mut self,
        message: Message<'_>,
        table: &mut impl Table,
        out: &mut Vec<u8>,
    ) -> Result<Pending, (Refusal, bool)> {
        let header = message.header;
        let ack = || if header.flags & ACK == 0 { Pending::Nothing } else { Pending::Ack(header) };
        if header.flags & REQUEST == 0 || header.kind < FIRST_FAMILY {
            return Ok(ack());
        }
        let plain = |errno: Errno| (Refusal::from(errno), false);
        let family = Family::by_id(header.kind).ok_or(plain(Errno::NO_ENTRY))?;
        let (generic, attributes) = message.generic().ok_or(plain(Errno::INVALID))?;
        let is_dump = header.flags & DUMP == DUMP;
        let reply = Header { flags: 0, port: self.port.unwrap_or(header.port), ..header };
        let asked = Asked { command: generic.command, is_dump, attributes, reply };
        if asked.is_change(family) {
            asked.may_be_asked(family, self.access).map_err(plain)?;
            let outcome = match (family.id, generic.command, &mut self.transaction) {
                (LVS_ID, command::BEGIN | command::COMMIT | command::ABORT, transaction) => {
                    transaction::change(transaction, generic.command, table).map(Some)
                }
                (_, _, Some(kept)) => kept.keep(message.bytes()).map(Some),
                (_, _, None) => Ok(None),
            };
            match outcome {
                Ok(Some(())) => return Ok(ack()),
                Ok(None) => {}
                Err(refusal) => return Err((refusal, true)),
            }
        }
        let outcome = match family.id {
            ctrl::ID => asked.ctrl(out).map_err(plain),
            IPVS_ID => asked.ipvs(family, self.access, table, out).map_err(|refusal| (refusal, false)),
            LVS_ID => asked.lvs(family, self.access, table, out).map_err(|refusal| (refusal, true)),
            _ => Err(plain(Errno::NO_ENTRY)),
        };
        match outcome? {
            Outcome::Done | Outcome::Answered => Ok(ack()),
            Outcome::Dump(dump) => Ok(Pending::Dump(dump)),
        }
    }
}

/// What an error quotes, and how.
struct Quote<'a> {
    header: Header,
    port: Option<u32>,
    quoted: &'a [u8],
    caps: bool,
}

fn write_ack(out: &mut Vec<u8>, request: Header, port: Option<u32>) {
    let mut quoted = Vec::with_capacity(HEADER_LEN);
    Writer::new(&mut quoted, request).abandon();
    let header = answer_to(request, port, CAPPED);
    let mut message = Writer::new(out, header);
    message.raw(&0_i32.to_ne_bytes());
    message.raw(&quoted);
    message.finish();
}

fn write_error(out: &mut Vec<u8>, quote: Quote<'_>, Refusal { errno, text, at }: &Refusal) {
    let capped = if quote.caps { CAPPED } else { 0 };
    let told = if text.is_some() || at.is_some() { HAS_TEXT } else { 0 };
    let mut message = Writer::new(out, answer_to(quote.header, quote.port, capped | told));
    message.raw(&(-errno.0).to_ne_bytes());
    message.raw(if quote.caps { &quote.quoted[..HEADER_LEN] } else { quote.quoted });
    if let Some(text) = text {
        message.text(TEXT, text);
    }
    if let Some(at) = at {
        message.u32(AT, *at);
    }
    message.finish();
}

fn answer_to(request: Header, port: Option<u32>, flags: u16) -> Header {
    Header { kind: ERROR, flags, port: port.unwrap_or(request.port), ..request }
}

/// Flag of an error that has attributes behind what it quotes, and the number of the text there.
pub(crate) const HAS_TEXT: u16 = 0x200;
pub(crate) const TEXT: u16 = 1;
/// Ours: which request of a transaction an error is about. Far above Linux's numbers.
pub(crate) const AT: u16 = 0x1000;
