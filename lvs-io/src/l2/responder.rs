//! Answers who asks for the edge's addresses, and announces them: three times, a second apart, so that switches and
//! neighbours learn of a take-over (RFC 5227 §2.3 for ARP, RFC 4861 §7.2.6 for Neighbor Discovery).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use lvs_core::Instant;

use super::message::Solicitation;

/// Most answers that wait to be sent; more questions are not answered.
const ANSWERS_MAX: usize = 64;
/// RFC 4861 §10: MAX_NEIGHBOR_ADVERTISEMENT. RFC 5227 demands two for ARP.
const ANNOUNCEMENTS: u32 = 3;
/// RFC 4861 §10: RETRANS_TIMER.
const ANNOUNCE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the responder wants to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Statement {
    /// This question is answered.
    Answer(Solicitation),
    /// The address is here now.
    Announcement(IpAddr),
}

#[derive(Debug)]
pub(super) struct Responder {
    /// In order, each once.
    addresses: Vec<IpAddr>,
    answers: VecDeque<Solicitation>,
    /// Addresses to be announced in this round.
    announcing: VecDeque<IpAddr>,
    /// Rounds to come, and when, and of which addresses.
    rounds: u32,
    next_round: Instant,
    announced: Vec<IpAddr>,
}

impl Responder {
    pub(super) fn new(mut addresses: Vec<IpAddr>) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        Self {
            addresses,
            answers: VecDeque::new(),
            announcing: VecDeque::new(),
            rounds: 0,
            next_round: Instant::ZERO,
            announced: Vec::new(),
        }
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.binary_search(&address).is_ok()
    }

    /// Starts or stops speaking for an address; `false` if that was so already.
    pub(super) fn set(&mut self, address: IpAddr, is_ours: bool) -> bool {
        match (self.addresses.binary_search(&address), is_ours) {
            (Err(at), true) => self.addresses.insert(at, address),
            (Ok(at), false) => {
                self.addresses.remove(at);
                self.announcing.retain(|other| *other != address);
                self.announced.retain(|other| *other != address);
                self.answers.retain(|other| other.target != address);
            }
            _ => return false,
        }
        true
    }

    /// Will answer a question for one of the addresses; `false` if too many answers wait.
    pub(super) fn answer(&mut self, solicitation: Solicitation) -> bool {
        if self.answers.len() == ANSWERS_MAX {
            return false;
        }
        self.answers.push_back(solicitation);
        true
    }

    /// Begins to announce those of `addresses` that are ours, and goes on with those being announced.
    pub(super) fn announce(&mut self, now: Instant, addresses: &[IpAddr]) {
        for address in addresses {
            if self.has(*address) && !self.announced.contains(address) {
                self.announced.push(*address);
            }
        }
        if self.announced.is_empty() {
            return;
        }
        self.announcing = self.announced.iter().copied().collect();
        self.rounds = ANNOUNCEMENTS - 1;
        self.next_round = now + ANNOUNCE_AGAIN_AFTER;
    }

    /// The next thing to say.
    pub(super) fn poll(&mut self) -> Option<Statement> {
        let answer = self.answers.pop_front().map(Statement::Answer);
        answer.or_else(|| self.announcing.pop_front().map(Statement::Announcement))
    }

    pub(super) fn has_output(&self) -> bool {
        !self.answers.is_empty() || !self.announcing.is_empty()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (self.rounds > 0).then_some(self.next_round)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.rounds == 0 || now < self.next_round {
            return;
        }
        self.rounds -= 1;
        self.next_round = now + ANNOUNCE_AGAIN_AFTER;
        self.announcing = self.announced.iter().copied().collect();
        if self.rounds == 0 {
            self.announced.clear();
        }
    }
}
