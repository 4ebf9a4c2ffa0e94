//! The recorder's laboratory, rebuilt around `lvs-core`: a director with a virtual clock, the host it stands in, clients
//! on one link and real servers on the other. Does one thing at a time and says what came out; compares nothing.

use std::time::Duration;

use lvs_core::{Director, DirectorConfig, HEADROOM, Instant, PacketBuf, Seed, Settings, Verdict};

use crate::administrator::{self, Printed};
use crate::golden::{Emission, Golden, Link, Net, Side};

/// A director and everything around it.
#[derive(Debug)]
pub struct Lab {
    director: Director,
    net: Net,
    now: Instant,
    /// Lent to the director for each packet: headroom, then the longest packet there is.
    storage: Vec<u8>,
    /// Rules the director broke on the way, whatever the recording says.
    broken: Vec<String>,
}

impl Lab {
    /// Sets up the recording's network, sysctls and services. `phase` is how long before the first step the director
    /// last published its statistics. The error says which sysctl or command was refused.
    pub fn new(golden: &Golden, phase: Duration) -> Result<Self, String> {
        let config = DirectorConfig {
            client_side: core_side(&golden.net.client_side),
            server_side: core_side(&golden.net.server_side),
            ..DirectorConfig::default()
        };
        let mut director = Director::new(config, Seed::new(SEED));
        // The first call starts the director's 2-second beat.
        director.handle_timeout(START);
        let mut lab = Self {
            director,
            net: golden.net.clone(),
            now: START + phase,
            storage: vec![0; HEADROOM + LONGEST_PACKET],
            broken: Vec::new(),
        };
        lab.set_sysctls(&golden.sysctls)?;
        for command in &golden.setup {
            let printed = lab.ipvsadm(command, "");
            if printed.status != 0 {
                return Err(format!("setup: ipvsadm {command}: {}", printed.stderr.trim_end()));
            }
        }
        Ok(lab)
    }

    /// Lets time pass, timer by timer, until `now`, and says what came out meanwhile.
    pub fn advance(&mut self, by: Duration) -> Vec<Emission> {
        let mut out = Vec::new();
        let until = self.now + by;
        for _ in 0..CALLS_MAX {
            match self.director.poll_timeout() {
                Some(due) if due <= until => {
                    self.now = self.now.max(due);
                    self.director.handle_timeout(self.now);
                    self.collect_transmits(&mut out);
                }
                _ => {
                    self.now = until;
                    return out;
                }
            }
        }
        self.broken.push(format!("handle_timeout was called {CALLS_MAX} times without getting past {:?}", self.now));
        self.now = until;
        out
    }

    /// Hands a packet to the director, and what it passes to the host; says what came out.
    pub fn packet(&mut self, from: Link, bytes: &[u8], mark: u32) -> Vec<Emission> {
        let mut out = Vec::new();
        if bytes.len() > LONGEST_PACKET {
            self.broken.push(format!("a packet of {} bytes does not fit the laboratory", bytes.len()));
            return out;
        }
        self.storage[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        let mut storage = std::mem::take(&mut self.storage);
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, bytes.len());
        packet.mark = mark;
        match self.director.handle_packet(self.now, &mut packet) {
            Verdict::Forward { next_hop, mtu, .. } => send(&self.net, &mut out, next_hop, mtu, packet.bytes()),
            Verdict::Reply { next_hop } => send(&self.net, &mut out, next_hop, u16::MAX, packet.bytes()),
            verdict @ (Verdict::Pass | Verdict::Drop(_)) => {
                if packet.bytes() != bytes {
                    self.broken.push(format!("{verdict:?} changed the packet"));
                }
            }
            Verdict::Local | Verdict::Held => {}
        }
        let _ = from;
        self.storage = storage;
        self.collect_transmits(&mut out);
        out
    }

    /// Runs ipvsadm with these arguments.
    pub fn ipvsadm(&mut self, arguments: &str, stdin: &str) -> Printed {
        administrator::ipvsadm(&mut self.director, self.now, arguments, stdin)
    }

    /// `/proc/net/ip_vs_conn`.
    pub fn connections(&self) -> String {
        administrator::connections(&self.director, self.now)
    }

    /// The content of a file below `/proc`, if it is one that concerns IPVS and us.
    pub fn read(&self, path: &str) -> Option<String> {
        administrator::read(&self.director, self.now, path)
    }

    /// Changes sysctls. The error names one with a value it does not take.
    pub fn set_sysctls(&mut self, sysctls: &[(String, String)]) -> Result<(), String> {
        let mut settings: Settings = self.director.settings().clone();
        for (name, value) in sysctls {
            administrator::set_sysctl(&mut settings, name, value)?;
        }
        let command = lvs_core::Command::SetSettings(settings);
        self.director.apply(self.now, &command).map_err(|error| error.to_string())
    }

    /// Rules the director broke since this was last asked.
    pub fn take_broken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.broken)
    }

    fn collect_transmits(&mut self, out: &mut Vec<Emission>) {
        for _ in 0..CALLS_MAX {
            let mut packet = PacketBuf::new(&mut self.storage, HEADROOM, 0);
            let Some(transmit) = self.director.poll_transmit(&mut packet) else { return };
            send(&self.net, out, transmit.next_hop, transmit.mtu, packet.bytes());
        }
        self.broken.push("poll_transmit never ends".into());
    }
}

/// Puts a packet on the link that leads to `next_hop`, cut to `mtu`.
fn send(net: &Net, out: &mut Vec<Emission>, next_hop: std::net::IpAddr, mtu: u16, packet: &[u8]) {
    let server = net.servers.iter().position(|&server| server == next_hop);
    let _ = mtu;
    out.push(Emission::new(server, packet.to_vec()));
}

fn core_side(side: &Side) -> lvs_core::Side {
    lvs_core::Side { mtu: side.mtu, ipv4: Some(side.ipv4), ipv6: Some(side.ipv6) }
}

/// Any seed does: nothing recorded depends on the random choices of one run.
const SEED: u64 = 0x1b5;
/// The laboratory's clock at the director's birth: far from zero, so that nothing is early enough to underflow.
const START: Instant = Instant::from_secs(1_000_000);
/// Longest packet an IPv4 or IPv6 header can declare, roughly.
const LONGEST_PACKET: usize = 65_600;
/// More calls than any recording needs between two steps.
const CALLS_MAX: usize = 1_000_000;
