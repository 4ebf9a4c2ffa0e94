//! Whether a director is ready, and how full it is.

use alloc::string::String;

use lvs_core::view::Gauges;

use super::attribute;
use crate::additions::valid;
use crate::errno::Errno;
use crate::wire::{Attributes, Writer};

/// A running director's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Whether packets flow: devices are open, rules are applied.
    pub is_ready: bool,
    /// The program's version.
    pub version: String,
    /// How many workers handle packets.
    pub workers: u32,
    /// How full the tables are, of all workers together.
    pub gauges: Gauges,
}

impl State {
    /// Writes it as attribute [`attribute::STATE`].
    pub fn write(&self, out: &mut Writer<'_>) {
        out.nested(attribute::STATE, |out| {
            out.u8(READY, self.is_ready.into());
            out.text(VERSION, &self.version);
            out.u32(WORKERS, self.workers);
            let Gauges { connections, half_open, templates, fragments, transmits, deleted_servers, .. } = self.gauges;
            let Gauges { unproven, expected, templates_unproven, local_ports, .. } = self.gauges;
            // In the order of their numbers: a new one comes last.
            let gauges = [
                connections,
                half_open,
                templates,
                fragments,
                transmits,
                deleted_servers,
                unproven,
                expected,
                templates_unproven,
                local_ports,
            ];
            for (number, value) in (FIRST_GAUGE..).zip(gauges) {
                out.u32(number, value);
            }
        });
    }

    /// Reads the inside of a state attribute; unknown attributes are skipped.
    ///
    /// # Errors
    /// [`Errno::INVALID`] for a value that is too short.
    pub fn read(bytes: &[u8]) -> Result<Self, Errno> {
        let mut state = Self::default();
        let mut gauges = [0; 10];
        for found in Attributes::new(bytes) {
            match found.number {
                READY => state.is_ready = valid(found.u8())? != 0,
                VERSION => state.version = valid(found.text())?.into(),
                WORKERS => state.workers = valid(found.u32())?,
                number => {
                    if let Some(gauge) = gauges.get_mut(usize::from(number).wrapping_sub(FIRST_GAUGE.into())) {
                        *gauge = valid(found.u32())?;
                    }
                }
            }
        }
        let [
            connections,
            half_open,
            templates,
            fragments,
            transmits,
            deleted_servers,
            unproven,
            expected,
            templates_unproven,
            local_ports,
        ] = gauges;
        let into = &mut state.gauges;
        into.connections = connections;
        into.half_open = half_open;
        into.templates = templates;
        into.fragments = fragments;
        into.transmits = transmits;
        into.deleted_servers = deleted_servers;
        into.unproven = unproven;
        into.expected = expected;
        into.templates_unproven = templates_unproven;
        into.local_ports = local_ports;
        Ok(state)
    }
}

const READY: u16 = 1;
const VERSION: u16 = 2;
const WORKERS: u16 = 3;
const FIRST_GAUGE: u16 = 4;
