//! The administration socket of plugins whose own part of it hangs or panics, and of the lessons.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::admin::{
    AdminSocket, Administration, Arguments, Command, CommandError, Gauge, Value,
};
use cvmcache::client::Client;
use cvmcache::plugin::{CacheInfo, Capabilities, Data, ObjectId, ObjectInfo, PluginResult, Status};
use cvmcache::{CachePlugin, Locator, Server, Session};
use cvmcache_testkit::{AdminClient, PluginCommand};
use tempfile::TempDir;

/// What the part of a plugin does that an administrator asks.
#[derive(Default)]
struct Behaviour {
    hangs: AtomicBool,
    panics: AtomicBool,
    asked: AtomicU32,
}

/// How long it hangs.
const HANG: Duration = Duration::from_secs(5);

/// A plugin without objects.
struct Bad(Arc<Behaviour>);

impl CachePlugin for Bad {
    fn capabilities(&self) -> Capabilities {
        Capabilities::INFO
    }

    fn object_info(&self, _session: &Session, _id: &ObjectId) -> PluginResult<ObjectInfo> {
        Err(Status::NoEntry)
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::NoEntry)
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(CacheInfo::new(3, 2, 1))
    }

    fn administration(&self) -> Option<&dyn Administration> {
        Some(&*self.0)
    }
}

impl Behaviour {
    fn act(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.hangs.load(Ordering::Relaxed) {
            thread::sleep(HANG);
        }
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants it");
    }
}

impl Administration for Behaviour {
    fn gauges(&self) -> Vec<Gauge> {
        self.act();
        vec![Gauge::new("depth", 7, "How deep it is")]
    }

    fn commands(&self) -> Vec<Command> {
        vec![Command::new("act", "Acts"), Command::new("fail", "Fails")]
    }

    fn execute(&self, command: &str, _arguments: &Arguments) -> Result<Value, CommandError> {
        self.act();
        match command {
            "act" => Ok(Value::from("done")),
            _ => Err(CommandError::Failed("not today".to_owned())),
        }
    }
}

/// A server of the plugin in this process.
struct Served {
    directory: TempDir,
    behaviour: Arc<Behaviour>,
    server: cvmcache::RunningServer,
    locator: Locator,
}

impl Served {
    fn start(workers: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let locator = Locator::Unix(directory.path().join("socket"));
        let behaviour = Arc::<Behaviour>::default();
        let socket = AdminSocket::at(AdminClient::of(&locator).path());
        let builder = Server::builder(Bad(behaviour.clone())).workers(workers).admin(socket);
        let server = builder.listen(&locator).expect("it listens").spawn().expect("it runs");
        Self { directory, behaviour, server, locator }
    }

    fn admin(&self) -> AdminClient {
        AdminClient::of(&self.locator)
    }

    /// The longest that a client waits for a reply, of as many as it gets within this time.
    fn longest_wait(&self, time: Duration) -> Duration {
        let mut client = Client::connect(&self.locator, "test.cern.ch:1").expect("a session");
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < time {
            let sent = Instant::now();
            client.info().expect("a reply");
            longest = longest.max(sent.elapsed());
        }
        client.quit().expect("it is connected");
        longest
    }

    /// How long the server takes to end.
    fn end(self) -> Duration {
        let begun = Instant::now();
        self.server.handle().terminate();
        self.server.wait().expect("it ends well");
        assert!(!self.directory.path().join("socket.admin").exists());
        begun.elapsed()
    }
}

#[test]
fn clients_are_served_while_the_plugin_keeps_all_administrators_waiting() {
    for workers in [0, 2] {
        let served = Served::start(workers);
        served.behaviour.hangs.store(true, Ordering::Relaxed);
        thread::scope(|scope| {
            // More than there are threads of the socket.
            let waiting: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| served.admin().get("/v1/plugin").expect("an answer")))
                .collect();
            while served.behaviour.asked.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
            let longest = served.longest_wait(Duration::from_secs(2));
            assert!(longest < HANG / 5, "{longest:?}");
            served.behaviour.hangs.store(false, Ordering::Relaxed);
            for answer in waiting {
                assert_eq!(answer.join().expect("no panic").status, 200);
            }
        });
        assert_eq!(served.admin().gauge("depth"), 7);
        served.end();
    }
}

#[test]
fn an_administrator_is_answered_soon_after_a_burst_of_connections() {
    let served = Served::start(0);
    let admin = served.admin();
    // Several times what is accepted at once.
    let burst: Vec<_> =
        (0..500).map(|_| UnixStream::connect(admin.path()).expect("a connection")).collect();
    drop(burst);
    let begun = Instant::now();
    while admin.get("/v1/health").expect("an answer").status != 200 {}
    // The thread that accepts wakes by itself every 10 s.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(9), "{took:?}");
    served.end();
}

#[test]
fn the_server_ends_although_the_plugin_keeps_an_administrator_waiting() {
    let served = Served::start(0);
    served.behaviour.hangs.store(true, Ordering::Relaxed);
    let (admin, behaviour) = (served.admin(), served.behaviour.clone());
    let asking = thread::spawn(move || admin.get("/v1/plugin"));
    while behaviour.asked.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    let took = served.end();
    assert!(took < HANG, "{took:?}");
    // Answered or not, it is not kept for ever.
    let _ = asking.join().expect("no panic");
}

#[test]
fn a_panic_of_the_plugins_part_costs_an_administrator_the_answer_and_clients_nothing() {
    let served = Served::start(0);
    let admin = served.admin();
    served.behaviour.panics.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        let answer = admin.get("/v1/plugin").unwrap();
        assert!(answer.status == 500, "{answer}");
        let answer = admin.post("/v1/plugin/act", "").unwrap();
        assert!(answer.status == 500, "{answer}");
        // What is not the plugin's is told all the same.
        assert_eq!(admin.get("/v1/statistics").unwrap().status, 200);
    }
    served.longest_wait(Duration::from_millis(100));
    served.behaviour.panics.store(false, Ordering::Relaxed);
    assert_eq!(admin.post("/v1/plugin/act", "").unwrap().body, Value::from("done"));
    assert_eq!(admin.post("/v1/plugin/fail", "").unwrap().status, 409);
    admin.check_schema();
    served.end();
}

#[test]
fn the_lesson_has_every_resource_with_and_without_workers() {
    let build = escargot::CargoBuild::new().package("cvmcache").example("null");
    let program = build.run().expect("cargo builds it").path().to_owned();
    for workers in ["0", "2"] {
        let command = PluginCommand::new(&program).option("CVMFS_CACHE_PLUGIN_WORKERS", workers);
        let plugin = command.start().unwrap();
        let admin = AdminClient::of(plugin.locator());
        let _client = Client::connect(plugin.locator(), "test.cern.ch:1").unwrap();
        admin.check_schema();
        assert_eq!(admin.number("objects"), 0);
        assert_eq!(admin.number("breadcrumbs"), 0);
    }
}
