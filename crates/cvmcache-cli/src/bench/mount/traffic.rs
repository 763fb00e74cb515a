//! The traffic of a mount, as measured: how large the objects are, and how long the client works between
//! a reply and the next request.
//!
//! Measured on warm passes of client 2.12.0 over a repository of 5,011 files of 322 MB, with one thread that
//! reads file after file, on two processors of a virtual machine: when each request was sent, and when the
//! thread that waited for a reply was awake. Kernel caches were dropped before each pass. A pass
//! has 5,150 opens, as many closes and 7,610 reads. There is no request for a size: the client knows sizes
//! from the file catalog.

use super::super::size_distribution::Quantiles;

/// How many objects a pass opens: files, and the chunks of large ones.
pub(in super::super) const OBJECTS: u64 = 5150;

/// Their sizes, in bytes.
pub(in super::super) const SIZES: Quantiles<'static> = Quantiles(&[
    (0.0, 1),
    (0.01, 34),
    (0.05, 232),
    (0.1, 469),
    (0.25, 1125),
    (0.5, 2288),
    (0.75, 6483),
    (0.9, 26_681),
    (0.95, 68_856),
    (0.97, 353_016),
    (0.975, 1_052_672),
    (0.985, 1_340_155),
    (0.995, 3_033_479),
    (1.0, 4_194_304),
]);

/// Times in nanoseconds, of the pass that other processes disturbed least: from the reply to an open to the
/// first read.
pub(super) const OPEN_TO_READ: Quantiles<'static> = Quantiles(&[
    (0.0, 20_000),
    (0.1, 31_000),
    (0.25, 35_000),
    (0.5, 39_000),
    (0.75, 51_000),
    (0.9, 67_000),
    (0.99, 116_000),
    (1.0, 200_000),
]);

/// From the reply to a read to the next of the same object: short if the kernel has already asked for it.
pub(super) const READ_TO_READ: Quantiles<'static> = Quantiles(&[
    (0.0, 3_000),
    (0.1, 7_000),
    (0.25, 10_000),
    (0.5, 45_000),
    (0.75, 66_000),
    (0.9, 120_000),
    (0.99, 335_000),
    (1.0, 500_000),
]);

/// From the reply to the last read to the close.
pub(super) const READ_TO_CLOSE: Quantiles<'static> = Quantiles(&[
    (0.0, 20_000),
    (0.1, 32_000),
    (0.25, 36_000),
    (0.5, 41_000),
    (0.75, 52_000),
    (0.9, 72_000),
    (0.99, 157_000),
    (1.0, 250_000),
]);

/// From a close to the next open, which does not wait for the reply to the close.
pub(super) const CLOSE_TO_OPEN: Quantiles<'static> = Quantiles(&[
    (0.0, 32_000),
    (0.1, 46_000),
    (0.25, 54_000),
    (0.5, 59_000),
    (0.75, 70_000),
    (0.9, 87_000),
    (0.99, 216_000),
    (1.0, 400_000),
]);

/// Reads are of whole pages, as the kernel asks for them.
pub(super) const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_reads_as_many_bytes_as_were_measured() {
        let megabytes = OBJECTS as f64 * SIZES.mean() / 1e6;
        assert!((megabytes / 322.0 - 1.0).abs() < 0.05, "{megabytes}");
    }

    #[test]
    fn quantiles_ascend_from_0_to_1() {
        for Quantiles(pairs) in [SIZES, OPEN_TO_READ, READ_TO_READ, READ_TO_CLOSE, CLOSE_TO_OPEN] {
            assert_eq!((pairs[0].0, pairs[pairs.len() - 1].0), (0.0, 1.0));
            assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        }
    }
}
