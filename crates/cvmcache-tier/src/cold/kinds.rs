//! The kinds of stores of this crate, and how each is opened.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig,
};
use percent_encoding::percent_decode_str;
use reqwest::header::{AUTHORIZATION, HeaderName};
use url::Url;

use crate::cold::adapter::{Absence, Adapter, Opened, device_of};
use crate::cold::credentials::{self, S3File, Section};
use crate::cold::{ColdError, StoreKind, StoreSettings, failure, send};

/// The kinds of stores of this crate.
pub(crate) const BUILTIN: &[StoreKind] = &[
    StoreKind {
        name: "s3",
        description: "a bucket of Amazon S3, or of a server that speaks its protocol, such as Garage or Ceph; \
                      credentials: a file in the form of ~/.aws/credentials",
        schemes: &["s3", "s3a"],
        open: |settings| Adapter::open("s3", s3, settings),
    },
    StoreKind {
        name: "gcs",
        description: "a bucket of Google Cloud Storage; credentials: the JSON file of a service account",
        schemes: &["gs", "gcs"],
        open: |settings| Adapter::open("gcs", gcs, settings),
    },
    StoreKind {
        name: "azure",
        description: "a container of Azure Blob Storage; credentials: a file in the form of ~/.azure/config, with \
                      account, and key or sas_token, in section [storage]",
        schemes: &["az", "azure", "abfs", "abfss"],
        open: |settings| Adapter::open("azure", azure, settings),
    },
    StoreKind {
        name: "http",
        description: "files of a web server, read only",
        schemes: &["http", "https"],
        open: |settings| Adapter::open("http", http, settings),
    },
    StoreKind {
        name: "file",
        description: "a directory, such as a mounted file system",
        schemes: &["file"],
        open: |settings| Adapter::open("file", file, settings),
    },
    StoreKind {
        name: "memory",
        description: "the memory of this process, for tests",
        schemes: &["memory"],
        open: |settings| Adapter::open_fixed("memory", memory(), settings),
    },
];

fn s3(settings: &StoreSettings) -> Result<Opened, ColdError> {
    without_user(settings)?;
    let is_refused = Arc::new(AtomicBool::new(false));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(host(settings, "bucket")?)
        .with_retry(retries(settings))
        // Not all servers have it, and deletions are few.
        .with_disable_bulk_delete(true);
    if let Some(endpoint) = endpoint(settings)? {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(file) = &settings.credentials {
        builder = builder.with_credentials(Arc::new(S3File::open(file, Arc::clone(&is_refused))?));
    }
    let build = |options| builder.clone().with_client_options(options).build();
    let reads = build(options_of_reads(settings)).map_err(|e| unusable("s3", e))?;
    let writes = build(options_of_writes(settings)).map_err(|e| unusable("s3", e))?;
    Ok(Opened {
        reads: below_prefix(reads, &settings.url)?,
        writes: Some(below_prefix(writes, &settings.url)?),
        is_refused,
        absence: Absence::WithCode,
    })
}

fn gcs(settings: &StoreSettings) -> Result<Opened, ColdError> {
    without_user(settings)?;
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(host(settings, "bucket")?)
        .with_retry(retries(settings));
    if let Some(endpoint) = endpoint(settings)? {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(file) = &settings.credentials {
        builder = builder.with_service_account_key(service_account(file)?);
    }
    let build = |options| builder.clone().with_client_options(options).build();
    let reads = build(options_of_reads(settings)).map_err(|e| unusable("gcs", e))?;
    let writes = build(options_of_writes(settings)).map_err(|e| unusable("gcs", e))?;
    Ok(Opened {
        reads: below_prefix(reads, &settings.url)?,
        writes: Some(below_prefix(writes, &settings.url)?),
        is_refused: Arc::default(),
        absence: Absence::WithCode,
    })
}

/// The JSON of a service account. It is looked through here, since errors of the crate quote it.
fn service_account(file: &FilePath) -> Result<String, ColdError> {
    let text = credentials::read(file)?;
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|e| credentials::malformed(file, e.line(), "it is not JSON"))?;
    for key in ["client_email", "private_key", "private_key_id"] {
        if !json.get(key).is_some_and(serde_json::Value::is_string) {
            let what = format!("it has no {key}: it is not that of a service account");
            return Err(credentials::malformed(file, 1, &what));
        }
    }
    Ok(text)
}

fn azure(settings: &StoreSettings) -> Result<Opened, ColdError> {
    if settings.url.password().is_some() || settings.url.query().is_some() {
        return Err(ColdError::Settings(SECRETS_IN_URL.into()));
    }
    host(settings, "container")?;
    let mut url = settings.url.clone();
    url.set_path("");
    if url.scheme() == "azure" && !url.username().is_empty() {
        return Err(ColdError::Settings(SECRETS_IN_URL.into()));
    }
    let mut builder = MicrosoftAzureBuilder::from_env().with_retry(retries(settings));
    if let Some(file) = &settings.credentials {
        let text = credentials::read(file)?;
        let section = Section::parse(file, &text, "storage")?;
        builder = builder.with_account(section.require("account")?);
        builder = match section.get("sas_token") {
            Some(token) => builder.with_sas_authorization(
                url::form_urlencoded::parse(token.trim_start_matches('?').as_bytes())
                    .into_owned()
                    .collect::<Vec<_>>(),
            ),
            None => builder.with_access_key(section.require("key")?),
        };
    }
    builder = builder.with_url(url.as_str());
    if let Some(endpoint) = endpoint(settings)? {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    let build = |options| builder.clone().with_client_options(options).build();
    let reads = build(options_of_reads(settings)).map_err(|e| unusable("azure", e))?;
    let writes = build(options_of_writes(settings)).map_err(|e| unusable("azure", e))?;
    Ok(Opened {
        reads: below_prefix(reads, &settings.url)?,
        writes: Some(below_prefix(writes, &settings.url)?),
        is_refused: Arc::default(),
        absence: Absence::WithCode,
    })
}

fn http(settings: &StoreSettings) -> Result<Opened, ColdError> {
    host(settings, "server")?;
    let mut url = settings.url.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    let mut options = options_of_reads(settings).with_allow_http(url.scheme() == "http");
    if let Some(authorization) = take_user(&mut url) {
        options = options.with_default_headers(HeaderMap::from_iter([authorization]));
    }
    let reads = HttpBuilder::new()
        .with_url(url.as_str())
        .with_retry(retries(settings))
        .with_client_options(options)
        .build()
        .map_err(|e| unusable("http", e))?;
    Ok(Opened {
        reads: Arc::new(reads),
        writes: None,
        is_refused: Arc::default(),
        absence: Absence::AsSaid,
    })
}

/// User and password of a URL, which is written to the log of the client as it is, as a header, which is not.
fn take_user(url: &mut Url) -> Option<(HeaderName, HeaderValue)> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let user = percent_decode_str(url.username());
    let password = percent_decode_str(url.password().unwrap_or_default());
    let bytes: Vec<u8> = user.chain([b':']).chain(password).collect();
    let text = format!("Basic {}", BASE64_STANDARD.encode(bytes));
    // A URL of HTTP has a host, so it can have no user; base64 is text.
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some((AUTHORIZATION, value))
}

fn file(settings: &StoreSettings) -> Result<Opened, ColdError> {
    let url = &settings.url;
    let dir = url.to_file_path().map_err(|()| {
        ColdError::Settings("the URL of a directory has three slashes: file:///DIRECTORY".into())
    })?;
    let failed = |e: &dyn std::fmt::Display| ColdError::Settings(format!("{}: {e}", dir.display()));
    // It is not made: a file system that is not mounted would be taken for a store without objects.
    let device =
        device_of(&dir).ok_or_else(|| failed(&"no such directory: make it, or mount it"))?;
    if !dir.is_dir() {
        return Err(failed(&"it is no directory"));
    }
    let store = LocalFileSystem::new_with_prefix(&dir).map_err(|e| failed(&e))?;
    let store: Arc<dyn ObjectStore> = Arc::new(store.with_fsync(true));
    Ok(Opened {
        reads: Arc::clone(&store),
        writes: Some(store),
        is_refused: Arc::default(),
        absence: Absence::OnFileSystem(dir.clone(), device),
    })
}

fn memory() -> Opened {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    Opened {
        reads: Arc::clone(&store),
        writes: Some(store),
        is_refused: Arc::default(),
        absence: Absence::AsSaid,
    }
}

const SECRETS_IN_URL: &str =
    "the URL of a store has neither user, password nor query: they go into a file";

fn without_user(settings: &StoreSettings) -> Result<(), ColdError> {
    let url = &settings.url;
    match url.username().is_empty() && url.password().is_none() && url.query().is_none() {
        true => Ok(()),
        false => Err(ColdError::Settings(SECRETS_IN_URL.into())),
    }
}

fn endpoint(settings: &StoreSettings) -> Result<Option<&str>, ColdError> {
    let Some(url) = &settings.endpoint else { return Ok(None) };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !is_plain || !matches!(url.scheme(), "http" | "https") {
        let text = "the endpoint of a store is http://HOST or https://HOST, without user and query";
        return Err(ColdError::Settings(text.into()));
    }
    Ok(Some(url.as_str().trim_end_matches('/')))
}

fn host<'a>(settings: &'a StoreSettings, what: &str) -> Result<&'a str, ColdError> {
    match settings.url.host_str() {
        Some(host) if !host.is_empty() => Ok(host),
        _ => Err(ColdError::Settings(format!(
            "the URL of the store names no {what}: {}://{}/PREFIX",
            settings.url.scheme(),
            what.to_uppercase()
        ))),
    }
}

fn below_prefix(store: impl ObjectStore, url: &Url) -> Result<Arc<dyn ObjectStore>, ColdError> {
    let prefix = Path::from_url_path(url.path()).map_err(|_| {
        ColdError::Settings("the path in the URL of the store has odd characters".into())
    })?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// Why the builder of a store refuses its settings.
fn unusable(kind: &str, error: object_store::Error) -> ColdError {
    ColdError::Settings(format!("{kind} cannot be used: {}", failure::innermost(&error)))
}

/// Few and short: the tier has a policy of its own.
fn retries(settings: &StoreSettings) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: settings.timeout,
    }
}

fn options(settings: &StoreSettings) -> ClientOptions {
    // There may be one already, of another part of the program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let is_plain = settings.endpoint.as_ref().is_some_and(|url| url.scheme() == "http");
    ClientOptions::new().with_connect_timeout(settings.timeout).with_allow_http(is_plain)
}

/// Reads may take long in whole, as long as bytes arrive.
fn options_of_reads(settings: &StoreSettings) -> ClientOptions {
    options(settings).with_timeout_disabled().with_read_timeout(settings.timeout)
}

/// The time without an answer runs while a body is sent, so it bounds the whole of a request, of one part.
fn options_of_writes(settings: &StoreSettings) -> ClientOptions {
    options(settings).with_timeout(settings.timeout * send::TIMEOUTS)
}

#[cfg(test)]
mod tests {
    use crate::cold::Registry;

    use super::*;

    #[test]
    fn settings_that_cannot_work_are_errors_at_start_and_told_without_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let credentials = directory.path().join("credentials");
        let text = "[default]\naws_access_key_id=a\naws_secret_access_key=hunter2\n";
        std::fs::write(&credentials, text).unwrap();
        let file = format!("file://{}", credentials.display());
        for (url, endpoint, remedy) in [
            (file.as_str(), None, "no directory"),
            ("s3://bucket", Some("ftp://host"), "http://HOST"),
            ("s3://bucket", Some("http://host/?hunter2"), "http://HOST"),
            ("gs://bucket", Some("http://hunter2@host"), "http://HOST"),
        ] {
            let mut settings = StoreSettings::new(url.parse().unwrap());
            settings.endpoint = endpoint.map(|url| url.parse().unwrap());
            settings.credentials = url.starts_with("s3").then(|| credentials.clone());
            let error = Registry::builtin().open(&settings).unwrap_err().to_string();
            assert!(error.contains(remedy) && !error.contains("hunter2"), "{error}");
        }
    }
}
