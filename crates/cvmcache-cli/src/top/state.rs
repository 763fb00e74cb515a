//! The state of the view, and its history: changed by updates, drawn by `view`. No clock, no thread.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use cvmcache::plugin::CacheInfo;

use super::clients::Clients;
use super::metrics::{Rates, Sample, Tier};
use crate::admin::Admin;
use crate::admin::schema::Session;

/// The bounds of the polling interval.
pub(super) const INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// How many samples are kept: as many as a wide terminal shows.
const HISTORY: usize = 512;

/// The rate of clean-ups is taken over this time.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// A change of the state.
#[derive(Debug)]
pub(super) enum Update {
    /// There is a new session. The name is the plugin's, which need not be UTF-8.
    Connected { name: Vec<u8>, pid: Option<u64> },
    /// The fill of the cache, if the plugin reports it.
    Info(Option<CacheInfo>),
    /// The connection is lost, or a reply is invalid.
    Lost(String),
    /// A listing has come so far.
    Counting(u64),
    /// A listing has come to its end.
    Counted { counts: [Count; 3], took: Duration },
    /// A listing has not come to its end.
    NotCounted(String),
    /// The sessions of all clients.
    Clients { sessions: Vec<Session>, at: Instant },
    /// They are not known.
    NoClients,
    /// The metrics have been read.
    Measured { sample: Sample, at: Instant },
    /// They could not be read.
    NotMeasured(String),
}

/// How many objects there are of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) objects: u64,
    pub(super) pinned: u64,
}

/// What is known of the objects.
#[derive(Debug, PartialEq)]
pub(super) enum Objects {
    /// They are not to be counted.
    Off,
    /// There has been no listing yet.
    Unknown,
    /// By type, in the order of [`ObjectType::ALL`](cvmcache::plugin::ObjectType::ALL).
    Known { counts: [Count; 3], took: Duration, at: Instant },
    /// They cannot be listed.
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Plugin {
    pub(super) name: Vec<u8>,
    pub(super) pid: Option<u64>,
    pub(super) since: Instant,
}

/// What is known.
#[derive(Debug)]
pub(super) struct State {
    pub(super) locator: String,
    pub(super) interval: Duration,
    /// The plugin that was last spoken to.
    pub(super) plugin: Option<Plugin>,
    /// Since when, and why, there is no session.
    pub(super) lost: Option<(Instant, String)>,
    /// The last reply, and when it came.
    pub(super) info: Option<(Instant, Option<CacheInfo>)>,
    pub(super) objects: Objects,
    /// How many objects the unfinished listing has so far.
    pub(super) counting: Option<u64>,
    /// Bytes in use; none while the plugin was gone.
    pub(super) history: VecDeque<(Instant, Option<u64>)>,
    clean_ups: VecDeque<(Instant, u64)>,
    /// The administration socket, if there is one that answers.
    pub(super) admin: Option<Admin>,
    pub(super) clients: Option<Clients>,
    /// Where the metrics are, if there are any and they are used.
    pub(super) metrics_url: Option<String>,
    /// The last ones, and what has happened since the ones before them, or why that is not known.
    sample: Option<(Instant, Sample)>,
    pub(super) rates: Result<Option<Rates>, String>,
    /// Requests per second; none while they were not known.
    pub(super) request_rates: VecDeque<(Instant, Option<u64>)>,
}

impl State {
    pub(super) fn new(locator: &str, interval: Duration, counts: bool) -> Self {
        Self {
            locator: locator.to_owned(),
            interval,
            plugin: None,
            lost: None,
            info: None,
            objects: if counts { Objects::Unknown } else { Objects::Off },
            counting: None,
            history: VecDeque::new(),
            clean_ups: VecDeque::new(),
            admin: None,
            clients: None,
            metrics_url: None,
            sample: None,
            rates: Ok(None),
            request_rates: VecDeque::new(),
        }
    }

    /// Applies an update. True if the objects have to be counted again.
    pub(super) fn apply(&mut self, update: Update, now: Instant) -> bool {
        match update {
            Update::Connected { name, pid } => {
                let again = self.plugin.is_some();
                self.plugin = Some(Plugin { name, pid, since: now });
                // It may be another one at the same place.
                self.clean_ups.clear();
                if again && self.objects != Objects::Off {
                    self.objects = Objects::Unknown;
                    return true;
                }
            }
            Update::Info(info) => {
                self.lost = None;
                self.info = Some((now, info));
                remember(&mut self.history, now, info.map(|info| info.used_bytes));
                if let Some(clean_ups) = info.and_then(|info| info.shrink_count) {
                    self.note_clean_ups(now, clean_ups);
                }
            }
            Update::Lost(error) => {
                let since = self.lost.as_ref().map_or(now, |(since, _)| *since);
                self.lost = Some((since, error));
                remember(&mut self.history, now, None);
            }
            Update::Counting(objects) => self.counting = Some(objects),
            Update::Counted { counts, took } => {
                self.counting = None;
                self.objects = Objects::Known { counts, took, at: now };
            }
            Update::Measured { sample, at } => {
                // Of two that follow each other at once, rates mean nothing.
                let before = self.sample.as_ref().filter(|(before, _)| at > *before);
                let rates = before.map(|(before, of)| sample.rates_since(of, at - *before));
                let rates = rates.flatten();
                if before.is_some() {
                    let rate = rates.as_ref().map(|rates| rates.requests().round() as u64);
                    remember(&mut self.request_rates, now, rate);
                }
                self.rates = Ok(rates);
                self.sample = Some((at, sample));
            }
            Update::NotMeasured(error) => {
                self.sample = None;
                remember(&mut self.request_rates, now, None);
                self.rates = Err(error);
            }
            Update::Clients { sessions, at } => {
                self.clients = Some(Clients::new(&sessions, at, self.clients.as_ref()));
            }
            Update::NoClients => self.clients = None,
            Update::NotCounted(error) => {
                self.counting = None;
                self.objects = Objects::Failed(error);
            }
        }
        false
    }

    /// Asks half as often; returns the interval.
    pub(super) fn slower(&mut self) -> Duration {
        self.interval = (self.interval * 2).min(*INTERVALS.end());
        self.interval
    }

    /// Asks twice as often; returns the interval.
    pub(super) fn faster(&mut self) -> Duration {
        self.interval = (self.interval / 2).max(*INTERVALS.start());
        self.interval
    }

    /// True if rates of requests can be known.
    pub(super) fn is_measured(&self) -> bool {
        self.admin.is_some() || self.metrics_url.is_some()
    }

    /// The fill of the cache in the last reply.
    pub(super) fn fill(&self) -> Option<CacheInfo> {
        self.info.and_then(|(_, info)| info)
    }

    /// What a tiered cache has in its store, as of the last statistics.
    pub(super) fn tier(&self) -> Option<Tier> {
        self.sample.as_ref().and_then(|(_, sample)| sample.tier)
    }

    /// For how long a reply is overdue, if it is.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        let last = self.info.map(|(at, _)| at).or(self.plugin.as_ref().map(|p| p.since))?;
        let silence = now.saturating_duration_since(last);
        (silence > self.interval + Duration::from_secs(2)).then_some(silence)
    }

    /// Clean-ups in the last minute; none until it is known.
    pub(super) fn clean_up_rate(&self) -> Option<f64> {
        let ((first, before), (last, after)) =
            (self.clean_ups.front().copied()?, self.clean_ups.back().copied()?);
        let time = last.duration_since(first);
        if time.is_zero() {
            return None;
        }
        Some((after - before) as f64 * 60.0 / time.as_secs_f64())
    }

    fn note_clean_ups(&mut self, now: Instant, count: u64) {
        // A count that falls was begun anew.
        if self.clean_ups.back().is_some_and(|(_, last)| *last > count) {
            self.clean_ups.clear();
        }
        self.clean_ups.push_back((now, count));
        // One that is older than the window is where the rate begins.
        while self.clean_ups.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_WINDOW) {
            self.clean_ups.pop_front();
        }
    }
}

fn remember(history: &mut VecDeque<(Instant, Option<u64>)>, now: Instant, value: Option<u64>) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back((now, value));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> State {
        State::new("unix=/socket", 2 * SECOND, true)
    }

    fn connected() -> Update {
        Update::Connected { name: b"ram".to_vec(), pid: Some(7) }
    }

    fn info(used_bytes: u64, shrink_count: u64) -> Update {
        Update::Info(Some(CacheInfo::new(100, used_bytes, 0).with_shrink_count(shrink_count)))
    }

    #[test]
    fn the_interval_is_halved_and_doubled_within_bounds() {
        let mut state = state();
        assert_eq!((state.slower(), state.faster()), (4 * SECOND, 2 * SECOND));
        for _ in 0..40 {
            state.faster();
        }
        assert_eq!(state.interval, *INTERVALS.start());
        for _ in 0..40 {
            state.slower();
        }
        assert_eq!(state.interval, *INTERVALS.end());
    }

    #[test]
    fn a_lost_connection_leaves_a_gap_and_the_last_known_state() {
        let (mut state, now) = (state(), Instant::now());
        state.apply(connected(), now);
        state.apply(info(40, 0), now);
        state.apply(Update::Lost("gone".into()), now + SECOND);
        state.apply(Update::Lost("still gone".into()), now + 2 * SECOND);
        assert_eq!(state.lost, Some((now + SECOND, "still gone".into())));
        assert_eq!(state.fill().unwrap().used_bytes, 40);
        state.apply(info(1, 0), now + 3 * SECOND);
        assert_eq!(state.lost, None);
        let used: Vec<_> = state.history.iter().map(|(_, used)| *used).collect();
        assert_eq!(used, [Some(40), None, None, Some(1)]);
    }

    #[test]
    fn the_objects_of_a_plugin_are_counted_again_after_a_reconnect() {
        let (mut state, now) = (state(), Instant::now());
        assert!(!state.apply(connected(), now));
        state.apply(Update::Counted { counts: [Count::default(); 3], took: SECOND }, now);
        assert!(state.apply(connected(), now));
        assert_eq!(state.objects, Objects::Unknown);
        let mut uncounted = State::new("x", SECOND, false);
        assert!(!uncounted.apply(connected(), now) && !uncounted.apply(connected(), now));
        assert_eq!(uncounted.objects, Objects::Off);
    }

    #[test]
    fn the_rate_of_clean_ups_is_that_of_the_last_minute() {
        let (mut state, now) = (state(), Instant::now());
        state.apply(info(0, 5), now);
        assert_eq!(state.clean_up_rate(), None);
        state.apply(info(0, 6), now + 30 * SECOND);
        assert_eq!(state.clean_up_rate(), Some(2.0));
        for seconds in 31..300 {
            state.apply(info(0, 6), now + seconds * SECOND);
        }
        assert_eq!(state.clean_up_rate(), Some(0.0));
        state.apply(info(0, 1), now + 300 * SECOND);
        assert_eq!(state.clean_up_rate(), None);
    }

    #[test]
    fn the_history_of_the_view_is_bounded() {
        let (mut state, now) = (state(), Instant::now());
        for used in 0..2 * HISTORY as u64 {
            state.apply(info(used, 0), now);
        }
        assert_eq!(state.history.len(), HISTORY);
        assert_eq!(state.history[0].1, Some(HISTORY as u64));
    }

    #[test]
    fn an_overdue_reply_is_noticed() {
        let (mut state, now) = (state(), Instant::now());
        assert_eq!(state.silence(now), None);
        state.apply(connected(), now);
        assert_eq!(state.silence(now + 3 * SECOND), None);
        assert_eq!(state.silence(now + 5 * SECOND), Some(5 * SECOND));
        state.apply(info(0, 0), now + 5 * SECOND);
        assert_eq!(state.silence(now + 6 * SECOND), None);
    }
}
