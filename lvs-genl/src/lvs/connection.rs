//! A connection or persistence template in the family's attributes.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use lvs_core::connection::State;
use lvs_core::connection::sctp::SctpState;
use lvs_core::connection::tcp::TcpState;
use lvs_core::view::ConnectionView;
use lvs_core::{AddressFamily, Endpoint, ForwardMethod, Protocol};

use super::attribute;
use crate::additions::{FORWARDS, listed, nanoseconds, number_of, read_address, valid, write_address};
use crate::errno::Errno;
use crate::wire::{Attribute, Attributes, Writer};

/// Writes it as attribute [`attribute::CONNECTION`].
pub fn write_connection(out: &mut Writer<'_>, view: &ConnectionView) {
    out.nested(attribute::CONNECTION, |out| {
        if view.is_template {
            out.flag(TEMPLATE);
        }
        if let Some(protocol) = view.protocol {
            out.u8(PROTOCOL, protocol.number());
        }
        out.u8(FAMILY, u8::from(view.family == AddressFamily::Ipv6));
        write_endpoint(out, CLIENT, view.client);
        write_endpoint(out, VIRTUAL, view.virtual_endpoint);
        write_endpoint(out, REAL, view.real);
        if let Some(local) = view.local {
            write_endpoint(out, LOCAL, local);
        }
        if let Some(number) = number_of(&FORWARDS, view.forward) {
            out.u8(FORWARD, number);
        }
        out.text(STATE, view.state);
        out.u64(EXPIRES, nanoseconds(view.expires_in));
        out.u32(MARK, view.mark);
        out.u64(PACKETS, view.in_packets);
        if let Some((engine, data)) = &view.persistence_key {
            out.text(ENGINE, engine);
            out.bytes(ENGINE_DATA, data);
        }
    });
}

/// Reads the inside of a connection attribute; unknown attributes are skipped.
///
/// # Errors
/// [`Errno::INVALID`] if an endpoint or the state is missing, or a value means nothing.
pub fn read_connection(bytes: &[u8]) -> Result<ConnectionView, Errno> {
    let (mut is_template, mut protocol, mut family) = (false, None, AddressFamily::Ipv4);
    let (mut client, mut virtual_endpoint, mut real, mut local) = (None, None, None, None);
    let (mut forward, mut state, mut expires_in, mut mark) = (ForwardMethod::Nat, None, Duration::ZERO, 0);
    let (mut in_packets, mut engine, mut data) = (0, None::<String>, Vec::new());
    for found in Attributes::new(bytes) {
        match found.number {
            TEMPLATE => is_template = true,
            PROTOCOL => protocol = Some(valid(found.u8().and_then(Protocol::from_number))?),
            FAMILY => family = listed(&[AddressFamily::Ipv4, AddressFamily::Ipv6], found)?,
            CLIENT => client = Some(read_endpoint(found)?),
            VIRTUAL => virtual_endpoint = Some(read_endpoint(found)?),
            REAL => real = Some(read_endpoint(found)?),
            LOCAL => local = Some(read_endpoint(found)?),
            FORWARD => forward = listed(&FORWARDS, found)?,
            STATE => state = Some(valid(found.text().and_then(state_name))?),
            EXPIRES => expires_in = crate::additions::duration(found)?,
            MARK => mark = valid(found.u32())?,
            PACKETS => in_packets = valid(found.u64())?,
            ENGINE => engine = Some(valid(found.text())?.into()),
            ENGINE_DATA => data = found.value.to_vec(),
            _ => {}
        }
    }
    let (client, virtual_endpoint, real) = (valid(client)?, valid(virtual_endpoint)?, valid(real)?);
    let state = valid(state)?;
    Ok(ConnectionView::new(protocol, client, virtual_endpoint, real, forward).with(|view| {
        view.is_template = is_template;
        view.family = family;
        view.local = local;
        view.state = state;
        view.expires_in = expires_in;
        view.mark = mark;
        view.in_packets = in_packets;
        view.persistence_key = engine.map(|engine| (engine, data));
    }))
}

/// The state's own name, which lives as long as the program.
fn state_name(text: &str) -> Option<&'static str> {
    let connections = TcpState::ALL.iter().map(|state| State::Tcp(*state));
    let connections = connections.chain(SctpState::ALL.iter().map(|state| State::Sctp(*state)));
    let names = connections.chain([State::Udp]).map(State::name).chain(TEMPLATE_STATES);
    names.into_iter().find(|name| *name == text)
}

fn write_endpoint(out: &mut Writer<'_>, number: u16, endpoint: Endpoint) {
    out.nested(number, |out| {
        write_address(out, 1, endpoint.address);
        out.be16(2, endpoint.port);
    });
}

fn read_endpoint(found: Attribute<'_>) -> Result<Endpoint, Errno> {
    let (mut address, mut port) = (None, None);
    for part in found.nested() {
        match part.number {
            1 => address = read_address(part),
            2 => port = part.be16(),
            _ => {}
        }
    }
    Ok(Endpoint::new(valid(address)?, valid(port)?))
}

/// What templates are in, besides the states of connections.
const TEMPLATE_STATES: [&str; 2] = ["NONE", "ASSURED"];

const TEMPLATE: u16 = 1;
const PROTOCOL: u16 = 2;
const FAMILY: u16 = 3;
const CLIENT: u16 = 4;
const VIRTUAL: u16 = 5;
const REAL: u16 = 6;
const LOCAL: u16 = 7;
const FORWARD: u16 = 8;
const STATE: u16 = 9;
const EXPIRES: u16 = 10;
const MARK: u16 = 11;
const PACKETS: u16 = 12;
const ENGINE: u16 = 13;
const ENGINE_DATA: u16 = 14;
