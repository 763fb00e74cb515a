//! The life cycle of a context: created, listening, running, ended, freed.
//!
//! C holds a pointer that points nowhere: it is the number of a context, never used again. So
//! nothing a plugin does with an old pointer can do harm, and a context may be waited for on one
//! thread and ended on another.
//!
//! # Locks
//!
//! There is one for the table of contexts, and one for the stage of each context. Neither is held together
//! with another lock, nor while the server is started or waited for, the plugin is called, or a context is
//! dropped: a step takes the stage out ([`Stage::Taken`]), works without the lock, and puts the next one in.
//! So a callback, which may call any function of the library, never waits for the thread that waits for it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use cvmcache::{BoundServer, Limits, Locator, RunningServer, Server, ServerError};

use crate::admin::Place;
use crate::callbacks::Callbacks;
use crate::ffi::report_error;
use crate::plugin::Plugin;
use crate::state::{Shared, State};
use crate::{layout, process, session};

/// The name in handshakes.
const NAME: &str = "cvmcache libcvmfs_cache";

/// The most threads that a system can be expected to start.
const MAX_WORKERS: u32 = 1024;

/// A plugin that serves, or is about to.
pub(crate) struct Context {
    shared: Shared,
    workers_allowed: AtomicBool,
    /// Invariant: a thread that has put `Taken` in puts another stage in later, whatever comes of its step,
    /// and notifies `changed`: threads may wait for that.
    stage: Mutex<Stage>,
    changed: Condvar,
}

enum Stage {
    Made(Place),
    Listening(Box<BoundServer>),
    Running(RunningServer),
    /// A thread waits for its end, or takes the next step.
    Taken,
    Ended,
}

/// All contexts by the numbers that C has for them.
static CONTEXTS: Mutex<Contexts> = Mutex::new(Contexts { last: 0, by_number: BTreeMap::new() });

struct Contexts {
    last: usize,
    by_number: BTreeMap<usize, Arc<Context>>,
}

/// Makes a context for a table of callbacks.
pub(crate) fn init(table: &layout::Callbacks) -> *mut layout::Context {
    process::prepare();
    let callbacks = match Callbacks::new(*table) {
        Ok(callbacks) => callbacks,
        Err(reason) => {
            report_error(format_args!("cvmcache_init: {reason}"));
            process::tell_failed();
            return ptr::null_mut();
        }
    };
    let shared = Shared::new(State::new(callbacks));
    let context = Context {
        shared,
        workers_allowed: AtomicBool::new(process::is_concurrent()),
        stage: Mutex::new(Stage::Made(Place::default())),
        changed: Condvar::new(),
    };
    let mut contexts = contexts();
    contexts.last += 1;
    let number = contexts.last;
    contexts.by_number.insert(number, Arc::new(context));
    ptr::without_provenance_mut(number)
}

/// The context that C means; `None`, and an error message, if there is none.
pub(crate) fn find(function: &str, pointer: *mut layout::Context) -> Option<Arc<Context>> {
    let found = contexts().by_number.get(&pointer.addr()).cloned();
    if found.is_none() {
        report_error(format_args!(
            "{function}: there is no such context; take what cvmcache_init has returned, and \
             nothing after cvmcache_wait_for"
        ));
    }
    found
}

/// Waits for the end of a context, and forgets it.
pub(crate) fn wait_for(pointer: *mut layout::Context) {
    let Some(context) = find("cvmcache_wait_for", pointer) else { return };
    if session::in_callback() {
        report_error("cvmcache_wait_for was called in a callback, and would wait for ever");
        return;
    }
    context.wait();
    let gone = contexts().by_number.remove(&pointer.addr());
    drop(gone);
}

fn contexts() -> MutexGuard<'static, Contexts> {
    CONTEXTS.lock()
}

impl Context {
    /// True if clients can connect from now on.
    pub(crate) fn listen(&self, locator: &OsStr) -> bool {
        let Some(Stage::Made(place)) = self.take(|stage| matches!(stage, Stage::Made(_))) else {
            report_error("cvmcache_listen: the context listens already, or has ended");
            return false;
        };
        let (next, listens) = match start_listening(&self.shared, locator, &place) {
            Ok(listening) => (Stage::Listening(Box::new(listening)), true),
            Err(error) => {
                match error.downcast_ref().is_some_and(ServerError::is_in_use) {
                    // The client will find the other process.
                    true => process::tell_ready(),
                    false => process::tell_failed(),
                }
                report_error(error);
                // Another locator may do.
                (Stage::Made(place), false)
            }
        };
        self.go_to(next);
        listens
    }

    /// Asks for an administration socket: at a path, or beside the plugin's own.
    pub(crate) fn serve_admin(&self, path: Option<&OsStr>) {
        match &mut *self.stage() {
            Stage::Made(place) => *place = Place::asked(path),
            _ => report_error("cvmcache_admin: the context listens already, or has ended"),
        }
    }

    /// Lets `nworkers` of [`process_requests`](Self::process_requests) mean something.
    pub(crate) fn allow_workers(&self) {
        self.workers_allowed.store(true, Ordering::Relaxed);
    }

    /// Starts the threads.
    pub(crate) fn process_requests(&self, nworkers: u32) {
        let taken = self.take(|stage| matches!(stage, Stage::Listening(_)));
        let Some(Stage::Listening(listening)) = taken else {
            report_error("cvmcache_process_requests: the context does not listen, or runs already");
            return;
        };
        let allowed = self.workers_allowed.load(Ordering::Relaxed);
        let workers = if allowed { nworkers.min(MAX_WORKERS) as usize } else { 0 };
        self.shared.workers.store(workers, Ordering::Relaxed);
        let next = match start_running(*listening) {
            Ok(running) => {
                process::tell_ready();
                Stage::Running(running)
            }
            Err(error) => {
                process::tell_failed();
                report_error(error);
                Stage::Ended
            }
        };
        self.go_to(next);
    }

    pub(crate) fn ask_detach(&self) {
        self.shared.handle.ask_detach();
    }

    /// Ends the threads. Waits for that unless it is waited for already: by a thread that this may
    /// have interrupted, if it is called by a signal handler, or by the one that runs the callback.
    pub(crate) fn terminate(&self) {
        self.shared.handle.terminate();
        if session::in_callback() {
            return;
        }
        let taken = self.take(|stage| matches!(stage, Stage::Running(..)));
        if let Some(Stage::Running(running)) = taken {
            self.finish(running);
        }
    }

    pub(crate) fn max_object_size(&self) -> u32 {
        Limits::default().max_object_size
    }

    fn wait(&self) {
        let mut stage = self.stage();
        loop {
            match mem::replace(&mut *stage, Stage::Taken) {
                Stage::Running(running) => {
                    drop(stage);
                    return self.finish(running);
                }
                Stage::Taken => {
                    self.changed.wait(&mut stage);
                }
                // A context that does not run is over now.
                Stage::Made(_) | Stage::Listening(_) | Stage::Ended => {
                    *stage = Stage::Ended;
                    return;
                }
            }
        }
    }

    /// Waits for the end of the threads, and wakes other threads that wait for it.
    fn finish(&self, running: RunningServer) {
        if let Err(error) = running.wait() {
            report_error(error);
        }
        self.go_to(Stage::Ended);
    }

    /// Takes the stage for the next step, if it is the right one. [`go_to`](Self::go_to) follows.
    fn take(&self, is_right: impl FnOnce(&Stage) -> bool) -> Option<Stage> {
        let mut stage = self.stage();
        is_right(&stage).then(|| mem::replace(&mut *stage, Stage::Taken))
    }

    fn go_to(&self, stage: Stage) {
        *self.stage() = stage;
        self.changed.notify_all();
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock()
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn start_listening(
    shared: &Shared,
    locator: &OsStr,
    place: &Place,
) -> Result<BoundServer, Failure> {
    let locator = Locator::from_os_str(locator)?;
    let builder = Server::builder(Plugin(shared.clone()))
        .handle(shared.handle.clone())
        .name(NAME)
        .supervised(process::is_supervised())
        .configure(&process::settings())?;
    let builder = match place.socket(&locator) {
        Some(socket) => builder.admin(socket),
        None => builder,
    };
    Ok(process::log_meanwhile(|| builder.listen(&locator))?)
}

fn start_running(listening: BoundServer) -> Result<RunningServer, Failure> {
    process::start_log()?;
    Ok(listening.spawn()?)
}
