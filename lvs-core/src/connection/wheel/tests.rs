//! The wheel against a plain vector of times, under clocks that stand still, leap and go back.

use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

extern crate std;

const ITEMS: u32 = 12;
/// `next_due` may name the end of this many nanoseconds.
const GRAIN: u64 = 1 << 24;

#[derive(Clone, Debug)]
enum Step {
    /// File an item this long after (or before) the present.
    Schedule {
        index: u32,
        after: i64,
    },
    Cancel {
        index: u32,
    },
    Clock {
        by: i64,
    },
    Pop {
        budget: u32,
    },
}

/// Nothing, nanoseconds, milliseconds, minutes, weeks, decades: a power of two is drawn first.
fn span() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), (0_u32..61, any::<i64>()).prop_map(|(bits, raw)| raw & ((1 << bits) - 1))]
}

fn signed_span() -> impl Strategy<Value = i64> {
    (span(), 0..4).prop_map(|(span, sign)| if sign == 0 { -span } else { span })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..ITEMS, signed_span()).prop_map(|(index, after)| Step::Schedule { index, after }),
        1 => (0..ITEMS).prop_map(|index| Step::Cancel { index }),
        3 => signed_span().prop_map(|by| Step::Clock { by }),
        3 => prop_oneof![0_u32..4, Just(10_000)].prop_map(|budget| Step::Pop { budget }),
    ]
}

/// Pops until the wheel has nothing more or the budget is gone, and holds each item against the model.
fn pop_all(wheel: &mut Wheel, model: &mut [Option<u64>], now: u64, budget: u32) {
    let mut left = budget;
    let mut popped = 0;
    while let Some(index) = wheel.pop_due(Instant::from_nanos(now), &mut left) {
        let at = model[index as usize].take().expect("an item comes up once, and not after it was cancelled");
        assert!(at <= now, "item {index} is due at {at} and came up at {now}");
        assert_eq!(wheel.filed_at(index), None);
        popped += 1;
        assert!(popped <= budget - left, "each item costs budget");
    }
    if left > 0 {
        let missed = model.iter().flatten().find(|&&at| at <= now);
        assert_eq!(missed, None, "something was due at {now} and did not come up");
    }
}

fn assert_next_due(wheel: &Wheel, model: &[Option<u64>], now: u64) {
    let is_due = model.iter().flatten().any(|&at| at <= now);
    assert!(wheel.may_be_due(Instant::from_nanos(now)) || !is_due, "something is due at {now}");
    let earliest = model.iter().flatten().min().map(|at| at | (GRAIN - 1));
    let next = wheel.next_due().map(Instant::as_nanos);
    assert_eq!(next.is_some(), earliest.is_some());
    assert!(next <= earliest, "next {next:?}, earliest {earliest:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(0x1f5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_wheel_returns_what_a_plain_list_of_times_would(
        start in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut now = start;
        let mut wheel = Wheel::new(ITEMS);
        let mut model = std::vec![None; ITEMS as usize];
        let reserved = wheel.reserved_len();
        for step in steps {
            match step {
                Step::Schedule { index, after } => {
                    let at = now.saturating_add_signed(after);
                    wheel.schedule(index, Instant::from_nanos(at));
                    model[index as usize] = Some(at);
                }
                Step::Cancel { index } => {
                    wheel.cancel(index);
                    model[index as usize] = None;
                }
                Step::Clock { by } => now = now.saturating_add_signed(by),
                Step::Pop { budget } => pop_all(&mut wheel, &mut model, now, budget),
            }
            assert_next_due(&wheel, &model, now);
            let filed: Vec<_> = (0..ITEMS).map(|index| wheel.filed_at(index).map(Instant::as_nanos)).collect();
            prop_assert_eq!(filed, model.clone());
        }
        pop_all(&mut wheel, &mut model, u64::MAX, 10_000);
        prop_assert_eq!(wheel.next_due(), None);
        prop_assert_eq!(wheel.reserved_len(), reserved);
    }

    #[test]
    fn sleeping_until_next_due_brings_every_item_up_within_17_ms_and_seldom_for_nothing(
        start in any::<u64>(),
        spans in proptest::collection::vec(span(), 1..ITEMS as usize),
    ) {
        let mut wheel = Wheel::new(ITEMS);
        let mut model = std::vec![None; ITEMS as usize];
        for (index, span) in spans.iter().enumerate() {
            model[index] = Some(start.saturating_add_signed(*span));
            wheel.schedule(index as u32, Instant::from_nanos(start.saturating_add_signed(*span)));
        }
        let mut now = start;
        let mut wakes = 0;
        while let Some(next) = wheel.next_due() {
            now = now.max(next.as_nanos());
            let late = model.iter().flatten().find(|&&at| at | (GRAIN - 1) < now && at >= start);
            prop_assert_eq!(late, None, "overslept until {}", now);
            pop_all(&mut wheel, &mut model, now, 10_000);
            wakes += 1;
        }
        // Down to level 3 from the seventh: at most four moves, then the item itself.
        prop_assert!(wakes <= 5 * spans.len(), "{} wakes", wakes);
    }

    #[test]
    fn an_item_costs_at_most_eight_units_however_the_clock_moves_forward(
        spans in proptest::collection::vec(span(), 1..ITEMS as usize),
        leaps in proptest::collection::vec(span(), 1..100),
    ) {
        let mut wheel = Wheel::new(ITEMS);
        let mut now = Instant::ZERO;
        for (index, span) in spans.iter().enumerate() {
            wheel.schedule(index as u32, Instant::from_nanos(*span as u64));
        }
        let mut budget = 8 * ITEMS;
        for leap in leaps {
            now = Instant::from_nanos(now.as_nanos().saturating_add(leap as u64));
            while wheel.pop_due(now, &mut budget).is_some() {}
        }
        while wheel.pop_due(Instant::from_nanos(u64::MAX), &mut budget).is_some() {}
        prop_assert!(budget > 0, "one of the units is left to see that nothing is");
        prop_assert_eq!(wheel.next_due(), None);
    }
}

#[test]
fn once_asked_for_due_items_the_wheel_knows_to_the_nanosecond_that_there_are_none() {
    let nanos = Instant::from_nanos;
    let mut wheel = Wheel::new(2);
    wheel.schedule(0, nanos(900_000_000_001));
    wheel.schedule(1, nanos(900_000_000_003));
    for (now, due) in [(900_000_000_000, None), (900_000_000_001, Some(0)), (900_000_000_002, None)] {
        assert_eq!(wheel.may_be_due(nanos(now)), now == 900_000_000_000 || due.is_some());
        assert_eq!(wheel.pop_due(nanos(now), &mut 100), due);
        assert!(!wheel.may_be_due(nanos(now)));
    }
    assert!(wheel.may_be_due(nanos(900_000_000_003)));
}

#[test]
fn an_item_comes_up_at_its_nanosecond_and_not_before() {
    let at = Instant::from_nanos(900_000_000_001);
    let mut wheel = Wheel::new(1);
    wheel.schedule(0, at);
    let mut budget = 100;
    assert_eq!(wheel.pop_due(Instant::from_nanos(900_000_000_000), &mut budget), None);
    assert_eq!(wheel.pop_due(at, &mut budget), Some(0));
    assert_eq!(wheel.pop_due(at, &mut budget), None);
}

#[test]
fn items_of_one_moment_come_up_in_the_order_they_were_filed() {
    let at = Instant::from_secs(60);
    let mut wheel = Wheel::new(4);
    for index in [2, 0, 3, 1, 0] {
        wheel.schedule(index, at);
    }
    let order: Vec<_> = std::iter::from_fn(|| wheel.pop_due(at, &mut 100)).collect();
    assert_eq!(order, [2, 3, 1, 0]);
}

#[test]
fn a_million_items_due_in_one_tick_are_returned_in_portions_of_the_budget() {
    const MANY: u32 = 1_000_000;
    let due = Instant::from_secs(120);
    let mut wheel = Wheel::new(MANY);
    for index in 0..MANY {
        wheel.schedule(index, Instant::from_nanos(due.as_nanos() - u64::from(index) % 1_000));
    }
    // An hour late, and still no call does more than its budget.
    let now = due + core::time::Duration::from_secs(3_600);
    let mut returned = 0;
    for _call in 0..MANY / 1_000 {
        let mut budget = 1_000;
        while wheel.pop_due(now, &mut budget).is_some() {
            returned += 1;
        }
        assert!(wheel.next_due().is_none_or(|next| next <= now), "unfinished work is due at once");
    }
    assert_eq!(returned, MANY, "after a leap each item costs one unit");
    assert_eq!(wheel.next_due(), None);
}

#[test]
fn items_filed_before_a_clock_that_went_back_come_up_at_their_own_times() {
    let seconds = Instant::from_secs;
    let mut wheel = Wheel::new(3);
    assert_eq!(wheel.pop_due(seconds(1_000), &mut 9), None); // the wheel has seen second 1000
    wheel.schedule(0, seconds(30));
    wheel.schedule(1, seconds(20));
    wheel.schedule(2, seconds(2_000));
    assert_eq!(wheel.next_due(), Some(seconds(20)));
    assert_eq!(wheel.pop_due(seconds(10), &mut 9), None);
    assert_eq!(wheel.pop_due(seconds(20), &mut 9), Some(1));
    assert_eq!(wheel.pop_due(seconds(29), &mut 9), None);
    assert_eq!(wheel.next_due(), Some(seconds(30)), "looked through once, it is known what comes next");
    assert_eq!(wheel.pop_due(seconds(30), &mut 9), Some(0));
    assert_eq!(wheel.pop_due(seconds(2_000), &mut 9), Some(2));
}
