//! Between the family's messages and what a director knows: keys, configurations, views, commands.
//! Says what must be there, what is refused though Linux takes it, and what requests ipvsadm sends for a command.

mod requests;

pub use requests::Request;

use alloc::string::String;
use core::net::Ipv4Addr;

use lvs_core::service::{SchedulerFlags, TunnelChecksum, TunnelConfig, TunnelKind};
use lvs_core::view::{DrainView, ServerView, ServiceView, TimeoutsView};
use lvs_core::{AddressFamily, ForwardMethod, Netmask, ServerConfig, ServerKey, ServiceConfig, ServiceKey};

use crate::additions::{FORWARDS, ServerAdditions, ServiceAdditions, number_of};
use crate::errno::Errno;
use crate::ipvs::{self, ServerMessage, ServiceFlags, ServiceMessage, TimeoutsMessage};

impl ServiceMessage {
    /// The configuration a request to add or edit asks for. `before` is that of the service to edit: flags outside the
    /// request's mask stay, and so do the additions if the request says nothing of them.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if scheduler, flags, timeout or netmask is missing, or the netmask is no prefix length.
    pub fn config(&self, family: AddressFamily, before: Option<&ServiceConfig>) -> Result<ServiceConfig, Errno> {
        let (Some(scheduler), Some(flags), Some(timeout_s), Some(netmask)) =
            (&self.scheduler, self.flags, self.timeout_s, self.netmask)
        else {
            return Err(Errno::INVALID);
        };
        let mut config = ServiceConfig::new(scheduler.clone());
        let flags = flags.over(before.map_or(0, flags_of));
        config.persistence_timeout_s = (flags & ServiceFlags::PERSISTENT != 0).then_some(timeout_s);
        config.one_packet = flags & ServiceFlags::ONE_PACKET != 0;
        config.scheduler_flags = SchedulerFlags((flags >> ServiceFlags::SCHEDULER_SHIFT & 7) as u8);
        config.persistence_engine = self.engine.clone().filter(|name| !name.is_empty());
        let netmask = match family {
            AddressFamily::Ipv4 => Netmask::V4(Ipv4Addr::from(netmask)),
            AddressFamily::Ipv6 => match u8::try_from(u32::from_ne_bytes(netmask)) {
                Ok(prefix @ 1..=128) => Netmask::V6(prefix),
                _ => return Err(Errno::INVALID),
            },
        };
        config.netmask = (netmask != Netmask::host(family)).then_some(netmask);
        match before {
            Some(before) if !self.additions.is_given() => ServiceAdditions::of(before).set_in(&mut config),
            _ => self.additions.set_in(&mut config),
        }
        Ok(config)
    }

    /// A service as a director shows it: its answer to GET_SERVICE.
    pub fn of_view(view: &ServiceView) -> Self {
        let additions =
            ServiceAdditions { local_addresses: view.local_addresses.clone(), ..ServiceAdditions::of(&view.config) };
        Self {
            flags: Some(ServiceFlags::all(flags_of(&view.config) | ServiceFlags::HASHED)),
            statistics: Some(view.statistics),
            additions,
            ..Self::of_config(&view.key, &view.config)
        }
    }

    /// The view a director's answer shows, without servers.
    ///
    /// # Errors
    /// [`Errno::INVALID`] where something is missing, [`Errno::PROTOCOL`] for a protocol that no service of ours has.
    pub fn view(&self) -> Result<ServiceView, Errno> {
        let key = self.key()?.ok_or(Errno::PROTOCOL)?;
        Ok(ServiceView::new(key, self.config(key.family(), None)?).with(|view| {
            view.statistics = self.statistics.unwrap_or_default();
            view.local_addresses.clone_from(&self.additions.local_addresses);
        }))
    }

    /// What a request to add or edit a service carries, without its additions.
    fn of_config(key: &ServiceKey, config: &ServiceConfig) -> Self {
        let engine = config.persistence_engine.as_ref().filter(|name| !name.is_empty());
        Self {
            scheduler: Some(cut(&config.scheduler, ipvs::SCHEDULER_LEN - 1)),
            engine: engine.map(|name| cut(name, ipvs::ENGINE_LEN - 1)),
            flags: Some(ServiceFlags::all(flags_of(config))),
            timeout_s: Some(config.persistence_timeout_s.unwrap_or(0)),
            netmask: Some(netmask_of(config.netmask.unwrap_or(Netmask::host(key.family())))),
            ..Self::of_key(key)
        }
    }
}

impl ServerMessage {
    /// The configuration a request to add or edit asks for, in a service of `family`. `before` is that of the server to
    /// edit: its additions stay if the request says nothing of them.
    ///
    /// # Errors
    /// [`Errno::INVALID`] if address, port, method, weight or a threshold is missing; for a method, tunnel kind or
    /// tunnel checksum that means nothing here, though Linux takes it (stock ipvsadm cannot print them, and crashes on
    /// some); [`Errno::FAMILY`] if the address is neither IPv4 nor IPv6.
    pub fn config(&self, family: AddressFamily, before: Option<&ServerConfig>) -> Result<ServerConfig, Errno> {
        let key = self.key(family)?;
        let (Some(forward), Some(weight), Some(upper), Some(lower)) =
            (self.forward, self.weight, self.upper_threshold, self.lower_threshold)
        else {
            return Err(Errno::INVALID);
        };
        let forward = match self.additions.forward {
            Some(forward) => forward,
            // Bypass is nothing to configure.
            None => *FORWARDS[..4].get((forward & 7) as usize).ok_or(Errno::INVALID)?,
        };
        let mut config = ServerConfig::new((key.address, key.port).into(), forward);
        config.weight = weight;
        config.upper_threshold = upper;
        config.lower_threshold = lower;
        config.tunnel = self.tunnel()?;
        let additions = match before {
            Some(before) if !self.additions.is_given() => &ServerAdditions::of(before),
            _ => &self.additions,
        };
        config.mtu = additions.mtu;
        config.drain = additions.drain;
        Ok(config)
    }

    fn tunnel(&self) -> Result<TunnelConfig, Errno> {
        let kind = *KINDS.get(usize::from(self.tunnel_kind.unwrap_or(0))).ok_or(Errno::INVALID)?;
        let checksum = *CHECKSUMS.get(usize::from(self.tunnel_flags.unwrap_or(0))).ok_or(Errno::INVALID)?;
        Ok(TunnelConfig { kind, port: self.tunnel_port.unwrap_or(0), checksum })
    }

    /// A server as a director shows it: its answer to GET_DEST.
    pub fn of_view(view: &ServerView) -> Self {
        let additions = ServerAdditions {
            effective_weight: (view.effective_weight != view.config.weight).then_some(view.effective_weight),
            is_overloaded: view.is_overloaded,
            drain_left: view.drain.map(|drain| (drain.ends_in, drain.open)),
            ..ServerAdditions::of(&view.config)
        };
        Self {
            counts: Some([view.active_connections, view.inactive_connections, view.persistent_connections]),
            statistics: Some(view.statistics),
            additions,
            ..Self::of_config(&view.config)
        }
    }

    /// The view a director's answer shows, of a server in a service of `family`.
    ///
    /// # Errors
    /// As [`ServerMessage::config`].
    pub fn view(&self, family: AddressFamily) -> Result<ServerView, Errno> {
        let config = self.config(family, None)?;
        let [active_connections, inactive_connections, persistent_connections] = self.counts.unwrap_or_default();
        let left = self.additions.drain.zip(self.additions.drain_left);
        Ok(ServerView::new(config).with(|view| {
            view.drain = left.map(|(drain, (ends_in, open))| DrainView::new(ends_in, drain.then, open));
            view.effective_weight = self.additions.effective_weight.unwrap_or(view.config.weight);
            view.active_connections = active_connections;
            view.inactive_connections = inactive_connections;
            view.persistent_connections = persistent_connections;
            view.is_overloaded = self.additions.is_overloaded;
            view.statistics = self.statistics.unwrap_or_default();
        }))
    }

    /// What a request to add or edit a server carries, without its additions.
    fn of_config(config: &ServerConfig) -> Self {
        let forward = match config.forward {
            // The nearest that stock programs know.
            ForwardMethod::FullNat => ForwardMethod::Nat,
            other => other,
        };
        Self {
            forward: number_of(&FORWARDS, forward).map(u32::from),
            weight: Some(config.weight),
            tunnel_kind: number_of(&KINDS, config.tunnel.kind),
            tunnel_port: Some(config.tunnel.port),
            tunnel_flags: number_of(&CHECKSUMS, config.tunnel.checksum).map(u16::from),
            upper_threshold: Some(config.upper_threshold),
            lower_threshold: Some(config.lower_threshold),
            ..Self::of_key(&config.key)
        }
    }

    /// What ipvsadm sends to delete a server: its key, and everything else as if it were added without options.
    fn of_bare_key(key: &ServerKey) -> Self {
        Self::of_config(&ServerConfig::new((key.address, key.port).into(), ForwardMethod::DirectRouting))
    }
}

impl TimeoutsMessage {
    /// The answer to GET_CONFIG.
    pub fn of_view(view: &TimeoutsView) -> Self {
        let seconds = |timeout: core::time::Duration| Some(u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
        Self { tcp: seconds(view.tcp), tcp_fin: seconds(view.tcp_fin), udp: seconds(view.udp) }
    }
}

/// A configuration's flags, as the kernel stores them.
fn flags_of(config: &ServiceConfig) -> u32 {
    let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    bit(config.persistence_timeout_s.is_some(), ServiceFlags::PERSISTENT)
        | bit(config.one_packet, ServiceFlags::ONE_PACKET)
        | u32::from(config.scheduler_flags.0) << ServiceFlags::SCHEDULER_SHIFT & ServiceFlags::SCHEDULER
}

fn netmask_of(netmask: Netmask) -> [u8; 4] {
    match netmask {
        Netmask::V4(mask) => mask.octets(),
        Netmask::V6(prefix) => u32::from(prefix).to_ne_bytes(),
    }
}

/// A name that is longer than the kernel takes, as ipvsadm cuts it.
fn cut(name: &str, most: usize) -> String {
    let end = (0..=name.len().min(most)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].into()
}

/// No scheduler is named.
fn no_name() -> Option<String> {
    Some(String::new())
}

/// A kind's place is its number.
const KINDS: [TunnelKind; 3] = [TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre];
/// The same for checksums.
const CHECKSUMS: [TunnelChecksum; 3] = [TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote];
