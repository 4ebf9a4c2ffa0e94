//! What everybody may rely on in a scheduler, checked for every built-in one and for the example; and that the fast
//! ones choose exactly as the plain rules do.

use lvs_core::SchedulerRegistry;
use lvs_core::rng::Rng;
use lvs_core::scheduler::SchedulerInit;
use lvs_testkit::scheduler::plain::plain;
use lvs_testkit::scheduler::{Promises, check_same_choices, check_scheduler};
use proptest::prelude::*;

#[path = "../../examples/custom_scheduler.rs"]
#[expect(dead_code, reason = "its `main` is the example's own")]
mod custom_scheduler;

fn check(name: &str, promises: Promises) {
    let registry = SchedulerRegistry::default();
    check_scheduler(|init| registry.create(name, init).expect("a built-in name"), promises);
}

/// The registered scheduler of this name chooses as its plain rule does.
fn check_against_plain(name: &str, weights: impl Strategy<Value = u32> + Clone) {
    let registry = SchedulerRegistry::default();
    check_same_choices(
        |init| registry.create(name, init).expect("a built-in name"),
        |init| plain(name, init).expect("a plain rule"),
        weights,
    );
}

#[test]
fn every_built_in_scheduler_keeps_its_promises() {
    let refuses = Promises::ALL.may_refuse();
    for (name, promises) in [
        ("rr", Promises::ALL),
        ("wrr", Promises::ALL),
        ("lc", Promises::ALL),
        ("wlc", Promises::ALL),
        ("sed", Promises::ALL),
        ("nq", Promises::ALL),
        ("twos", Promises::ALL),
        ("lblcr", Promises::ALL),
        // Remembered destinations pass thresholds.
        ("lblc", Promises::ALL.may_pass_thresholds()),
        // The clients of a dead bucket are refused.
        ("sh", refuses),
        ("dh", refuses),
        ("mh", refuses),
        // One server takes all, on purpose; ovf refuses when all are full.
        ("fo", Promises::ALL.may_starve()),
        ("ovf", refuses.may_starve()),
        ("none", refuses.may_starve()),
    ] {
        check(name, promises);
    }
}

#[test]
fn the_example_scheduler_keeps_its_promises() {
    let factory = |init: &SchedulerInit| -> Box<dyn lvs_core::Scheduler> {
        Box::new(custom_scheduler::FasterOfTwo { random: Rng::new(init.seed), latencies: Default::default() })
    };
    check_scheduler(factory, Promises::ALL);
}

#[test]
fn the_tournament_of_least_load_chooses_as_the_plain_scan() {
    for name in ["lc", "wlc", "sed", "nq", "fo", "ovf"] {
        check_against_plain(name, 0..6u32);
        check_against_plain(name, prop_oneof![0..3u32, 65_530..=65_535u32, u32::MAX - 3..=u32::MAX]);
    }
}

#[test]
fn round_robin_follows_its_last_choice_as_if_by_name() {
    check_against_plain("rr", 0..3u32);
}

#[test]
fn weighted_round_robin_chooses_as_the_plain_walk() {
    check_against_plain("wrr", 0..6u32);
    check_against_plain("wrr", prop_oneof![1 => Just(0u32), 9 => 0..300u32]);
    check_against_plain("wrr", (0..20u32).prop_map(|weight| weight * 12));
    check_against_plain("wrr", prop_oneof![Just(1000u32), Just(0u32), Just(2u32), Just(999u32)]);
}

#[test]
fn two_random_servers_are_found_as_by_adding_up() {
    check_against_plain("twos", 0..6u32);
    check_against_plain("twos", prop_oneof![0..3u32, u32::MAX - 3..=u32::MAX]);
}

#[test]
fn the_default_registry_names_linuxs_fourteen_and_none() {
    let registry = SchedulerRegistry::default();
    let names: Vec<&str> = registry.names().collect();
    let expected =
        ["dh", "fo", "lblc", "lblcr", "lc", "mh", "none", "nq", "ovf", "rr", "sed", "sh", "twos", "wlc", "wrr"];
    assert_eq!(names, expected);
    for name in expected {
        assert_eq!(registry.create(name, &lvs_testkit::scheduler::INIT).map(|made| made.name()), Some(name));
    }
    assert!(registry.create("wlcx", &lvs_testkit::scheduler::INIT).is_none());
}
