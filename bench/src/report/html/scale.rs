//! Where values lie on an axis, and where an axis is labelled.
//!
//! Ticks are round: 1, 2 or 5 times a power of ten. A scale never gives more of them than it is asked
//! for, so that their labels have room.

use crate::report::figures::{latency, short};

/// A logarithmic axis whose end is more than this many times its beginning begins and ends with whole
/// decades, because only those are labelled then. No two round numbers are just that far apart.
const DECADES_ONLY: f64 = 1001.0;

/// An axis' scale. Positions are parts of the axis, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// From 0 on.
    Linear {
        /// The value at the end.
        max: f64,
    },
    /// Of latencies in microseconds.
    Log {
        /// Above 0.
        min_us: f64,
        /// Above the least.
        max_us: f64,
    },
    /// Of percentiles: each ninefold rarer tenth is as wide as the last, as HdrHistogram plots it.
    Tail {
        /// How many nines the axis has: 3 ends at 99.9.
        nines: f64,
    },
}

/// A labelled place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

impl Scale {
    /// From 0 to the first of some `ticks_max` round steps that is not below any value.
    pub(super) fn linear_over(values: impl Iterator<Item = f64>, ticks_max: usize) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        if most <= 0.0 {
            return Self::Linear { max: 1.0 };
        }
        let step = round_step(most, ticks_max);
        Self::Linear { max: step * (most / step - 1e-9).ceil() }
    }

    /// Round latencies around all values; `None` when no value is above 0.
    pub(super) fn log_around(values: impl Iterator<Item = f64>) -> Option<Self> {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = positive.fold((f64::INFINITY, 0.0), |(least, most), value| {
            (f64::min(least, value), f64::max(most, value))
        });
        if most == 0.0 {
            return None;
        }
        let below = rounds(least).filter(|round| *round <= least * 1.000_001).fold(0.0, f64::max);
        let above = rounds(most).filter(|round| *round >= most * 0.999_999).fold(f64::INFINITY, f64::min);
        let (below, above) = match above / below {
            // The next round one is two or two and a half times as much.
            ratio if ratio < 1.5 => (below, below * 2.0),
            ratio if ratio > DECADES_ONLY => {
                (10f64.powf(below.log10().floor()), 10f64.powf(above.log10().ceil()))
            }
            _ => (below, above),
        };
        Some(Self::Log { min_us: below, max_us: above })
    }

    /// Wide enough for the rarest of `count`, within `nines_max`.
    pub(super) fn tail_of(count: u64, nines_max: f64) -> Self {
        Self::Tail { nines: (count.max(1) as f64).log10().clamp(1.0, nines_max) }
    }

    /// Where a value is; `None` where it has no place, such as no latency at all.
    pub(super) fn position(self, value: f64) -> Option<f64> {
        let position = match self {
            Self::Linear { max } => value / max,
            Self::Log { min_us, max_us } if value > 0.0 => {
                (value / min_us).log10() / (max_us / min_us).log10()
            }
            Self::Log { .. } => return None,
            Self::Tail { nines } => nines_of(value) / nines,
        };
        (!position.is_nan()).then(|| position.clamp(0.0, 1.0))
    }

    /// At most `most` ticks, ascending.
    pub(super) fn ticks(self, most: usize) -> Vec<Tick> {
        let tick = |value: f64, label: String| Some(Tick { at: self.position(value)?, label });
        match self {
            Self::Linear { max } => {
                let step = round_step(max, most.saturating_sub(1).max(1));
                let last = (max / step + 1e-9) as usize;
                let decimals = (-step.log10().floor()).max(0.0) as usize;
                let label = |value: f64| match step < 1.0 {
                    true => format!("{value:.decimals$}"),
                    false => short(value),
                };
                (0..=last).filter_map(|index| tick(index as f64 * step, label(index as f64 * step))).collect()
            }
            Self::Log { min_us, max_us } => {
                let inside = |value: &f64| (min_us * 0.999_999..=max_us * 1.000_001).contains(value);
                let decades = || decades_between(min_us, max_us);
                let mut values: Vec<f64> =
                    decades().flat_map(|decade| [1.0, 2.0, 5.0].map(|m| m * decade)).filter(inside).collect();
                let mut stride = 1;
                while values.len() > most {
                    values = decades().filter(inside).step_by(stride).collect();
                    stride += 1;
                }
                values.into_iter().filter_map(|value| tick(value, latency(value))).collect()
            }
            Self::Tail { nines } => {
                let whole = (nines + 1e-9) as usize;
                let stride = whole.div_ceil(most.saturating_sub(1).max(1)).max(1);
                let mut values: Vec<usize> = (0..=whole).step_by(stride).collect();
                values.dedup();
                let mut ticks: Vec<Tick> = values
                    .into_iter()
                    .map(|nines_here| Tick { at: nines_here as f64 / nines, label: nines_label(nines_here) })
                    .collect();
                if ticks.len() < most && nines_of(50.0) / nines > 0.05 {
                    ticks.insert(1, Tick { at: nines_of(50.0) / nines, label: "50".to_owned() });
                }
                ticks
            }
        }
    }
}

/// How many nines a percentile has: 1 for 90, 2 for 99.
pub(super) fn nines_of(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

fn nines_label(nines: usize) -> String {
    match nines {
        0 => "0".to_owned(),
        1 => "90".to_owned(),
        2 => "99".to_owned(),
        _ => format!("99.{}", "9".repeat(nines - 2)),
    }
}

/// The least round step that reaches `max` in at most `steps`.
fn round_step(max: f64, steps: usize) -> f64 {
    let least = max / steps.max(1) as f64;
    rounds(least).filter(|round| *round >= least * 0.999_999).fold(f64::INFINITY, f64::min)
}

/// Round numbers on both sides of a positive one.
fn rounds(number: f64) -> impl Iterator<Item = f64> {
    let decade = 10f64.powf(number.log10().floor());
    [0.5, 1.0, 2.0, 5.0, 10.0].into_iter().map(move |factor| factor * decade)
}

fn decades_between(min: f64, max: f64) -> impl Iterator<Item = f64> {
    let exponents = min.log10().floor() as i32..=max.log10().ceil() as i32;
    exponents.map(|exponent| 10f64.powi(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, most: usize) -> Vec<String> {
        scale.ticks(most).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn a_linear_axis_ends_at_a_round_step() {
        let scale = Scale::linear_over([0.0, 230_000.0, 41.0].into_iter(), 5);
        assert_eq!(scale, Scale::Linear { max: 250_000.0 });
        assert_eq!(labels(scale, 6), ["0", "50k", "100k", "150k", "200k", "250k"]);
        assert_eq!(scale.position(125_000.0), Some(0.5));
        assert_eq!(labels(Scale::Linear { max: 30.0 }, 9), ["0", "5", "10", "15", "20", "25", "30"]);
        assert_eq!(labels(Scale::Linear { max: 0.5 }, 6), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(Scale::linear_over([0.0, f64::NAN].into_iter(), 5), Scale::Linear { max: 1.0 });
    }

    #[test]
    fn a_log_axis_holds_every_value_between_round_latencies() {
        let scale = Scale::log_around([0.0, 83.0, 910.0].into_iter()).unwrap();
        let ticks = scale.ticks(8);
        let text: Vec<&str> = ticks.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(text, ["50 µs", "100 µs", "200 µs", "500 µs", "1 ms"]);
        assert_eq!((scale.position(0.0), ticks[0].at, ticks[4].at), (None, 0.0, 1.0));
        let decades = Scale::log_around([60.0, 300_000.0].into_iter()).unwrap();
        assert_eq!(labels(decades, 12), ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        let wide = Scale::log_around([0.4, 3e6].into_iter()).unwrap();
        assert_eq!(labels(wide, 4), ["100 ns", "100 µs", "100 ms"]);
        let one = Scale::log_around([100.0].into_iter()).unwrap();
        assert_eq!(labels(one, 8), ["100 µs", "200 µs"]);
        assert_eq!(Scale::log_around([0.0].into_iter()), None);
    }

    #[test]
    fn a_tail_axis_gives_every_nine_the_same_room() {
        let scale = Scale::tail_of(1_000_000_000, 5.0);
        assert_eq!(labels(scale, 8), ["0", "50", "90", "99", "99.9", "99.99", "99.999"]);
        assert!((scale.position(99.9).unwrap() - 0.6).abs() < 1e-9);
        assert_eq!(scale.position(100.0), Some(1.0));
        assert_eq!(labels(Scale::tail_of(3, 5.0), 8), ["0", "50", "90"]);
        for most in 2..8 {
            assert!(labels(scale, most).len() <= most);
        }
    }
}
