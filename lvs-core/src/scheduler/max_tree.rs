//! "The next server at least this heavy": what `wrr` asks. Short lists are scanned, long ones keep a tree of maxima.
//! An overloaded server weighs nothing here.

use alloc::vec::Vec;

use crate::service::RealServer;

/// Weights of the servers that are not overloaded, in list order. Told of every change of the list.
#[derive(Clone, Debug, Default)]
pub(super) struct MaxTree {
    /// How many servers the tree knows; 0 while the list is short enough to be scanned.
    count: usize,
    /// `nodes[width + index]` is a server's weight, `nodes[k]` the greater of `nodes[2k]` and `nodes[2k + 1]`.
    nodes: Vec<u32>,
}

impl MaxTree {
    pub(super) const fn new() -> Self {
        Self { count: 0, nodes: Vec::new() }
    }

    /// The first server from `start` on whose weight is at least `floor` (above 0).
    pub(super) fn first_at_least(&self, floor: u32, start: usize, servers: &[RealServer]) -> Option<usize> {
        if self.count != servers.len() || self.count == 0 {
            let offset = servers.get(start..)?.iter().position(|server| usable_weight(server) >= floor)?;
            return Some(start + offset);
        }
        let width = self.nodes.len() / 2;
        if start >= self.count {
            return None;
        }
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

    /// The greatest weight.
    pub(super) fn max(&self, servers: &[RealServer]) -> u32 {
        if self.count != servers.len() || self.count == 0 {
            return servers.iter().map(usable_weight).max().unwrap_or(0);
        }
        self.nodes[1]
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
            self.nodes[node] = self.nodes[2 * node].max(self.nodes[2 * node + 1]);
        }
    }

    /// One server's weight or overload flag may have changed.
    pub(super) fn update(&mut self, index: usize, servers: &[RealServer]) {
        if index >= self.count.min(servers.len()) {
            return;
        }
        let mut node = self.nodes.len() / 2 + index;
        let mut weight = usable_weight(&servers[index]);
        while self.nodes[node] != weight {
            self.nodes[node] = weight;
            if node == 1 {
                break;
            }
            weight = weight.max(self.nodes[node ^ 1]);
            node /= 2;
        }
    }
}

fn usable_weight(server: &RealServer) -> u32 {
    if server.is_overloaded { 0 } else { server.weight }
}

/// Lists shorter than this are scanned.
const TREE_FROM: usize = 64;
