//! The server of least relative load, leftmost on ties: what `lc`, `wlc`, `sed`, `nq`, `fo`, `ovf`, `lblc` and `lblcr`
//! have in common. Short lists are scanned; long ones keep a tournament tree, so that a choice reads its root and a
//! changed connection count replays only the matches on one path. Both give the same server, always.

use alloc::vec::Vec;

use super::{Change, LoadFormula};
use crate::service::RealServer;

/// A load divided by a weight, compared exactly by cross-multiplication, as Linux does.
///
/// With weights of 0 and more and no 0/0 this is a total preorder: negative loads sort first, 1/0 (infinity, a server
/// that may not be chosen) last. Loads within ±2³¹ times weights below 2³² stay inside an `i64`; a rank with greater
/// loads has no weights above 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RelativeLoad {
    load: i64,
    weight: u32,
}

impl RelativeLoad {
    /// Of a server that may not be chosen.
    pub(super) const NEVER: Self = Self { load: 1, weight: 0 };

    /// `load / weight`; never chosen if `weight` is 0.
    pub(super) const fn new(load: i64, weight: u32) -> Self {
        if weight == 0 { Self::NEVER } else { Self { load, weight } }
    }

    /// Whether it belongs to a server that may be chosen.
    pub(super) const fn is_finite(self) -> bool {
        self.weight > 0
    }

    pub(super) const fn is_negative(self) -> bool {
        self.load < 0
    }

    /// Strictly less than the incumbent: an equal one does not replace it.
    pub(super) const fn beats(self, incumbent: Self) -> bool {
        self.load * (incumbent.weight as i64) < incumbent.load * self.weight as i64
    }
}

/// How a scheduler ranks one server.
pub(super) type Rank = fn(&RealServer, LoadFormula) -> RelativeLoad;

/// Finds the server of least [`RelativeLoad`]. Told of every change, as a [`super::Scheduler`] is.
#[derive(Clone, Debug)]
pub(super) struct Tournament {
    rank: Rank,
    formula: LoadFormula,
    /// How many servers the tree knows; 0 while the list is short enough to be scanned.
    count: usize,
    /// Each server's rank, padded with `NEVER` to a power of two: the leaves.
    ranks: Vec<RelativeLoad>,
    /// For each inner node its winner's index; the children of node k are 2k and 2k + 1, 1 is the root.
    winners: Vec<u32>,
}

impl Tournament {
    pub(super) const fn new(rank: Rank, formula: LoadFormula) -> Self {
        Self { rank, formula, count: 0, ranks: Vec::new(), winners: Vec::new() }
    }

    /// The leftmost server of least rank; `None` if none may be chosen.
    pub(super) fn leader(&self, servers: &[RealServer]) -> Option<usize> {
        if self.count != servers.len() || self.count == 0 {
            return self.scan(servers);
        }
        let leader = self.winner(1);
        let leader = self.ranks[leader].is_finite().then_some(leader);
        debug_assert_eq!(leader, self.scan(servers), "load_changed was not called for every change");
        leader
    }

    /// The rank of the leader; `NEVER` if there is none.
    pub(super) fn least(&self, servers: &[RealServer]) -> RelativeLoad {
        self.leader(servers).map_or(RelativeLoad::NEVER, |index| (self.rank)(&servers[index], self.formula))
    }

    pub(super) fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        match change {
            Change::Edited { index } => self.load_changed(index, servers),
            Change::Reset | Change::Added { .. } | Change::Removed { .. } => self.rebuild(servers),
        }
    }

    pub(super) fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        if index >= self.count.min(servers.len()) {
            return;
        }
        let rank = (self.rank)(&servers[index], self.formula);
        if self.ranks[index] == rank {
            return;
        }
        self.ranks[index] = rank;
        let mut node = (self.ranks.len() + index) / 2;
        while node > 0 {
            let before = self.winners[node] as usize;
            let after = self.play(node);
            // A match this server neither won before nor wins now ends its way up.
            if before != index && after != index {
                break;
            }
            node /= 2;
        }
    }

    fn rebuild(&mut self, servers: &[RealServer]) {
        self.ranks.clear();
        self.winners.clear();
        self.count = if servers.len() < TREE_FROM { 0 } else { servers.len() };
        if self.count == 0 {
            return;
        }
        let width = self.count.next_power_of_two();
        self.ranks.extend(servers.iter().map(|server| (self.rank)(server, self.formula)));
        self.ranks.resize(width, RelativeLoad::NEVER);
        self.winners.resize(width, 0);
        for node in (1..width).rev() {
            self.play(node);
        }
    }

    /// Decides one match; the left side wins a draw.
    fn play(&mut self, node: usize) -> usize {
        let (left, right) = (self.winner(2 * node), self.winner(2 * node + 1));
        let winner = if self.ranks[right].beats(self.ranks[left]) { right } else { left };
        self.winners[node] = winner as u32;
        winner
    }

    fn winner(&self, node: usize) -> usize {
        let width = self.ranks.len();
        if node >= width { node - width } else { self.winners[node] as usize }
    }

    /// The plain rule, server by server.
    fn scan(&self, servers: &[RealServer]) -> Option<usize> {
        let mut best = (RelativeLoad::NEVER, None);
        for (index, server) in servers.iter().enumerate() {
            let rank = (self.rank)(server, self.formula);
            if rank.beats(best.0) {
                best = (rank, Some(index));
            }
        }
        best.1
    }
}

/// Lists shorter than this are scanned: that is as fast as the tree, and costs nothing when counts change.
const TREE_FROM: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::service::ServerId;

    /// A server of this weight, with so many connections of each kind.
    fn server(weight: u32, active: u32, total: u32) -> RealServer {
        let key = Endpoint::new(core::net::Ipv4Addr::LOCALHOST.into(), 80);
        let mut server = RealServer::new(ServerId(0), key, weight);
        (server.active_connections, server.total_connections) = (active, total);
        server
    }

    fn by_total(server: &RealServer, _: LoadFormula) -> RelativeLoad {
        RelativeLoad::new(i64::from(server.total_connections), server.weight)
    }

    #[test]
    fn relative_loads_are_in_one_order_even_at_their_bounds() {
        let by_weight = [
            RelativeLoad::new(i64::from(i32::MIN), 1),
            RelativeLoad::new(i64::from(i32::MIN), u32::MAX),
            RelativeLoad::new(0, 7),
            RelativeLoad::new(1, u32::MAX),
            RelativeLoad::new(1, u32::MAX - 1),
            RelativeLoad::new(1, 1),
            RelativeLoad::new(1 << 31, 1),
            RelativeLoad::NEVER,
        ];
        let unweighted = [
            RelativeLoad::new(-i64::from(u32::MAX), 1),
            RelativeLoad::new(0, 1),
            RelativeLoad::new(i64::from(u32::MAX), 1),
            RelativeLoad::NEVER,
        ];
        for rising in [&by_weight[..], &unweighted[..]] {
            for (low, one) in rising.iter().enumerate() {
                for (high, other) in rising.iter().enumerate() {
                    assert_eq!(one.beats(*other), low < high, "{one:?} {other:?}");
                }
            }
        }
        assert!(!RelativeLoad::new(2, 4).beats(RelativeLoad::new(1, 2)), "a draw");
    }

    #[test]
    fn a_tree_gives_draws_to_the_left_and_follows_every_count() {
        let mut servers: Vec<RealServer> = (0..100).map(|_| server(1, 0, 5)).collect();
        let mut tournament = Tournament::new(by_total, LoadFormula::default());
        tournament.servers_changed(Change::Reset, &servers);
        assert_eq!(tournament.leader(&servers), Some(0));
        for (index, total, leader) in [(99, 4, 99), (64, 4, 64), (63, 3, 63), (63, 9, 64), (64, 5, 99), (99, 6, 0)] {
            servers[index].total_connections = total;
            tournament.load_changed(index, &servers);
            assert_eq!(tournament.leader(&servers), Some(leader), "{index} has {total}");
        }
        for server in &mut servers {
            server.weight = 0;
        }
        tournament.servers_changed(Change::Reset, &servers);
        assert_eq!(tournament.leader(&servers), None);
    }
}
