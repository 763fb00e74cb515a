//! What clients see of a plugin in which calls go wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cvmcache::client::{Client, ClientError};
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, Locator, RunningServer, Server, Session, Transaction};
use cvmcache_testkit::{Callback, Fault, Faults, Faulty};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_panic_is_answered_with_ioerr() {
    let f = Fixture::new(0);
    let mut client = f.client();
    for callback in Callback::ALL {
        f.faults.plan(callback, Fault::Panic);
        let error = call(&mut client, callback).unwrap_err();
        assert_eq!(error.status(), Some(Status::IoErr), "{callback:?}");
        call(&mut client, callback).unwrap_or_else(|error| panic!("{callback:?}: {error}"));
    }
    assert!(f.faults.wait_for_nothing_open(LIMIT));
    assert_eq!(f.faults.faults(), Callback::ALL.len() as u64);
}

#[test]
fn an_injected_status_is_the_status_of_the_reply() {
    let f = Fixture::new(2);
    let mut client = f.client();
    for callback in Callback::ALL {
        f.faults.plan(callback, Fault::Fail(Status::Timeout));
        let error = call(&mut client, callback).unwrap_err();
        assert_eq!(error.status(), Some(Status::Timeout), "{callback:?}");
        call(&mut client, callback).unwrap_or_else(|error| panic!("{callback:?}: {error}"));
    }
    assert!(f.faults.wait_for_nothing_open(LIMIT));
}

#[test]
fn a_delayed_call_is_forwarded_afterwards() {
    let f = Fixture::new(0);
    let mut client = f.client();
    let delay = Duration::from_millis(20);
    f.faults.plan(Callback::Read, Fault::Delay(delay));
    let before = Instant::now();
    assert_eq!(client.read(&id(0), 0, 10).unwrap(), "content");
    assert!(before.elapsed() >= delay);
}

#[test]
fn with_workers_a_call_that_hangs_delays_no_other_client() {
    let f = Fixture::new(2);
    let (mut stuck, mut other) = (f.client(), f.client());
    f.faults.plan(Callback::Read, Fault::Hang);
    let read = stuck.queue_read(&id(0), 0, 10).unwrap();
    stuck.flush().unwrap();
    assert!(f.faults.wait_for_hanging(1, LIMIT));
    for _ in 0..100 {
        assert_eq!(other.read(&id(0), 3, 10).unwrap(), "tent");
    }
    assert!(!stuck.is_ready(&read).unwrap());
    f.faults.release();
    assert_eq!(stuck.wait(read).unwrap().into_bytes(), "content");
    assert_eq!(f.faults.hanging(), 0);
}

#[test]
fn a_release_ends_only_the_calls_that_hang_already() {
    let f = Fixture::new(1);
    let mut client = f.client();
    f.faults.release();
    f.faults.plan(Callback::Info, Fault::Hang);
    let info = client.submit(cvmcache::client::Operation::Info).unwrap();
    assert!(f.faults.wait_for_hanging(1, LIMIT));
    f.faults.release();
    client.wait(info).unwrap();
}

#[test]
fn uploads_and_listings_count_as_open_until_they_end() {
    let f = Fixture::new(0);
    let mut client = f.client();
    let part = vec![0; client.max_object_size()];
    let mut upload = client.begin_upload(id(1));
    upload.write(&mut client, part.clone()).unwrap();
    assert_eq!(f.faults.open_transactions(), 1);
    upload.commit(&mut client, "").unwrap();
    assert_eq!((f.faults.open_transactions(), f.faults.open_listings()), (0, 0));
    let mut upload = client.begin_upload(id(2));
    upload.write(&mut client, part).unwrap();
    drop(client);
    assert!(f.faults.wait_for_nothing_open(LIMIT));
    assert!(!f.client().exists(&id(2)).unwrap());
    assert_eq!(f.faults.calls(Callback::Begin), 2);
    assert_eq!(f.faults.calls(Callback::Commit), 1);
}

#[test]
fn random_faults_close_no_connection() {
    for workers in [0, 2] {
        let f = Fixture::new(workers);
        f.faults.seed(4);
        f.faults.sometimes(&Callback::ALL, 0.2, Fault::Panic);
        f.faults.sometimes(&[Callback::Read, Callback::Write], 0.2, Fault::Fail(Status::NoSpace));
        let mut client = f.client();
        let mut failed = 0;
        for _ in 0..20 {
            for callback in Callback::ALL {
                match call(&mut client, callback) {
                    Ok(()) => {}
                    Err(ClientError::Status(Status::IoErr | Status::NoSpace)) => failed += 1,
                    Err(error) => panic!("{callback:?}: {error}"),
                }
            }
        }
        assert!(failed > 20, "{failed} calls have failed");
        f.faults.clear();
        drop(client);
        assert!(f.faults.wait_for_nothing_open(LIMIT));
    }
}

/// Makes the server call this, and leaves nothing behind but perhaps references.
fn call(client: &mut Client, callback: Callback) -> Result<(), ClientError> {
    let breadcrumb = Breadcrumb { catalog: id(0), timestamp: 1, revision: None };
    match callback {
        Callback::ChangeRefcount => client.open(&id(0)),
        Callback::ObjectInfo => client.object_info(&id(0)).map(drop),
        Callback::Read => client.read(&id(0), 0, 10).map(drop),
        Callback::Begin | Callback::Write | Callback::Commit => client.store(id(9), "content"),
        Callback::Info => client.info().map(drop),
        Callback::Shrink => client.shrink(1000).map(drop),
        Callback::List | Callback::Next => client.list(ObjectType::Regular).map(drop),
        Callback::StoreBreadcrumb => client.store_breadcrumb("repo", breadcrumb),
        Callback::LoadBreadcrumb => match client.load_breadcrumb("repo") {
            Err(ClientError::Status(Status::NoEntry)) => Ok(()),
            result => result.map(drop),
        },
        other => panic!("no call for {other:?}"),
    }
}

fn id(byte: u8) -> ObjectId {
    ObjectId::new(HashAlgorithm::Sha1, [byte; 20])
}

struct Fixture {
    faults: Faults,
    locator: Locator,
    running: Option<RunningServer>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new(workers: usize) -> Self {
        let plugin = Faulty::new(Memory::default());
        plugin.get_ref().objects().insert(id(0), "content".into());
        let faults = plugin.faults();
        let directory = tempfile::tempdir().expect("a directory");
        let locator = Locator::Unix(directory.path().join("socket"));
        let builder = Server::builder(plugin).workers(workers);
        let running = Some(builder.listen(&locator).expect("a socket").spawn().expect("a server"));
        Self { faults, locator, running, _directory: directory }
    }

    fn client(&self) -> Client {
        Client::builder().name("repo:1").timeout(LIMIT).connect(&self.locator).expect("a session")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.faults.release();
        if let Some(running) = self.running.take() {
            running.handle().terminate();
            running.wait().expect("a clean end");
        }
    }
}

/// Objects and nothing else: references are not counted.
#[derive(Default)]
struct Memory {
    objects: Arc<Mutex<BTreeMap<ObjectId, Bytes>>>,
}

impl Memory {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Bytes>> {
        self.objects.lock().expect("nobody panics with it")
    }

    fn object(&self, id: &ObjectId) -> PluginResult<Bytes> {
        self.objects().get(id).cloned().ok_or(Status::NoEntry)
    }
}

impl CachePlugin for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn change_refcount(&self, _: &Session, id: &ObjectId, _: i32) -> PluginResult<()> {
        self.object(id).map(drop)
    }

    fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let size = self.object(id)?.len() as u64;
        Ok(ObjectInfo::new(size, ObjectType::Regular))
    }

    fn read(&self, _: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let data = self.object(id)?;
        let start = usize::try_from(offset).ok().filter(|start| *start <= data.len());
        let start = start.ok_or(Status::OutOfBounds)?;
        Ok(data.slice(start..data.len().min(start + len as usize)).into())
    }

    fn begin(&self, _: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let objects = Arc::clone(&self.objects);
        Ok(Box::new(Upload { objects, id: object.id, data: Vec::new() }))
    }

    fn info(&self, _: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(CacheInfo::default())
    }

    fn shrink(&self, _: &Session, _: u64) -> PluginResult<u64> {
        Ok(0)
    }

    fn list(&self, _: &Session, _: ObjectType) -> PluginResult<Listing> {
        let ids: Vec<_> = self.objects().keys().copied().collect();
        let entries = ids.into_iter().map(|id| ListEntry::new(id, false, None));
        Ok(Box::new(entries.map(Ok)))
    }

    fn store_breadcrumb(&self, _: &Session, _: &[u8], _: Breadcrumb) -> PluginResult<()> {
        Ok(())
    }

    fn load_breadcrumb(&self, _: &Session, _: &[u8]) -> PluginResult<Breadcrumb> {
        Err(Status::NoEntry)
    }
}

struct Upload {
    objects: Arc<Mutex<BTreeMap<ObjectId, Bytes>>>,
    id: ObjectId,
    data: Vec<u8>,
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.data.extend_from_slice(&data);
        Ok(())
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        self.objects.lock().expect("nobody panics with it").insert(self.id, self.data.into());
        Ok(())
    }
}
