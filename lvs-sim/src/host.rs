//! A host: a smoltcp stack on a queue device, the services it offers and the conversations it leads.

use std::net::{IpAddr, SocketAddr};

use lvs_core::rng::Rng;
use lvs_core::{Instant, Seed};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address, Ipv6Address};

use crate::client::Client;
use crate::conversation::{Conversation, ConversationId, Outcome, Report};
use crate::device::QueueDevice;
use crate::fin_keeper::FinKeeper;
use crate::packet::{TcpSegment, tcp_segment, unreachable_flow};
use crate::service::Service;

pub(crate) struct Host {
    addresses: Vec<IpAddr>,
    /// When the simulation will call it next without a packet.
    pub(crate) wake: Option<Instant>,
    stack: Option<Stack>,
    mtu: u16,
    services: Vec<Service>,
    clients: Vec<Client>,
    next_port: u16,
    rng: Rng,
}

/// What a host loses when it is switched off.
struct Stack {
    device: QueueDevice,
    interface: Interface,
    sockets: SocketSet<'static>,
    fin_keeper: FinKeeper,
}

impl Host {
    pub(crate) fn new(addresses: &[IpAddr], mtu: u16, seed: Seed) -> Self {
        let mut host = Self {
            addresses: addresses.to_vec(),
            wake: None,
            stack: None,
            mtu,
            services: Vec::new(),
            clients: Vec::new(),
            next_port: FIRST_EPHEMERAL_PORT,
            rng: Rng::new(seed),
        };
        host.switch_on(Instant::ZERO);
        host
    }

    /// Boots: services start, connections of an earlier life are unknown. Nothing happens if it is on.
    pub(crate) fn switch_on(&mut self, now: Instant) {
        if self.stack.is_some() {
            return;
        }
        let mut device = QueueDevice::new(self.mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = self.rng.next_u64();
        let mut interface = Interface::new(config, &mut device, smoltcp_time(now));
        add_addresses(&mut interface, &self.addresses);
        // The link leads to one place, whatever the gateway's address; the stack only wants a route to exist.
        let routes = interface.routes_mut();
        routes.add_default_ipv4_route(Ipv4Address::new(169, 254, 0, 1)).expect("the first route");
        routes.add_default_ipv6_route(Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)).expect("the second route");
        let mut sockets = SocketSet::new(Vec::new());
        for service in &mut self.services {
            service.start(&mut sockets);
        }
        self.stack = Some(Stack { device, interface, sockets, fin_keeper: FinKeeper::default() });
    }

    /// Loses power: connections are gone without a word.
    pub(crate) fn switch_off(&mut self, now: Instant, reports: &mut [Report]) {
        self.stack = None;
        for client in self.clients.drain(..) {
            let report = &mut reports[client.id.0];
            if report.outcome == Outcome::Running {
                report.outcome = Outcome::SwitchedOff;
                report.ended = Some(now);
            }
        }
    }

    /// Gives it addresses it is not reached by, but accepts.
    pub(crate) fn add_virtual_addresses(&mut self, addresses: &[IpAddr]) {
        self.addresses.extend(addresses);
        if let Some(stack) = &mut self.stack {
            add_addresses(&mut stack.interface, addresses);
        }
    }

    /// The host's address of the same family as `other`.
    pub(crate) fn address_towards(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// Adds a TCP service; it survives reboots.
    pub(crate) fn serve(&mut self, service: crate::service::TcpService) {
        self.services.push(Service::Tcp(service));
    }

    /// Adds a UDP echo service; it survives reboots.
    pub(crate) fn serve_udp_echo(&mut self, port: u16) {
        let mut service = Service::UdpEcho { port, handle: None };
        if let Some(stack) = &mut self.stack {
            service.start(&mut stack.sockets);
        }
        self.services.push(service);
    }

    /// Begins a conversation.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        id: ConversationId,
        conversation: Conversation,
        reports: &mut [Report],
    ) {
        let Some(stack) = &mut self.stack else {
            reports[id.0].outcome = Outcome::SwitchedOff;
            reports[id.0].ended = Some(now);
            return;
        };
        let port = conversation.local_port.unwrap_or(self.next_port);
        self.next_port = if self.next_port == u16::MAX { FIRST_EPHEMERAL_PORT } else { self.next_port + 1 };
        let local = SocketAddr::new(reports[id.0].client, port);
        // A finished conversation may still hold the port in TIME-WAIT.
        if let Some(index) = self.clients.iter().position(|client| client.local == local) {
            let earlier = &self.clients[index];
            if !earlier.is_open(&stack.sockets, &reports[earlier.id.0]) {
                stack.sockets.remove(earlier.handle);
                self.clients.remove(index);
            }
        }
        let seed = Seed::new(self.rng.next_u64());
        let (interface, sockets) = (&mut stack.interface, &mut stack.sockets);
        self.clients.push(Client::start(id, now, conversation, local, seed, interface, sockets));
    }

    /// A packet arrives. A host that is off does not see it.
    pub(crate) fn receive(&mut self, packet: Vec<u8>) {
        let Some(stack) = &mut self.stack else { return };
        if let Some(TcpSegment { source: client, target: server, opens: true, .. }) = tcp_segment(&packet) {
            for service in &mut self.services {
                if let Service::Tcp(service) = service
                    && service.port == server.port()
                    && self.addresses.contains(&server.ip())
                    && client.port() != 0
                {
                    service.expect(client, server, &mut stack.sockets);
                }
            }
        }
        if let Some((source, target)) = unreachable_flow(&packet) {
            for client in &mut self.clients {
                client.hear_unreachable(source, target, &stack.sockets);
            }
        }
        stack.device.received.push_back(packet);
    }

    /// Lets stack, services and conversations do what they can do now, and hands over what they send.
    pub(crate) fn advance(&mut self, now: Instant, reports: &mut [Report], mut send: impl FnMut(Vec<u8>)) {
        let Some(stack) = &mut self.stack else { return };
        loop {
            stack.interface.poll(smoltcp_time(now), &mut stack.device, &mut stack.sockets);
            let mut progress = false;
            for service in &mut self.services {
                progress |= service.advance(&mut stack.sockets);
            }
            for client in &mut self.clients {
                progress |= client.advance(now, &mut stack.sockets, &mut reports[client.id.0]);
            }
            // Ends, because time stands still and every buffer is bounded.
            if !progress {
                break;
            }
        }
        let sockets = &mut stack.sockets;
        self.clients.retain(|client| {
            let is_gone = client.is_gone(sockets, &reports[client.id.0]);
            if is_gone {
                sockets.remove(client.handle);
            }
            !is_gone
        });
        for packet in stack.device.sent.drain(..) {
            stack.fin_keeper.note(now, &packet);
            send(packet);
        }
        stack.fin_keeper.advance(now, &stack.sockets, send);
    }

    /// When it has something to do without a packet.
    pub(crate) fn wakes(&mut self, now: Instant, reports: &[Report]) -> Option<Instant> {
        let stack = self.stack.as_mut()?;
        let stack_wakes = stack.interface.poll_at(smoltcp_time(now), &stack.sockets).map(core_time);
        let clients_wake = self.clients.iter().filter_map(|client| client.wakes(&reports[client.id.0])).min();
        let earliest = stack_wakes.into_iter().chain(clients_wake).chain(stack.fin_keeper.wakes()).min()?;
        // What is due has been done; what is not done by now waits for the clock's next tick.
        Some(earliest.max(now + std::time::Duration::from_micros(1)))
    }

    /// Whether a conversation of this host is still going on.
    pub(crate) fn is_talking(&self, reports: &[Report]) -> bool {
        let Some(stack) = &self.stack else { return false };
        self.clients.iter().any(|client| client.is_open(&stack.sockets, &reports[client.id.0]))
    }
}

fn add_addresses(interface: &mut Interface, addresses: &[IpAddr]) {
    interface.update_ip_addrs(|list| {
        for address in addresses {
            let prefix_len = if address.is_ipv4() { 32 } else { 128 };
            list.push(IpCidr::new((*address).into(), prefix_len)).expect("a host has at most 8 addresses");
        }
    });
}

/// smoltcp counts microseconds. Rounded down: its timers end on whole ones, and are due then.
fn smoltcp_time(now: Instant) -> smoltcp::time::Instant {
    let micros = now.as_nanos() / 1_000;
    smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

fn core_time(time: smoltcp::time::Instant) -> Instant {
    Instant::from_micros(u64::try_from(time.total_micros()).unwrap_or(0))
}

/// RFC 6335 §6.
const FIRST_EPHEMERAL_PORT: u16 = 49_152;
