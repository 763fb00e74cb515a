//! Faults: which calls fail and how, and a count of the calls so far.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cvmcache::plugin::{PluginResult, Status};
use parking_lot::{Condvar, Mutex};

/// What a server calls: the methods of a plugin, of its transactions and of its listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Callback {
    /// [`CachePlugin::change_refcount`](cvmcache::CachePlugin::change_refcount).
    ChangeRefcount,
    /// [`CachePlugin::object_info`](cvmcache::CachePlugin::object_info).
    ObjectInfo,
    /// [`CachePlugin::read`](cvmcache::CachePlugin::read).
    Read,
    /// [`CachePlugin::begin`](cvmcache::CachePlugin::begin).
    Begin,
    /// [`Transaction::write`](cvmcache::Transaction::write).
    Write,
    /// [`Transaction::commit`](cvmcache::Transaction::commit).
    Commit,
    /// [`CachePlugin::info`](cvmcache::CachePlugin::info).
    Info,
    /// [`CachePlugin::shrink`](cvmcache::CachePlugin::shrink).
    Shrink,
    /// [`CachePlugin::list`](cvmcache::CachePlugin::list).
    List,
    /// The next entry of a [listing](cvmcache::plugin::Listing).
    Next,
    /// [`CachePlugin::store_breadcrumb`](cvmcache::CachePlugin::store_breadcrumb).
    StoreBreadcrumb,
    /// [`CachePlugin::load_breadcrumb`](cvmcache::CachePlugin::load_breadcrumb).
    LoadBreadcrumb,
}

impl Callback {
    /// All of them, in the order of their declaration.
    pub const ALL: [Callback; 12] = [
        Callback::ChangeRefcount,
        Callback::ObjectInfo,
        Callback::Read,
        Callback::Begin,
        Callback::Write,
        Callback::Commit,
        Callback::Info,
        Callback::Shrink,
        Callback::List,
        Callback::Next,
        Callback::StoreBreadcrumb,
        Callback::LoadBreadcrumb,
    ];
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails, and the wrapped plugin is not called.
    Fail(Status),
    /// It panics, and the wrapped plugin is not called.
    Panic,
    /// It takes longer, and then does its work.
    Delay(Duration),
    /// It waits until [`Faults::release`], and then does its work.
    Hang,
}

/// What is to go wrong in a [`Faulty`](crate::Faulty) plugin, and what has been called.
///
/// Clones share it: a test keeps one, and hands the plugin to a server.
#[derive(Clone, Default)]
pub struct Faults(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    calls: [u64; Callback::ALL.len()],
    faults: u64,
    open_transactions: usize,
    open_listings: usize,
    /// What the next calls of each callback do.
    planned: [VecDeque<Fault>; Callback::ALL.len()],
    random: Option<Random>,
    hanging: usize,
    /// How often hangs were released: a call that hangs waits for the next release.
    releases: u64,
}

struct Random {
    rng: fastrand::Rng,
    rules: Vec<Rule>,
}

struct Rule {
    callbacks: Vec<Callback>,
    probability: f64,
    fault: Fault,
}

impl Faults {
    /// Plans a fault for the next call of a callback, or for the one after those planned before.
    pub fn plan(&self, callback: Callback, fault: Fault) {
        self.0.state.lock().planned[callback as usize].push_back(fault);
    }

    /// From now on, lets chance decide, by the rules that [`sometimes`](Self::sometimes) adds. The
    /// same seed and the same order of calls give the same faults.
    pub fn seed(&self, seed: u64) {
        let mut state = self.0.state.lock();
        let rng = fastrand::Rng::with_seed(seed);
        match &mut state.random {
            Some(random) => random.rng = rng,
            none => *none = Some(Random { rng, rules: Vec::new() }),
        }
    }

    /// Makes calls of some callbacks go wrong with a probability from 0, which is never, to 1, which is
    /// always. Of several rules for
    /// a callback the first that strikes counts; what is planned goes before all. Without a
    /// [`seed`](Self::seed), the seed is 0.
    ///
    /// ```
    /// use cvmcache::plugin::Status;
    /// use cvmcache_testkit::{Callback, Fault, Faults};
    ///
    /// let faults = Faults::default();
    /// faults.seed(7);
    /// // A storage that fails now and then, and loses what it was to keep even more often.
    /// faults.sometimes(&[Callback::Read, Callback::ObjectInfo], 0.01, Fault::Fail(Status::IoErr));
    /// faults.sometimes(&[Callback::Commit], 0.1, Fault::Panic);
    /// ```
    pub fn sometimes(&self, callbacks: &[Callback], probability: f64, fault: Fault) {
        let rule = Rule { callbacks: callbacks.to_vec(), probability, fault };
        let mut state = self.0.state.lock();
        let seeded = || Random { rng: fastrand::Rng::with_seed(0), rules: Vec::new() };
        state.random.get_or_insert_with(seeded).rules.push(rule);
    }

    /// Removes all planned faults, the rules of chance and their seed. Counts stay, and calls that hang
    /// go on hanging.
    pub fn clear(&self) {
        let mut state = self.0.state.lock();
        state.planned = Default::default();
        state.random = None;
    }

    /// Lets all calls go on that hang now. One that hangs later waits for the next release.
    pub fn release(&self) {
        self.change(|state| state.releases += 1);
    }

    /// How many calls hang now.
    pub fn hanging(&self) -> usize {
        self.0.state.lock().hanging
    }

    /// Waits until so many calls, or more, hang at once; false if they do not within the time.
    #[must_use = "it may have taken too long"]
    pub fn wait_for_hanging(&self, calls: usize, at_most: Duration) -> bool {
        self.wait(at_most, |state| state.hanging >= calls)
    }

    /// Waits until no transaction and no listing is open; false if some are after this time.
    #[must_use = "it may have taken too long"]
    pub fn wait_for_nothing_open(&self, at_most: Duration) -> bool {
        self.wait(at_most, |state| state.open_transactions == 0 && state.open_listings == 0)
    }

    /// How often a callback was called, with a fault or without.
    pub fn calls(&self, callback: Callback) -> u64 {
        self.0.state.lock().calls[callback as usize]
    }

    /// How many calls had a fault, those that are late or hang included.
    pub fn faults(&self) -> u64 {
        self.0.state.lock().faults
    }

    /// How many transactions were begun and neither committed nor dropped.
    pub fn open_transactions(&self) -> usize {
        self.0.state.lock().open_transactions
    }

    /// How many listings were started and not dropped.
    pub fn open_listings(&self) -> usize {
        self.0.state.lock().open_listings
    }

    /// Counts a call, and does to it what is due.
    pub(crate) fn strike(&self, callback: Callback) -> PluginResult<()> {
        let fault = self.change(|state| {
            state.calls[callback as usize] += 1;
            let fault = state.next_fault(callback);
            state.faults += u64::from(fault.is_some());
            fault
        });
        match fault {
            None => Ok(()),
            Some(Fault::Fail(status)) => Err(status),
            Some(Fault::Panic) => panic!("panic of {callback:?} on purpose"),
            Some(Fault::Delay(time)) => {
                thread::sleep(time);
                Ok(())
            }
            Some(Fault::Hang) => {
                self.hang();
                Ok(())
            }
        }
    }

    pub(crate) fn transaction_opened(&self) -> Open {
        self.change(|state| state.open_transactions += 1);
        Open { faults: self.clone(), of: |state| &mut state.open_transactions }
    }

    pub(crate) fn listing_opened(&self) -> Open {
        self.change(|state| state.open_listings += 1);
        Open { faults: self.clone(), of: |state| &mut state.open_listings }
    }

    fn hang(&self) {
        let own = self.change(|state| {
            state.hanging += 1;
            state.releases
        });
        let mut state = self.0.state.lock();
        self.0.changed.wait_while(&mut state, |state| state.releases == own);
        state.hanging -= 1;
        self.0.changed.notify_all();
    }

    fn wait(&self, at_most: Duration, wanted: impl Fn(&State) -> bool) -> bool {
        let mut state = self.0.state.lock();
        !self.0.changed.wait_while_for(&mut state, |state| !wanted(state), at_most).timed_out()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.0.state.lock());
        self.0.changed.notify_all();
        changed
    }
}

impl State {
    fn next_fault(&mut self, callback: Callback) -> Option<Fault> {
        let planned = self.planned[callback as usize].pop_front();
        planned.or_else(|| self.random.as_mut()?.fault(callback))
    }
}

impl Random {
    fn fault(&mut self, callback: Callback) -> Option<Fault> {
        let mut rules = self.rules.iter().filter(|rule| rule.callbacks.contains(&callback));
        rules.find(|rule| self.rng.f64() < rule.probability).map(|rule| rule.fault)
    }
}

/// Something that counts as open until it is dropped.
pub(crate) struct Open {
    faults: Faults,
    of: fn(&mut State) -> &mut usize,
}

impl Open {
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.faults.change(|state| *(self.of)(state) -= 1);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Faults")
            .field("faults", &state.faults)
            .field("open_transactions", &state.open_transactions)
            .field("open_listings", &state.open_listings)
            .field("hanging", &state.hanging)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(faults: &Faults) -> Vec<bool> {
        (0..200).map(|_| faults.strike(Callback::Read).is_err()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let faults = Faults::default();
        faults.sometimes(&[Callback::Read], 0.5, Fault::Fail(Status::IoErr));
        let [first, second, other] = [7, 7, 8].map(|seed| {
            faults.seed(seed);
            outcomes(&faults)
        });
        assert_eq!(first, second);
        assert_ne!(first, other);
        let failed = first.iter().filter(|failed| **failed).count();
        assert!((60..140).contains(&failed), "{failed} of 200 failed");
    }

    #[test]
    fn planned_faults_strike_once_and_in_order_and_no_other_callback() {
        let faults = Faults::default();
        faults.plan(Callback::Read, Fault::Fail(Status::NoEntry));
        faults.plan(Callback::Read, Fault::Fail(Status::Timeout));
        assert_eq!(faults.strike(Callback::Info), Ok(()));
        assert_eq!(faults.strike(Callback::Read), Err(Status::NoEntry));
        assert_eq!(faults.strike(Callback::Read), Err(Status::Timeout));
        assert_eq!(faults.strike(Callback::Read), Ok(()));
        assert_eq!((faults.calls(Callback::Read), faults.faults()), (3, 2));
    }

    #[test]
    fn after_a_clear_there_are_no_faults() {
        let faults = Faults::default();
        faults.plan(Callback::Read, Fault::Panic);
        faults.sometimes(&Callback::ALL, 1.0, Fault::Panic);
        faults.clear();
        assert_eq!(faults.strike(Callback::Read), Ok(()));
    }

    #[test]
    fn each_callback_is_at_its_index_in_all() {
        for (place, callback) in Callback::ALL.into_iter().enumerate() {
            assert_eq!(callback as usize, place);
        }
    }
}
