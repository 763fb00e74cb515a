//! A store in memory that fails as it is told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cold::{ColdError, ColdStore, Download, Listed, StoreSettings, Uploaded};
use crate::key::{OBJECTS, StoreKey};

#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) objects: Mutex<BTreeMap<StoreKey, Bytes>>,
    pub(crate) fault: Mutex<Option<Fault>>,
    /// A download takes one.
    pub(crate) downloads: Semaphore,
    pub(crate) begun: AtomicUsize,
    pub(crate) uploads: AtomicUsize,
    /// Its clock is so much behind. Unless it is, objects are from 1970.
    pub(crate) behind: Mutex<Duration>,
}

/// What goes wrong with every operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Unavailable,
    /// It answers nothing.
    Hangs,
    ReadOnly,
    /// The next download is damaged on its way.
    DamagesOnce,
    /// An upload says that all is well, and stores other bytes.
    StoresGarbage,
    /// Every download has this body.
    Page(&'static [u8]),
}

impl Default for TestStore {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            fault: Mutex::default(),
            downloads: Semaphore::new(Semaphore::MAX_PERMITS),
            begun: AtomicUsize::new(0),
            uploads: AtomicUsize::new(0),
            behind: Mutex::default(),
        }
    }
}

impl TestStore {
    pub(crate) fn fail(&self, fault: impl Into<Option<Fault>>) {
        *self.fault.lock() = fault.into();
    }

    async fn check(&self) -> Result<(), ColdError> {
        let fault = *self.fault.lock();
        match fault {
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::ReadOnly) => Err(ColdError::ReadOnly),
            Some(Fault::Unavailable) => Err(ColdError::Unavailable("a test".to_owned())),
            _ => Ok(()),
        }
    }

    /// Changes the bytes of all objects behind the header.
    pub(crate) fn damage(&self) {
        for bytes in self.objects.lock().values_mut() {
            let mut damaged = BytesMut::from(&bytes[..]);
            *damaged.last_mut().expect("there is a header") ^= 1;
            *bytes = damaged.freeze();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.lock().len()
    }

    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn uploads(&self) -> usize {
        self.uploads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ColdStore for TestStore {
    async fn download(
        &self,
        key: &StoreKey,
        from: u64,
        _etag: Option<&str>,
    ) -> Result<Download, ColdError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.downloads.acquire().await.expect("it is never closed").forget();
        self.check().await?;
        let fault = *self.fault.lock();
        let object = match fault {
            Some(Fault::Page(page)) => Bytes::from_static(page),
            Some(Fault::DamagesOnce) => {
                self.fail(None);
                let mut object = BytesMut::from(&self.objects.lock()[key][..]);
                *object.last_mut().expect("there is a header") ^= 1;
                object.freeze()
            }
            _ => self.objects.lock().get(key).cloned().ok_or(ColdError::NotFound)?,
        };
        let len = object.len() as u64;
        let rest = object.slice(from as usize..);
        let pieces: Vec<_> = rest.chunks(100_000).map(|piece| Ok(rest.slice_ref(piece))).collect();
        Ok(Download { len, etag: None, content: stream::iter(pieces).boxed() })
    }

    async fn read_range(&self, key: &StoreKey, range: Range<u64>) -> Result<Bytes, ColdError> {
        self.check().await?;
        let object = self.objects.lock().get(key).cloned().ok_or(ColdError::NotFound)?;
        let end = (range.end as usize).min(object.len());
        Ok(object.slice(range.start as usize..end))
    }

    async fn upload(
        &self,
        key: &StoreKey,
        len: u64,
        mut content: BoxStream<'_, Result<Bytes, ColdError>>,
    ) -> Result<Uploaded, ColdError> {
        self.uploads.fetch_add(1, Ordering::SeqCst);
        self.check().await?;
        let mut object = BytesMut::new();
        while let Some(piece) = content.next().await {
            object.extend_from_slice(&piece?);
        }
        assert_eq!(object.len() as u64, len);
        if *self.fault.lock() == Some(Fault::StoresGarbage) {
            object.iter_mut().for_each(|byte| *byte = !*byte);
        }
        self.objects.lock().insert(key.clone(), object.freeze());
        Ok(Uploaded::default())
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), ColdError> {
        self.check().await?;
        self.objects.lock().remove(key);
        Ok(())
    }

    async fn exists(&self, key: &StoreKey) -> Result<Option<u64>, ColdError> {
        self.check().await?;
        Ok(self.objects.lock().get(key).map(|object| object.len() as u64))
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, ColdError>> {
        let behind = *self.behind.lock();
        let modified = match prefix == OBJECTS && behind.is_zero() {
            true => SystemTime::UNIX_EPOCH,
            false => SystemTime::now() - behind,
        };
        let prefix = format!("{prefix}/");
        let listed: Vec<_> = self
            .objects
            .lock()
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(&prefix))
            .map(|(key, object)| {
                Ok(Listed { key: key.clone(), len: object.len() as u64, modified })
            })
            .collect();
        stream::iter(listed).boxed()
    }

    fn reconfigure(&self, _settings: &StoreSettings) -> Result<(), ColdError> {
        Ok(())
    }
}
