//! The parent: keeps clients running, kills some, and watches the plugin.

use std::env;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter};
use std::mem;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::broken::{Kept, ensure};
use super::bystander::Bystander;
use super::client::TIMEOUT;
use super::ending::{check_descriptors, check_nothing_left};
use super::object::Object;
use super::plugin::Plugin;
use super::summary::Summary;
use super::tally::Line;
use super::{CLIENT, Soak};
use crate::error::{Error, Result};
use crate::target;

/// How often the parent looks after its children.
const TURN: Duration = Duration::from_millis(20);

/// How long a client lives on average, if it can be killed.
const LIFE: Duration = Duration::from_secs(4);

/// Of so many clients that run at a time, one is spared.
const SPARED: usize = 4;

/// All objects there are would fill the cache so many times.
const WORLD: u64 = 3;

/// A cache without a limit is used like one of this size, in bytes.
pub(super) const UNLIMITED: u64 = 200 << 20;

/// A larger cache is used like one of this size, in bytes: it is not filled in days.
const LARGEST: u64 = 256 << 30;

/// After so many broken promises, there is no point in going on.
const ENOUGH: usize = 20;

/// Runs clients against a plugin.
///
/// # Errors
///
/// If the plugin cannot be started or reached, or the system does not cooperate. What the plugin
/// does wrong is in the summary.
pub(super) fn run(mut arguments: Soak) -> Result<Summary> {
    let size = [("CVMFS_CACHE_PLUGIN_SIZE", "200")];
    let plugin = match mem::take(&mut arguments.target).plugin(&size)? {
        target::Plugin::Running(locator) if !arguments.evict => {
            return Err(Error::WouldEvict(locator));
        }
        plugin => Plugin::new(plugin)?,
    };
    watch(&arguments, plugin).map_err(Error::System)
}

fn watch(arguments: &Soak, mut plugin: Plugin) -> io::Result<Summary> {
    let before = plugin.descriptors();
    let mut crowd = Crowd::new(arguments, &plugin)?;
    let bystander = Bystander::start(plugin.locator.clone());
    let began = Instant::now();
    crowd.keep_up(&mut plugin, &bystander, began + arguments.time())?;
    crowd.wait_for_all()?;
    let mut summary = crowd.into_summary();
    summary.time = began.elapsed();
    match bystander.finish() {
        Ok(latencies) => summary.latencies = latencies,
        Err(broken) => summary.broken.push(broken.to_string()),
    }
    summary.memory = plugin.memory();
    if let Err(broken) = check_end(&mut plugin, arguments, before, &mut summary) {
        summary.broken.push(broken.to_string());
    }
    if !summary.is_good() {
        summary.log = plugin.log();
    }
    if let Err(broken) = plugin.end() {
        summary.broken.push(broken.to_string());
    }
    Ok(summary)
}

fn check_end(
    plugin: &mut Plugin,
    arguments: &Soak,
    before: Option<usize>,
    summary: &mut Summary,
) -> Kept {
    plugin.check_alive()?;
    check_nothing_left(&plugin.locator, plugin.size)?;
    let after = check_descriptors(plugin, before)?;
    summary.descriptors = before.zip(after);
    plugin.check_alive()?;
    if let (Some(memory), Some(size)) = (plugin.memory(), plugin.size) {
        summary.memory = Some(memory);
        let most = memory.peak_bytes;
        let limit = size.saturating_add(u64::from(arguments.slack_mb) << 20);
        ensure(
            most <= limit,
            format_args!("at most {} MiB of memory: cache and slack", limit >> 20),
            format_args!("it has been {} MiB", most >> 20),
        )?;
    }
    Ok(())
}

/// The clients that run now, and what has come of all of them.
struct Crowd<'a> {
    arguments: &'a Soak,
    program: PathBuf,
    locator: String,
    rng: Rng,
    size: u64,
    objects: u64,
    clients: Vec<Running>,
    writer: PipeWriter,
    lines: Receiver<Line>,
    summary: Summary,
}

struct Running {
    child: Child,
    number: u64,
    spared: bool,
    killed: bool,
}

impl<'a> Crowd<'a> {
    fn new(arguments: &'a Soak, plugin: &Plugin) -> io::Result<Self> {
        let size = plugin.size.unwrap_or(UNLIMITED).min(LARGEST);
        let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        let (reader, writer) = io::pipe()?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || pass_on(reader, &sender));
        Ok(Self {
            arguments,
            program: env::current_exe()?,
            locator: plugin.locator.to_string(),
            rng: Rng::with_seed(seed),
            size,
            objects: count_objects(seed, size * WORLD),
            clients: Vec::new(),
            writer,
            lines,
            summary: Summary { seed, ..Summary::default() },
        })
    }

    /// Keeps as many clients running as there should be, and kills one now and then.
    fn keep_up(
        &mut self,
        plugin: &mut Plugin,
        bystander: &Bystander,
        deadline: Instant,
    ) -> io::Result<()> {
        while Instant::now() < deadline && !bystander.is_finished() {
            while self.clients.len() < self.arguments.clients.into() {
                self.start(deadline)?;
            }
            self.kill_some()?;
            self.take_stock()?;
            if plugin.check_alive().is_err() || self.summary.broken.len() >= ENOUGH {
                break;
            }
            thread::sleep(TURN);
        }
        Ok(())
    }

    fn start(&mut self, deadline: Instant) -> io::Result<()> {
        let number = self.summary.clients;
        let left = deadline.saturating_duration_since(Instant::now());
        let mut command = Command::new(&self.program);
        command.arg(CLIENT);
        for (name, value) in [
            ("--locator", self.locator.clone()),
            ("--number", number.to_string()),
            ("--seed", self.summary.seed.to_string()),
            ("--objects", self.objects.to_string()),
            ("--size", self.size.to_string()),
            ("--milliseconds", left.as_millis().to_string()),
        ] {
            command.args([name, &value]);
        }
        // Who is spared stays, so it is not for the number to say.
        let already = self.clients.iter().filter(|client| client.spared).count();
        let spared = already * SPARED < usize::from(self.arguments.clients);
        if spared {
            command.arg("--spared");
        }
        command.stdin(Stdio::null()).stdout(self.writer.try_clone()?);
        self.clients.push(Running { child: command.spawn()?, number, spared, killed: false });
        self.summary.clients += 1;
        Ok(())
    }

    fn kill_some(&mut self) -> io::Result<()> {
        let chance = TURN.as_secs_f64() / LIFE.as_secs_f64();
        for client in &mut self.clients {
            if !client.spared && self.rng.f64() < chance {
                client.child.kill()?;
                client.killed = true;
            }
        }
        Ok(())
    }

    /// Notes what clients have said, and who has ended.
    fn take_stock(&mut self) -> io::Result<()> {
        for line in self.lines.try_iter() {
            self.summary.note(line);
        }
        let mut index = 0;
        while let Some(client) = self.clients.get_mut(index) {
            let Some(status) = client.child.try_wait()? else {
                index += 1;
                continue;
            };
            self.summary.killed += u64::from(client.killed);
            // With status 1, it has said itself what was wrong.
            if !client.killed && !matches!(status.code(), Some(0 | 1)) {
                let broken = format!("client {}: failed by itself: {status}", client.number);
                self.summary.broken.push(broken);
            }
            self.clients.swap_remove(index);
        }
        Ok(())
    }

    /// Clients end by themselves when their time is up.
    fn wait_for_all(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.clients.is_empty() {
            self.take_stock()?;
            if Instant::now() > deadline || self.summary.broken.len() >= ENOUGH {
                let seen =
                    format!("{} clients were still at it and were killed", self.clients.len());
                self.summary.broken.push(format!("expected all clients to finish, but {seen}"));
                break;
            }
            thread::sleep(TURN);
        }
        for client in &mut self.clients {
            client.child.kill()?;
            client.child.wait()?;
        }
        self.clients.clear();
        Ok(())
    }

    fn into_summary(self) -> Summary {
        let Self { writer, lines, mut summary, .. } = self;
        // All others are closed: the reader finds the end.
        drop(writer);
        lines.iter().for_each(|line| summary.note(line));
        summary
    }
}

/// No client is left behind if the system stops cooperating.
impl Drop for Running {
    fn drop(&mut self) {
        // If it has ended, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many objects of a world take so many bytes.
fn count_objects(world: u64, bytes: u64) -> u64 {
    let mut sum = 0;
    let numbers = (0..).take_while(|number| {
        sum += Object::numbered(world, *number).size;
        sum < bytes
    });
    1 + numbers.count() as u64
}

/// Passes on what clients say until none is left.
fn pass_on(reader: PipeReader, sender: &Sender<Line>) {
    for line in BufReader::new(reader).lines().map_while(io::Result::ok) {
        if Line::parse(&line).is_some_and(|line| sender.send(line).is_err()) {
            return;
        }
    }
}
