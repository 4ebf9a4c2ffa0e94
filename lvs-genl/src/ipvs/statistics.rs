//! Counters and rates in the family's attributes: STATS with 32-bit numbers but for bytes, STATS64 with 64-bit ones.
//! What is published travels ([`Statistics::published`]); readers take the wide numbers where both are there.

use lvs_core::service::stats::{Counters, Rates, Statistics};

use crate::wire::{Attributes, Writer};

/// How wide the numbers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// STATS: 32 bits, the bytes' counters 64.
    Narrow,
    /// STATS64.
    Wide,
}

/// Writes counters and rates as attribute `number`, in 64-bit numbers.
pub fn write_statistics(out: &mut Writer<'_>, number: u16, statistics: &Statistics) {
    write(out, number, statistics, Width::Wide);
}

/// Reads what [`write_statistics`] writes inside its attribute; what is missing is 0.
pub fn read_statistics(bytes: &[u8]) -> Statistics {
    let mut statistics = None;
    read(Attributes::new(bytes), &mut statistics, Width::Wide);
    statistics.unwrap_or_default()
}

pub(super) fn write(out: &mut Writer<'_>, number: u16, statistics: &Statistics, width: Width) {
    let Statistics { published, rates, .. } = statistics;
    let numbers = [
        published.connections,
        published.in_packets,
        published.out_packets,
        published.in_bytes,
        published.out_bytes,
        rates.connections,
        rates.in_packets,
        rates.out_packets,
        rates.in_bytes,
        rates.out_bytes,
    ];
    out.nested(number, |out| {
        for (number, value) in (1..).zip(numbers) {
            match width {
                // As Linux, which cuts what does not fit.
                Width::Narrow if !is_byte_counter(number) => out.u32(number, value as u32),
                _ => out.u64(number, value),
            }
        }
    });
}

/// Reads what is there; what is too short is taken as missing. Narrow numbers never replace wide ones.
pub(super) fn read(attributes: Attributes<'_>, statistics: &mut Option<Statistics>, width: Width) {
    if width == Width::Narrow && statistics.is_some() {
        return;
    }
    let mut numbers = [0; 10];
    for found in attributes {
        let Some(number) = numbers.get_mut(usize::from(found.number).wrapping_sub(1)) else { continue };
        let value = match width {
            Width::Narrow if !is_byte_counter(found.number) => found.u32().map(u64::from),
            _ => found.u64(),
        };
        *number = value.unwrap_or_default();
    }
    let [connections, in_packets, out_packets, in_bytes, out_bytes, rates @ ..] = numbers;
    let published = Counters { connections, in_packets, out_packets, in_bytes, out_bytes };
    let [connections, in_packets, out_packets, in_bytes, out_bytes] = rates;
    let rates = Rates { connections, in_packets, out_packets, in_bytes, out_bytes };
    *statistics = Some(Statistics { live: published, published, rates });
}

const fn is_byte_counter(number: u16) -> bool {
    matches!(number, 4 | 5)
}
