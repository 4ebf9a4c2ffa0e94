//! The recorder's laboratory, rebuilt around `lvs-core`: a director with a virtual clock, the host it stands in,
//! clients on one link and real servers on the other. Does one thing at a time and says what came out; compares
//! nothing.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lvs_core::answer_limit::AnswerRates;
use lvs_core::{
    Direction, Director, DirectorConfig, HEADROOM, Instant, PacketBuf, SchedulerRegistry, Seed, Settings, Verdict,
};
use lvs_io::{Exits, Host, HostConfig, OnPass, PacketSink, SinkFn};

use crate::administrator::{Administrator, Printed};
use crate::golden::{Emission, Golden, Link, Net, Side};

/// A director and everything around it.
#[derive(Debug)]
pub struct Lab {
    director: Director,
    surroundings: Surroundings,
    administrator: Administrator,
    now: Instant,
    /// Lent to the director for each packet: headroom, then the longest packet there is.
    storage: Vec<u8>,
    /// Rules the director broke on the way, whatever the recording says.
    broken: Vec<String>,
}

/// The director's own host, the two links, and what has been put on them.
#[derive(Debug)]
struct Surroundings {
    exits: Exits,
    out: Arc<Mutex<Vec<Emission>>>,
}

impl Lab {
    /// Sets up the recording's network, sysctls and services, `lead` before the first step: the first service starts
    /// the director's 2-second beat. The error says which sysctl or command was refused.
    pub fn new(golden: &Golden, lead: Duration) -> Result<Self, String> {
        let mut lab = Self {
            director: Director::new(director_config(&golden.net), Seed::new(SEED)),
            surroundings: Surroundings::new(&golden.net),
            administrator: Administrator::new(),
            now: START,
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
        lab.advance(lead);
        Ok(lab)
    }

    /// Lets time pass, timer by timer, and says what came out meanwhile.
    pub fn advance(&mut self, by: Duration) -> Vec<Emission> {
        let until = self.now + by;
        let mut calls = 0;
        while let Some(due) = self.director.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.director.handle_timeout(self.now);
            self.collect_transmits();
            calls += 1;
            if calls == CALLS_MAX {
                self.broken.push(format!("{calls} calls of handle_timeout do not get past {:?}", self.now));
                break;
            }
        }
        self.now = until;
        self.surroundings.take()
    }

    /// Hands a packet to the director, and what it passes to the host; says what came out.
    pub fn packet(&mut self, from: Link, bytes: &[u8], mark: u32) -> Vec<Emission> {
        let Some(room) = self.storage.get_mut(HEADROOM..HEADROOM + bytes.len()) else {
            self.broken.push(format!("a packet of {} bytes does not fit the laboratory", bytes.len()));
            return Vec::new();
        };
        room.copy_from_slice(bytes);
        let mut packet = PacketBuf::new(&mut self.storage, HEADROOM, bytes.len());
        packet.mark = mark;
        let explanation = self.director.explain(self.now, &packet);
        let verdict = self.director.handle_packet(self.now, &mut packet);
        if (explanation.verdict, explanation.bytes.as_slice()) != (verdict, packet.bytes()) {
            self.broken.push(format!("explain to agree with handle_packet ({verdict:?}), but it says: {explanation}"));
        }
        if matches!(verdict, Verdict::Pass | Verdict::Drop(_)) && packet.bytes() != bytes {
            self.broken.push(format!("{verdict:?} changed the packet"));
        }
        let came = if from == Link::Client { Direction::Request } else { Direction::Reply };
        self.surroundings.carry_out(&mut self.director, self.now, came, verdict, &mut packet);
        self.collect_transmits();
        self.surroundings.take()
    }

    /// Runs ipvsadm with these arguments.
    pub fn ipvsadm(&mut self, arguments: &str, stdin: &str) -> Printed {
        self.administrator.ipvsadm(&mut self.director, self.now, arguments, stdin)
    }

    /// `/proc/net/ip_vs_conn`.
    pub fn connections(&self) -> String {
        self.administrator.connections(&self.director, self.now)
    }

    /// The content of a file below `/proc`, if it is one that concerns IPVS and us.
    pub fn read(&self, path: &str) -> Option<String> {
        self.administrator.read(&self.director, self.now, path)
    }

    /// Changes sysctls. The error names one with a value it does not take.
    pub fn set_sysctls(&mut self, sysctls: &[(String, String)]) -> Result<(), String> {
        self.administrator.set_sysctls(&mut self.director, self.now, sysctls)?;
        self.surroundings.exits.set_answer_rates(self.director.settings().answer_rates());
        Ok(())
    }

    /// Rules the director broke since this was last asked.
    pub fn take_broken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.broken)
    }

    /// Sends what the director owes the wire.
    fn collect_transmits(&mut self) {
        for _ in 0..CALLS_MAX {
            let mut packet = PacketBuf::new(&mut self.storage, HEADROOM, 0);
            let Some(verdict) = self.director.poll_transmit(&mut packet) else { return };
            self.surroundings.carry_out(&mut self.director, self.now, Direction::Request, verdict, &mut packet);
        }
        self.broken.push("poll_transmit never ends".into());
    }
}

impl Surroundings {
    fn new(net: &Net) -> Self {
        let out = Arc::new(Mutex::new(Vec::new()));
        let link = || -> Box<dyn PacketSink> {
            let (out, servers) = (Arc::clone(&out), net.servers.clone());
            Box::new(SinkFn(move |packet: &[u8], next_hop| {
                let server = servers.iter().position(|&server| server == next_hop);
                out.lock().expect("nobody panics with it").push(Emission::new(server, packet.to_vec()));
            }))
        };
        let mut exits = Exits::new(vec![link(), link()]);
        exits.set_on_pass(OnPass::Route(Box::new(Host::new(host_config(net), Seed::new(SEED)))));
        Self { exits, out }
    }

    /// Does with a packet what its verdict says. `came` tells the host by which side it arrived.
    fn carry_out(
        &mut self,
        director: &mut Director,
        now: Instant,
        came: Direction,
        verdict: Verdict,
        packet: &mut PacketBuf<'_>,
    ) {
        self.exits.carry_out(now, usize::from(came == Direction::Reply), packet, verdict);
        self.exits.hear_host(now, director);
    }

    /// What has been put on the links, cut to their MTU.
    fn take(&mut self) -> Vec<Emission> {
        std::mem::take(&mut *self.out.lock().expect("nobody panics with it"))
    }
}

fn director_config(net: &Net) -> DirectorConfig {
    DirectorConfig::default().with(|config| {
        config.client_side = core_side(&net.client_side);
        config.server_side = core_side(&net.server_side);
        config.host_addresses = net.vips.iter().copied().collect();
        config.connections_max = 8_192;
        // more than any recording has
        config.schedulers = recorded_schedulers();
        config.settings = recorded_settings();
    })
}

/// As Linux does where we would not by ourselves; and the recorder turned the kernel's limits on ICMP errors off.
fn recorded_settings() -> Settings {
    let AnswerRates { icmp_ratelimit, icmp_ratemask, icmp_msgs_per_sec, icmp_msgs_burst, icmpv6_ratelimit, .. } =
        AnswerRates::UNLIMITED;
    Settings::default().with(|settings| {
        settings.icmp_ratelimit = icmp_ratelimit;
        settings.icmp_ratemask = icmp_ratemask;
        settings.icmp_msgs_per_sec = icmp_msgs_per_sec;
        settings.icmp_msgs_burst = icmp_msgs_burst;
        settings.icmpv6_ratelimit = icmpv6_ratelimit;
        settings.tunnel_mtu_proof = false;
        settings.tunnel_least_mtu = false;

        // So the recorder's hosts were set up, but where a recording says otherwise.
        settings.accept_local = true;
    })
}

/// The schedulers of the recorded kernel: it was built without `twos`.
fn recorded_schedulers() -> SchedulerRegistry {
    let built_in = Arc::new(SchedulerRegistry::default());
    let mut recorded = SchedulerRegistry::empty();
    for name in built_in.names().filter(|name| *name != "twos") {
        let (all, own_name) = (Arc::clone(&built_in), name.to_owned());
        recorded.register(name, move |init| all.create(&own_name, init).expect("its name came from this registry"));
    }
    recorded
}

fn host_config(net: &Net) -> HostConfig {
    let host_route = |address: &IpAddr| (*address, if address.is_ipv4() { 32 } else { 128 });
    HostConfig {
        client_side: core_side(&net.client_side),
        server_side: core_side(&net.server_side),
        local_addresses: net.vips.clone(),
        servers: net.servers.iter().map(host_route).collect(),
        answer_rates: AnswerRates::UNLIMITED,
        answers_only: false,
    }
}

fn core_side(side: &Side) -> lvs_core::Side {
    lvs_core::Side::default().with(|it| {
        it.mtu = side.mtu;
        it.ipv4 = Some(side.ipv4);
        it.ipv6 = Some(side.ipv6);
    })
}

/// Any seed does: nothing recorded depends on the random choices of one run.
const SEED: u64 = 0x1b5;
/// The laboratory's clock at the director's birth: far from zero, so that nothing is early enough to underflow.
const START: Instant = Instant::from_secs(1_000_000);
/// Longest packet an IPv4 or IPv6 header can declare, roughly.
const LONGEST_PACKET: usize = 65_600;
/// More calls than any recording needs between two steps.
const CALLS_MAX: usize = 1_000_000;
