//! A load balancer between a smoltcp network device and a smoltcp interface: wrap the device, and packets for a virtual
//! service are sent on before the stack sees them. Works wherever smoltcp does; this program needs no privileges.
//!
//! ```text
//! cargo run -p lvs-examples --example smoltcp_device
//! ```
//!
//! One stack plays everybody here, on a loopback device: a client, and two servers behind 192.0.2.80:53.
use std::error::Error;

use lvs_core::{
    Command, Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Protocol, Seed, ServerConfig, ServiceConfig,
    ServiceKey, Verdict,
};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Loopback, Medium, RxToken, TxToken};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::time::Instant as Time;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

/// A device for IP packets with a director in front of its receiving side.
struct Balanced<D> {
    inner: D,
    director: Director,
}

/// A packet the director left to the stack.
struct Passed(Vec<u8>);

impl RxToken for Passed {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl<D: Device> Device for Balanced<D> {
    #[rustfmt::skip]
    type RxToken<'a> = Passed where D: 'a;
    #[rustfmt::skip]
    type TxToken<'a> = D::TxToken<'a> where D: 'a;

    fn receive(&mut self, time: Time) -> Option<(Passed, D::TxToken<'_>)> {
        let now = Instant::from_micros(time.total_micros().try_into().unwrap_or(0));
        if self.director.poll_timeout().is_some_and(|due| due <= now) {
            self.director.handle_timeout(now);
        }
        loop {
            // Copied to where there is room before the packet; a driver's own buffers can have it from the start.
            let (received, _) = self.inner.receive(time)?;
            let mut storage = received.consume(|bytes| [&[0; HEADROOM], bytes].concat());
            let len = storage.len() - HEADROOM;
            let mut packet = PacketBuf::new(&mut storage, HEADROOM, len);
            match self.director.handle_packet(now, &mut packet) {
                Verdict::Forward { .. } | Verdict::Reply { .. } => {
                    let token = self.inner.transmit(time)?;
                    token.consume(packet.len(), |bytes| bytes.copy_from_slice(packet.bytes()));
                }
                Verdict::Pass | Verdict::Local => {
                    let bytes = packet.bytes().to_vec();
                    return Some((Passed(bytes), self.inner.transmit(time)?));
                }
                Verdict::Held | Verdict::Drop(_) => {}
            }
        }
    }

    fn transmit(&mut self, time: Time) -> Option<D::TxToken<'_>> {
        self.inner.transmit(time)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = self.inner.capabilities();
        // The director looks at checksums before any hardware could.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
    let service = ServiceKey::address(Protocol::Udp, "192.0.2.80:53".parse()?);
    director.apply(Instant::ZERO, &Command::AddService(service, ServiceConfig::new("rr")))?;
    for server in ["10.0.0.11:53", "10.0.0.11:5353"] {
        director.apply(Instant::ZERO, &Command::AddServer(service, ServerConfig::nat(server.parse()?)))?;
    }
    let mut device = Balanced { inner: Loopback::new(Medium::Ip), director };
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, Time::ZERO);
    interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 7), 24)).expect("there is room");
        addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 11), 24)).expect("there is room");
    });
    interface.routes_mut().add_default_ipv4_route([10, 0, 0, 7].into())?;

    let mut sockets = SocketSet::new(Vec::new());
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 4], vec![0; 256]);
    let open = |sockets: &mut SocketSet<'_>, host, port| {
        let mut socket = Socket::new(buffer(), buffer());
        socket.bind((IpAddress::v4(10, 0, 0, host), port)).expect("the port is free");
        sockets.add(socket)
    };
    let servers = [(open(&mut sockets, 11, 53), "one"), (open(&mut sockets, 11, 5353), "two")];
    for port in 4000..4004 {
        let client = open(&mut sockets, 7, port);
        let target = IpEndpoint::new(IpAddress::v4(192, 0, 2, 80), 53);
        sockets.get_mut::<Socket<'_>>(client).send_slice(format!("port {port}").as_bytes(), target)?;
        for _ in 0..8 {
            interface.poll(Time::ZERO, &mut device, &mut sockets);
            for (server, name) in servers {
                let socket = sockets.get_mut::<Socket<'_>>(server);
                let asked = socket.recv().map(|(bytes, from)| (bytes.to_vec(), from.endpoint));
                if let Ok((bytes, from)) = asked {
                    socket.send_slice(&[&bytes, " answered by ".as_bytes(), name.as_bytes()].concat(), from)?;
                }
            }
        }
        let (answer, from) = sockets.get_mut::<Socket<'_>>(client).recv()?;
        println!("{} at {}", String::from_utf8_lossy(answer), from.endpoint);
    }
    Ok(())
}
