//! What a snapshot says of one connection, template, server and service: format 1.
//! Each row begins with its length. A newer version of the same format appends to rows, and an older reader leaves what
//! it does not know; it never changes what is there.

use core::net::IpAddr;
use core::time::Duration;

use crate::connection::sctp::SctpState;
use crate::connection::store::Handle;
use crate::connection::tcp::TcpState;
use crate::connection::{Connection, State, Talk};
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::forward::full_nat::sequence::Translation;
use crate::helper::sequence::Counts;
use crate::persistence::{Proof, Template};
use crate::service::stats::Meter;
use crate::service::{ForwardMethod, ServerKey, ServiceKey};
use crate::snapshot::codec::{Reader, Writer, method, method_number};
use crate::time::Instant;

/// A server, listed or deleted. Connections name it by `number`; where a number is said twice, the later row counts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ServerRow {
    pub number: u32,
    pub service: ServiceKey,
    pub key: ServerKey,
    pub forward: ForwardMethod,
    pub is_listed: bool,
    pub is_overloaded: bool,
    pub last_weight: u32,
    /// Reported load factor in 1/1024ths.
    pub factor: u32,
    /// How long it has been warming up.
    pub ramp: Option<Duration>,
    pub meter: [u64; Meter::WORDS],
}

impl ServerRow {
    pub fn write(&self, to: &mut Writer<'_>) -> bool {
        to.long_row(|to| {
            to.u32(self.number);
            to.service(&self.service);
            to.endpoint(self.key);
            to.u8(method_number(self.forward));
            to.u8(u8::from(self.is_listed) | u8::from(self.is_overloaded) << 1 | u8::from(self.ramp.is_some()) << 2);
            to.u32(self.last_weight);
            to.u32(self.factor);
            to.duration(self.ramp.unwrap_or_default());
            self.meter.iter().for_each(|word| to.u64(*word));
        })
    }

    pub fn read(mut from: Reader<'_>) -> Option<Self> {
        let (number, service, key) = (from.u32()?, from.service()?, from.endpoint()?);
        let forward = method(from.u8()?)?;
        let flags = from.u8()?;
        let (last_weight, factor, ramp) = (from.u32()?, from.u32()?, from.duration()?);
        Some(Self {
            number,
            service,
            key,
            forward,
            is_listed: flags & 1 != 0,
            is_overloaded: flags & 2 != 0,
            last_weight,
            factor,
            ramp: (flags & 4 != 0).then_some(ramp),
            meter: meter(&mut from)?,
        })
    }
}

/// A service: where its scheduler stands, and what was counted.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ServiceRow<'a> {
    pub service: ServiceKey,
    pub meter: [u64; Meter::WORDS],
    /// Name of the scheduler whose position this is.
    pub scheduler: &'a [u8],
    /// Number of the server it chose last.
    pub last: Option<u32>,
    pub word: u64,
}

impl<'a> ServiceRow<'a> {
    pub fn write(&self, to: &mut Writer<'_>) -> bool {
        to.long_row(|to| {
            to.service(&self.service);
            self.meter.iter().for_each(|word| to.u64(*word));
            to.u8(self.scheduler.len() as u8);
            to.bytes(self.scheduler);
            to.u8(self.last.is_some().into());
            to.u32(self.last.unwrap_or_default());
            to.u64(self.word);
        })
    }

    pub fn read(mut from: Reader<'a>) -> Option<Self> {
        let (service, meter) = (from.service()?, meter(&mut from)?);
        let len = from.u8()?;
        let scheduler = from.bytes(len.into())?;
        let (has_last, last, word) = (from.u8()? != 0, from.u32()?, from.u64()?);
        Some(Self { service, meter, scheduler, last: has_last.then_some(last), word })
    }
}

/// What was counted of the whole.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TotalsRow {
    pub meter: [u64; Meter::WORDS],
    /// Packets the director has made itself.
    pub answers: u64,
    /// Until the next sample of the counters.
    pub sample_in: Option<Duration>,
}

impl TotalsRow {
    pub fn write(&self, to: &mut Writer<'_>) -> bool {
        to.long_row(|to| {
            self.meter.iter().for_each(|word| to.u64(*word));
            to.u64(self.answers);
            to.u8(self.sample_in.is_some().into());
            to.duration(self.sample_in.unwrap_or_default());
        })
    }

    pub fn read(mut from: Reader<'_>) -> Option<Self> {
        let (meter, answers) = (meter(&mut from)?, from.u64()?);
        let (is_due, sample_in) = (from.u8()? != 0, from.duration()?);
        Some(Self { meter, answers, sample_in: is_due.then_some(sample_in) })
    }
}

fn meter(from: &mut Reader<'_>) -> Option<[u64; Meter::WORDS]> {
    let mut words = [0; Meter::WORDS];
    for word in &mut words {
        *word = from.u64()?;
    }
    Some(words)
}

/// A persistence template. `template.server` names the server's row, and `deadline` is not said.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TemplateRow {
    pub number: u64,
    pub template: Template,
    pub remaining: Duration,
}

impl TemplateRow {
    pub fn write(to: &mut Writer<'_>, number: Handle, template: &Template, now: Instant) -> bool {
        to.long_row(|to| {
            to.u64(number.to_bits());
            to.u8(template.key.protocol.map_or(0, Protocol::number));
            to.address(template.key.client);
            to.address(template.key.virtual_address);
            to.u16(template.key.virtual_port);
            to.u16(template.real_port);
            to.u32(template.server.0);
            to.u8(method_number(template.forward));
            to.u8(u8::from(template.assured) | u8::from(template.invalidated) << 1);
            to.u8(template.proof as u8);
            to.duration(template.timeout);
            to.duration(template.deadline.duration_since(now));
            to.u64(template.in_packets);
            to.u32(template.mark);
            let key = template.key.engine_key.as_deref();
            to.u8(key.is_some().into());
            let key = key.unwrap_or_default();
            to.u16(key.len() as u16);
            to.bytes(key);
        })
    }

    pub fn read(mut from: Reader<'_>) -> Option<Self> {
        let number = from.u64()?;
        let protocol = match from.u8()? {
            0 => None,
            number => Some(Protocol::from_number(number)?),
        };
        let (client, virtual_address) = (from.address()?, from.address()?);
        let (virtual_port, real_port) = (from.u16()?, from.u16()?);
        let server = crate::service::ServerId(from.u32()?);
        let forward = method(from.u8()?)?;
        let flags = from.u8()?;
        let proof = [Proof::Nothing, Proof::Talk, Proof::Handshake].get(usize::from(from.u8()?)).copied()?;
        let (timeout, remaining) = (from.duration()?, from.duration()?);
        let (in_packets, mark) = (from.u64()?, from.u32()?);
        let has_key = from.u8()? != 0;
        let len = from.u16()?;
        let key = from.bytes(len.into()).filter(|key| key.len() <= ENGINE_KEY_MAX)?;
        let engine_key = has_key.then(|| key.into());
        let key = crate::persistence::TemplateKey { protocol, client, virtual_address, virtual_port, engine_key };
        let template = Template {
            key,
            server,
            real_port,
            forward,
            timeout,
            deadline: Instant::ZERO,
            children: 0,
            assured: flags & 1 != 0,
            proof,
            in_packets,
            mark,
            invalidated: flags & 2 != 0,
        };
        Some(Self { number, template, remaining })
    }
}

/// The longest key a persistence engine takes from a packet.
const ENGINE_KEY_MAX: usize = 255;

/// What is kept of a connection beside its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Beside {
    pub translation: Option<Translation>,
    /// A helper's notes, and how far the two sides' counts are apart.
    pub helped: Option<(u64, Counts)>,
}

/// A connection: 22 bytes with an IPv4 client, 34 with an IPv6 one, where nothing is unusual.
///
/// | bytes | what |
/// |---|---|
/// | 1 | length of the rest |
/// | 4 | protocol, family, method, state, flags, and which of the parts below there are |
/// | 4 or 16, 2 | the client |
/// | 3 | number of its server; 2²⁴ − 1 is none |
/// | 4 | milliseconds left to live, rounded up |
/// | 2 | seconds it lives after a packet |
/// | 2 | packets from the client |
/// | | virtual endpoint, where it is not the service's |
/// | | real endpoint, where it is not the server's |
/// | | local endpoint (FullNAT), mark, template, parent, own number, GUE port, longer times, translation, helper |
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ConnectionRow {
    /// With `server`, `template` and `parent` left out.
    pub connection: Connection,
    pub server: Option<u32>,
    pub has_virtual_endpoint: bool,
    pub has_real: bool,
    pub remaining: Duration,
    pub template: Option<u64>,
    pub parent: Option<u64>,
    /// By which others name it as their parent.
    pub number: Option<u64>,
    pub beside: Beside,
}

/// Whom a connection would ask and be answered by, if nothing is unusual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Usual {
    pub virtual_endpoint: Option<Endpoint>,
    pub real: Endpoint,
}

impl Usual {
    pub fn of(service: &ServiceKey, server: ServerKey) -> Self {
        let virtual_endpoint = match service {
            ServiceKey::Address { address, port, .. } if *port != 0 => Some(Endpoint::new(*address, *port)),
            _ => None,
        };
        Self { virtual_endpoint, real: server }
    }
}

impl ConnectionRow {
    pub fn write(
        to: &mut Writer<'_>,
        number: Handle,
        connection: &Connection,
        usual: Option<Usual>,
        beside: &Beside,
        now: Instant,
    ) -> bool {
        let remaining = connection.deadline.duration_since(now);
        let left_ms = remaining.as_nanos().div_ceil(1_000_000);
        let is_short = connection.timeout.subsec_nanos() == 0
            && connection.timeout.as_secs() <= u16::MAX.into()
            && left_ms <= u32::MAX.into()
            && connection.in_packets <= u16::MAX.into();
        let server = connection.server.map(|id| id.0).filter(|id| *id < NO_SERVER);
        let usual = usual.filter(|_| server.is_some());
        let has_virtual = usual.and_then(|usual| usual.virtual_endpoint) != Some(connection.virtual_endpoint);
        let has_real = usual.map(|usual| usual.real) != Some(connection.real);
        let flags = [
            connection.no_client_port,
            connection.no_output,
            connection.is_active,
            connection.has_helper,
            connection.is_local,
            connection.client_is_host,
            connection.is_expected,
            connection.checks_window,
            connection.both_ways,
            has_virtual,
            has_real,
            connection.local.is_some(),
            connection.mark != 0,
            connection.template.is_some(),
            connection.parent.is_some(),
            connection.children > 0,
            connection.gue_source_port.is_some(),
            !is_short,
            beside.translation.is_some(),
            beside.helped.is_some(),
        ];
        let flags = flags.iter().enumerate().fold(0, |word, (bit, flag)| word | u32::from(*flag) << bit);
        let word = match connection.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        } | u32::from(connection.client.address.is_ipv6()) << 2
            | u32::from(method_number(connection.forward)) << 3
            | u32::from(connection.state.number()) << 6
            | (connection.talk as u32) << 10
            | flags << FLAGS;
        to.row(|to| {
            to.u32(word);
            to.bare_address(connection.client.address);
            to.u16(connection.client.port);
            to.u24(server.unwrap_or(NO_SERVER));
            to.u32(left_ms as u32);
            to.u16(connection.timeout.as_secs() as u16);
            to.u16(connection.in_packets as u16);
            if has_virtual {
                to.endpoint(connection.virtual_endpoint);
            }
            if has_real {
                to.endpoint(connection.real);
            }
            if let Some(local) = connection.local {
                to.endpoint(local);
            }
            if connection.mark != 0 {
                to.u32(connection.mark);
            }
            if let Some(template) = connection.template {
                to.u64(template.handle().to_bits());
            }
            if let Some(parent) = connection.parent {
                to.u64(parent.0.to_bits());
            }
            if connection.children > 0 {
                to.u64(number.to_bits());
            }
            if let Some(port) = connection.gue_source_port {
                to.u16(port.get());
            }
            if !is_short {
                to.duration(remaining);
                to.duration(connection.timeout);
                to.u64(connection.in_packets);
            }
            if let Some(translation) = &beside.translation {
                translation.write(to, now);
            }
            if let Some((notes, counts)) = &beside.helped {
                to.u64(*notes);
                counts.words().iter().for_each(|word| to.u32(*word));
            }
        })
    }

    /// `now`: what times inside are counted from.
    pub fn read(mut from: Reader<'_>, now: Instant) -> Option<Self> {
        let word = from.u32()?;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].get(word as usize & 3).copied()?;
        let family = if word & 4 == 0 { AddressFamily::Ipv4 } else { AddressFamily::Ipv6 };
        let forward = method((word >> 3 & 7) as u8)?;
        let state = (word >> 6 & 15) as usize;
        let state = match protocol {
            Protocol::Tcp => State::Tcp(*TcpState::ALL.get(state)?),
            Protocol::Sctp => State::Sctp(*SctpState::ALL.get(state)?),
            Protocol::Udp => State::Udp,
        };
        let talk = [Talk::Asked, Talk::Answered, Talk::Mutual].get((word >> 10 & 3) as usize).copied()?;
        let has = |bit: u32| word >> FLAGS >> bit & 1 == 1;
        let client = Endpoint::new(from.bare_address(family)?, from.u16()?);
        let server = Some(from.u24()?).filter(|number| *number != NO_SERVER);
        let mut remaining = Duration::from_millis(from.u32()?.into());
        let mut timeout = Duration::from_secs(from.u16()?.into());
        let mut in_packets = u64::from(from.u16()?);
        let unknown = Endpoint::new(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);
        let virtual_endpoint = if has(9) { from.endpoint()? } else { unknown };
        let real = if has(10) { from.endpoint()? } else { unknown };
        let mut connection = Connection::new(protocol, client, virtual_endpoint, real, forward);
        connection.state = state;
        connection.talk = talk;
        connection.local = if has(11) { Some(from.endpoint()?) } else { None };
        connection.mark = if has(12) { from.u32()? } else { 0 };
        let template = if has(13) { Some(from.u64()?) } else { None };
        let parent = if has(14) { Some(from.u64()?) } else { None };
        let number = if has(15) { Some(from.u64()?) } else { None };
        connection.gue_source_port = if has(16) { core::num::NonZeroU16::new(from.u16()?) } else { None };
        if has(17) {
            (remaining, timeout, in_packets) = (from.duration()?, from.duration()?, from.u64()?);
        }
        let translation = if has(18) { Some(Translation::read(&mut from, now)?) } else { None };
        let helped = if has(19) {
            let notes = from.u64()?;
            let mut words = [0; Counts::WORDS];
            for word in &mut words {
                *word = from.u32()?;
            }
            Some((notes, Counts::of_words(words)))
        } else {
            None
        };
        connection.timeout = timeout;
        connection.in_packets = in_packets;
        connection.no_client_port = has(0);
        connection.no_output = has(1);
        connection.is_active = has(2);
        connection.has_helper = has(3);
        connection.is_local = has(4);
        connection.client_is_host = has(5);
        connection.is_expected = has(6);
        connection.checks_window = has(7);
        connection.both_ways = has(8);
        // Whether it can be is asked when it is loaded: one that strangers have made odd leaves the others alone.
        let is_whole = server.is_some() || has(9) && has(10);
        is_whole.then_some(Self {
            connection,
            server,
            has_virtual_endpoint: has(9),
            has_real: has(10),
            remaining,
            template,
            parent,
            number,
            beside: Beside { translation, helped },
        })
    }
}

/// Whether two endpoints are of one family.
pub(crate) fn alike(one: Endpoint, other: Endpoint) -> bool {
    AddressFamily::of(one.address) == AddressFamily::of(other.address)
}

/// Where the flags begin in a connection's first word.
const FLAGS: u32 = 12;
/// Number of no server.
const NO_SERVER: u32 = (1 << 24) - 1;
