//! Sizes of objects: the distribution in a software repository, and the parser of an argument.

use bytesize::ByteSize;

/// What part of the files is at most how large: a few points, between which the logarithm of the
/// size grows evenly. Scripts, headers and byte code make up most of the files, libraries and
/// data most of the bytes.
pub(super) const QUANTILES: [(f64, u64); 9] = [
    (0.0, 100),
    (0.25, 1 << 10),
    (0.5, 4 << 10),
    (0.75, 16 << 10),
    (0.9, 64 << 10),
    (0.95, 256 << 10),
    (0.99, 2 << 20),
    (0.999, 16 << 20),
    (1.0, 64 << 20),
];

/// The size, in bytes, that a `fraction` of the files does not exceed.
pub(super) fn at(fraction: f64) -> u64 {
    for pair in QUANTILES.windows(2) {
        let [(p, small), (q, large)] = [pair[0], pair[1]];
        if fraction <= q {
            let (small, large) = ((small as f64).ln(), (large as f64).ln());
            return (small + (large - small) * (fraction - p) / (q - p)).exp().round() as u64;
        }
    }
    QUANTILES[QUANTILES.len() - 1].1
}

/// The mean of all files, in bytes.
pub(super) fn mean() -> f64 {
    let of_pair = |pair: &[(f64, u64)]| {
        let [(p, small), (q, large)] = [pair[0], pair[1]];
        let (small, large) = (small as f64, large as f64);
        (q - p) * (large - small) / (large / small).ln()
    };
    QUANTILES.windows(2).map(of_pair).sum()
}

/// Reads a size in bytes. `K`, `M` and `G` are powers of 1024, as are `KiB`, `MiB` and `GiB`.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let binary = match text.chars().last() {
        Some('k' | 'K' | 'm' | 'M' | 'g' | 'G') => format!("{text}iB"),
        _ => text.to_owned(),
    };
    match binary.parse() {
        Ok(ByteSize(0)) => Err("nothing fits into it: write a size such as 128K or 4MiB".into()),
        Ok(ByteSize(size)) => Ok(size),
        Err(_) => Err("not a size: write a number and a unit, such as 128K or 4MiB".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_are_small_and_a_few_are_large() {
        assert_eq!([0.0, 0.25, 0.5, 1.0, 2.0].map(at), [100, 1024, 4096, 64 << 20, 64 << 20]);
        assert_eq!(at(0.625), 8192);
        assert!(at(0.9999) > 30 << 20);
    }

    #[test]
    fn sizes_grow_with_the_fraction() {
        let sizes: Vec<_> = (0..=1000).map(|n| at(f64::from(n) / 1000.0)).collect();
        assert!(sizes.is_sorted());
    }

    #[test]
    fn the_mean_is_that_of_the_sizes() {
        let count = 1_000_000;
        let sum: f64 = (0..count).map(|n| at((f64::from(n) + 0.5) / f64::from(count)) as f64).sum();
        assert!((sum / f64::from(count) / mean() - 1.0).abs() < 0.001, "{}", mean());
    }

    #[test]
    fn sizes_parse_with_decimal_and_binary_units() {
        for (text, size) in [("4096", 4096), ("128K", 128 << 10), ("4MiB", 4 << 20)] {
            assert_eq!(parse(text).unwrap(), size);
        }
        assert_eq!(parse("1 g").unwrap(), 1 << 30);
        assert_eq!(parse("1kB").unwrap(), 1000);
        for text in ["", "K", "0", "-1", "4 apples"] {
            assert!(parse(text).unwrap_err().contains("128K"), "{text}");
        }
    }
}
