//! A stream of datagrams through the director, and the times at which they arrive. Client and server are addresses of
//! this namespace: the device hands the director what goes to the virtual address, and takes back what it forwards.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lvs_io::netdev;

use crate::director::Failure;

pub const VIRTUAL: &str = "192.0.2.80:5001";
pub const SERVER: &str = "10.9.0.11:5001";
const CLIENT: &str = "10.9.0.7:5002";

/// Between two datagrams, at least.
pub const PACE: Duration = Duration::from_micros(100);

/// Gives this namespace the addresses of client and server.
pub fn prepare() -> Result<(), Failure> {
    netdev::set_up("lo")?;
    for end in [CLIENT, SERVER] {
        netdev::add_address("lo", end.parse::<SocketAddr>()?.ip(), 32)?;
    }
    Ok(())
}

/// Leads what goes to the virtual address to the device, and lets come back from there what this host sent itself.
pub fn lead_to(device: &str) -> Result<(), Failure> {
    for (name, value) in [("accept_local", "1"), ("rp_filter", "0")] {
        for of in ["all", device] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{of}/{name}"), value)?;
        }
    }
    match netdev::add_route(VIRTUAL.parse::<SocketAddr>()?.ip(), 32, device) {
        // lvsd has led it there itself.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// From when to when.
#[derive(Clone, Copy)]
pub struct Span {
    pub start: Instant,
    pub end: Instant,
}

impl Span {
    pub fn of(act: impl FnOnce() -> Result<(), Failure>) -> Result<Self, Failure> {
        let start = Instant::now();
        act()?;
        Ok(Self { start, end: Instant::now() })
    }
}

/// The stream. Flows until the process ends.
pub struct Stream {
    arrivals: Arc<Mutex<Vec<Instant>>>,
}

impl Stream {
    pub fn start() -> Result<Self, Failure> {
        let server = UdpSocket::bind(SERVER)?;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let client = UdpSocket::bind(CLIENT)?;
        client.connect(VIRTUAL)?;
        thread::spawn(move || {
            loop {
                // One that gets lost is a gap.
                let _ = client.send(b"packet");
                thread::sleep(PACE);
            }
        });
        let mut buffer = [0; 64];
        server.recv(&mut buffer).map_err(|error| format!("no packet arrives: {error}"))?;
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let stream = Self { arrivals: Arc::clone(&arrivals) };
        thread::spawn(move || {
            loop {
                if server.recv(&mut buffer).is_ok() {
                    arrivals.lock().expect("nobody panics with it").push(Instant::now());
                }
            }
        });
        Ok(stream)
    }

    /// The gaps that ended within these spans.
    pub fn gaps(&self, spans: &[Span]) -> Gaps {
        let arrivals = self.arrivals.lock().expect("nobody panics with it");
        let mut gaps = Vec::new();
        for span in spans {
            let from = arrivals.partition_point(|arrival| *arrival < span.start).max(1);
            let to = arrivals.partition_point(|arrival| *arrival <= span.end).max(from);
            gaps.extend(arrivals[from - 1..to].windows(2).map(|pair| pair[1] - pair[0]));
        }
        gaps.sort();
        Gaps(gaps)
    }
}

/// Gaps, the longest last.
pub struct Gaps(Vec<Duration>);

impl Gaps {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How long such a part of them is at most.
    pub fn most_of(&self, part: f64) -> Duration {
        let index = (self.0.len() as f64 * part).ceil() as usize;
        self.0.get(index.saturating_sub(1)).copied().unwrap_or_default()
    }
}
