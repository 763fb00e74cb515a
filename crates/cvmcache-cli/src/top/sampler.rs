//! Polls the plugin, and sends updates of the state.
//!
//! One thread polls the fill of the cache, and others its metrics and administration socket. Another lists
//! the objects, on a connection of its own: a listing of millions takes long, and must not block the first.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use cvmcache::client::{Client, ClientError};
use cvmcache::plugin::{Capabilities, ObjectType, Status};
use cvmcache::{Locator, threads};

use super::administration;
use super::interval::{Command, pause};
use super::scraper;
use super::state::{Count, Objects, State, Update};
use crate::remote::Remote;

/// After a listing, there is none for this many times as long as it took.
const REST: u32 = 10;

/// Handles on the threads. They end when it is dropped.
pub(super) struct Sampler {
    filling: Sender<Command>,
    counting: Option<Sender<Command>>,
    /// The administration socket, and the metrics.
    measuring: Vec<Sender<Command>>,
}

/// What all threads need.
#[derive(Clone)]
struct Poller<T> {
    remote: Remote,
    locator: Locator,
    interval: Duration,
    /// Sends an update; false if the view has ended.
    send: T,
}

impl Sampler {
    pub(super) fn start(
        remote: Remote,
        locator: Locator,
        client: Client,
        state: &State,
        send: impl Fn(Update) -> bool + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let poller = Poller { remote, locator, interval: state.interval, send };
        let counting = (state.objects != Objects::Off).then(|| {
            let (counting, commands) = mpsc::channel();
            let poller = poller.clone();
            threads::spawn("objects", move || poller.count_objects(&commands))?;
            io::Result::Ok(counting)
        });
        let mut measuring = Vec::new();
        if let Some(admin) = state.admin.clone() {
            let (asking, commands) = mpsc::channel();
            let (interval, send) = (poller.interval, poller.send.clone());
            let has_metrics = state.metrics_url.is_some();
            threads::spawn("administration", move || {
                administration::ask_repeatedly(&admin, interval, has_metrics, send, &commands);
            })?;
            measuring.push(asking);
        }
        if let Some(url) = state.metrics_url.clone() {
            let (scraping, commands) = mpsc::channel();
            let (interval, send) = (poller.interval, poller.send.clone());
            threads::spawn("metrics", move || {
                scraper::scrape_repeatedly(&url, interval, send, &commands);
            })?;
            measuring.push(scraping);
        }
        let counting = counting.transpose()?;
        let (filling, commands) = mpsc::channel();
        threads::spawn("info", move || poller.poll_info(client, &commands))?;
        Ok(Self { filling, counting, measuring })
    }

    /// Asks how full the cache is without waiting for its time.
    pub(super) fn refresh(&self) {
        command(&self.filling, Command::Now);
        self.measuring.iter().for_each(|thread| command(thread, Command::Now));
    }

    /// Lists without waiting for its time.
    pub(super) fn recount(&self) {
        if let Some(counting) = &self.counting {
            command(counting, Command::Now);
        }
    }

    pub(super) fn set_interval(&self, interval: Duration) {
        for thread in self.counting.iter().chain(&self.measuring).chain([&self.filling]) {
            command(thread, Command::Every(interval));
        }
    }
}

fn command(thread: &Sender<Command>, command: Command) {
    // A thread ends before its handle only if it panics, and then the view is at its end, too.
    let _ = thread.send(command);
}

impl<T: Fn(Update) -> bool> Poller<T> {
    fn poll_info(mut self, client: Client, commands: &Receiver<Command>) {
        let mut client = Some(client).filter(|client| self.send_connected(client));
        loop {
            let update = match self.ask(&mut client) {
                Ok(news) => news,
                Err(error) => {
                    // A status is a reply of a connection that still works.
                    client = client.filter(|_| error.status().is_some());
                    Update::Lost(error.to_string())
                }
            };
            if !(self.send)(update) || !self.pause(commands, Duration::ZERO) {
                return;
            }
        }
    }

    fn ask(&self, client: &mut Option<Client>) -> Result<Update, ClientError> {
        let client = match client {
            Some(client) => client,
            None => {
                let new = self.remote.try_connect("top", &self.locator)?;
                self.send_connected(&new);
                client.insert(new)
            }
        };
        match client.info() {
            Err(error) if error.status() == Some(Status::NoSupport) => Ok(Update::Info(None)),
            info => info.map(|info| Update::Info(Some(info))),
        }
    }

    fn send_connected(&self, client: &Client) -> bool {
        let (name, pid) = (client.plugin_name().to_vec(), client.plugin_pid());
        (self.send)(Update::Connected { name, pid })
    }

    fn count_objects(mut self, commands: &Receiver<Command>) {
        let mut client = None;
        loop {
            let began = Instant::now();
            let update = match self.count(&mut client) {
                Ok(Some(counts)) => Update::Counted { counts, took: began.elapsed() },
                Ok(None) => return,
                Err(error) => {
                    client = client.filter(|_| error.status().is_some());
                    Update::NotCounted(error.to_string())
                }
            };
            if !(self.send)(update) || !self.pause(commands, began.elapsed() * REST) {
                return;
            }
        }
    }

    /// `None` if the view has ended.
    fn count(&self, client: &mut Option<Client>) -> Result<Option<[Count; 3]>, ClientError> {
        let client = match client {
            Some(client) => client,
            None => client.insert(self.remote.try_connect("top", &self.locator)?),
        };
        if !client.capabilities().contains(Capabilities::LIST) {
            return Err(Status::NoSupport.into());
        }
        let mut counts = [Count::default(); 3];
        let mut total = 0;
        for (object_type, count) in ObjectType::ALL.into_iter().zip(&mut counts) {
            let mut listing = 0;
            loop {
                let part = client.list_part(listing, object_type)?;
                count.objects += part.entries.len() as u64;
                count.pinned += part.entries.iter().filter(|entry| entry.pinned).count() as u64;
                total += part.entries.len() as u64;
                if !(self.send)(Update::Counting(total)) {
                    return Ok(None);
                }
                if part.last {
                    break;
                }
                listing = part.listing;
            }
        }
        Ok(Some(counts))
    }

    /// Waits for the interval, and at least for so long; false if the view has ended.
    fn pause(&mut self, commands: &Receiver<Command>, at_least: Duration) -> bool {
        pause(&mut self.interval, commands, at_least)
    }
}
