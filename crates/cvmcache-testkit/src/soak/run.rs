//! The parent: keeps clients running, kills some, and checks the plugin.

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::threads;
use fastrand::Rng;

use super::client::SoakClient;
use super::counts::Line;
use super::latency::LatencyProbe;
use super::leaks::{check_cache, check_descriptors};
use super::object::Object;
use super::plugin::{Plugin, SoakError, SoakTarget, TIMEOUT};
use super::summary::Summary;
use super::violation::{CheckResult, ensure};

/// The interval at which the parent polls its clients.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a client lives on average, if it is one that may be killed.
const MEAN_LIFE: Duration = Duration::from_secs(4);

/// One of so many clients at a time is never killed, so that it may reload.
const RELOADING: usize = 4;

/// All objects together have so many times the size of the cache.
const WORKING_SET: u64 = 3;

/// A larger cache is used like one of this size, in bytes: filling it would take days.
const LARGEST: u64 = 256 << 30;

/// The test ends after so many violations.
const MAX_VIOLATIONS: usize = 20;

/// A soak test, and how to run it.
#[derive(Debug, Clone)]
pub struct Soak {
    clients: usize,
    time: Duration,
    slack: u64,
    seed: Option<u64>,
}

impl Default for Soak {
    fn default() -> Self {
        Self::new()
    }
}

impl Soak {
    /// 50 clients for a minute.
    pub fn new() -> Self {
        Self { clients: 50, time: Duration::from_secs(60), slack: 128 << 20, seed: None }
    }

    /// How many client processes run at a time; default 50.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// How long clients run; default one minute.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// How much memory the plugin may take beyond the size of its cache, in bytes; default 128 MiB.
    #[must_use]
    pub fn slack(mut self, bytes: u64) -> Self {
        self.slack = bytes;
        self
    }

    /// The seed of the random numbers: the same seed repeats what clients do, not when. By default,
    /// another each time; [`Summary::seed`] has it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Runs clients against a plugin, and checks in the end that nothing is left of them. `command`
    /// starts a process that calls [`SoakClient::run`] with the client that it is given; standard
    /// input and output are set here.
    ///
    /// # Errors
    ///
    /// If the plugin cannot be started or reached, or a client cannot be started. What the plugin
    /// does wrong is in the summary.
    pub fn run(
        &self,
        target: impl Into<SoakTarget>,
        command: impl Fn(&SoakClient) -> Command,
    ) -> Result<Summary, SoakError> {
        let plugin = Plugin::new(target.into())?;
        self.run_on(plugin, &command).map_err(SoakError::System)
    }

    fn run_on(
        &self,
        mut plugin: Plugin,
        command: &dyn Fn(&SoakClient) -> Command,
    ) -> io::Result<Summary> {
        let before = plugin.descriptors();
        let mut clients = Clients::new(self, command, &plugin)?;
        let latency = LatencyProbe::start(plugin.locator.clone())?;
        let began = Instant::now();
        clients.keep_running(&mut plugin, &latency, began + self.time)?;
        clients.wait_for_all()?;
        let mut summary = clients.into_summary();
        summary.time = began.elapsed();
        match latency.finish() {
            Ok(latencies) => summary.latencies = latencies,
            Err(violation) => summary.violations.push(violation.to_string()),
        }
        summary.memory = plugin.memory();
        if let Err(violation) = self.check_end(&mut plugin, before, &mut summary) {
            summary.violations.push(violation.to_string());
        }
        if !summary.violations.is_empty() {
            summary.log = plugin.log();
        }
        if let Err(violation) = plugin.end() {
            summary.violations.push(violation.to_string());
        }
        Ok(summary)
    }

    fn check_end(
        &self,
        plugin: &mut Plugin,
        before: Option<usize>,
        summary: &mut Summary,
    ) -> CheckResult {
        plugin.check_alive()?;
        check_cache(plugin)?;
        let after = check_descriptors(plugin, before)?;
        summary.descriptors = before.zip(after);
        plugin.check_alive()?;
        if let (Some(memory), Some(size)) = (plugin.memory(), plugin.size) {
            summary.memory = Some(memory);
            let peak = memory.peak_bytes;
            let limit = size.saturating_add(self.slack);
            ensure(
                peak <= limit,
                format_args!("at most {} MiB of memory: cache and slack", limit >> 20),
                format_args!("it has been {} MiB", peak >> 20),
            )?;
        }
        Ok(())
    }
}

/// The clients that run now, and the results of all.
struct Clients<'a> {
    soak: &'a Soak,
    command: &'a dyn Fn(&SoakClient) -> Command,
    template: SoakClient,
    rng: Rng,
    running: Vec<Running>,
    writer: PipeWriter,
    lines: Receiver<Line>,
    summary: Summary,
}

struct Running {
    child: Child,
    number: u64,
    may_be_killed: bool,
    is_killed: bool,
}

impl<'a> Clients<'a> {
    fn new(
        soak: &'a Soak,
        command: &'a dyn Fn(&SoakClient) -> Command,
        plugin: &Plugin,
    ) -> io::Result<Self> {
        let cache_size = plugin.usable_size().min(LARGEST);
        let seed = soak.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        let (reader, writer) = io::pipe()?;
        let (sender, lines) = mpsc::channel();
        threads::spawn("lines", move || forward_lines(reader, &sender))?;
        let template = SoakClient {
            locator: plugin.locator.clone(),
            number: 0,
            seed,
            objects: count_objects(seed, cache_size * WORKING_SET),
            cache_size,
            time: Duration::ZERO,
            may_reload: false,
        };
        let summary = Summary { seed, ..Summary::default() };
        let (rng, running) = (Rng::with_seed(seed), Vec::new());
        Ok(Self { soak, command, template, rng, running, writer, lines, summary })
    }

    /// Replaces clients that have ended, and kills some, until the deadline.
    fn keep_running(
        &mut self,
        plugin: &mut Plugin,
        latency: &LatencyProbe,
        deadline: Instant,
    ) -> io::Result<()> {
        while Instant::now() < deadline && !latency.is_finished() {
            while self.running.len() < self.soak.clients {
                self.start(deadline)?;
            }
            self.kill_some()?;
            self.poll()?;
            if plugin.check_alive().is_err() || self.summary.violations.len() >= MAX_VIOLATIONS {
                break;
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn start(&mut self, deadline: Instant) -> io::Result<()> {
        let number = self.summary.clients;
        // By their count and not by their number: those that may reload live longer.
        let reloading = self.running.iter().filter(|client| !client.may_be_killed).count();
        let may_reload = reloading * RELOADING < self.soak.clients;
        let time = deadline.saturating_duration_since(Instant::now());
        let client = SoakClient { number, time, may_reload, ..self.template.clone() };
        let mut command = (self.command)(&client);
        command.stdin(Stdio::null()).stdout(self.writer.try_clone()?);
        let child = command.spawn()?;
        let may_be_killed = !may_reload;
        self.running.push(Running { child, number, may_be_killed, is_killed: false });
        self.summary.clients += 1;
        Ok(())
    }

    fn kill_some(&mut self) -> io::Result<()> {
        let chance = POLL_INTERVAL.as_secs_f64() / MEAN_LIFE.as_secs_f64();
        for client in &mut self.running {
            if client.may_be_killed && self.rng.f64() < chance {
                client.child.kill()?;
                client.is_killed = true;
            }
        }
        Ok(())
    }

    /// Reads the reports of clients, and removes those that have ended.
    fn poll(&mut self) -> io::Result<()> {
        for line in self.lines.try_iter() {
            self.summary.add(line);
        }
        let mut index = 0;
        while let Some(client) = self.running.get_mut(index) {
            let Some(status) = client.child.try_wait()? else {
                index += 1;
                continue;
            };
            self.summary.killed += u64::from(client.is_killed);
            // With status 1, it has reported a violation itself.
            if !client.is_killed && !matches!(status.code(), Some(0 | 1)) {
                let violation = format!("client {}: failed by itself: {status}", client.number);
                self.summary.violations.push(violation);
            }
            self.running.swap_remove(index);
        }
        Ok(())
    }

    /// Waits for the clients, which end when their time is up, and kills those that hang.
    fn wait_for_all(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.running.is_empty() {
            self.poll()?;
            if Instant::now() > deadline || self.summary.violations.len() >= MAX_VIOLATIONS {
                let hanging = self.running.len();
                let seen = format!("{hanging} clients were still running and were killed");
                self.summary.violations.push(format!("expected all clients to finish, but {seen}"));
                break;
            }
            thread::sleep(POLL_INTERVAL);
        }
        for client in &mut self.running {
            client.child.kill()?;
            client.child.wait()?;
        }
        self.running.clear();
        Ok(())
    }

    fn into_summary(self) -> Summary {
        let Self { writer, lines, mut summary, .. } = self;
        // The last writer: the thread that reads gets to the end of the pipe.
        drop(writer);
        lines.iter().for_each(|line| summary.add(line));
        summary
    }
}

/// No client is left behind after a system error.
impl Drop for Running {
    fn drop(&mut self) {
        // If it has ended, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many objects take so many bytes.
fn count_objects(world: u64, bytes: u64) -> u64 {
    let mut sum = 0;
    let numbers = (0..).take_while(|number| {
        sum += Object::numbered(world, *number).size;
        sum < bytes
    });
    1 + numbers.count() as u64
}

/// Forwards the reports of clients until all have closed the pipe.
fn forward_lines(reader: PipeReader, sender: &Sender<Line>) {
    for line in BufReader::new(reader).lines().map_while(io::Result::ok) {
        if Line::parse(&line).is_some_and(|line| sender.send(line).is_err()) {
            return;
        }
    }
}
