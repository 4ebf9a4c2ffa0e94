//! Searches by weight: "the next server at least this heavy" for `rr` and `wrr`, "the server where the weights so far
//! add up to this" for `twos`. Short lists are scanned, long ones keep a tree. An overloaded server weighs nothing
//! here.

use alloc::vec::Vec;

use crate::service::RealServer;

/// Weights of the servers that are not overloaded, in list order, and what they come to over stretches of the list.
/// Told of every change.
#[derive(Clone, Debug)]
pub(super) struct WeightTree {
    /// What two stretches come to together.
    combine: fn(u64, u64) -> u64,
    /// How many servers the tree knows; 0 while the list is short enough to be scanned.
    count: usize,
    /// `nodes[width + index]` is a server's weight, `nodes[k]` combines `nodes[2k]` and `nodes[2k + 1]`.
    nodes: Vec<u64>,
}

impl WeightTree {
    /// Stretches come to their greatest weight.
    pub(super) const fn of_maxima() -> Self {
        Self { combine: |left, right| if left > right { left } else { right }, count: 0, nodes: Vec::new() }
    }

    /// Stretches come to the sum of their weights.
    pub(super) const fn of_sums() -> Self {
        Self { combine: |left, right| left + right, count: 0, nodes: Vec::new() }
    }

    /// What the whole list comes to.
    pub(super) fn total(&self, servers: &[RealServer]) -> u64 {
        if self.knows(servers) { self.nodes[1] } else { servers.iter().map(usable_weight).fold(0, self.combine) }
    }

    /// Of maxima: the first server from `start` on whose weight is at least `floor` (above 0).
    pub(super) fn first_at_least(&self, floor: u64, start: usize, servers: &[RealServer]) -> Option<usize> {
        if !self.knows(servers) {
            let offset = servers.get(start..)?.iter().position(|server| usable_weight(server) >= floor)?;
            return Some(start + offset);
        }
        if start >= self.count {
            return None;
        }
        let width = self.nodes.len() / 2;
        // Up and to the right from the leaf, until a subtree holds one; then down to its leftmost.
        let mut node = width + start;
        while self.nodes[node] < floor {
            while node % 2 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < width {
            node *= 2;
            if self.nodes[node] < floor {
                node += 1;
            }
        }
        Some(node - width)
    }

    /// Of sums: the first server of any weight at which the weights so far reach `sum`.
    pub(super) fn first_reaching(&self, sum: u64, servers: &[RealServer]) -> Option<usize> {
        let mut left = sum.max(1); // servers that weigh nothing reach nothing
        if !self.knows(servers) {
            return servers.iter().position(|server| {
                let weight = usable_weight(server);
                let is_reached = weight >= left;
                left = left.saturating_sub(weight);
                is_reached
            });
        }
        if self.nodes[1] < left {
            return None;
        }
        let mut node = 1;
        while node < self.nodes.len() / 2 {
            node *= 2;
            if self.nodes[node] < left {
                left -= self.nodes[node];
                node += 1;
            }
        }
        Some(node - self.nodes.len() / 2)
    }

    pub(super) fn rebuild(&mut self, servers: &[RealServer]) {
        self.nodes.clear();
        self.count = if servers.len() < TREE_FROM { 0 } else { servers.len() };
        if self.count == 0 {
            return;
        }
        let width = self.count.next_power_of_two();
        self.nodes.resize(width, 0);
        self.nodes.extend(servers.iter().map(usable_weight));
        self.nodes.resize(2 * width, 0);
        for node in (1..width).rev() {
            self.nodes[node] = (self.combine)(self.nodes[2 * node], self.nodes[2 * node + 1]);
        }
    }

    /// One server's weight or overload flag may have changed.
    pub(super) fn update(&mut self, index: usize, servers: &[RealServer]) {
        if !self.knows(servers) {
            return;
        }
        let mut node = self.nodes.len() / 2 + index;
        let mut comes_to = usable_weight(&servers[index]);
        while self.nodes[node] != comes_to {
            self.nodes[node] = comes_to;
            if node == 1 {
                break;
            }
            comes_to = (self.combine)(comes_to, self.nodes[node ^ 1]);
            node /= 2;
        }
    }

    fn knows(&self, servers: &[RealServer]) -> bool {
        self.count > 0 && self.count == servers.len()
    }
}

fn usable_weight(server: &RealServer) -> u64 {
    if server.is_overloaded { 0 } else { u64::from(server.weight) }
}

/// Lists shorter than this are scanned.
const TREE_FROM: usize = 64;
