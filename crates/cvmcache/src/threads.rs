//! Starting threads: if the system has none to spare, the error names the limit and the remedy.

use std::io::{self, ErrorKind};
use std::thread::{self, JoinHandle, Scope, ScopedJoinHandle};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// Starts a thread, as [`thread::Builder::spawn`] does, with an error that says what to do about it.
///
/// [`thread::spawn`] panics if the system has no thread to spare, as do libraries that start one.
///
/// # Errors
///
/// That of the system, with the same kind.
///
/// ```
/// let thread = cvmcache::threads::spawn("adds", || 1 + 1)?;
/// assert_eq!(thread.join().ok(), Some(2));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map_err(|error| explained(name, &error))
}

/// The same for a thread of a [scope](thread::scope).
///
/// # Errors
///
/// As with [`spawn`].
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, body);
    spawned.map_err(|error| explained(name, &error))
}

/// Makes sure that the system has `count` threads to spare now, by starting and ending them: before a
/// library is called that panics if it has not. Ask for one more than that starts, since the end of a thread
/// takes a moment longer than to wait for it.
///
/// # Errors
///
/// As with [`spawn`].
///
/// ```
/// cvmcache::threads::check(2)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn check(count: usize) -> io::Result<()> {
    let (hold, held) = crossbeam_channel::bounded::<()>(0);
    let start = |_| {
        let held = held.clone();
        spawn("check", move || held.recv().is_ok())
    };
    let threads: io::Result<Vec<_>> = (0..count).map(start).collect();
    drop(hold);
    for thread in threads? {
        // It does nothing that could panic.
        let _ = thread.join();
    }
    Ok(())
}

fn explained(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), explain(name, error, max_processes()))
}

fn explain(name: &str, error: &io::Error, max_processes: Option<u64>) -> String {
    // EAGAIN; anything else, such as a lack of memory, speaks for itself.
    if error.kind() != ErrorKind::WouldBlock {
        return format!("cannot start the thread {name}: {error}");
    }
    let limit = match max_processes {
        Some(limit) => format!("is {limit}"),
        None => "is not set".to_owned(),
    };
    format!(
        "cannot start the thread {name}: {error}: there are too many processes and threads, or there is no \
         memory for one; the limit of the user (ulimit -u, LimitNPROC= of a unit) {limit}, that of a \
         container is in pids.max (TasksMax= of a unit): raise it, or end other processes"
    )
}

/// The limit on processes and threads of this user.
fn max_processes() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn the_error_names_the_thread_the_limits_and_the_remedy() {
        let error = io::Error::from(Errno::EAGAIN);
        let text = explain("io", &error, Some(40));
        for expected in
            ["thread io: ", "(ulimit -u, LimitNPROC= of a unit) is 40", "pids.max", "raise it"]
        {
            assert!(text.contains(expected), "{text} lacks {expected}");
        }
        assert!(explain("io", &error, None).contains("is not set"));
        let memory = io::Error::from(Errno::ENOMEM);
        assert!(explain("io", &memory, None).ends_with("Cannot allocate memory (os error 12)"));
    }
}
