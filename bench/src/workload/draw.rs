//! How numbers are drawn: the distributions of YCSB, number for number.
//!
//! A zipfian draw inverts an approximation of the cumulative distribution (Gray, Sundaresan, Englert,
//! Baclawski, Weinberger, "Quickly generating billion-record synthetic databases", SIGMOD 1994), as
//! YCSB does. It needs zeta(n, theta), the sum of 1/i^theta, which YCSB fixes for the 10^10 items of its
//! scrambled form; hashing a draw with FNV-1 spreads the popular items over the keys.
//!
//! Sources: Cooper, Silberstein, Tam, Ramakrishnan, Sears, "Benchmarking cloud serving systems with
//! YCSB", SoCC 2010; the hash: Fowler, Noll, Vo, <http://www.isthe.com/chongo/tech/comp/fnv/>.

use crate::load::Random;

/// The skew of YCSB's zipfian distributions.
pub const THETA: f64 = 0.99;
/// Items of the scrambled zipfian distribution, however many keys there are.
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
/// zeta of that many items and [`THETA`].
const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;
/// Of the exponential distribution: this part of the draws ...
const EXPONENTIAL_PERCENT: f64 = 95.0;
/// ... falls on the newest this part of the records.
const EXPONENTIAL_FRACTION: f64 = 0.857_142_857_1;

/// YCSB's hash of a number: FNV over its eight bytes, the lowest first, without the sign.
pub fn fnv64(number: u64) -> u64 {
    const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 1_099_511_628_211;
    let hash = number
        .to_le_bytes()
        .into_iter()
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    // Java's absolute value of a signed number.
    (hash as i64).unsigned_abs()
}

/// A number from 0 up to 1, exclusive.
pub(crate) fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Zipfian over `0..items`: 0 is the most popular.
#[derive(Debug, Clone)]
pub struct Zipfian {
    items: u64,
    theta: f64,
    zeta: f64,
    zeta_two: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    /// Over this many items, at least one. Takes time in proportion to them.
    pub fn new(items: u64) -> Self {
        Self::with_zeta(items, zeta(0, items, THETA, 0.0))
    }

    fn with_zeta(items: u64, zeta_items: f64) -> Self {
        let theta = THETA;
        let zeta_two = zeta(0, 2, theta, 0.0);
        let mut zipfian =
            Self { items, theta, zeta: zeta_items, zeta_two, alpha: 1.0 / (1.0 - theta), eta: 0.0 };
        zipfian.eta = zipfian.eta();
        zipfian
    }

    fn eta(&self) -> f64 {
        (1.0 - (2.0 / self.items as f64).powf(1.0 - self.theta)) / (1.0 - self.zeta_two / self.zeta)
    }

    /// Draws over more items from now on; fewer are ignored. Takes time in proportion to how many more.
    pub fn grow(&mut self, items: u64) {
        if items > self.items {
            self.zeta = zeta(self.items, items, self.theta, self.zeta);
            self.items = items;
            self.eta = self.eta();
        }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let unit = unit(random);
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1.min(self.items - 1);
        }
        let drawn = self.items as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        // Rounding may reach the number of items itself.
        (drawn as u64).min(self.items - 1)
    }
}

/// The sum of 1/i^theta for i from `from + 1` to `to`, on top of `sum`.
fn zeta(from: u64, to: u64, theta: f64, sum: f64) -> f64 {
    (from..to).fold(sum, |sum, item| sum + 1.0 / ((item + 1) as f64).powf(theta))
}

/// Which record an operation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// All equally.
    Uniform,
    /// A few very often, wherever they lie.
    Zipfian,
    /// The newest very often.
    Latest,
    /// The newest often, falling exponentially.
    Exponential,
    /// A part of the keys, most of the time.
    Hotspot {
        /// The part of the keys, in millionths.
        data_ppm: u32,
        /// The part of the operations that ask for them, in millionths.
        operations_ppm: u32,
    },
    /// One after the other, from the first to the last, over and over.
    Sequential,
}

/// Draws record numbers.
#[derive(Debug, Clone)]
pub struct Chooser {
    form: Form,
    /// The first record.
    first: u64,
    random: Random,
}

#[derive(Debug, Clone)]
enum Form {
    Uniform { count: u64 },
    Scrambled { zipfian: Zipfian, count: u64 },
    Latest { zipfian: Zipfian },
    Exponential { gamma: f64 },
    Hotspot { hot: u64, count: u64, hot_share: f64 },
    Sequential { next: u64, step: u64, count: u64 },
}

impl Chooser {
    /// Of the records from `first` on, `count` of which are there at the beginning. `expected_new` more
    /// may be inserted: YCSB draws over them too, and draws again what is not there yet, so that what is
    /// popular does not change with every insert. `lane` of `lanes` takes its turn of a sequence.
    pub fn new(
        distribution: Distribution,
        (first, count): (u64, u64),
        expected_new: u64,
        seed: u64,
        (lane, lanes): (u64, u64),
    ) -> Self {
        let count = count.max(1);
        let form = match distribution {
            Distribution::Uniform => Form::Uniform { count },
            Distribution::Zipfian => Form::Scrambled {
                zipfian: Zipfian::with_zeta(SCRAMBLED_ITEMS, SCRAMBLED_ZETA),
                // YCSB's bounds are inclusive; what lies beyond is drawn again.
                count: count + expected_new + 1,
            },
            Distribution::Latest => Form::Latest { zipfian: Zipfian::new(count) },
            Distribution::Exponential => {
                let range = count as f64 * EXPONENTIAL_FRACTION;
                Form::Exponential { gamma: -(1.0 - EXPONENTIAL_PERCENT / 100.0).ln() / range }
            }
            Distribution::Hotspot { data_ppm, operations_ppm } => Form::Hotspot {
                hot: (u128::from(count) * u128::from(data_ppm) / 1_000_000) as u64,
                count,
                hot_share: f64::from(operations_ppm) / 1e6,
            },
            Distribution::Sequential => Form::Sequential { next: lane, step: lanes.max(1), count },
        };
        Self { form, first, random: Random::new(seed) }
    }

    /// The number of a record; `last` is the newest that was acknowledged.
    pub fn draw(&mut self, last: u64) -> u64 {
        let Self { form, first, random } = self;
        let newest = last.saturating_sub(*first);
        *first
            + match form {
                Form::Uniform { count } => random.below(*count),
                Form::Scrambled { zipfian, count } => loop {
                    let number = fnv64(zipfian.draw(random)) % *count;
                    if number <= newest {
                        break number;
                    }
                },
                Form::Latest { zipfian } => {
                    zipfian.grow(newest + 1);
                    newest - zipfian.draw(random).min(newest)
                }
                Form::Exponential { gamma } => loop {
                    let back = -(1.0 - unit(random)).ln() / *gamma;
                    if back <= newest as f64 {
                        break newest - back as u64;
                    }
                },
                Form::Hotspot { hot, count, hot_share } => {
                    if *hot > 0 && (unit(random) < *hot_share || hot == count) {
                        random.below(*hot)
                    } else {
                        *hot + random.below(*count - *hot)
                    }
                }
                Form::Sequential { next, step, count } => {
                    let number = *next % *count;
                    *next = (*next + *step) % (*count * *step);
                    number
                }
            }
    }
}

/// Lengths: of fields, of values, of scans.
#[derive(Debug, Clone, PartialEq)]
pub enum Lengths {
    /// Always the same.
    Constant(u64),
    /// From the first to the second, inclusive, all equally.
    Uniform(u64, u64),
    /// From the least on, zipfian: short ones most often.
    Zipfian {
        /// The least.
        min: u64,
        /// How much more is drawn.
        zipfian: Box<ZipfianLengths>,
    },
}

/// See [`Lengths::Zipfian`].
#[derive(Debug, Clone)]
pub struct ZipfianLengths(Zipfian, u64);

impl PartialEq for ZipfianLengths {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl Lengths {
    /// Zipfian from `min` to `max`, inclusive.
    pub fn zipfian(min: u64, max: u64) -> Self {
        let items = max.max(min) - min + 1;
        Self::Zipfian { min, zipfian: Box::new(ZipfianLengths(Zipfian::new(items), items)) }
    }

    /// The greatest that may be drawn.
    pub fn max(&self) -> u64 {
        match self {
            Self::Constant(length) => *length,
            Self::Uniform(_, max) => *max,
            Self::Zipfian { min, zipfian } => min + zipfian.1 - 1,
        }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        match self {
            Self::Constant(length) => *length,
            Self::Uniform(min, max) => min + random.below(max.max(min) - min + 1),
            Self::Zipfian { min, zipfian } => min + zipfian.0.draw(random),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u64 = 400_000;

    fn counts(mut draw: impl FnMut(&mut Random) -> u64, items: usize) -> Vec<u64> {
        let mut random = Random::new(42);
        let mut counts = vec![0; items];
        (0..DRAWS).for_each(|_| counts[draw(&mut random) as usize] += 1);
        counts
    }

    #[test]
    fn the_hash_is_that_of_ycsb() {
        // Utils.fnvhash64 of YCSB 0.17: the key of record 0 is user6284781860667377211.
        assert_eq!(fnv64(0), 6_284_781_860_667_377_211);
        assert_eq!(fnv64(1), 8_517_097_267_634_966_620);
        assert_eq!(fnv64(2), 1_820_151_046_732_198_393);
    }

    #[test]
    fn the_fixed_zeta_is_that_of_its_items() {
        // Euler and Maclaurin: the sum from m on is the integral, half the first term, and little more.
        let (cut, items) = (100_000_u64, SCRAMBLED_ITEMS as f64);
        let head = zeta(0, cut, THETA, 0.0);
        let integral = (items.powf(1.0 - THETA) - (cut as f64).powf(1.0 - THETA)) / (1.0 - THETA);
        let ends = 0.5 * (items.powf(-THETA) - (cut as f64).powf(-THETA));
        assert!((head + integral + ends - SCRAMBLED_ZETA).abs() < 1e-3, "{}", head + integral + ends);
    }

    #[test]
    fn zipfian_draws_have_the_frequencies_of_zipf() {
        let zipfian = Zipfian::new(1000);
        let counts = counts(|random| zipfian.draw(random), 1000);
        for (item, times) in counts.iter().enumerate().take(2) {
            let expected = DRAWS as f64 / ((item + 1) as f64).powf(THETA) / zipfian.zeta;
            assert!((*times as f64 / expected - 1.0).abs() < 0.03, "item {item}: {times}, not {expected}");
        }
        // Beyond the first two the inverse is an approximation, which is what YCSB's numbers rest on too: this
        // is the part of the draws that it puts below an item.
        let below = |item: u64| {
            let part = (item as f64 / 1000.0).powf(1.0 - THETA);
            (part - 1.0 + zipfian.eta) / zipfian.eta
        };
        for (from, to) in [(2, 10), (10, 100), (100, 1000)] {
            let times: u64 = counts[from as usize..to as usize].iter().sum();
            let drawn = times as f64 / DRAWS as f64;
            let first_two = (1.0 + 0.5_f64.powf(THETA)) / zipfian.zeta;
            let approximated = below(to) - if from == 2 { first_two } else { below(from) };
            assert!((drawn / approximated - 1.0).abs() < 0.03, "{from}..{to}: {drawn}, not {approximated}");
            let exact = zeta(from, to, THETA, 0.0) / zipfian.zeta;
            assert!((drawn / exact - 1.0).abs() < 0.12, "{from}..{to}: {drawn}, far from {exact}");
        }
    }

    #[test]
    fn a_grown_zipfian_is_one_of_that_size() {
        let (mut grown, whole) = (Zipfian::new(10), Zipfian::new(5000));
        grown.grow(700);
        grown.grow(5000);
        assert!((grown.zeta - whole.zeta).abs() < 1e-9 && (grown.eta - whole.eta).abs() < 1e-12);
    }

    #[test]
    fn scrambled_draws_follow_their_hashed_ranks() {
        let mut chooser = Chooser::new(Distribution::Zipfian, (0, 1000), 0, 7, (0, 1));
        let mut counts = vec![0_u64; 1000];
        (0..DRAWS).for_each(|_| counts[chooser.draw(999) as usize] += 1);
        // The two most popular of the 10^10 items, and what they bring to the record that they fall on.
        for rank in 0..2_u64 {
            let share = 1.0 / ((rank + 1) as f64).powf(THETA) / SCRAMBLED_ZETA;
            let times = counts[(fnv64(rank) % 1001) as usize] as f64 / DRAWS as f64;
            assert!(times > share * 0.97 && times < share + 0.01, "rank {rank}: {times}, not {share}");
        }
        assert!(counts.iter().all(|times| *times > 0));
    }

    #[test]
    fn latest_prefers_what_was_acknowledged_last() {
        let mut chooser = Chooser::new(Distribution::Latest, (10, 100), 0, 3, (0, 1));
        let draws: Vec<u64> = (0..10_000).map(|_| chooser.draw(109)).collect();
        assert!(draws.iter().all(|number| (10..=109).contains(number)));
        let newest = draws.iter().filter(|number| **number == 109).count();
        assert!((1800..2400).contains(&newest), "{newest}");
        let draws: Vec<u64> = (0..10_000).map(|_| chooser.draw(509)).collect();
        assert!(draws.contains(&509) && draws.iter().all(|number| (10..=509).contains(number)));
    }

    #[test]
    fn the_other_choosers_keep_their_promises() {
        let draw = |distribution| {
            let mut chooser = Chooser::new(distribution, (0, 1000), 0, 1, (0, 1));
            (0..100_000).map(|_| chooser.draw(999)).collect::<Vec<u64>>()
        };
        let hot = draw(Distribution::Hotspot { data_ppm: 200_000, operations_ppm: 800_000 });
        let share = hot.iter().filter(|number| **number < 200).count();
        assert!((79_000..81_000).contains(&share), "{share}");
        assert!(hot.iter().all(|number| *number < 1000));
        let newest = draw(Distribution::Exponential);
        let share = newest.iter().filter(|number| **number >= 1000 - 857).count();
        assert!((94_500..=100_000).contains(&share), "{share}");
        assert_eq!(draw(Distribution::Sequential)[..3], [0, 1, 2]);
        assert_eq!(draw(Distribution::Sequential)[999..1002], [999, 0, 1]);
        let uniform = draw(Distribution::Uniform);
        assert!((49_000..51_000).contains(&uniform.iter().filter(|number| **number < 500).count()));
    }

    #[test]
    fn sequences_of_lanes_cover_all_records_together() {
        let mut seen = vec![0; 10];
        for lane in 0..3 {
            let mut chooser = Chooser::new(Distribution::Sequential, (0, 10), 0, 1, (lane, 3));
            (0..10).for_each(|_| seen[chooser.draw(9) as usize] += 1);
        }
        assert_eq!(seen, vec![3; 10]);
    }

    #[test]
    fn lengths_stay_within_their_bounds() {
        let mut random = Random::new(5);
        for (lengths, least) in
            [(Lengths::Constant(7), 7), (Lengths::Uniform(3, 9), 3), (Lengths::zipfian(2, 50), 2)]
        {
            let drawn: Vec<u64> = (0..10_000).map(|_| lengths.draw(&mut random)).collect();
            assert_eq!(
                (drawn.iter().min(), drawn.iter().max().unwrap() <= &lengths.max()),
                (Some(&least), true)
            );
        }
    }
}
