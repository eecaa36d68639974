//! A confidence interval of a mean by Student's t.

/// Quantiles 0.975 of Student's t for 1 to 10 degrees of freedom: NIST/SEMATECH e-Handbook of
/// Statistical Methods, 1.3.6.7.2.
const T_975: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
/// The same quantile of the normal distribution.
const Z_975: f64 = 1.959_964;

/// Holds the true mean in 95 of 100 cases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval95 {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval95 {
    /// Of numbers that scatter normally; `None` of less than two.
    pub(super) fn of_mean(numbers: &[f64]) -> Option<Self> {
        let freedom = numbers.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
        let half = t_975(freedom) * (squares / freedom as f64 / count).sqrt();
        Some(Self { low: mean - half, high: mean + half })
    }
}

/// Beyond the table by expansion in the reciprocal of the degrees of freedom (Abramowitz and Stegun,
/// Handbook of Mathematical Functions, 26.7.5), which is right to three digits there.
fn t_975(freedom: usize) -> f64 {
    if let Some(t) = T_975.get(freedom - 1) {
        return *t;
    }
    let (z, n) = (Z_975, freedom as f64);
    z + (z.powi(3) + z) / (4.0 * n)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n.powi(2))
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        let known =
            [(1, 12.706), (4, 2.776), (10, 2.228), (11, 2.201), (15, 2.131), (30, 2.042), (100, 1.984)];
        for (freedom, t) in known {
            assert!((t_975(freedom) - t).abs() < 6e-4, "{freedom}: {}", t_975(freedom));
        }
    }

    #[test]
    fn an_interval_is_the_textbook_s() {
        // Mean 3, standard deviation sqrt(2.5), five numbers: 3 ± 2.776 sqrt(0.5).
        let interval = Interval95::of_mean(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((interval.low - 1.037_07).abs() < 1e-4 && (interval.high - 4.962_93).abs() < 1e-4);
        assert_eq!(Interval95::of_mean(&[7.0, 7.0]), Some(Interval95 { low: 7.0, high: 7.0 }));
        assert_eq!((Interval95::of_mean(&[1.0]), Interval95::of_mean(&[])), (None, None));
    }
}
