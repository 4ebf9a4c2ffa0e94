//! A listing on its way: pulled from the table piece by piece, packed into datagrams while whole messages fit. Its end is
//! a message of type DONE in a datagram of its own, and there is no acknowledgment.

use alloc::vec::Vec;

use lvs_core::ServiceKey;
use lvs_core::service::ServicePlace;

use super::{ServerCursor, Table};
use crate::ipvs::{self, ServerMessage, ServiceMessage, Side};
use crate::lvs;
use crate::wire::{DONE, GenericHeader, Header, MULTI, Messages, Writer};

/// A listing and how far it is.
#[derive(Debug)]
pub(super) struct Dump {
    /// The header of its messages.
    header: Header,
    rows: Rows,
    /// Messages that were made and not sent yet.
    made: Vec<u8>,
    sent: usize,
}

/// What is listed, and where to go on.
#[derive(Debug)]
enum Rows {
    Services {
        after: Option<ServicePlace>,
    },
    Servers {
        service: ServiceKey,
        from: ServerCursor,
    },
    Connections {
        cursor: u64,
    },
    /// Everything was made already.
    Ended,
}

impl Dump {
    fn new(header: Header, rows: Rows) -> Self {
        Self { header: Header { flags: MULTI, ..header }, rows, made: Vec::new(), sent: 0 }
    }

    /// Messages that are made already.
    pub fn ready(header: Header, made: Vec<u8>) -> Self {
        Self { made, ..Self::new(header, Rows::Ended) }
    }

    /// Every service.
    pub fn services(header: Header) -> Self {
        Self::new(header, Rows::Services { after: None })
    }

    /// The servers of a service, or of none.
    pub fn servers(header: Header, service: Option<ServiceKey>) -> Self {
        match service {
            Some(service) => Self::new(header, Rows::Servers { service, from: ServerCursor::default() }),
            None => Self::new(header, Rows::Ended),
        }
    }

    /// The synchronisation daemons.
    pub fn daemons(header: Header, table: &mut impl Table) -> Self {
        let mut dump = Self::new(header, Rows::Ended);
        for daemon in table.daemons() {
            let mut message = dump.begin(ipvs::command::NEW_DAEMON, ipvs::VERSION);
            daemon.write(&mut message, ipvs::attribute::DAEMON, Side::Director);
            message.finish();
        }
        dump
    }

    /// The settings.
    pub fn settings(header: Header, table: &mut impl Table) -> Self {
        let mut dump = Self::new(header, Rows::Ended);
        for (name, value) in table.settings() {
            let mut message = dump.begin(lvs::command::SET_SETTING, lvs::VERSION);
            message.text(lvs::attribute::NAME, &name);
            message.text(lvs::attribute::VALUE, &value);
            message.finish();
        }
        dump
    }

    /// The connections.
    pub fn connections(header: Header) -> Self {
        Self::new(header, Rows::Connections { cursor: 0 })
    }

    /// Writes one datagram, at most `most` bytes unless a single message is longer; `false` if it was the last one.
    pub fn write(&mut self, table: &mut impl Table, out: &mut Vec<u8>, most: usize) -> bool {
        loop {
            if self.sent == self.made.len() && !self.make(table) {
                break;
            }
            for message in Messages::new(&self.made[self.sent..]) {
                let bytes = message.bytes();
                if !out.is_empty() && out.len() + bytes.len() > most {
                    return true;
                }
                out.extend_from_slice(bytes);
                self.sent += bytes.len();
            }
        }
        if !out.is_empty() {
            return true;
        }
        let mut message = Writer::new(out, Header { kind: DONE, ..self.header });
        message.raw(&[0; 4]);
        message.finish();
        false
    }

    /// Makes the next messages; `false` at the end.
    fn make(&mut self, table: &mut impl Table) -> bool {
        self.made.clear();
        self.sent = 0;
        loop {
            let goes_on = match &self.rows {
                Rows::Services { .. } => self.make_services(table),
                Rows::Servers { .. } => self.make_servers(table),
                Rows::Connections { .. } => self.make_connections(table),
                Rows::Ended => false,
            };
            if !goes_on {
                self.rows = Rows::Ended;
            }
            if !goes_on || !self.made.is_empty() {
                return !self.made.is_empty();
            }
        }
    }

    /// Returns whether there may be more.
    fn make_services(&mut self, table: &mut impl Table) -> bool {
        let Rows::Services { after } = &mut self.rows else { return false };
        let services = table.services(after.as_ref(), PIECE);
        let Some(last) = services.last() else { return false };
        *after = Some(last.place());
        for view in &services {
            let mut message = self.begin(ipvs::command::NEW_SERVICE, ipvs::VERSION);
            ServiceMessage::of_view(view).write(&mut message, ipvs::attribute::SERVICE, Side::Director);
            message.finish();
        }
        true
    }

    /// Returns whether there may be more.
    fn make_servers(&mut self, table: &mut impl Table) -> bool {
        let Rows::Servers { service, from } = &mut self.rows else { return false };
        let servers = table.servers(service, from, PIECE);
        if servers.is_empty() {
            return false;
        }
        from.advance(&servers);
        for view in &servers {
            let mut message = self.begin(ipvs::command::NEW_SERVER, ipvs::VERSION);
            ServerMessage::of_view(view).write(&mut message, ipvs::attribute::SERVER, Side::Director);
            message.finish();
        }
        true
    }

    /// Returns whether there may be more.
    fn make_connections(&mut self, table: &mut impl Table) -> bool {
        let Rows::Connections { cursor } = &mut self.rows else { return false };
        let (connections, next) = table.connections(*cursor, PIECE);
        *cursor = next.unwrap_or(u64::MAX);
        for view in &connections {
            let mut message = self.begin(lvs::command::CONNECTION, lvs::VERSION);
            lvs::write_connection(&mut message, view);
            message.finish();
        }
        next.is_some()
    }

    fn begin(&mut self, command: u8, version: u8) -> Writer<'_> {
        Writer::generic(&mut self.made, self.header, GenericHeader { command, version })
    }
}

/// How many rows are asked for at a time: somewhat more than a datagram takes.
const PIECE: usize = 64;
