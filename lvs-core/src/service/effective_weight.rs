//! Effective weight: what schedulers see of a server's weight, and the arithmetic of slow start.
//! The director keeps the three parts and decides when to look again; this file only multiplies them.
//!
//! `effective = configured × slow-start share × reported factor`
//!
//! * The *configured* weight is the operator's (`ipvsadm -w`). Nothing but an operator's command changes it, and it is
//!   what listings and saved rules show. 0 quiesces the server, whatever the rest says.
//! * The *slow-start share* grows from `min_share` to 1 while a server that was added, or came back from weight 0,
//!   warms up: `max(min_share, (t / window)^(1 / aggression))`. It keeps `wlc` and its kin from sending a cold server
//!   everything.
//! * The *reported factor* (`Command::SetServerFactor`, in 1/1024ths) belongs to health and load agents. They move it
//!   as often as they like without losing the operator's weight. 0 quiesces; above 1024 raises.
//!
//! # Applying a changed weight
//!
//! A weight that moved reaches the scheduler as `Change::Edited`, exactly as an operator's edit would, and connections
//! are not touched. What an edit costs is the scheduler's own (as in Linux): `rr`, `dh`: nothing; `lc`, `wlc`, `sed`,
//! `nq`, `fo`, `ovf`, `lblc`, `lblcr`: one path of a tree; `wrr`: one pass over the weights, and its round starts over;
//! `sh`: 256 buckets dealt anew, which **moves clients**; `mh`: a new table, but only if somebody's number of turns
//! changed. Therefore:
//!
//! * Call only if [`effective_weight`] differs from the server's current weight. Most ticks of a ramp, and most reports
//!   of a steady load, then cost nothing and disturb nothing.
//! * Between two ticks sleep until [`next_change`]: a ramp is at most 64 edits, however great the weight.
//! * Services under `sh` gain nothing from slow start and lose stability; `mh` loses little.

use core::time::Duration;

use super::SlowStart;

/// A server on its way through slow start.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ramp {
    /// The service's setting.
    pub slow_start: SlowStart,
    /// How long ago the server was added or came back.
    pub elapsed: Duration,
}

impl Ramp {
    /// The share of its weight the server has by now, in 1/65,536ths: `max(min_share, (t / window)^(1 / aggression))`,
    /// rounded down. Never falls as time passes, and is exactly 65,536 from the end of the window on.
    pub fn share(&self) -> u32 {
        let SlowStart { window, min_share, aggression } = self.slow_start;
        if self.elapsed >= window {
            return SHARE_ONE;
        }
        let passed = ((self.elapsed.as_nanos() << 32) / window.as_nanos()) as u64;
        let grown = if passed == 0 { 0 } else { root(passed, aggression) };
        grown.max(u32::from(min_share) * (SHARE_ONE / 1024)).min(SHARE_ONE)
    }
}

/// The weight schedulers see: `configured × ramp × factor / 1024`, rounded down, but at least 1 unless `configured` or
/// `factor` is 0, and at most 2³¹ − 1 (IPVS's greatest weight). No ramp is a share of 1.
///
/// ```
/// use core::time::Duration;
/// use lvs_core::service::SlowStart;
/// use lvs_core::service::effective_weight::{Ramp, effective_weight};
///
/// let slow_start = SlowStart { window: Duration::from_secs(60), min_share: 102, aggression: 1024 };
/// let after = |seconds| Some(Ramp { slow_start, elapsed: Duration::from_secs(seconds) });
/// assert_eq!(effective_weight(100, after(0), 1024), 9); // 102/1024 of it
/// assert_eq!(effective_weight(100, after(30), 1024), 50);
/// assert_eq!(effective_weight(100, after(60), 1024), 100);
/// assert_eq!(effective_weight(100, None, 512), 50); // its agent reports: half
/// ```
pub fn effective_weight(configured: u32, ramp: Option<Ramp>, factor: u32) -> u32 {
    if configured == 0 || factor == 0 {
        return 0;
    }
    let share = ramp.map_or(SHARE_ONE, |ramp| ramp.share());
    let product = u128::from(configured) * u128::from(share) * u128::from(factor);
    (product / u128::from(SHARE_ONE) / 1024).clamp(1, WEIGHT_MAX) as u32
}

/// When to compute the effective weight again: the time since the start of the ramp at which it will have changed,
/// at least 1/64 of the window from now. `None` if the ramp will not change it any more.
pub fn next_change(configured: u32, ramp: Ramp, factor: u32) -> Option<Duration> {
    let window = ramp.slow_start.window;
    let at = |elapsed| effective_weight(configured, Some(Ramp { elapsed, ..ramp }), factor);
    let current = at(ramp.elapsed);
    if at(window) == current {
        return None;
    }
    // The weight never falls, so the moment it changes can be bisected: changed at `late`, not yet at `early`.
    let (mut early, mut late) = (ramp.elapsed, window);
    while late - early > PRECISION {
        let middle = early + (late - early) / 2;
        if at(middle) == current {
            early = middle;
        } else {
            late = middle;
        }
    }
    Some(late.max(ramp.elapsed + window / STEPS_MAX).min(window))
}

/// The greatest root in 1/65,536ths with `root ≤ passed^(1024 / aggression)`; `passed` is in 2⁻³²ths, above 0 and
/// below 1. Found by comparing logarithms: those of the digit-by-digit kind never fall, and so neither does this.
fn root(passed: u64, aggression: u16) -> u32 {
    let wanted = 1024 * negative_log2(passed);
    let (mut low, mut high) = (0, SHARE_ONE);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if negative_log2(u64::from(middle) << 16) * u64::from(aggression) >= wanted {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// −log₂ of `value`·2⁻³², in 2⁻³²ths; `value` is above 0 and at most 2³². Bit by bit, by squaring (Knuth, TAOCP
/// §1.2.2).
fn negative_log2(value: u64) -> u64 {
    let shift = value.leading_zeros();
    let mut mantissa = value << shift; // in 2⁻⁶³ths, 1 ≤ mantissa < 2
    let mut fraction = 0;
    for _ in 0..32 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let bit = (square >> 64) as u64;
        mantissa = (square >> bit) as u64;
        fraction = fraction << 1 | bit;
    }
    let exponent = u64::from(shift) + 32 - 63; // value is at most 2³², so shift is at least 31
    (exponent << 32) - fraction
}

const SHARE_ONE: u32 = 1 << 16;
const WEIGHT_MAX: u128 = i32::MAX as u128;
/// A ramp changes a weight at most this often.
const STEPS_MAX: u32 = 64;
/// How finely a change is timed.
const PRECISION: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn share(passed: f64, min_share: u16, aggression: u16) -> u32 {
        let window = Duration::from_secs(1_000);
        Ramp { slow_start: SlowStart { window, min_share, aggression }, elapsed: window.mul_f64(passed) }.share()
    }

    #[test]
    fn the_ramp_is_exact_at_both_ends_and_where_the_root_is() {
        for (passed, min_share, aggression, expected) in [
            (0.0, 100, 1024, 6_400),
            (0.0, 0, 1024, 0),
            (0.5, 0, 1024, 32_768),
            (0.25, 0, 2048, 32_768),  // √¼ = ½
            (0.5, 0, 512, 16_384),    // (½)² = ¼
            (0.125, 0, 3072, 32_768), // ∛⅛ = ½
            (1.0, 0, 512, 65_536),
            (7.0, 0, 512, 65_536),
            (0.999, 0, 0, 0), // no aggression at all: nothing until the end
            (1.0, 0, 0, 65_536),
            (0.1, 2000, 1024, 65_536),
        ] {
            assert_eq!(share(passed, min_share, aggression), expected, "{passed} {min_share} {aggression}");
        }
    }

    #[test]
    fn a_window_of_no_length_is_no_ramp() {
        let slow_start = SlowStart { window: Duration::ZERO, min_share: 1, aggression: 1024 };
        assert_eq!(Ramp { slow_start, elapsed: Duration::ZERO }.share(), 65_536);
    }

    #[test]
    fn only_the_operator_or_the_agent_quiesces() {
        let slow_start = SlowStart { window: Duration::from_secs(9), min_share: 0, aggression: 1024 };
        let cold = Some(Ramp { slow_start, elapsed: Duration::ZERO });
        assert_eq!(effective_weight(100, cold, 1024), 1);
        assert_eq!(effective_weight(100, cold, 1), 1);
        assert_eq!(effective_weight(100, None, 0), 0);
        assert_eq!(effective_weight(0, None, 1024), 0);
        assert_eq!(effective_weight(u32::MAX, None, u32::MAX), 2_147_483_647);
        assert_eq!(effective_weight(3, None, 1024), 3);
    }

    #[test]
    fn a_ramp_is_at_most_64_edits() {
        let slow_start = SlowStart { window: Duration::from_secs(60), min_share: 10, aggression: 1536 };
        for (configured, most) in [(1, 0), (2, 1), (10, 9), (65_535, 64)] {
            let mut ramp = Ramp { slow_start, elapsed: Duration::ZERO };
            let mut edits = 0;
            while let Some(next) = next_change(configured, ramp, 1024) {
                let before = effective_weight(configured, Some(ramp), 1024);
                ramp.elapsed = next;
                assert!(effective_weight(configured, Some(ramp), 1024) > before);
                edits += 1;
            }
            assert!(edits <= most, "{configured}: {edits}");
            assert_eq!(effective_weight(configured, Some(ramp), 1024), configured);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

        #[test]
        fn the_ramp_follows_the_formula_and_never_falls(
            window_ms in 1u64..10_000_000,
            first in 0.0..1.0f64,
            second in 0.0..1.0f64,
            min_share in 0u16..=1024,
            aggression in 64u16..=u16::MAX,
        ) {
            let window = Duration::from_millis(window_ms);
            let slow_start = SlowStart { window, min_share, aggression };
            let (early, late) = (first.min(second), first.max(second));
            let share = |passed: f64| Ramp { slow_start, elapsed: window.mul_f64(passed) }.share();
            prop_assert!(share(early) <= share(late));

            let elapsed = window.mul_f64(late).as_nanos() as f64;
            let grown = (elapsed / window.as_nanos() as f64).powf(1024.0 / f64::from(aggression));
            let expected = grown.max(f64::from(min_share) / 1024.0);
            let found = f64::from(share(late)) / 65_536.0;
            prop_assert!((found - expected).abs() < 2.0 / 65_536.0, "{} for {}", found, expected);
        }

        #[test]
        fn more_of_anything_is_not_less_weight(configured in any::<u32>(), factor in 0u32..=1 << 20, passed in 0u64..200) {
            let slow_start = SlowStart { window: Duration::from_secs(100), min_share: 5, aggression: 2000 };
            let ramp = Ramp { slow_start, elapsed: Duration::from_secs(passed) };
            let weight = effective_weight(configured, Some(ramp), factor);
            prop_assert_eq!(weight == 0, configured == 0 || factor == 0);
            prop_assert!(weight <= effective_weight(configured.saturating_add(1), Some(ramp), factor));
            prop_assert!(weight <= effective_weight(configured, Some(ramp), factor + 1));
            prop_assert!(weight <= effective_weight(configured, None, factor));
        }
    }
}
