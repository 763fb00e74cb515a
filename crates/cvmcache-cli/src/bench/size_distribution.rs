//! Distributions of sizes and times by their quantiles, and that of object sizes in a software repository.

/// The quantiles of a distribution: fractions, in ascending order from 0 to 1, and the value that they do not
/// exceed, at least 1. Between them, the logarithm of the value is interpolated linearly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantiles<'a>(pub(super) &'a [(f64, u64)]);

/// The sizes of files in a repository, in bytes. Scripts, headers and byte code make up most of the files,
/// libraries and data most of the bytes.
pub(super) const REPOSITORY: Quantiles<'static> = Quantiles(&[
    (0.0, 100),
    (0.25, 1 << 10),
    (0.5, 4 << 10),
    (0.75, 16 << 10),
    (0.9, 64 << 10),
    (0.95, 256 << 10),
    (0.99, 2 << 20),
    (0.999, 16 << 20),
    (1.0, 64 << 20),
]);

impl Quantiles<'_> {
    /// The value that a `fraction` does not exceed.
    pub(super) fn at(self, fraction: f64) -> u64 {
        for pair in self.0.windows(2) {
            let [(p, small), (q, large)] = [pair[0], pair[1]];
            if fraction <= q {
                let (small, large) = ((small as f64).ln(), (large as f64).ln());
                return (small + (large - small) * (fraction - p) / (q - p)).exp().round() as u64;
            }
        }
        self.0.last().map_or(0, |(_, largest)| *largest)
    }

    /// The mean of all values.
    pub(super) fn mean(self) -> f64 {
        let of_pair = |pair: &[(f64, u64)]| {
            let [(p, small), (q, large)] = [pair[0], pair[1]];
            let (small, large) = (small as f64, large as f64);
            (q - p) * (large - small) / (large / small).ln()
        };
        self.0.windows(2).map(of_pair).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_are_small_and_a_few_are_large() {
        assert_eq!(
            [0.0, 0.25, 0.5, 1.0, 2.0].map(|p| REPOSITORY.at(p)),
            [100, 1024, 4096, 64 << 20, 64 << 20]
        );
        assert_eq!(REPOSITORY.at(0.625), 8192);
        assert!(REPOSITORY.at(0.9999) > 30 << 20);
    }

    #[test]
    fn a_larger_fraction_has_a_larger_size() {
        let sizes: Vec<_> = (0..=1000).map(|n| REPOSITORY.at(f64::from(n) / 1000.0)).collect();
        assert!(sizes.is_sorted());
    }

    #[test]
    fn the_mean_is_that_of_the_sizes() {
        let count = 1_000_000;
        let sum: f64 =
            (0..count).map(|n| REPOSITORY.at((f64::from(n) + 0.5) / f64::from(count)) as f64).sum();
        assert!(
            (sum / f64::from(count) / REPOSITORY.mean() - 1.0).abs() < 0.001,
            "{}",
            REPOSITORY.mean()
        );
    }
}
