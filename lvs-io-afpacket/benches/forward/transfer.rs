//! Round trips and bulk TCP between the kernels of client and server.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::network::{Failure, Network, SERVER, Target, VIRTUAL};

pub const ECHO: u16 = 5002;
pub const BULK: u16 = 5003;

/// Sends back what comes to one port, and swallows what comes by TCP.
pub fn serve() -> Result<(), Failure> {
    let echo = UdpSocket::bind(("0.0.0.0", ECHO))?;
    thread::spawn(move || {
        let mut packet = [0; 64];
        while let Ok((len, from)) = echo.recv_from(&mut packet) {
            let _ = echo.send_to(&packet[..len], from);
        }
    });
    let bulk = TcpListener::bind(("0.0.0.0", BULK))?;
    thread::spawn(move || {
        for stream in bulk.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut total = 0u64;
            let mut block = vec![0; 1 << 18];
            while let Ok(count @ 1..) = stream.read(&mut block) {
                total += count as u64;
            }
            let _ = stream.write_all(&total.to_be_bytes());
        }
    });
    Ok(())
}

/// The median time from question to answer, in microseconds.
pub fn round_trip(network: &Network, duration: Duration) -> Result<f64, Failure> {
    let target = address(network.target);
    network.client.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((target, ECHO))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut times = Vec::new();
        let start = Instant::now();
        while times.len() < 10 || start.elapsed() < duration {
            let asked = Instant::now();
            socket.send(b"question")?;
            socket.recv(&mut [0; 64]).map_err(|error| format!("no answer: {error}"))?;
            times.push(asked.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    })
}

/// Gigabits a second of one stream.
pub fn bulk(network: &Network, duration: Duration) -> Result<f64, Failure> {
    let target = address(network.target);
    network.client.run(move || {
        let mut stream = TcpStream::connect((target, BULK))?;
        let block = vec![7; 1 << 18];
        let start = Instant::now();
        while start.elapsed() < duration {
            stream.write_all(&block)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut total = [0; 8];
        stream.read_exact(&mut total)?;
        Ok(u64::from_be_bytes(total) as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64())
    })
}

fn address(target: Target) -> IpAddr {
    let text = match target {
        Target::Server => SERVER,
        Target::Virtual => VIRTUAL,
    };
    text.parse().expect("a constant")
}
