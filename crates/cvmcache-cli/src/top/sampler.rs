//! Asks the plugin, over and over, and tells what it hears.
//!
//! One thread asks how full the cache is. Another lists the objects, on a connection of its own:
//! a listing of millions takes long, and the first must not wait for it.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use cvmcache::plugin::{Capabilities, ObjectType, Status};

use super::scraper;
use super::state::{Count, News, Objects, State};
use crate::remote::Remote;

/// After a listing, there is none for this many times as long as it took.
const REST: u32 = 10;

/// Handles on the threads. They end when it is dropped.
pub(super) struct Sampler {
    filling: Sender<Order>,
    counting: Option<Sender<Order>>,
    scraping: Option<Sender<Order>>,
}

pub(super) enum Order {
    Now,
    Every(Duration),
}

/// What both threads need.
#[derive(Clone)]
struct Asker<T> {
    remote: Remote,
    locator: Locator,
    interval: Duration,
    /// Tells news; false if nobody listens any more.
    tell: T,
}

impl Sampler {
    pub(super) fn start(
        remote: Remote,
        locator: Locator,
        client: Client,
        state: &State,
        tell: impl Fn(News) -> bool + Clone + Send + 'static,
    ) -> Self {
        let asker = Asker { remote, locator, interval: state.interval, tell };
        let counting = (state.objects != Objects::Off).then(|| {
            let (counting, orders) = mpsc::channel();
            let asker = asker.clone();
            thread::spawn(move || asker.keep_counting(&orders));
            counting
        });
        let scraping = state.metrics_url.clone().map(|url| {
            let (scraping, orders) = mpsc::channel();
            let (interval, tell) = (asker.interval, asker.tell.clone());
            thread::spawn(move || scraper::keep_scraping(&url, interval, tell, &orders));
            scraping
        });
        let (filling, orders) = mpsc::channel();
        thread::spawn(move || asker.keep_asking(client, &orders));
        Self { filling, counting, scraping }
    }

    /// Asks how full the cache is without waiting for its time.
    pub(super) fn ask_now(&self) {
        order(&self.filling, Order::Now);
        self.scraping.iter().for_each(|thread| order(thread, Order::Now));
    }

    /// Lists without waiting for its time.
    pub(super) fn count_again(&self) {
        if let Some(counting) = &self.counting {
            order(counting, Order::Now);
        }
    }

    pub(super) fn set_interval(&self, interval: Duration) {
        let others = [self.counting.as_ref(), self.scraping.as_ref()];
        for thread in others.into_iter().flatten().chain([&self.filling]) {
            order(thread, Order::Every(interval));
        }
    }
}

fn order(thread: &Sender<Order>, order: Order) {
    // A thread ends before its handle only if it panics, and then the view is at its end, too.
    let _ = thread.send(order);
}

impl<T: Fn(News) -> bool> Asker<T> {
    fn keep_asking(mut self, client: Client, orders: &Receiver<Order>) {
        let mut client = Some(client).filter(|client| self.introduce(client));
        loop {
            let news = match self.ask(&mut client) {
                Ok(news) => news,
                Err(error) => {
                    // A plugin that answers, if only that it cannot, is still the same.
                    client = client.filter(|_| error.status().is_some());
                    News::Lost(error.to_string())
                }
            };
            if !(self.tell)(news) || !self.pause(orders, Duration::ZERO) {
                return;
            }
        }
    }

    fn ask(&self, client: &mut Option<Client>) -> Result<News, ClientError> {
        let client = match client {
            Some(client) => client,
            None => {
                let new = self.remote.try_connect("top", &self.locator)?;
                self.introduce(&new);
                client.insert(new)
            }
        };
        match client.info() {
            Err(error) if error.status() == Some(Status::NoSupport) => Ok(News::Info(None)),
            info => info.map(|info| News::Info(Some(info))),
        }
    }

    fn introduce(&self, client: &Client) -> bool {
        let (name, pid) = (client.plugin_name().to_vec(), client.plugin_pid());
        (self.tell)(News::Connected { name, pid })
    }

    fn keep_counting(mut self, orders: &Receiver<Order>) {
        let mut client = None;
        loop {
            let began = Instant::now();
            let news = match self.count(&mut client) {
                Ok(Some(counts)) => News::Counted { counts, took: began.elapsed() },
                Ok(None) => return,
                Err(error) => {
                    client = client.filter(|_| error.status().is_some());
                    News::NotCounted(error.to_string())
                }
            };
            if !(self.tell)(news) || !self.pause(orders, began.elapsed() * REST) {
                return;
            }
        }
    }

    /// None if nobody wants to know any more.
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
                if !(self.tell)(News::Counting(total)) {
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

    /// Waits for the interval, and at least for so long; false if nobody wants to know any more.
    fn pause(&mut self, orders: &Receiver<Order>, at_least: Duration) -> bool {
        pause(&mut self.interval, orders, at_least)
    }
}

/// The same, for whoever has an interval.
pub(super) fn pause(interval: &mut Duration, orders: &Receiver<Order>, at_least: Duration) -> bool {
    let began = Instant::now();
    loop {
        let left = at_least.max(*interval).saturating_sub(began.elapsed());
        match orders.recv_timeout(left) {
            Ok(Order::Every(new)) => *interval = new,
            Ok(Order::Now) | Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
