//! Uploads that are tried again, and given up when the store takes no more bytes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::cold::retry::Attempts;
use crate::cold::{ColdError, ColdStore, Uploaded};
use crate::key::StoreKey;

/// How many times the timeout a store may take no byte: it takes those of a part at once, and then sends them.
pub(crate) const TIMEOUTS: u32 = 10;

/// Uploads an object; `content` gives its bytes anew for each attempt. An attempt ends when the store has taken no byte
/// for ten times `timeout`, and there is no other after as long without one.
pub(crate) async fn send(
    store: &dyn ColdStore,
    key: &StoreKey,
    len: u64,
    timeout: Duration,
    content: impl Fn() -> BoxStream<'static, Result<Bytes, ColdError>>,
) -> Result<Uploaded, ColdError> {
    let mut attempts = Attempts::new(timeout);
    loop {
        let begun = Instant::now();
        let taken = Arc::new(Mutex::new(begun));
        let clock = Arc::clone(&taken);
        let content = content().inspect(move |_| *clock.lock() = Instant::now());
        let upload = store.upload(key, len, content.boxed());
        match while_bytes_go(timeout * TIMEOUTS, &taken, upload).await {
            Ok(uploaded) => return Ok(uploaded),
            Err(error) => {
                attempts.extend(*taken.lock() - begun);
                attempts.pause(error).await?;
            }
        }
    }
}

/// Waits for an upload for as long as bytes are taken from it; `taken` is when the last ones were.
async fn while_bytes_go<T>(
    idle: Duration,
    taken: &Mutex<Instant>,
    upload: impl Future<Output = Result<T, ColdError>>,
) -> Result<T, ColdError> {
    let mut upload = pin!(upload);
    loop {
        let deadline = *taken.lock() + idle;
        if let Ok(result) = timeout_at(deadline, &mut upload).await {
            return result;
        }
        if *taken.lock() + idle <= Instant::now() {
            let text = format!("it took no byte within {}", humantime::format_duration(idle));
            return Err(ColdError::Unavailable(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures_util::stream;
    use tokio::time::sleep;

    use super::*;
    use crate::cold::{Download, Listed, StoreSettings};

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A store that takes a piece in each `time`, and is away when it has taken `at_most` of them.
    #[derive(Debug)]
    struct Slow {
        time: Duration,
        at_most: usize,
        uploads: AtomicUsize,
    }

    #[async_trait]
    impl ColdStore for Slow {
        async fn upload(
            &self,
            _: &StoreKey,
            _: u64,
            mut content: BoxStream<'_, Result<Bytes, ColdError>>,
        ) -> Result<Uploaded, ColdError> {
            self.uploads.fetch_add(1, Ordering::Relaxed);
            for _ in 0..self.at_most {
                if content.next().await.is_none() {
                    return Ok(Uploaded::verified());
                }
                sleep(self.time).await;
            }
            Err(ColdError::Unavailable("away".into()))
        }

        async fn download(
            &self,
            _: &StoreKey,
            _: u64,
            _: Option<&str>,
        ) -> Result<Download, ColdError> {
            Err(ColdError::NotFound)
        }

        async fn read_range(&self, _: &StoreKey, _: Range<u64>) -> Result<Bytes, ColdError> {
            Err(ColdError::NotFound)
        }

        async fn delete(&self, _: &StoreKey) -> Result<(), ColdError> {
            Ok(())
        }

        async fn exists(&self, _: &StoreKey) -> Result<Option<u64>, ColdError> {
            Ok(None)
        }

        fn list(&self, _: &str) -> BoxStream<'_, Result<Listed, ColdError>> {
            stream::empty().boxed()
        }

        fn reconfigure(&self, _: &StoreSettings) -> Result<(), ColdError> {
            Ok(())
        }
    }

    async fn send_to(time: Duration, at_most: usize) -> (Result<Uploaded, ColdError>, usize) {
        let store = Slow { time, at_most, uploads: AtomicUsize::new(0) };
        let content = || stream::iter(vec![Ok(Bytes::from("piece")); 100]).boxed();
        let sent = send(&store, &StoreKey::new("key"), 500, TIMEOUT, content).await;
        (sent, store.uploads.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_takes_as_long_as_it_takes() {
        let (sent, uploads) = send_to(9 * TIMEOUT, usize::MAX).await;
        assert_eq!((sent, uploads), (Ok(Uploaded::verified()), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_of_which_no_byte_is_taken_ends_after_ten_times_the_timeout() {
        let start = Instant::now();
        let (sent, uploads) = send_to(100 * TIMEOUT, usize::MAX).await;
        assert!(matches!(sent, Err(ColdError::Unavailable(_))));
        assert_eq!((uploads, start.elapsed()), (1, 10 * TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_has_taken_long_is_tried_again_for_a_bounded_number_of_times() {
        let (sent, uploads) = send_to(TIMEOUT, 50).await;
        assert!(matches!(sent, Err(ColdError::Unavailable(_))));
        assert!((3..40).contains(&uploads), "{uploads}");
    }
}
