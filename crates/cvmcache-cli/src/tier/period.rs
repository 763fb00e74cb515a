//! Durations on the command line: a number with its unit.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A duration in whole seconds, rounded up: no object counts as older than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period(Duration);

#[derive(Debug, PartialEq, Eq, Error)]
#[error("write a number with its unit, as in 30d, 12h or 90s")]
pub(super) struct BadPeriod;

impl Period {
    pub(super) fn as_secs(self) -> u64 {
        let seconds = self.0.as_secs();
        if self.0.subsec_nanos() > 0 { seconds.saturating_add(1) } else { seconds }
    }
}

impl FromStr for Period {
    type Err = BadPeriod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // humantime takes 0 without a unit.
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadPeriod);
        }
        humantime::parse_duration(text).map(Self).map_err(|_| BadPeriod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_unit_and_is_rounded_up_to_seconds() {
        let seconds = |text: &str| text.parse::<Period>().map(Period::as_secs);
        for (text, wanted) in [("30d", 2_592_000), ("1h 30m", 5400), ("0s", 0), ("1ms", 1)] {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        for bad in ["30", "0", "", "d", "-1d", "1 fortnight", "30d\n40"] {
            assert_eq!(seconds(bad), Err(BadPeriod), "{bad}");
        }
    }
}
