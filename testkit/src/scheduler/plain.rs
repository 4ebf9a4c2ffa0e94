//! Schedulers by the letter of their rules: every server looked at for every choice, nothing kept that need not be.
//! The oracles of the property tests, and the baseline of the benchmarks.

use lvs_core::Scheduler;
use lvs_core::rng::Rng;
use lvs_core::scheduler::{Change, LoadFormula, Request, SchedulerInit};
use lvs_core::service::{RealServer, ServerId};

/// Linear scan for the least load by weight: `lc`, `wlc`, `sed`, `nq`, `fo`, `ovf`.
#[derive(Clone, Debug)]
pub struct PlainLeast {
    name: &'static str,
}

/// Round robin by the name of the last choice.
#[derive(Clone, Debug, Default)]
pub struct PlainRoundRobin {
    last: Option<ServerId>,
}

/// Weighted round robin, level by level and server by server.
#[derive(Clone, Debug, Default)]
pub struct PlainWeightedRoundRobin {
    current: Option<usize>,
    level: i64,
    top: i64,
    step: i64,
}

/// Power of two choices, weight by weight.
#[derive(Clone, Debug)]
pub struct PlainPowerOfTwo {
    random: Rng,
}

/// The plain scheduler of this name; `None` if there is none.
pub fn plain(name: &str, init: &SchedulerInit) -> Option<Box<dyn Scheduler>> {
    let least = |name| -> Option<Box<dyn Scheduler>> { Some(Box::new(PlainLeast { name })) };
    match name {
        "lc" => least("lc"),
        "wlc" => least("wlc"),
        "sed" => least("sed"),
        "nq" => least("nq"),
        "fo" => least("fo"),
        "ovf" => least("ovf"),
        "rr" => Some(Box::new(PlainRoundRobin::default())),
        "twos" => Some(Box::new(PlainPowerOfTwo { random: Rng::new(init.seed) })),
        "wrr" => Some(Box::new(PlainWeightedRoundRobin::default())),
        _ => None,
    }
}

impl PlainLeast {
    fn is_candidate(&self, server: &RealServer) -> bool {
        server.is_eligible() && (self.name != "ovf" || server.active_connections <= server.weight)
    }

    /// Whether `server` takes the place of the incumbent, which stands before it in the list.
    fn replaces(&self, server: &RealServer, incumbent: &RealServer) -> bool {
        let load = |server: &RealServer| LoadFormula::ActiveAndTotal.load(server);
        let signed = |server: &RealServer| i64::from(load(server) as i32);
        let delay = |server: &RealServer| i64::from(server.active_connections.min(i32::MAX as u32)) + 1;
        let (weight, incumbent_weight) = (i64::from(server.weight), i64::from(incumbent.weight));
        match self.name {
            "lc" => load(server) < load(incumbent),
            "wlc" => signed(incumbent) * weight > signed(server) * incumbent_weight,
            "sed" | "nq" => delay(incumbent) * weight > delay(server) * incumbent_weight,
            _ => weight > incumbent_weight,
        }
    }
}

impl Scheduler for PlainLeast {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        if self.name == "nq" {
            let idle = servers.iter().position(|server| self.is_candidate(server) && server.active_connections == 0);
            if idle.is_some() {
                return idle;
            }
        }
        let mut choice: Option<usize> = None;
        for (index, server) in servers.iter().enumerate() {
            if self.is_candidate(server) && choice.is_none_or(|choice| self.replaces(server, &servers[choice])) {
                choice = Some(index);
            }
        }
        choice
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

impl Scheduler for PlainRoundRobin {
    fn name(&self) -> &'static str {
        "rr"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let last = self.last.and_then(|last| servers.iter().position(|server| server.id == last));
        let first = last.map_or(0, |last| last + 1);
        let mut around = (first..servers.len()).chain(0..first);
        let choice = around.find(|index| servers[*index].is_eligible())?;
        self.last = Some(servers[choice].id);
        Some(choice)
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        match change {
            Change::Removed { index, id } if self.last == Some(id) => {
                self.last = index.checked_sub(1).map(|before| servers[before].id);
            }
            _ => {}
        }
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

impl Scheduler for PlainPowerOfTwo {
    fn name(&self) -> &'static str {
        "twos"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let eligible = || servers.iter().enumerate().filter(|(_, server)| server.is_eligible());
        let total: u64 = eligible().map(|(_, server)| u64::from(server.weight)).sum();
        let mut winner = || {
            let ticket = self.random.up_to(total.min(u32::MAX.into()) as u32);
            let mut left = i64::from(ticket);
            eligible().find_map(|(index, server)| {
                left -= i64::from(server.weight);
                (left <= 0).then_some(index)
            })
        };
        // Linux looks for eligible servers first, and draws only if there are any.
        let (one, other) = if total > 0 { (winner()?, winner()?) } else { return None };
        let load = |index: usize| i64::from(LoadFormula::ActiveAndTotal.load(&servers[index]) as i32);
        let weight = |index: usize| i64::from(servers[index].weight);
        Some(if weight(other) * load(one) > weight(one) * load(other) { other } else { one })
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

impl Scheduler for PlainWeightedRoundRobin {
    fn name(&self) -> &'static str {
        "wrr"
    }

    fn schedule(&mut self, _: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let last = self.current;
        let (mut is_last_pass, mut has_restarted, mut stop) = (false, false, None);
        let mut from = last.map_or(0, |last| last + 1);
        loop {
            for (index, server) in servers.iter().enumerate().skip(from) {
                if !server.is_overloaded && i64::from(server.weight) >= self.level {
                    self.current = Some(index);
                    return Some(index);
                }
                if Some(index) == stop {
                    self.current = stop;
                    return None;
                }
            }
            from = 0;
            self.level -= self.step;
            if self.level <= 0 {
                self.level = self.top;
                if is_last_pass || last.is_none() {
                    self.current = None;
                    return None;
                }
                has_restarted = true;
            }
            is_last_pass = self.level <= self.step;
            if is_last_pass && has_restarted {
                stop = last;
            }
        }
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        let weights = || servers.iter().map(|server| i64::from(server.weight)).filter(|weight| *weight > 0);
        self.current = None;
        // The greatest common divisor by trial: the greatest number that divides the smallest weight and all others.
        let least = weights().min().unwrap_or(1);
        self.step = (1..=least).rev().find(|divisor| weights().all(|weight| weight % divisor == 0)).unwrap_or(1);
        self.top = weights().max().unwrap_or(0) - (self.step - 1);
        if change == Change::Reset || self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}
