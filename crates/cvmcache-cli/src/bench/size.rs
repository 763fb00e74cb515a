//! The size of objects, as an argument: a number with a unit.

use bytesize::ByteSize;

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
