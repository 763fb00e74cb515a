//! Reading an object of a store as a sequence of bytes, whatever happens to connections meanwhile.
//!
//! An attempt that is cut or brings nothing in time is resumed where it ended, of the same version of the object.
//! Attempts go on for as long as they bring bytes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::cold::retry::Attempts;
use crate::cold::{ColdError, ColdStore};
use crate::key::StoreKey;

/// How much room is made for bytes before they are here.
const RESERVE: usize = 1024 * 1024;

/// An object of a store, as a sequence of bytes.
pub(crate) struct Reading {
    store: Arc<dyn ColdStore>,
    key: StoreKey,
    timeout: Duration,
    start: u64,
    /// The offset of the byte that arrives next.
    at: u64,
    len: u64,
    etag: Option<String>,
    content: Option<BoxStream<'static, Result<Bytes, ColdError>>>,
    /// Bytes have arrived since the content was opened.
    has_progress: bool,
    buffered: BytesMut,
    /// Bytes have been handed out, so that another version of the object is of no use.
    is_read: bool,
    has_restarted: bool,
}

impl Reading {
    /// Begins to read an object. `timeout` is how long to wait for a byte; after ten times that, reading fails.
    pub(crate) async fn begin(
        store: Arc<dyn ColdStore>,
        key: StoreKey,
        timeout: Duration,
    ) -> Result<Self, ColdError> {
        Self::begin_at(store, key, 0, timeout).await
    }

    /// Begins to read an object at an offset below its length.
    pub(crate) async fn begin_at(
        store: Arc<dyn ColdStore>,
        key: StoreKey,
        start: u64,
        timeout: Duration,
    ) -> Result<Self, ColdError> {
        let mut reading = Self {
            store,
            key,
            timeout,
            start,
            at: start,
            len: 0,
            etag: None,
            content: None,
            has_progress: false,
            buffered: BytesMut::new(),
            is_read: false,
            has_restarted: false,
        };
        let mut attempts = Attempts::new(timeout);
        while let Err(error) = attempts.run(reading.open()).await {
            attempts.pause(error).await?;
        }
        Ok(reading)
    }

    /// The length of the whole object, as the store says.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The next `len` bytes, or fewer at the end.
    pub(crate) async fn read(&mut self, len: usize) -> Result<Bytes, ColdError> {
        if self.buffered.len() < len {
            self.buffered.reserve((len - self.buffered.len()).min(RESERVE));
        }
        while self.buffered.len() < len {
            match self.next().await? {
                Some(bytes) => self.buffered.extend_from_slice(&bytes),
                None => break,
            }
        }
        let len = self.buffered.len().min(len);
        self.is_read |= len > 0;
        Ok(self.buffered.split_to(len).freeze())
    }

    /// The bytes that arrive next; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ColdError> {
        // The time that the caller has taken since is not that of the store.
        let mut attempts = Attempts::new(self.timeout);
        while self.at < self.len {
            match attempts.run(self.attempt()).await {
                Ok(bytes) => {
                    self.at += bytes.len() as u64;
                    self.has_progress = true;
                    return Ok(Some(bytes));
                }
                Err(ColdError::Changed) if !self.is_read && !self.has_restarted => {
                    self.has_restarted = true;
                    self.content = None;
                    self.at = self.start;
                    self.buffered.clear();
                }
                Err(error) => {
                    self.content = None;
                    let is_cut = self.has_progress && matches!(error, ColdError::Unavailable(_));
                    self.has_progress = false;
                    if !is_cut {
                        attempts.pause(error).await?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// One attempt to get more bytes.
    async fn attempt(&mut self) -> Result<Bytes, ColdError> {
        if self.content.is_none() {
            self.open().await?;
        }
        let left = self.len - self.at;
        let Some(content) = &mut self.content else { return Ok(Bytes::new()) };
        loop {
            match content.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) if bytes.len() as u64 > left => {
                    return Err(ColdError::Failed("its answer is longer than the object".into()));
                }
                Some(Ok(bytes)) => return Ok(bytes),
                Some(Err(error)) => return Err(error),
                None => return Err(ColdError::Unavailable("its answer ended early".into())),
            }
        }
    }

    /// Asks for what is still to be read.
    async fn open(&mut self) -> Result<(), ColdError> {
        self.has_progress = false;
        let is_first = self.at == self.start;
        // Of what has brought no byte yet, any version will do.
        let etag = if is_first { None } else { self.etag.as_deref() };
        let download = self.store.download(&self.key, self.at, etag).await?;
        if is_first {
            self.len = download.len;
            self.etag = download.etag;
        } else if download.len != self.len || download.etag != self.etag {
            return Err(ColdError::Changed);
        }
        if self.at > self.len {
            return Err(ColdError::Failed("the object ends before what is read of it".into()));
        }
        self.content = Some(download.content);
        Ok(())
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, key, at, len, etag, .. } = self;
        f.debug_struct("Reading")
            .field("store", store)
            .field("key", key)
            .field("at", at)
            .field("len", len)
            .field("etag", etag)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::ops::Range;

    use async_trait::async_trait;
    use futures_util::stream;
    use parking_lot::Mutex;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::cold::{Download, Listed, StoreSettings, Uploaded};

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// What comes of an attempt.
    enum Attempt {
        /// No download.
        Fails(ColdError),
        /// Bytes of an object of this tag, and then an error.
        Brings(u64, &'static str, ColdError),
        /// Bytes, and then nothing.
        Stalls(u64),
        /// All that is left, a byte in each of these.
        Trickles(Duration),
        /// All that is left.
        Ends,
    }

    use Attempt::{Brings, Ends, Fails, Stalls, Trickles};

    #[derive(Debug)]
    struct Script {
        len: u64,
        attempts: Mutex<VecDeque<Attempt>>,
        asked: Mutex<Vec<(u64, Option<String>)>>,
    }

    impl fmt::Debug for Attempt {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Attempt")
        }
    }

    impl Script {
        fn new(len: u64, attempts: impl IntoIterator<Item = Attempt>) -> Arc<Self> {
            let attempts = Mutex::new(attempts.into_iter().collect());
            Arc::new(Self { len, attempts, asked: Mutex::default() })
        }

        async fn read(self: &Arc<Self>) -> Result<Bytes, ColdError> {
            let store: Arc<dyn ColdStore> = self.clone();
            let mut reading = Reading::begin(store, StoreKey::new("key"), TIMEOUT).await?;
            let len = reading.len() as usize;
            reading.read(len + 1).await
        }

        fn asked_from(&self) -> Vec<u64> {
            self.asked.lock().iter().map(|asked| asked.0).collect()
        }
    }

    fn bytes(range: Range<u64>) -> Bytes {
        range.map(|at| at as u8).collect()
    }

    #[async_trait]
    impl ColdStore for Script {
        async fn download(
            &self,
            _: &StoreKey,
            from: u64,
            etag: Option<&str>,
        ) -> Result<Download, ColdError> {
            self.asked.lock().push((from, etag.map(Into::into)));
            let attempt = self.attempts.lock().pop_front();
            let (tag, content) = match attempt.expect("no more attempts than scripted") {
                Fails(error) => return Err(error),
                Brings(count, tag, error) => {
                    let items = [Ok(bytes(from..from + count)), Err(error)];
                    (tag, stream::iter(items).boxed())
                }
                Stalls(count) => {
                    let items = stream::iter([Ok(bytes(from..from + count))]);
                    ("a", items.chain(stream::pending()).boxed())
                }
                Trickles(delay) => {
                    let items = stream::iter(from..self.len).then(move |at| async move {
                        sleep(delay).await;
                        Ok(bytes(at..at + 1))
                    });
                    ("a", items.boxed())
                }
                Ends => ("a", stream::iter([Ok(bytes(from..self.len))]).boxed()),
            };
            Ok(Download { len: self.len, etag: Some(tag.into()), content })
        }

        async fn read_range(&self, _: &StoreKey, _: Range<u64>) -> Result<Bytes, ColdError> {
            Err(ColdError::NotFound)
        }

        async fn upload(
            &self,
            _: &StoreKey,
            _: u64,
            _: BoxStream<'_, Result<Bytes, ColdError>>,
        ) -> Result<Uploaded, ColdError> {
            Err(ColdError::ReadOnly)
        }

        async fn delete(&self, _: &StoreKey) -> Result<(), ColdError> {
            Err(ColdError::ReadOnly)
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

    fn cut() -> ColdError {
        ColdError::Unavailable("cut".into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_is_cut_goes_on_at_once_where_it_ended_under_its_tag() {
        let attempts = (0..99).map(|_| Brings(1, "a", cut())).chain([Ends]);
        let store = Script::new(200, attempts);
        let start = Instant::now();
        assert_eq!(store.read().await, Ok(bytes(0..200)));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(store.asked_from(), (0..100).collect::<Vec<_>>());
        assert!(store.asked.lock()[1..].iter().all(|asked| asked.1.as_deref() == Some("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_stalls_goes_on_after_the_timeout() {
        let store = Script::new(9, [Stalls(3), Stalls(0), Stalls(3), Ends]);
        let start = Instant::now();
        assert_eq!(store.read().await, Ok(bytes(0..9)));
        assert!((3 * TIMEOUT..4 * TIMEOUT).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert_eq!(store.asked_from(), [0, 3, 3, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reading_takes_as_long_as_it_takes() {
        let store = Script::new(100, [Trickles(TIMEOUT - Duration::from_millis(1))]);
        assert_eq!(store.read().await, Ok(bytes(0..100)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_without_a_new_byte_fails_after_ten_times_the_timeout() {
        let store = Script::new(9, (0..99).map(|_| Stalls(0)));
        let start = Instant::now();
        assert!(matches!(store.read().await, Err(ColdError::Unavailable(_))));
        assert!((9 * TIMEOUT..=10 * TIMEOUT).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_tried_again_once_between_bytes() {
        let denied = || ColdError::Denied("403".into());
        let store = Script::new(
            9,
            [Fails(denied()), Brings(1, "a", denied()), Brings(1, "a", denied()), Ends],
        );
        assert_eq!(store.read().await, Ok(bytes(0..9)));
        let store = Script::new(9, [Brings(1, "a", denied()), Fails(denied()), Ends]);
        assert_eq!(store.read().await, Err(denied()));
    }

    #[tokio::test(start_paused = true)]
    async fn another_version_of_an_object_is_not_appended_to_what_was_read() {
        for other in [Brings(1, "b", cut()), Fails(ColdError::Changed)] {
            let store: Arc<dyn ColdStore> = Script::new(9, [Brings(1, "a", cut()), other, Ends]);
            let mut reading = Reading::begin(store, StoreKey::new("key"), TIMEOUT).await.unwrap();
            assert_eq!(reading.read(1).await, Ok(bytes(0..1)));
            assert_eq!(reading.read(9).await, Err(ColdError::Changed));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_version_of_an_object_is_read_once_if_nothing_was_handed_out() {
        let store = Script::new(9, [Brings(0, "b", cut()), Ends]);
        assert_eq!(store.read().await, Ok(bytes(0..9)));
        assert_eq!(store.asked.lock()[1].1, None);
        let changed = || Fails(ColdError::Changed);
        let store = Script::new(9, [Brings(5, "b", cut()), changed(), Ends]);
        assert_eq!(store.read().await, Ok(bytes(0..9)));
        assert_eq!(store.asked_from(), [0, 5, 0]);
        let attempts = [Brings(5, "b", cut()), changed(), Brings(5, "c", cut()), changed(), Ends];
        assert_eq!(Script::new(9, attempts).read().await, Err(ColdError::Changed));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_longer_than_the_object_is_not_used() {
        let longer = || Brings(5, "a", ColdError::NotFound);
        let store = Script::new(3, [longer(), Ends]);
        assert_eq!(store.read().await, Ok(bytes(0..3)));
        let store = Script::new(3, [longer(), longer(), longer(), longer()]);
        assert!(matches!(store.read().await, Err(ColdError::Failed(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_not_there_is_asked_for_once() {
        let store = Script::new(3, [Fails(ColdError::NotFound)]);
        assert_eq!(store.read().await, Err(ColdError::NotFound));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_read_from_an_offset_in_pieces_of_any_length() {
        for piece in [1, 7, 100, 1000] {
            let store: Arc<dyn ColdStore> = Script::new(300, [Brings(90, "a", cut()), Ends]);
            let key = StoreKey::new("key");
            let mut reading = Reading::begin_at(store, key, 100, TIMEOUT).await.unwrap();
            let mut all = BytesMut::new();
            loop {
                let bytes = reading.read(piece).await.unwrap();
                if bytes.is_empty() {
                    break;
                }
                all.extend_from_slice(&bytes);
            }
            assert_eq!(all.freeze(), bytes(100..300));
            assert_eq!(reading.len(), 300);
        }
    }
}
