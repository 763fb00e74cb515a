//! The conformance suite: whether a plugin does what CernVM-FS clients rely on and, on request,
//! survives hostile clients.
//!
//! A [`Suite`] chooses cases and runs them against a [`Target`]; a [`Report`] has the results.
//! The cases are in `cases/` and `hostile/`, by subject. Each is a function that gets a `Probe`
//! and compares what comes back step by step (`step.rs`).

mod case;
mod cases;
mod client;
mod hostile;
mod object;
mod probe;
mod report;
mod step;
mod target;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use cvmcache::CachePlugin;
use cvmcache::client::Client;

pub use case::{Case, Kind};
pub use report::{CaseResult, Failure, Outcome, Report};
pub use target::{SuiteError, Target};

use probe::Probe;
use step::{Checked, Stop, Trace};
use target::Started;

/// Runs the whole suite, the hostile cases included, against a plugin in this process, which is served
/// as [`Target::plugin`] says. Returns when all cases have ended.
///
/// ```no_run
/// # use cvmcache::CachePlugin;
/// fn conforms(plugin: impl CachePlugin) {
///     cvmcache_testkit::check(plugin);
/// }
/// ```
///
/// # Panics
///
/// With the whole report if a case fails, or all of them are skipped; and if the plugin cannot be
/// served.
#[track_caller]
pub fn check(plugin: impl CachePlugin) {
    match Suite::new().hostile(true).run(Target::plugin(plugin)) {
        Ok(report) => report.assert_good(),
        Err(error) => panic!("the suite cannot be run: {error}"),
    }
}

/// A choice of cases, and how to run them.
///
/// ```
/// use cvmcache_testkit::Suite;
///
/// let suite = Suite::new().hostile(true).filter("upload").filter("listing");
/// for case in suite.cases() {
///     println!("{}: {}", case.name(), case.meaning());
/// }
/// assert!(suite.check_filters().is_ok());
/// assert!(Suite::new().filter("no such case").check_filters().is_err());
/// ```
#[derive(Debug, Clone)]
pub struct Suite {
    hostile: bool,
    filters: Vec<String>,
    may_evict: bool,
    max_fill: u64,
    timeout: Duration,
    seed: u64,
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

impl Suite {
    /// All cases about what clients rely on, and none about what no client should do.
    pub fn new() -> Self {
        Self {
            hostile: false,
            filters: Vec::new(),
            may_evict: false,
            max_fill: 1 << 30,
            timeout: Duration::from_secs(20),
            seed: fastrand::u64(..),
        }
    }

    /// Adds the cases about what no client should do ([`Kind::Hostile`]); default false.
    #[must_use]
    pub fn hostile(mut self, hostile: bool) -> Self {
        self.hostile = hostile;
        self
    }

    /// Keeps only cases with `text` in their name, as it is written; of several filters, one has to
    /// match. Case matters.
    #[must_use]
    pub fn filter(mut self, text: impl Into<String>) -> Self {
        self.filters.push(text.into());
        self
    }

    /// Runs the cases that [need the cache for themselves](Case::needs_cache_alone) against a plugin
    /// that runs already, too: other clients lose their objects. With a plugin that is started for
    /// the suite they run in any case. Default false.
    #[must_use]
    pub fn may_evict(mut self, may_evict: bool) -> Self {
        self.may_evict = may_evict;
        self
    }

    /// How large a cache may be for the cases that fill it, in bytes; default 1 GiB. They are skipped
    /// on a larger one.
    #[must_use]
    pub fn max_fill(mut self, bytes: u64) -> Self {
        self.max_fill = bytes;
        self
    }

    /// The timeout of a reply, after which a case fails; default 20 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The seed of the random numbers: the same seed gives each case the same objects, whatever other
    /// cases are run; in a plugin that runs already, they get other ids. By default, another each
    /// time; the [report](Report::seed) has it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The cases that are chosen, in the order in which they are run.
    pub fn cases(&self) -> impl Iterator<Item = &'static Case> {
        let wanted = |case: &&Case| {
            let matches = |filter: &String| case.name.contains(filter.as_str());
            (self.hostile || case.kind != Kind::Hostile)
                && (self.filters.is_empty() || self.filters.iter().any(matches))
        };
        all_cases().filter(wanted)
    }

    /// Runs the cases.
    ///
    /// # Errors
    ///
    /// [`SuiteError`] if the plugin cannot be started or reached to begin with, or if a
    /// [filter](Self::check_filters) leaves nothing to run. What the plugin does from then on is in the
    /// report: a case that fails is no error.
    pub fn run(&self, target: impl Into<Target>) -> Result<Report, SuiteError> {
        self.run_with(target, |_| {})
    }

    /// Runs the cases one by one on this thread, and reports each as soon as it has ended, or was
    /// skipped.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn run_with(
        &self,
        target: impl Into<Target>,
        mut ended: impl FnMut(&CaseResult),
    ) -> Result<Report, SuiteError> {
        self.check_filters()?;
        let mut started = Started::start(target.into())?;
        let builder = Client::builder().name("test.cern.ch:offer").timeout(self.timeout);
        let offer = builder.connect(started.locator())?;
        let mut report = Report::new(self.seed);
        let mut gone = None;
        for case in self.cases() {
            let begun = Instant::now();
            let outcome = match (&gone, self.reason_to_skip(case, &offer, &started)) {
                (Some(why), _) => Outcome::Skipped(format!("the plugin is gone: {why}")),
                (None, Some(why)) => Outcome::Skipped(why),
                (None, None) => self.try_case(case, &offer, &mut started, &mut gone),
            };
            let result = CaseResult { case, outcome, took: begun.elapsed() };
            ended(&result);
            report.push(result);
        }
        Ok(report)
    }

    /// Checks that each filter leaves something to run.
    ///
    /// # Errors
    ///
    /// [`SuiteError::NoSuchCase`] and [`SuiteError::OnlyHostile`].
    pub fn check_filters(&self) -> Result<(), SuiteError> {
        for filter in &self.filters {
            let mut matching = all_cases().filter(|case| case.name.contains(filter.as_str()));
            match matching.next() {
                None => return Err(SuiteError::NoSuchCase(filter.clone())),
                Some(case) if self.hostile || case.kind != Kind::Hostile => {}
                Some(_) if matching.any(|case| case.kind != Kind::Hostile) => {}
                Some(_) => return Err(SuiteError::OnlyHostile(filter.clone())),
            }
        }
        Ok(())
    }

    fn reason_to_skip(&self, case: &Case, offer: &Client, started: &Started) -> Option<String> {
        let missing = case.needs.difference(offer.capabilities());
        if missing != cvmcache::plugin::Capabilities::NONE {
            return Some(format!("the plugin does not declare {missing}"));
        }
        (case.alone && !started.is_ours() && !self.may_evict)
            .then(|| "it needs the cache for itself, or evicts objects of other clients".to_owned())
    }

    /// Runs a case, and sees to it that the next finds a plugin that serves.
    fn try_case(
        &self,
        case: &'static Case,
        offer: &Client,
        started: &mut Started,
        gone: &mut Option<String>,
    ) -> Outcome {
        let trace = Trace::default();
        let mut rng = self.rng(case);
        // What an earlier run has left in a plugin that still runs would be taken for a mistake.
        let names = if started.is_ours() { rng.fork() } else { fastrand::Rng::new() };
        let outcome = (case.run)(&Probe {
            locator: started.locator(),
            capabilities: offer.capabilities(),
            part: offer.max_object_size(),
            timeout: self.timeout,
            max_fill: self.max_fill,
            trace: trace.clone(),
            handle: started.handle(),
            rng: RefCell::new(rng),
            names: RefCell::new(names),
        });
        let alive = started.check_alive(self.timeout);
        let outcome = match (outcome, &alive) {
            (Ok(()), Err(why)) => still_served(&trace, why),
            (Err(Stop::Failed(mut failure)), Err(why)) => {
                failure.received += &format!("\nafterwards: {why}");
                Err(Stop::Failed(failure))
            }
            (Err(Stop::Failed(mut failure)), Ok(())) => {
                failure.printed = started.printed();
                Err(Stop::Failed(failure))
            }
            (outcome, _) => outcome,
        };
        if alive.is_err() || matches!(outcome, Err(Stop::Failed(_))) {
            // What a case that failed has left behind is no concern of the next.
            *gone = match (started.restart(), alive) {
                (Ok(true), _) | (Ok(false), Ok(())) => None,
                (Ok(false), Err(why)) => Some(why),
                (Err(error), _) => Some(error.to_string()),
            };
        }
        match outcome {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(failure)) => Outcome::Failed(failure),
            Err(Stop::Skipped(why)) => Outcome::Skipped(why),
        }
    }

    /// Chance for one case: the same, whatever other cases are run.
    fn rng(&self, case: &Case) -> fastrand::Rng {
        let add = |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte));
        fastrand::Rng::with_seed(case.name.bytes().fold(self.seed, add))
    }
}

fn still_served(trace: &Trace, why: &str) -> Checked<()> {
    Err(trace.failure("a handshake, after the case", "a plugin that goes on serving", why))
}

fn all_cases() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().chain(hostile::ALL).copied().flatten()
}
