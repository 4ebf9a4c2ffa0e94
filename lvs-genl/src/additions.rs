//! What IPVS never had, as attributes of its messages: numbers far above the kernel's, in answers only where something
//! is set, so that stock programs never see them unasked, and Linux skips them.
//!
//! A request that carries none of them comes from a program that knows none: what is set stays. One that carries any,
//! or [`MARK`] alone, says all of them: what is missing goes back to its default.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use lvs_core::service::{ClientAddress, DrainConfig, FullNatOptions, OnReplyConflict, ServiceTimeouts, SlowStart};
use lvs_core::{AfterDrain, ForwardMethod, OnServerGone, ServerConfig, ServiceConfig};

use crate::errno::Errno;
use crate::wire::{Attribute, Writer};

/// The first of our numbers.
pub const FIRST: u16 = 0x1000;
/// Of services and servers: this request says all additions. Its value is the version, [`VERSION`].
pub const MARK: u16 = FIRST;
/// Of messages: 16 bytes that tell a request from every other; one that is sent again gets its first answer.
pub const REQUEST_ID: u16 = 0x1001;
/// Version of the additions. Later ones only add numbers.
pub const VERSION: u32 = 1;

/// What a service has that IPVS's never had. Every default is "not set".
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServiceAdditions {
    /// Says that these are all: what is not set goes back to its default. Only in requests.
    pub is_marked: bool,
    /// [`ServiceConfig::mss_clamp`].
    pub mss_clamp: Option<u16>,
    /// [`ServiceConfig::helper`].
    pub helper: Option<String>,
    /// [`ServiceConfig::slow_start`].
    pub slow_start: Option<SlowStart>,
    /// [`FullNatOptions::client_address`].
    pub client_address: ClientAddress,
    /// The opposite of [`FullNatOptions::rewrite_sequence`].
    pub keep_sequence: bool,
    /// The opposite of [`FullNatOptions::remove_timestamps`].
    pub keep_timestamps: bool,
    /// [`ServiceTimeouts::tcp`].
    pub timeout_tcp: Option<Duration>,
    /// [`ServiceTimeouts::tcp_fin`].
    pub timeout_tcp_fin: Option<Duration>,
    /// [`ServiceTimeouts::udp`].
    pub timeout_udp: Option<Duration>,
    /// [`ServiceConfig::on_server_gone`].
    pub on_server_gone: OnServerGone,
    /// [`ServiceConfig::reuse_reschedules`].
    pub reuse_reschedules: bool,
    /// [`ServiceConfig::on_reply_conflict`].
    pub on_reply_conflict: OnReplyConflict,
    /// [`ServiceConfig::check_window`].
    pub check_window: bool,
    /// [`lvs_core::view::ServiceView::local_addresses`]. Only in answers.
    pub local_addresses: Vec<IpAddr>,
}

impl ServiceAdditions {
    /// What `config` has set.
    pub fn of(config: &ServiceConfig) -> Self {
        let timeouts = config.timeouts.unwrap_or_default();
        Self {
            is_marked: false,
            mss_clamp: config.mss_clamp,
            helper: config.helper.clone(),
            slow_start: config.slow_start,
            client_address: config.full_nat.client_address,
            keep_sequence: !config.full_nat.rewrite_sequence,
            keep_timestamps: !config.full_nat.remove_timestamps,
            timeout_tcp: timeouts.tcp,
            timeout_tcp_fin: timeouts.tcp_fin,
            timeout_udp: timeouts.udp,
            on_server_gone: config.on_server_gone,
            reuse_reschedules: config.reuse_reschedules,
            on_reply_conflict: config.on_reply_conflict,
            check_window: config.check_window,
            local_addresses: Vec::new(),
        }
    }

    /// Whether a request says anything about additions.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// Sets them in `config`, all of them.
    pub fn set_in(&self, config: &mut ServiceConfig) {
        config.mss_clamp = self.mss_clamp;
        config.helper.clone_from(&self.helper);
        config.slow_start = self.slow_start;
        config.full_nat = FullNatOptions::default().with(|options| {
            options.client_address = self.client_address;
            options.rewrite_sequence = !self.keep_sequence;
            options.remove_timestamps = !self.keep_timestamps;
        });
        let timeouts = ServiceTimeouts { tcp: self.timeout_tcp, tcp_fin: self.timeout_tcp_fin, udp: self.timeout_udp };
        config.timeouts = (timeouts != ServiceTimeouts::default()).then_some(timeouts);
        config.on_server_gone = self.on_server_gone;
        config.reuse_reschedules = self.reuse_reschedules;
        config.on_reply_conflict = self.on_reply_conflict;
        config.check_window = self.check_window;
    }

    /// Takes one attribute in; one that is not of ours changes nothing.
    ///
    /// # Errors
    /// [`Errno::INVALID`] for a value that is too short or means nothing.
    pub(crate) fn take(&mut self, found: Attribute<'_>) -> Result<(), Errno> {
        match found.number {
            MARK => self.is_marked = true,
            MSS_CLAMP => self.mss_clamp = Some(valid(found.u16())?),
            HELPER => self.helper = Some(valid(found.text())?.into()),
            SLOW_START => self.slow_start = Some(valid(read_slow_start(found))?),
            CLIENT_ADDRESS => self.client_address = listed(&CLIENT_ADDRESSES, found)?,
            KEEP_SEQUENCE => self.keep_sequence = true,
            KEEP_TIMESTAMPS => self.keep_timestamps = true,
            SERVICE_TIMEOUT_TCP => self.timeout_tcp = Some(duration(found)?),
            SERVICE_TIMEOUT_TCP_FIN => self.timeout_tcp_fin = Some(duration(found)?),
            SERVICE_TIMEOUT_UDP => self.timeout_udp = Some(duration(found)?),
            ON_SERVER_GONE => self.on_server_gone = listed(&SERVER_GONE, found)?,
            REUSE_RESCHEDULES => self.reuse_reschedules = true,
            CHECK_WINDOW => self.check_window = true,
            ON_REPLY_CONFLICT => self.on_reply_conflict = listed(&REPLY_CONFLICTS, found)?,
            LOCAL_ADDRESS => self.local_addresses.push(valid(read_address(found))?),
            _ => {}
        }
        Ok(())
    }

    /// Writes what is set.
    pub(crate) fn write(&self, out: &mut Writer<'_>) {
        if self.is_marked {
            out.u32(MARK, VERSION);
        }
        if let Some(most) = self.mss_clamp {
            out.u16(MSS_CLAMP, most);
        }
        if let Some(name) = &self.helper {
            out.text(HELPER, name);
        }
        if let Some(SlowStart { window, min_share, aggression }) = self.slow_start {
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&nanoseconds(window).to_ne_bytes());
            bytes[8..10].copy_from_slice(&min_share.to_ne_bytes());
            bytes[10..].copy_from_slice(&aggression.to_ne_bytes());
            out.bytes(SLOW_START, &bytes);
        }
        write_listed(out, CLIENT_ADDRESS, &CLIENT_ADDRESSES, self.client_address);
        for (number, timeout) in [
            (SERVICE_TIMEOUT_TCP, self.timeout_tcp),
            (SERVICE_TIMEOUT_TCP_FIN, self.timeout_tcp_fin),
            (SERVICE_TIMEOUT_UDP, self.timeout_udp),
        ] {
            if let Some(timeout) = timeout {
                out.u64(number, nanoseconds(timeout));
            }
        }
        write_listed(out, ON_SERVER_GONE, &SERVER_GONE, self.on_server_gone);
        write_listed(out, ON_REPLY_CONFLICT, &REPLY_CONFLICTS, self.on_reply_conflict);
        for (number, is_set) in [
            (KEEP_SEQUENCE, self.keep_sequence),
            (KEEP_TIMESTAMPS, self.keep_timestamps),
            (REUSE_RESCHEDULES, self.reuse_reschedules),
            (CHECK_WINDOW, self.check_window),
        ] {
            if is_set {
                out.flag(number);
            }
        }
        for address in &self.local_addresses {
            write_address(out, LOCAL_ADDRESS, *address);
        }
    }
}

/// What a server has that IPVS's never had. Every default is "not set".
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerAdditions {
    /// Says that these are all: what is not set goes back to its default. Only in requests.
    pub is_marked: bool,
    /// A forward method that the kernel does not have; its own field then holds the nearest one.
    pub forward: Option<ForwardMethod>,
    /// [`ServerConfig::mtu`].
    pub mtu: Option<u16>,
    /// [`lvs_core::view::ServerView::effective_weight`], where it is not the weight. Only in answers.
    pub effective_weight: Option<u32>,
    /// [`lvs_core::view::ServerView::is_overloaded`]. Only in answers.
    pub is_overloaded: bool,
    /// [`ServerConfig::drain`].
    pub drain: Option<DrainConfig>,
    /// How far the drain is: [`lvs_core::view::DrainView::ends_in`] and [`lvs_core::view::DrainView::open`]. Only in
    /// answers.
    pub drain_left: Option<(Duration, u32)>,
}

impl ServerAdditions {
    /// What `config` has set.
    pub fn of(config: &ServerConfig) -> Self {
        let forward = (config.forward == ForwardMethod::FullNat).then_some(ForwardMethod::FullNat);
        Self { forward, mtu: config.mtu, drain: config.drain, ..Self::default() }
    }

    /// Whether a request says anything about additions.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// Takes one attribute in; one that is not of ours changes nothing.
    ///
    /// # Errors
    /// [`Errno::INVALID`] for a value that is too short or means nothing.
    pub(crate) fn take(&mut self, found: Attribute<'_>) -> Result<(), Errno> {
        match found.number {
            MARK => self.is_marked = true,
            FORWARD => self.forward = Some(listed(&FORWARDS, found)?),
            MTU => self.mtu = Some(valid(found.u16())?),
            EFFECTIVE_WEIGHT => self.effective_weight = Some(valid(found.u32())?),
            OVERLOADED => self.is_overloaded = true,
            DRAIN => self.drain = Some(valid(read_drain(found))?),
            DRAIN_LEFT => self.drain_left = Some(valid(read_timed(found))?),
            _ => {}
        }
        Ok(())
    }

    /// Writes what is set.
    pub(crate) fn write(&self, out: &mut Writer<'_>) {
        if self.is_marked {
            out.u32(MARK, VERSION);
        }
        if let Some(number) = self.forward.and_then(|forward| number_of(&FORWARDS, forward)) {
            out.u8(FORWARD, number);
        }
        if let Some(mtu) = self.mtu {
            out.u16(MTU, mtu);
        }
        if let Some(weight) = self.effective_weight {
            out.u32(EFFECTIVE_WEIGHT, weight);
        }
        if self.is_overloaded {
            out.flag(OVERLOADED);
        }
        if let Some(DrainConfig { deadline, then }) = self.drain {
            write_timed(out, DRAIN, deadline, u32::from(number_of(&AFTER_DRAINS, then).unwrap_or(0)));
        }
        if let Some((ends_in, open)) = self.drain_left {
            write_timed(out, DRAIN_LEFT, ends_in, open);
        }
    }
}

fn read_drain(found: Attribute<'_>) -> Option<DrainConfig> {
    let (deadline, then) = read_timed(found)?;
    Some(DrainConfig { deadline, then: *AFTER_DRAINS.get(then as usize)? })
}

/// Eight bytes of nanoseconds and four of a number.
fn read_timed(found: Attribute<'_>) -> Option<(Duration, u32)> {
    let [a, b, c, d, e, f, g, h, number @ ..] = *found.value.first_chunk::<12>()?;
    Some((Duration::from_nanos(u64::from_ne_bytes([a, b, c, d, e, f, g, h])), u32::from_ne_bytes(number)))
}

/// As [`read_timed`] reads it.
fn write_timed(out: &mut Writer<'_>, attribute: u16, time: Duration, number: u32) {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&nanoseconds(time).to_ne_bytes());
    bytes[8..].copy_from_slice(&number.to_ne_bytes());
    out.bytes(attribute, &bytes);
}

/// An address: 4 or 16 bytes in network order.
pub(crate) fn read_address(found: Attribute<'_>) -> Option<IpAddr> {
    match found.value.len() {
        4 => found.value.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => found.value.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// As [`read_address`] reads it.
pub(crate) fn write_address(out: &mut Writer<'_>, number: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.bytes(number, &address.octets()),
        IpAddr::V6(address) => out.bytes(number, &address.octets()),
    }
}

/// The number a value travels as.
pub(crate) fn number_of<T: PartialEq>(list: &[T], value: T) -> Option<u8> {
    list.iter().position(|listed| *listed == value).map(|index| index as u8)
}

/// The value of a number.
pub(crate) fn listed<T: Copy>(list: &[T], found: Attribute<'_>) -> Result<T, Errno> {
    found.u8().and_then(|number| list.get(usize::from(number))).copied().ok_or(Errno::INVALID)
}

/// A duration in nanoseconds; the longest there is stands for what is longer (584 years).
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn write_listed<T: PartialEq + Default>(out: &mut Writer<'_>, number: u16, list: &[T], value: T) {
    if let Some(listed) = number_of(list, value).filter(|index| *index != 0) {
        out.u8(number, listed);
    }
}

fn read_slow_start(found: Attribute<'_>) -> Option<SlowStart> {
    let [a, b, c, d, e, f, g, h, share @ .., i, j] = *found.value.first_chunk::<12>()?;
    Some(SlowStart {
        window: Duration::from_nanos(u64::from_ne_bytes([a, b, c, d, e, f, g, h])),
        min_share: u16::from_ne_bytes(share),
        aggression: u16::from_ne_bytes([i, j]),
    })
}

pub(crate) fn duration(found: Attribute<'_>) -> Result<Duration, Errno> {
    valid(found.u64().map(Duration::from_nanos))
}

pub(crate) fn valid<T>(value: Option<T>) -> Result<T, Errno> {
    value.ok_or(Errno::INVALID)
}

/// The first of each list is the default. A value's place is its number: later ones go to the end.
const CLIENT_ADDRESSES: [ClientAddress; 5] =
    [ClientAddress::None, ClientAddress::Toa, ClientAddress::Uoa, ClientAddress::ProxyV1, ClientAddress::ProxyV2];
const SERVER_GONE: [OnServerGone; 5] = [
    OnServerGone::Default,
    OnServerGone::Reschedule,
    OnServerGone::Reset,
    OnServerGone::IcmpUnreachable,
    OnServerGone::Drop,
];
const REPLY_CONFLICTS: [OnReplyConflict; 3] =
    [OnReplyConflict::Allow, OnReplyConflict::Another, OnReplyConflict::Refuse];
const AFTER_DRAINS: [AfterDrain; 2] = [AfterDrain::Silence, AfterDrain::Reset];
pub(crate) const FORWARDS: [ForwardMethod; 6] = [
    ForwardMethod::Nat,
    ForwardMethod::Local,
    ForwardMethod::Tunnel,
    ForwardMethod::DirectRouting,
    ForwardMethod::Bypass,
    ForwardMethod::FullNat,
];

// Services.
const MSS_CLAMP: u16 = 0x1010;
const HELPER: u16 = 0x1011;
const SLOW_START: u16 = 0x1012;
const CLIENT_ADDRESS: u16 = 0x1013;
const KEEP_SEQUENCE: u16 = 0x1014;
const KEEP_TIMESTAMPS: u16 = 0x1015;
const SERVICE_TIMEOUT_TCP: u16 = 0x1016;
const SERVICE_TIMEOUT_TCP_FIN: u16 = 0x1017;
const SERVICE_TIMEOUT_UDP: u16 = 0x1018;
const ON_SERVER_GONE: u16 = 0x1019;
const REUSE_RESCHEDULES: u16 = 0x101a;
const LOCAL_ADDRESS: u16 = 0x101b;
const ON_REPLY_CONFLICT: u16 = 0x101c;
const CHECK_WINDOW: u16 = 0x101d;
// Servers.
const FORWARD: u16 = 0x1080;
const MTU: u16 = 0x1081;
const EFFECTIVE_WEIGHT: u16 = 0x1082;
const OVERLOADED: u16 = 0x1083;
const DRAIN: u16 = 0x1084;
const DRAIN_LEFT: u16 = 0x1085;
