//! What is written is read back: messages, commands through a session into a director and out again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lvs_core::service::stats::{Counters, Rates, Statistics};
use lvs_core::service::{
    ClientAddress, DrainConfig, FullNatOptions, OnReplyConflict, SchedulerFlags, ServiceTimeouts, SlowStart,
    TunnelChecksum, TunnelConfig, TunnelKind,
};
use lvs_core::view::{DrainView, ServerView, ServiceView};
use lvs_core::{
    AddressFamily, AfterDrain, Command, Endpoint, ForwardMethod, Netmask, OnServerGone, Protocol, ServerConfig,
    ServiceConfig, ServiceKey,
};
use lvs_genl::convert::Request;
use lvs_genl::ipvs::{DaemonMessage, ServerMessage, ServiceMessage, Side};
use lvs_genl::lvs;
use lvs_genl::wire::{Header, Messages, Writer};
use lvs_testkit::strategy::{config, endpoint};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// The payload of a message that `write` fills.
fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut datagram = Vec::new();
    let mut message = Writer::new(&mut datagram, Header { length: 0, kind: 32, flags: 0, sequence: 0, port: 0 });
    write(&mut message);
    message.finish();
    Messages::new(&datagram).next().unwrap().payload().to_vec()
}

/// The value of the only attribute in `bytes`.
fn inside(bytes: &[u8]) -> &[u8] {
    lvs_genl::wire::Attributes::new(bytes).next().unwrap().value
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let address = |v6| (protocol.clone(), endpoint(v6)).prop_map(|(protocol, at)| ServiceKey::address(protocol, at));
    let family = select(vec![AddressFamily::Ipv4, AddressFamily::Ipv6]);
    let mark = (family, 1..=u32::MAX).prop_map(|(family, mark)| ServiceKey::FwMark { family, mark });
    prop_oneof![address(false), address(true), mark]
}

/// Nanoseconds that fit into 64 bits.
fn duration() -> impl Strategy<Value = Duration> {
    (1..1_u64 << 50).prop_map(Duration::from_nanos)
}

fn netmask(family: AddressFamily) -> BoxedStrategy<Option<Netmask>> {
    match family {
        AddressFamily::Ipv4 => option::of((0..u32::MAX).prop_map(|bits| Netmask::V4(bits.into()))).boxed(),
        AddressFamily::Ipv6 => option::of((1..128_u8).prop_map(Netmask::V6)).boxed(),
    }
}

prop_compose! {
    fn plain_service(family: AddressFamily)(
        scheduler in select(vec!["rr", "wrr", "wlc", "sh", "mh", "lblcr"]),
        flags in 0..8_u8,
        persistence_timeout_s in option::of(any::<u32>()),
        netmask in netmask(family),
        one_packet: bool,
        persistence_engine in option::of(Just("sip".to_owned())),
    ) -> ServiceConfig {
        let mut config = ServiceConfig::new(scheduler);
        config.scheduler_flags = SchedulerFlags(flags);
        config.persistence_timeout_s = persistence_timeout_s;
        config.netmask = netmask;
        config.one_packet = one_packet;
        config.persistence_engine = persistence_engine;
        config
    }
}

prop_compose! {
    fn service(family: AddressFamily)(
        mut config in plain_service(family),
        mss_clamp in option::of(1..=u16::MAX),
        helper in option::of(Just("ftp".to_owned())),
        slow_start in option::of((duration(), any::<u16>(), any::<u16>())),
        client_address in select(vec![
            ClientAddress::None, ClientAddress::Toa, ClientAddress::Uoa, ClientAddress::ProxyV1, ClientAddress::ProxyV2,
        ]),
        (rewrite_sequence, remove_timestamps, reuse_reschedules, check_window) in any::<(bool, bool, bool, bool)>(),
        on_reply_conflict in select(vec![
            OnReplyConflict::Allow, OnReplyConflict::Another, OnReplyConflict::Refuse,
        ]),
        (tcp, tcp_fin, udp) in (option::of(duration()), option::of(duration()), option::of(duration())),
        on_server_gone in select(vec![
            OnServerGone::Default, OnServerGone::Reschedule, OnServerGone::Reset, OnServerGone::IcmpUnreachable,
            OnServerGone::Drop,
        ]),
    ) -> ServiceConfig {
        config.mss_clamp = mss_clamp;
        config.helper = helper;
        config.slow_start =
            slow_start.map(|(window, min_share, aggression)| SlowStart { window, min_share, aggression });
        config.full_nat = FullNatOptions::default().with(|options| {
    options.client_address = client_address;
    options.rewrite_sequence = rewrite_sequence;
    options.remove_timestamps = remove_timestamps;
});
        let timeouts = ServiceTimeouts { tcp, tcp_fin, udp };
        config.timeouts = (timeouts != ServiceTimeouts::default()).then_some(timeouts);
        config.on_server_gone = on_server_gone;
        config.reuse_reschedules = reuse_reschedules;
        config.check_window = check_window;
        config.on_reply_conflict = on_reply_conflict;
        config
    }
}

prop_compose! {
    fn server(at: SocketAddr)(
        forward in select(vec![
            ForwardMethod::Nat, ForwardMethod::DirectRouting, ForwardMethod::Tunnel, ForwardMethod::FullNat,
            ForwardMethod::Local,
        ]),
        (weight, upper_threshold, lower_threshold) in any::<(u32, u32, u32)>(),
        kind in select(vec![TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre]),
        checksum in select(vec![TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote]),
        port: u16,
        mtu in option::of(1..=u16::MAX),
    ) -> ServerConfig {
        let mut config = ServerConfig::new(at, forward).weight(weight);
        config.upper_threshold = upper_threshold;
        config.lower_threshold = lower_threshold;
        config.tunnel = TunnelConfig { kind, port, checksum };
        config.mtu = mtu;
        config
    }
}

fn statistics() -> impl Strategy<Value = Statistics> {
    any::<[u64; 10]>().prop_map(|[a, b, c, d, e, f, g, h, i, j]| {
        let published = Counters { connections: a, in_packets: b, out_packets: c, in_bytes: d, out_bytes: e };
        let rates = Rates { connections: f, in_packets: g, out_packets: h, in_bytes: i, out_bytes: j };
        Statistics { live: published, published, rates }
    })
}

fn side() -> impl Strategy<Value = Side> {
    select(vec![Side::Client, Side::Director])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_service_is_read_as_it_was_written(
        (key, config) in key().prop_flat_map(|key| (Just(key), service(key.family()))),
        statistics in statistics(),
        local_addresses in proptest::collection::vec(any::<IpAddr>(), 0..4),
        side in side(),
    ) {
        let view = ServiceView::new(key, config).with(|view| {
            view.statistics = statistics;
            view.local_addresses = local_addresses;
        });
        let bytes = written(|out| ServiceMessage::of_view(&view).write(out, 1, side));
        let read = ServiceMessage::read(inside(&bytes)).unwrap();
        prop_assert_eq!(read.view(), Ok(view));
    }

    #[test]
    fn a_server_is_read_as_it_was_written(
        config in any::<bool>().prop_flat_map(endpoint).prop_flat_map(server),
        counts: [u32; 3],
        effective_weight: u32,
        is_overloaded: bool,
        drain in option::of(any::<(u64, u64, bool, u32)>()),
        statistics in statistics(),
        side in side(),
    ) {
        let mut config = config;
        let drain = drain.map(|(deadline, ends_in, resets, open)| {
            let then = if resets { AfterDrain::Reset } else { AfterDrain::Silence };
            config.drain = Some(DrainConfig { deadline: Duration::from_nanos(deadline), then });
            DrainView::new(Duration::from_nanos(ends_in), then, open)
        });
        let [active_connections, inactive_connections, persistent_connections] = counts;
        let view = ServerView::new(config).with(|view| {
            view.effective_weight = effective_weight;
            view.active_connections = active_connections;
            view.inactive_connections = inactive_connections;
            view.persistent_connections = persistent_connections;
            view.is_overloaded = is_overloaded;
            view.drain = drain;
            view.statistics = statistics;
        });
        let bytes = written(|out| ServerMessage::of_view(&view).write(out, 2, side));
        let read = ServerMessage::read(inside(&bytes)).unwrap();
        prop_assert_eq!(read.view(AddressFamily::Ipv4), Ok(view));
    }

    #[test]
    fn a_daemon_is_read_as_it_was_written(
        (state, sync_id, max_len, port, ttl) in any::<(
            Option<u32>, Option<u32>, Option<u16>, Option<u16>, Option<u8>,
        )>(),
        interface in option::of("[a-z0-9]{0,15}"),
        (group, group6) in any::<(Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>)>(),
        side in side(),
    ) {
        let daemon = DaemonMessage { state, interface, sync_id, max_len, port, ttl, group, group6 };
        let bytes = written(|out| daemon.write(out, 3, side));
        prop_assert_eq!(DaemonMessage::read(inside(&bytes)), Ok(daemon));
    }

    #[test]
    fn a_request_to_add_or_edit_asks_for_the_configuration_it_was_made_of(
        (key, config) in key().prop_flat_map(|key| (Just(key), service(key.family()))),
        server in any::<bool>().prop_flat_map(endpoint).prop_flat_map(server),
    ) {
        let request = Request::of_command(&Command::AddService(key, config.clone())).unwrap();
        let bytes = written(|out| request.service.unwrap().write(out, 1, Side::Client));
        let read = ServiceMessage::read(inside(&bytes)).unwrap();
        prop_assert_eq!(read.key(), Ok(Some(key)));
        prop_assert_eq!(read.config(key.family(), None), Ok(config));

        let request = Request::of_command(&Command::EditServer(key, server.clone())).unwrap();
        let bytes = written(|out| request.server.unwrap().write(out, 2, Side::Client));
        let read = ServerMessage::read(inside(&bytes)).unwrap();
        prop_assert_eq!(read.config(key.family(), None), Ok(server));
    }

    #[test]
    fn a_request_of_our_own_family_asks_for_the_command_it_was_made_of(
        service in key(),
        at in any::<bool>().prop_flat_map(endpoint),
        deadline in duration(),
        factor: u32,
        address: IpAddr,
        then in select(vec![AfterDrain::Reset, AfterDrain::Silence]),
    ) {
        let server = Endpoint::new(at.ip(), at.port());
        for command in [
            Command::Drain { service, server, deadline, then },
            Command::SetServerFactor { service, server, factor },
            Command::AddLocalAddress(service, address),
            Command::DeleteLocalAddress(service, address),
        ] {
            let request = lvs::Request::of_command(&command).unwrap();
            let bytes = written(|out| request.write(out));
            let read = lvs::Request::read(request.command, false, lvs_genl::wire::Attributes::new(&bytes));
            prop_assert_eq!(read.unwrap().to_command(), Ok(command));
        }
    }
}

/// The fields of a structure, as its debug text names them at the first level.
fn fields(text: &str) -> Vec<&str> {
    let (mut depth, mut found) = (0, Vec::new());
    for word in text.split_inclusive(['{', '}', '(', ')', '[', ']', ' ']) {
        if let Some(name) = word.trim_end().strip_suffix(':').filter(|_| depth == 1) {
            found.push(name);
        }
        match word.chars().last() {
            Some('{' | '(' | '[') => depth += 1,
            Some('}' | ')' | ']') => depth -= 1,
            _ => {}
        }
    }
    found
}

/// A field that is added to a configuration has to travel: give it an attribute, add it to the generators above, and
/// then to these lists.
#[test]
fn every_field_of_a_configuration_travels() {
    let service = format!("{:?}", ServiceConfig::new("rr"));
    assert_eq!(
        fields(&service),
        [
            "scheduler",
            "scheduler_flags",
            "persistence_timeout_s",
            "netmask",
            "one_packet",
            "persistence_engine",
            "mss_clamp",
            "helper",
            "slow_start",
            "full_nat",
            "timeouts",
            "on_server_gone",
            "reuse_reschedules",
            "check_window",
            "on_reply_conflict",
        ]
    );
    let server = format!("{:?}", ServerConfig::nat("10.0.0.2:80".parse().unwrap()));
    assert_eq!(
        fields(&server),
        ["key", "forward", "weight", "upper_threshold", "lower_threshold", "tunnel", "mtu", "drain"]
    );
}
