//! What each store has to do, on each kind that needs no account.

use std::sync::Arc;

use futures_util::TryStreamExt;
use tempfile::TempDir;

use super::*;
use crate::cold::{Registry, StoreSettings};
use crate::servers::s3_server::S3Server;
use crate::servers::web_server::WebServer;

fn open(url: &str) -> Arc<dyn ColdStore> {
    open_with(&StoreSettings::new(url.parse().unwrap()))
}

fn open_with(settings: &StoreSettings) -> Arc<dyn ColdStore> {
    Registry::builtin().open(settings).unwrap()
}

fn file_store(directory: &TempDir) -> Arc<dyn ColdStore> {
    std::fs::create_dir_all(directory.path().join("a/b c")).unwrap();
    open(&format!("file://{}/a/b%20c", directory.path().display()))
}

#[tokio::test]
async fn a_store_in_memory_does_what_a_store_has_to() {
    conforms(&*open("memory:///")).await;
}

#[tokio::test]
async fn a_directory_does_what_a_store_has_to() {
    let directory = tempfile::tempdir().unwrap();
    conforms(&*file_store(&directory)).await;
}

#[tokio::test]
async fn a_bucket_does_what_a_store_has_to() {
    let (server, directory) = (S3Server::start(), tempfile::tempdir().unwrap());
    conforms(&*open_with(&server.settings(directory.path()))).await;
    assert!(server.file("objects/ab/x").exists() || server.requests().len() > 1);
}

async fn conforms(store: &dyn ColdStore) {
    nothing_is_there(store).await;
    what_is_stored_is_read(store).await;
    content_of_another_length_stores_nothing(store).await;
    what_is_stored_is_listed(store).await;
    an_object_is_replaced_whole(store).await;
    what_is_deleted_is_gone(store).await;
    keys_name_nothing_else(store).await;
}

async fn nothing_is_there(store: &dyn ColdStore) {
    assert_eq!(download(store, "no/such", 0, None).await, Err(ColdError::NotFound));
    assert_eq!(store.read_range(&key("no/such"), 0..9).await, Err(ColdError::NotFound));
    assert_eq!(store.exists(&key("no/such")).await, Ok(None));
    assert_eq!(store.delete(&key("no/such")).await, Ok(()));
    assert_eq!(listed(store, "no").await, []);
}

async fn what_is_stored_is_read(store: &dyn ColdStore) {
    for len in [0, 1, MIB + 1, 9 * MIB] {
        let (content, name) = (bytes(len), format!("objects/{len}/a-b.c"));
        upload(store, &name, &content).await.unwrap();
        assert_eq!(store.exists(&key(&name)).await, Ok(Some(len as u64)));
        assert!(download(store, &name, 0, None).await.unwrap() == content, "{len}");

        let whole = store.download(&key(&name), 0, None).await.unwrap();
        assert_eq!(whole.len, len as u64);
        let etag = whole.etag.as_deref();
        for from in [1, len / 2, len.saturating_sub(1)] {
            if (1..len).contains(&from) {
                let rest = store.download(&key(&name), from as u64, etag).await.unwrap();
                assert_eq!((rest.len, &rest.etag), (len as u64, &whole.etag));
                let rest = download(store, &name, from as u64, etag).await.unwrap();
                assert!(rest == content[from..], "{len} from {from}");
            }
        }
        for (start, end) in
            [(0, 0), (0, 1), (0, len), (len / 3, len), (len / 2, len + 9), (len, len + 1)]
        {
            let range = store.read_range(&key(&name), start as u64..end as u64).await.unwrap();
            let expected = &content[start..end.clamp(start, len)];
            assert!(range == expected, "{len}: {start}..{end}");
        }
        if len > 0 {
            let other = download(store, &name, 0, Some("\"other\"")).await;
            assert_eq!(other, Err(ColdError::Changed));
        }
    }
}

async fn content_of_another_length_stores_nothing(store: &dyn ColdStore) {
    for len in [10, 17 * MIB] {
        let content = bytes(len);
        for promised in [len - 1, len + 1] {
            let stored = store.upload(&key("odd"), promised as u64, pieces(&content)).await;
            assert!(matches!(stored, Err(ColdError::Source(_))), "{stored:?}");
            assert_eq!(store.exists(&key("odd")).await, Ok(None));
        }
        let gone = ColdError::Source("gone".into());
        let fails = stream::iter([Ok(content.slice(..len / 2)), Err(gone.clone())]).boxed();
        assert_eq!(store.upload(&key("odd"), len as u64, fails).await, Err(gone));
        assert_eq!(store.exists(&key("odd")).await, Ok(None));
    }
    assert!(listed(store, "").await.iter().all(|(key, _)| !key.contains("odd")));
}

async fn what_is_stored_is_listed(store: &dyn ColdStore) {
    for name in ["list/a/1", "list/a/2", "list/ab/3", "listed"] {
        upload(store, name, &bytes(name.len())).await.unwrap();
    }
    let all =
        ["list/a/1", "list/a/2", "list/ab/3"].map(|name| (name.to_owned(), name.len() as u64));
    assert_eq!(listed(store, "list").await, all);
    assert_eq!(listed(store, "list/a").await, all[..2]);
    assert!(listed(store, "").await.len() > 4);
}

async fn an_object_is_replaced_whole(store: &dyn ColdStore) {
    upload(store, "replaced", &bytes(MIB)).await.unwrap();
    let etag = store.download(&key("replaced"), 0, None).await.unwrap().etag.unwrap();
    upload(store, "replaced", &bytes(MIB + 1)).await.unwrap();
    assert!(download(store, "replaced", 0, None).await.unwrap() == bytes(MIB + 1));
    assert_eq!(download(store, "replaced", 9, Some(&etag)).await, Err(ColdError::Changed));
}

async fn what_is_deleted_is_gone(store: &dyn ColdStore) {
    store.delete(&key("replaced")).await.unwrap();
    store.delete(&key("replaced")).await.unwrap();
    assert_eq!(store.exists(&key("replaced")).await, Ok(None));
    assert_eq!(download(store, "replaced", 0, None).await, Err(ColdError::NotFound));
}

async fn keys_name_nothing_else(store: &dyn ColdStore) {
    for name in ["", "/", "/a", "a/", "a//b", "..", "../a", "a/../../b", "a/./b"] {
        assert!(upload(store, name, &bytes(1)).await.is_err(), "{name:?}");
        assert!(download(store, name, 0, None).await.is_err(), "{name:?}");
        assert!(store.delete(&key(name)).await.is_err(), "{name:?}");
    }
}

async fn listed(store: &dyn ColdStore, prefix: &str) -> Vec<(String, u64)> {
    let listed: Vec<_> = store.list(prefix).try_collect().await.unwrap();
    let mut listed: Vec<_> =
        listed.into_iter().map(|object| (object.key.to_string(), object.len)).collect();
    listed.sort();
    listed
}

#[tokio::test]
async fn what_is_in_a_directory_is_there_for_another_process() {
    let directory = tempfile::tempdir().unwrap();
    upload(&*file_store(&directory), "objects/ab/x", &bytes(7)).await.unwrap();
    let path = directory.path().join("a/b c/objects/ab/x");
    assert_eq!(std::fs::read(path).unwrap(), bytes(7));
    assert_eq!(
        download(&*file_store(&directory), "objects/ab/x", 0, None).await,
        Ok(bytes(7).into())
    );
}

#[tokio::test]
async fn a_directory_that_has_gone_is_not_a_store_without_objects() {
    let directory = tempfile::tempdir().unwrap();
    let store = file_store(&directory);
    upload(&*store, "x", &bytes(7)).await.unwrap();
    std::fs::rename(directory.path().join("a"), directory.path().join("away")).unwrap();
    for error in [
        download(&*store, "x", 0, None).await.unwrap_err(),
        store.exists(&key("x")).await.unwrap_err(),
        upload(&*store, "x", &bytes(7)).await.unwrap_err(),
    ] {
        assert!(matches!(error, ColdError::Unavailable(_)), "{error:?}");
    }
    assert!(!directory.path().join("a").exists());
    let url = format!("file://{}/a", directory.path().display());
    let opened = Registry::builtin().open(&StoreSettings::new(url.parse().unwrap()));
    assert!(matches!(opened, Err(ColdError::Settings(_))));
}

#[tokio::test]
async fn a_web_server_is_read_and_never_written_to() {
    let server = WebServer::start();
    let content = bytes(MIB + 1);
    server.put("/dir/objects/ab/x", content.clone());
    for slash in ["", "/", "//"] {
        let store = open(&format!("http://{}/dir{slash}", server.address()));
        let (store, name) = (&*store, "objects/ab/x");
        assert!(download(store, name, 0, None).await.unwrap() == content);
        let etag = store.download(&key(name), 0, None).await.unwrap().etag;
        assert!(download(store, name, 9, etag.as_deref()).await.unwrap() == content[9..]);
        assert_eq!(download(store, name, 9, Some("\"x\"")).await, Err(ColdError::Changed));
        assert_eq!(store.read_range(&key(name), 5..9).await.unwrap(), content[5..9]);
        assert_eq!(store.read_range(&key(name), 1 << 40..1 << 41).await, Ok(Bytes::new()));
        assert_eq!(store.exists(&key(name)).await, Ok(Some(content.len() as u64)));
        assert_eq!(store.exists(&key("none")).await, Ok(None));
        assert_eq!(download(store, "none", 0, None).await, Err(ColdError::NotFound));
        assert_eq!(upload(store, name, &content).await, Err(ColdError::ReadOnly));
        assert_eq!(store.delete(&key(name)).await, Err(ColdError::ReadOnly));
        assert!(store.list("").try_collect::<Vec<_>>().await.is_err());
    }
    let written = |request: &String| !request.starts_with("GET ") && !request.starts_with("HEAD ");
    let others: Vec<_> = server.requests().into_iter().filter(written).collect();
    assert!(others.iter().all(|request| request.starts_with("PROPFIND ")), "{others:?}");
}

#[tokio::test]
async fn a_web_server_without_ranges_is_read_from_the_beginning_alone() {
    let server = WebServer::start();
    server.put("/x", bytes(MIB));
    server.ignore_ranges();
    let store = open(&format!("http://{}", server.address()));
    assert!(download(&*store, "x", 0, None).await.unwrap() == bytes(MIB));
    for error in [
        download(&*store, "x", 9, None).await.unwrap_err(),
        store.read_range(&key("x"), 5..9).await.unwrap_err(),
    ] {
        assert!(matches!(&error, ColdError::Failed(text) if text.contains("ranges")), "{error}");
    }
}

#[tokio::test]
async fn user_and_password_of_a_url_are_sent_to_its_web_server() {
    let server = WebServer::start();
    server.put("/x", bytes(9));
    server.require_authorization("Basic dXNlcjpwQHNz");
    let store = open(&format!("http://user:p%40ss@{}", server.address()));
    assert_eq!(download(&*store, "x", 0, None).await, Ok(bytes(9).into()));
    let store = open(&format!("http://user@{}", server.address()));
    assert!(matches!(download(&*store, "x", 0, None).await, Err(ColdError::Denied(_))));
}

#[tokio::test]
async fn other_settings_hold_for_what_begins_after_them() {
    let (server, directory) = (S3Server::start(), tempfile::tempdir().unwrap());
    let settings = server.settings(directory.path());
    let store = open_with(&settings);
    upload(&*store, "x", &bytes(MIB)).await.unwrap();
    let under_way = store.download(&key("x"), 0, None).await.unwrap();

    let mut wrong = settings.clone();
    wrong.credentials = Some(directory.path().join("none"));
    assert!(matches!(store.reconfigure(&wrong), Err(ColdError::Settings(_))));
    wrong = StoreSettings::new("s3://other/".parse().unwrap());
    assert!(matches!(store.reconfigure(&wrong), Err(ColdError::Settings(_))));
    assert_eq!(store.exists(&key("x")).await, Ok(Some(MIB as u64)));

    let mut away = settings.clone();
    away.endpoint = Some("http://127.0.0.1:1".parse().unwrap());
    store.reconfigure(&away).unwrap();
    assert!(matches!(store.exists(&key("x")).await, Err(ColdError::Unavailable(_))));
    let content: Vec<_> = under_way.content.try_collect().await.unwrap();
    assert_eq!(content.concat(), bytes(MIB));

    store.reconfigure(&settings).unwrap();
    assert_eq!(store.exists(&key("x")).await, Ok(Some(MIB as u64)));
}

#[tokio::test]
async fn a_store_in_memory_keeps_its_objects_when_it_is_reconfigured() {
    let store = open("memory:///");
    upload(&*store, "x", &bytes(1)).await.unwrap();
    store.reconfigure(&StoreSettings::new("memory:///".parse().unwrap())).unwrap();
    assert_eq!(store.exists(&key("x")).await, Ok(Some(1)));
}

#[test]
fn settings_that_make_no_sense_are_refused_when_a_store_is_opened() {
    for url in [
        "s3:///prefix",
        "gs://",
        "az:///x",
        "file://host/dir",
        "s3://key:hunter2@bucket/",
        "s3://bucket/?secret=hunter2",
        "gs://hunter2@bucket",
        "az://x:hunter2@container/",
    ] {
        let opened = Registry::builtin().open(&StoreSettings::new(url.parse().unwrap()));
        let error = opened.expect_err(url);
        assert!(matches!(error, ColdError::Settings(_)), "{url}: {error:?}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn the_credentials_file_of_each_kind_is_read_when_a_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("credentials");
    let open = |url: &str, text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut settings = StoreSettings::new(url.parse().unwrap());
        settings.credentials = Some(file.clone());
        Registry::builtin().open(&settings)
    };
    open("s3://b", "[default]\naws_access_key_id=a\naws_secret_access_key=hunter2").unwrap();
    let azure = "[storage]\naccount=a\nkey=aHVudGVyMg==";
    open("az://container/prefix", azure).unwrap();
    open("abfss://container@account.dfs.core.windows.net/prefix", azure).unwrap();
    open("azure://container", "[storage]\naccount=a\nsas_token=?sig=hunter2&sv=1").unwrap();
    for (url, text) in [
        ("s3://b", "[default]\naws_access_key_id=a"),
        ("s3://b", "hunter2"),
        ("gs://b", "\"hunter2\""),
        ("gs://b", "{\n\"private_key\": hunter2}"),
        (
            "gs://b",
            "{\"client_email\": \"a\", \"private_key_id\": \"b\", \"private_key\": \"hunter2\"}",
        ),
        ("az://c", "[storage]\nkey=hunter2"),
        ("az://c", "[storage]\naccount=a\nkey=not base64 hunter2"),
    ] {
        let error = open(url, text).expect_err(text);
        assert!(matches!(error, ColdError::Settings(_)), "{url}: {error:?}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
