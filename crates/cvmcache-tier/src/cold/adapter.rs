//! A store of the crate `object_store` as a cold tier.

use std::fmt;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use crate::cold::content::content;
use crate::cold::credentials::Stamp;
use crate::cold::upload::upload;
use crate::cold::{ColdError, ColdStore, Download, Listed, StoreSettings, Uploaded, failure};
use crate::key::StoreKey;

/// What opens a store of a kind.
type Open = fn(&StoreSettings) -> Result<Opened, ColdError>;

/// A store with the settings of one moment.
pub(crate) struct Opened {
    pub(crate) reads: Arc<dyn ObjectStore>,
    /// `None` if it is read only.
    pub(crate) writes: Option<Arc<dyn ObjectStore>>,
    /// The store has refused the credentials: they are read again before the next request.
    pub(crate) is_refused: Arc<AtomicBool>,
    pub(crate) absence: Absence,
}

/// What tells that an object is not there, and not that its store is not.
pub(crate) enum Absence {
    /// Any answer to that effect.
    AsSaid,
    /// An error code: a page of HTML is that of another server between.
    WithCode,
    /// The directory is on the file system that it was on.
    OnFileSystem(PathBuf, u64),
}

/// A store of the crate `object_store`.
pub(crate) struct Adapter {
    kind: &'static str,
    /// `None` if settings change nothing.
    open: Option<Open>,
    current: Mutex<Current>,
}

struct Current {
    settings: StoreSettings,
    stamp: Option<Stamp>,
    opened: Arc<Opened>,
}

impl Adapter {
    pub(crate) fn open(
        kind: &'static str,
        open: Open,
        settings: &StoreSettings,
    ) -> Result<Arc<dyn ColdStore>, ColdError> {
        let current = Mutex::new(Current::open(open, settings.clone())?);
        Ok(Arc::new(Self { kind, open: Some(open), current }))
    }

    /// A store that settings do not change.
    pub(crate) fn open_fixed(
        kind: &'static str,
        opened: Opened,
        settings: &StoreSettings,
    ) -> Result<Arc<dyn ColdStore>, ColdError> {
        let settings = settings.clone();
        let current = Mutex::new(Current { settings, stamp: None, opened: Arc::new(opened) });
        Ok(Arc::new(Self { kind, open: None, current }))
    }

    /// The store, with credentials that were read again if it has refused those before.
    async fn opened(&self) -> Arc<Opened> {
        let (settings, stamp, opened) = {
            let current = self.current.lock();
            (current.settings.clone(), current.stamp, Arc::clone(&current.opened))
        };
        let Some(open) = self.open else { return opened };
        // S3 has a provider that takes the flag.
        if self.kind == "s3" || !opened.is_refused.load(Ordering::Relaxed) {
            return opened;
        }
        opened.is_refused.store(false, Ordering::Relaxed);
        let Some(file) = settings.credentials.clone() else { return opened };
        let reopened = tokio::task::spawn_blocking(move || {
            (Stamp::of(&file) != stamp).then(|| Current::open(open, settings))
        });
        match reopened.await {
            Ok(Some(Ok(new))) => {
                let mut current = self.current.lock();
                // Unless it was reconfigured meanwhile.
                if Arc::ptr_eq(&current.opened, &opened) {
                    *current = new;
                }
                Arc::clone(&current.opened)
            }
            Ok(Some(Err(e))) => {
                tracing::warn!("the credentials before stay in force: {e}");
                opened
            }
            Ok(None) | Err(_) => opened,
        }
    }

    async fn get(
        &self,
        opened: &Arc<Opened>,
        key: &StoreKey,
        options: GetOptions,
    ) -> Result<(ObjectMeta, Range<u64>, BoxStream<'static, Result<Bytes, ColdError>>), ColdError>
    {
        let path = path(key)?;
        let got = opened.reads.get_opts(&path, options).await.map_err(|e| {
            if failure::is_without_ranges(&e) {
                return ColdError::Failed("it does not answer requests for ranges".into());
            }
            opened.translate(e)
        })?;
        let refused = Arc::clone(opened);
        let content =
            content(got.payload, got.range.clone()).inspect_err(move |e| refused.note(e)).boxed();
        Ok((got.meta, got.range, content))
    }
}

impl Current {
    fn open(open: Open, settings: StoreSettings) -> Result<Self, ColdError> {
        // Before the file is read: a change after that is seen.
        let stamp = settings.credentials.as_deref().and_then(Stamp::of);
        let opened = Arc::new(open(&settings)?);
        Ok(Self { settings, stamp, opened })
    }
}

impl Opened {
    fn translate(&self, error: object_store::Error) -> ColdError {
        let is_page = failure::is_page(&error);
        let error = failure::translate(error);
        self.note(&error);
        match (error, &self.absence) {
            (ColdError::NotFound, Absence::WithCode) if is_page => {
                ColdError::Failed("status 404 of another server than the store".into())
            }
            (ColdError::NotFound, _) => match self.check_mounted() {
                Ok(()) => ColdError::NotFound,
                Err(error) => error,
            },
            (error, _) => error,
        }
    }

    /// A directory that is not mounted any more is not there, although there is one of its name.
    fn check_mounted(&self) -> Result<(), ColdError> {
        match &self.absence {
            Absence::OnFileSystem(directory, device) if device_of(directory) != Some(*device) => {
                Err(ColdError::Unavailable(format!("{} is not mounted", directory.display())))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, error: &ColdError) {
        if let ColdError::Denied(_) = error {
            self.is_refused.store(true, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl ColdStore for Adapter {
    async fn download(
        &self,
        key: &StoreKey,
        from: u64,
        etag: Option<&str>,
    ) -> Result<Download, ColdError> {
        let opened = self.opened().await;
        let options = GetOptions {
            // No weak tag matches in a condition.
            if_match: etag.filter(|etag| !etag.starts_with("W/")).map(Into::into),
            range: (from > 0).then_some(GetRange::Offset(from)),
            ..GetOptions::default()
        };
        let (meta, range, content) = self.get(&opened, key, options).await?;
        if etag.is_some() && meta.e_tag.as_deref() != etag {
            return Err(ColdError::Changed);
        }
        if range != (from..meta.size) {
            return Err(ColdError::Failed("it answers another range than that asked for".into()));
        }
        Ok(Download { len: meta.size, etag: meta.e_tag, content })
    }

    async fn read_range(&self, key: &StoreKey, range: Range<u64>) -> Result<Bytes, ColdError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let opened = self.opened().await;
        let options = GetOptions::new().with_range(Some(range.clone()));
        let content = match self.get(&opened, key, options).await {
            Ok((_, _, content)) => content,
            // Stores have no error of one form for a range beyond the end.
            Err(ColdError::Failed(text)) => match self.exists(key).await? {
                Some(len) if len <= range.start => return Ok(Bytes::new()),
                Some(_) => return Err(ColdError::Failed(text)),
                None => return Err(ColdError::NotFound),
            },
            Err(e) => return Err(e),
        };
        let mut content = content;
        let Some(first) = content.try_next().await? else { return Ok(Bytes::new()) };
        let Some(second) = content.try_next().await? else { return Ok(first) };
        let mut bytes = BytesMut::from(first);
        bytes.extend_from_slice(&second);
        while let Some(more) = content.try_next().await? {
            bytes.extend_from_slice(&more);
        }
        Ok(bytes.freeze())
    }

    async fn upload(
        &self,
        key: &StoreKey,
        len: u64,
        content: BoxStream<'_, Result<Bytes, ColdError>>,
    ) -> Result<Uploaded, ColdError> {
        let opened = self.opened().await;
        let writes = opened.writes.as_deref().ok_or(ColdError::ReadOnly)?;
        opened.check_mounted()?;
        match upload(writes, &path(key)?, len, content).await {
            Err(ColdError::NotFound) => Err(ColdError::Failed("status 404 to an upload".into())),
            uploaded => uploaded.inspect_err(|e| opened.note(e)),
        }
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), ColdError> {
        let opened = self.opened().await;
        let writes = opened.writes.as_deref().ok_or(ColdError::ReadOnly)?;
        match writes.delete(&path(key)?).await.map_err(|e| opened.translate(e)) {
            Err(ColdError::NotFound) => Ok(()),
            deleted => deleted,
        }
    }

    async fn exists(&self, key: &StoreKey) -> Result<Option<u64>, ColdError> {
        let opened = self.opened().await;
        match opened.reads.head(&path(key)?).await.map_err(|e| opened.translate(e)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(ColdError::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, ColdError>> {
        let prefix = Path::parse(prefix).map_err(|_| not_a_key(prefix));
        let listed = async move {
            let (prefix, opened) = (prefix?, self.opened().await);
            let listed = opened.reads.list(Some(&prefix)).map(move |object| match object {
                Ok(object) => Ok(Listed {
                    key: StoreKey::new(object.location.as_ref()),
                    len: object.size,
                    modified: SystemTime::from(object.last_modified),
                }),
                Err(e) => Err(opened.translate(e)),
            });
            Ok(listed)
        };
        stream::once(listed).try_flatten().boxed()
    }

    fn reconfigure(&self, settings: &StoreSettings) -> Result<(), ColdError> {
        if self.current.lock().settings.url != settings.url {
            return Err(ColdError::Settings(
                "another URL is another store, which needs a restart".into(),
            ));
        }
        if let Some(open) = self.open {
            let new = Current::open(open, settings.clone())?;
            *self.current.lock() = new;
        }
        Ok(())
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.current.lock().settings.clone();
        f.debug_struct("Adapter")
            .field("kind", &self.kind)
            .field("settings", &settings)
            .finish_non_exhaustive()
    }
}

/// The file system that a directory is on.
pub(crate) fn device_of(directory: &FilePath) -> Option<u64> {
    Some(std::fs::metadata(directory).ok()?.dev())
}

/// The key as a path: it is not escaped, so that it is in the store what it is here.
fn path(key: &StoreKey) -> Result<Path, ColdError> {
    Path::parse(key.as_str())
        .ok()
        .filter(|path| path.as_ref() == key.as_str() && !key.as_str().is_empty())
        .ok_or_else(|| not_a_key(key.as_str()))
}

fn not_a_key(key: &str) -> ColdError {
    ColdError::Failed(format!("{key:?} is not a key"))
}
