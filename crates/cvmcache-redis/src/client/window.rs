//! How many bytes are in flight on a connection.
//!
//! A server may close a connection whose replies are taken more slowly than they are asked for
//! (`client-output-buffer-limit`, `maxmemory-clients`), and does not say so. So a window bounds the bytes
//! of requests and replies in flight: multiplicative decrease, it is halved when a connection is cut with
//! many bytes in flight, and doubled after [`GROWTH_INTERVAL`] without that. A request larger than the window is in
//! flight alone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// The window of one connection.
#[derive(Debug)]
pub(super) struct Window {
    /// In KiB, because permits are counted in 32 bits. Closed when the connection has ended.
    semaphore: Semaphore,
    kib: AtomicUsize,
    /// How many requests are in flight.
    requests: AtomicU64,
    cut: Cut,
}

/// What was in flight when the connection was lost.
#[derive(Debug, Default)]
struct Cut {
    requests: AtomicU64,
    kib: AtomicUsize,
}

/// More than 32 workers can have in flight, each with the largest read.
const LARGEST: usize = 32 * 1024;

/// One read of a client. A connection that was cut with less in flight was not cut because of it.
const SMALLEST: usize = 128;

/// After so long without a cut, the window grows.
pub(super) const GROWTH_INTERVAL: Duration = Duration::from_secs(600);

impl Window {
    /// The window of the first connection.
    pub(super) fn new() -> Self {
        Self::of(LARGEST)
    }

    fn of(kib: usize) -> Self {
        let semaphore = Semaphore::new(kib);
        Self {
            semaphore,
            kib: AtomicUsize::new(kib),
            requests: AtomicU64::new(0),
            cut: Cut::default(),
        }
    }

    /// Waits until so many bytes may be in flight. `None` if the connection has ended.
    pub(super) async fn admit(&self, bytes: u64) -> Option<Admitted<'_>> {
        let wanted = usize::try_from(bytes.div_ceil(1024)).unwrap_or(usize::MAX).max(1);
        let kib = wanted.min(self.kib.load(Ordering::Relaxed));
        let permits = u32::try_from(kib).unwrap_or(u32::MAX);
        let permit = self.semaphore.acquire_many(permits).await.ok()?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        Some(Admitted { window: self, kib, _permit: permit })
    }

    /// How many requests are in flight, and about how many bytes of theirs and of their replies.
    pub(super) fn in_flight(&self) -> (u64, u64) {
        let kib = self.kib.load(Ordering::Relaxed);
        let kib = kib.saturating_sub(self.semaphore.available_permits());
        (self.requests.load(Ordering::Relaxed), kib as u64 * 1024)
    }

    /// The connection has ended: what waits for it goes to the next one.
    pub(super) fn close(&self) {
        self.semaphore.close();
    }

    /// The window of the next connection.
    pub(super) fn next(&self) -> Self {
        let (kib, cut) = (self.kib.load(Ordering::Relaxed), self.cut.kib.load(Ordering::Relaxed));
        Self::of(if cut < SMALLEST { kib } else { (kib.min(cut) / 2).max(SMALLEST) })
    }

    /// A window of the same size, for a connection that the plugin has replaced.
    pub(super) fn again(&self) -> Self {
        Self::of(self.kib.load(Ordering::Relaxed))
    }

    /// How many requests were in flight when the connection was lost.
    pub(super) fn cut_requests(&self) -> u64 {
        self.cut.requests.load(Ordering::Relaxed)
    }

    pub(super) fn grow(&self) {
        let kib = self.kib.load(Ordering::Relaxed);
        let more = kib.min(LARGEST - kib.min(LARGEST));
        self.kib.store(kib + more, Ordering::Relaxed);
        self.semaphore.add_permits(more);
    }
}

/// A request that may be in flight.
pub(super) struct Admitted<'a> {
    window: &'a Window,
    kib: usize,
    _permit: SemaphorePermit<'a>,
}

impl Admitted<'_> {
    /// The connection was lost before the reply came.
    pub(super) fn was_cut(self) {
        self.window.cut.requests.fetch_add(1, Ordering::Relaxed);
        self.window.cut.kib.fetch_add(self.kib, Ordering::Relaxed);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.window.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn admitted(window: &Window, kib: u64) -> Option<Admitted<'_>> {
        window.admit(kib * 1024).now_or_never().flatten()
    }

    #[test]
    fn a_request_waits_until_the_window_has_room() {
        let window = Window::of(300);
        let (first, second) = (admitted(&window, 100), admitted(&window, 200));
        assert!(first.is_some() && second.is_some());
        assert!(admitted(&window, 1).is_none());
        assert_eq!(window.in_flight(), (2, 300 * 1024));
        drop(first);
        assert_eq!(window.in_flight(), (1, 200 * 1024));
        assert!(admitted(&window, 100).is_some());
    }

    #[test]
    fn a_request_larger_than_the_window_is_in_flight_alone() {
        let window = Window::of(300);
        let large = admitted(&window, 5000);
        assert!(large.is_some() && admitted(&window, 1).is_none());
    }

    #[test]
    fn a_cut_with_many_bytes_in_flight_halves_them() {
        for (size, cut, next) in [
            (LARGEST, 4000, 2000),
            (1000, 1000, 500),
            (200, 200, SMALLEST),
            (LARGEST, SMALLEST - 1, LARGEST),
            (LARGEST, 0, LARGEST),
        ] {
            let window = Window::of(size);
            if cut > 0 {
                admitted(&window, cut as u64).unwrap().was_cut();
            }
            assert_eq!(window.next().kib.into_inner(), next, "{size} {cut}");
        }
    }

    #[test]
    fn a_window_grows_up_to_the_largest() {
        let window = Window::of(LARGEST / 4 * 3);
        window.grow();
        window.grow();
        assert_eq!(window.semaphore.available_permits(), LARGEST);
        assert!(admitted(&window, LARGEST as u64).is_some());
    }

    #[test]
    fn a_request_does_not_wait_for_a_connection_that_has_ended() {
        let window = Window::of(10);
        window.close();
        assert!(window.admit(1).now_or_never().is_some_and(|admitted| admitted.is_none()));
    }
}
