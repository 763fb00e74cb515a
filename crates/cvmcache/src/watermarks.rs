//! Watermarks, for all plugins that evict: when clients are asked to detach, and how far a clean-up
//! goes.

/// The water marks of a cache that evicts: when a clean-up begins and ends, and when so much is pinned
/// that clients should detach.
///
/// A cache that evicted only what the next upload needs would do so for each upload once it is full. So
/// it cleans up: it goes on until only a low water mark is in use. Pinned objects cannot be evicted; the
/// plugin asks clients to detach ([`ServerHandle::ask_detach`](crate::ServerHandle::ask_detach)) when
/// they pass a high water mark, once, and again only after they have been below a low one (hysteresis),
/// or an object that is opened and closed at the mark would send a detach to all clients each time.
///
/// It does no I/O and has no clock: the plugin passes what is in use, and gets back what to do.
///
/// ```
/// use cvmcache::Watermarks;
///
/// let mut marks = Watermarks::new(1000);
/// assert!(!marks.update_pinned(700));
/// assert!(marks.update_pinned(701), "ask clients to detach");
/// assert!(!marks.update_pinned(650) && !marks.update_pinned(701), "they have been asked");
///
/// assert!(marks.begin_clean_up());
/// assert_eq!(marks.excess(1000), 250, "evict 250 bytes");
/// marks.end_clean_up();
/// assert_eq!(marks.clean_ups(), 1);
/// ```
#[derive(Debug, Clone)]
pub struct Watermarks {
    size: u64,
    low_percent: u64,
    is_cleaning_up: bool,
    clean_ups: u64,
    /// Clients have been asked to detach, and the pinned bytes have not been below the low mark since.
    detach_asked: bool,
}

impl Watermarks {
    /// What a clean-up leaves in use, in percent of the size, by default.
    pub const LOW_PERCENT: u64 = 75;

    /// More than so many percent of the size pinned, and clients are asked to detach. The reference's
    /// plugins use the same mark.
    pub const PINNED_HIGH_PERCENT: u64 = 70;

    /// At most so many percent pinned, and passing the high mark counts again.
    pub const PINNED_LOW_PERCENT: u64 = 60;

    /// The marks of a cache of `size` bytes.
    pub const fn new(size: u64) -> Self {
        Self {
            size,
            low_percent: Self::LOW_PERCENT,
            is_cleaning_up: false,
            clean_ups: 0,
            detach_asked: false,
        }
    }

    /// The same with another low water mark: what a clean-up leaves in use, in percent of the size. More
    /// than 100 is 100.
    #[must_use]
    pub const fn with_low_percent(mut self, percent: u64) -> Self {
        self.low_percent = if percent < 100 { percent } else { 100 };
        self
    }

    /// The size of the cache in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The low water mark in bytes: what a clean-up leaves in use.
    pub const fn low(&self) -> u64 {
        percent_of(self.size, self.low_percent)
    }

    /// How many bytes in use are above the low water mark: what a clean-up has still to evict.
    pub const fn excess(&self, used: u64) -> u64 {
        used.saturating_sub(self.low())
    }

    /// Updates how many bytes are pinned. True if clients are to be asked to detach now.
    #[must_use = "clients are not asked again until less is pinned"]
    pub fn update_pinned(&mut self, pinned: u64) -> bool {
        let is_high = pinned > percent_of(self.size, Self::PINNED_HIGH_PERCENT);
        let is_low = pinned <= percent_of(self.size, Self::PINNED_LOW_PERCENT);
        let ask = is_high && !self.detach_asked;
        self.detach_asked = is_high || (self.detach_asked && !is_low);
        ask
    }

    /// Begins a clean-up and counts it. False if one is in progress.
    pub fn begin_clean_up(&mut self) -> bool {
        let begins = !self.is_cleaning_up;
        self.is_cleaning_up = true;
        self.clean_ups += u64::from(begins);
        begins
    }

    /// Whether a clean-up has begun and not ended.
    pub const fn is_cleaning_up(&self) -> bool {
        self.is_cleaning_up
    }

    /// Ends the clean-up: the low water mark is reached, or nothing is left to evict.
    pub fn end_clean_up(&mut self) {
        self.is_cleaning_up = false;
    }

    /// Counts a clean-up on request ([`CachePlugin::shrink`](crate::CachePlugin::shrink)).
    pub fn count_clean_up(&mut self) {
        self.clean_ups += 1;
    }

    /// How many clean-ups there have been, for
    /// [`CacheInfo::shrink_count`](crate::plugin::CacheInfo::shrink_count).
    pub const fn clean_ups(&self) -> u64 {
        self.clean_ups
    }
}

/// So many percent of a number of bytes, for `percent` up to 100, rounded down. It does not overflow.
pub const fn percent_of(bytes: u64, percent: u64) -> u64 {
    bytes / 100 * percent + bytes % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_asked_to_detach_once_until_less_is_pinned() {
        let mut marks = Watermarks::new(100);
        let asked = [70, 71, 65, 80, 60, 71].map(|pinned| marks.update_pinned(pinned));
        assert_eq!(asked, [false, true, false, false, false, true]);
    }

    #[test]
    fn a_clean_up_counts_once_and_ends_at_the_low_water_mark() {
        let mut marks = Watermarks::new(1000).with_low_percent(90);
        assert_eq!((marks.excess(950), marks.excess(10)), (50, 0));
        assert!(marks.begin_clean_up() && !marks.begin_clean_up());
        marks.end_clean_up();
        assert!(!marks.is_cleaning_up() && marks.begin_clean_up());
        marks.count_clean_up();
        assert_eq!(marks.clean_ups(), 3);
    }

    #[test]
    fn percentages_of_any_size_do_not_overflow() {
        assert_eq!(percent_of(u64::MAX, 100), u64::MAX);
        assert_eq!(percent_of(999, 75), 749);
    }
}
