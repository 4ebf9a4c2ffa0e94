//! What an explanation tells of the tables, held against what the packet then did to them: connections that begin and
//! end, states and timers, counts.

use lvs_core::explanation::{Explanation, Step};
use lvs_core::service::stats::Counters;
use lvs_core::view::{ConnectionView, Gauges};
use lvs_core::{Director, DropReason, ForwardMethod, Instant, Verdict};

/// What a packet may move and `explain` may not.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Measures {
    gauges: Gauges,
    counters: Counters,
    due: Option<Instant>,
    dropped: Vec<u64>,
    /// Living connections; `None` where there are too many to be counted at each packet.
    living: Option<usize>,
}

/// More connections than this are not counted at each packet.
const COUNTED_MAX: u32 = 300;

impl Measures {
    pub fn of(director: &Director, now: Instant) -> Self {
        let gauges = director.gauges();
        Self {
            gauges,
            counters: director.statistics().live,
            due: director.poll_timeout(),
            dropped: DropReason::ALL.iter().map(|reason| director.drops(*reason)).collect(),
            living: (gauges.connections <= COUNTED_MAX).then(|| director.connection_count(now)),
        }
    }

    /// Whether what happened since is what was told.
    pub fn check(&self, told: &Explanation, director: &Director, now: Instant) {
        let after = Self::of(director, now);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            let is_it = told.verdict == Verdict::Drop(*reason);
            let counted = after.dropped[index] - self.dropped[index];
            assert!(!is_it || counted >= 1, "a drop counts:\n{told}");
        }
        // A fragment that waits may complete a datagram, which is explained to nobody.
        if told.verdict == Verdict::Held {
            return;
        }
        let opened = told.steps.iter().filter_map(opened).filter(|view| view.forward != ForwardMethod::Bypass);
        assert_eq!(after.counters.connections - self.counters.connections, opened.count() as u64, "told:\n{told}");
        let finds_service = told.steps.iter().any(|step| matches!(step, Step::Service(_)));
        assert!(finds_service || after.gauges.templates <= self.gauges.templates, "a template in silence:\n{told}");
        if let (Some(before), Some(after)) = (self.living, after.living) {
            check_living(told, before, after);
            check_state(told, director, now);
        }
    }
}

/// The connection that is opened, if only for one packet.
fn opened(step: &Step) -> Option<&ConnectionView> {
    match step {
        Step::NewConnection(view) | Step::OnePacket(view) => Some(view),
        _ => None,
    }
}

/// As many connections live as were told to begin and to end.
fn check_living(told: &Explanation, before: usize, after: usize) {
    let count = |is_it: fn(&Step) -> bool| told.steps.iter().filter(|step| is_it(step)).count();
    // At the end of all time a connection ends as it begins.
    let begun = count(|step| matches!(step, Step::NewConnection(view) if !view.expires_in.is_zero()));
    // What a helper expects may be known already.
    let expected = count(|step| matches!(step, Step::Helped { expected: Some(_), .. }));
    let ended = count(|step| match step {
        Step::GivenUp(view) | Step::Evicted(view) => !view.is_template && !view.expires_in.is_zero(),
        _ => false,
    });
    let least = before + begun;
    let living = after + ended;
    assert!((least..=least + expected).contains(&living), "{before} connections, then {after}:\n{told}");
}

/// The connection is in the state that was told, and its timer runs as told.
fn check_state(told: &Explanation, director: &Director, now: Instant) {
    let flow = told.steps.iter().find_map(|step| match step {
        Step::KnownFlow { connection, .. } | Step::NewConnection(connection) => Some(connection),
        _ => None,
    });
    let flow = flow.filter(|flow| !flow.expires_in.is_zero());
    let state = told.steps.iter().find_map(|step| match step {
        Step::State { after, timeout, .. } => Some((*after, *timeout)),
        _ => None,
    });
    let (Some(flow), Some(state)) = (flow, state) else { return };
    let is_it = |row: &ConnectionView| {
        !row.is_template
            && (row.protocol, row.client.address, row.virtual_endpoint, row.real)
                == (flow.protocol, flow.client.address, flow.virtual_endpoint, flow.real)
            // A port that was not known before is known by then.
            && (flow.client.port == 0 || row.client.port == flow.client.port)
    };
    let found = director.connections(now).filter(is_it).any(|row| (row.state, row.expires_in) == state);
    assert!(found, "no connection is in the state that was told:\n{told}");
}
