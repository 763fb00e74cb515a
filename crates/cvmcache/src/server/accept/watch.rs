//! A thread that notices when a socket or its lock file is not at its path any more, and keeps both from
//! being removed for their age.
//!
//! It is a thread because a file system may stand still, such as one on a server that is gone: then this
//! thread stands still, and not the I/O thread. It only checks and touches the files; the I/O thread binds.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use parking_lot::Mutex;
use tracing::{debug, warn};

use super::socket_file;
use crate::files::FileId;
use crate::{threads, watchdog};

/// How often the files are checked even if inotify reports nothing: it is not always available, and it does
/// not report that a directory further up was renamed, or that something was mounted over it.
const PERIOD: Duration = Duration::from_secs(5);

/// How long after a report the next one follows, unless the files are in place by then.
const RETRY: Duration = Duration::from_secs(1);

/// How often the files are touched. systemd-tmpfiles, tmpwatch and tmpreaper remove files that were not
/// for a number of days; systemd-tmpfiles spares a socket that it finds in /proc/net/unix, which has the
/// name that a long path was bound under.
const TOUCH_PERIOD: Duration = Duration::from_secs(3600);

/// Paths, each with the file that is to be there.
pub(crate) type Places = Vec<(PathBuf, FileId)>;

type InitInotify = fn() -> nix::Result<Inotify>;

/// What the thread and the I/O thread share. The lock is held for no longer than a copy.
#[derive(Debug)]
struct Shared {
    /// `None` if they are known not to be in place.
    places: Mutex<Option<Places>>,
    has_report: AtomicBool,
}

/// The I/O thread's handle on the thread, which ends when this is dropped, and is not waited for.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    control: UnixStream,
}

impl Watch {
    /// Starts the thread. `wake` is called on it when there is a report.
    pub(crate) fn start(places: Places, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (control, controlled) = UnixStream::pair()?;
        controlled.set_nonblocking(true)?;
        control.set_nonblocking(true)?;
        let has_report = AtomicBool::new(false);
        let shared = Arc::new(Shared { places: Mutex::new(Some(places)), has_report });
        let mut watcher = Watcher::new(shared.clone(), init_inotify, Instant::now());
        threads::spawn("socket", move || {
            watchdog::prepare_thread();
            watcher.run(&controlled, wake);
        })?;
        Ok(Self { shared, control })
    }

    /// True if files are not in place, once a report.
    pub(crate) fn take_report(&self) -> bool {
        self.shared.has_report.swap(false, Ordering::AcqRel)
    }

    /// Says where the files are to be from now on; `None` if they are not in place, which is to be
    /// reported again.
    pub(crate) fn set_places(&self, places: Option<Places>) {
        let is_known = places.is_some();
        *self.shared.places.lock() = places;
        if is_known {
            // If it is full, the thread has something to read.
            let _ = (&self.control).write(&[0]);
        }
    }
}

/// The state of the thread.
#[derive(Debug)]
struct Watcher {
    shared: Arc<Shared>,
    next_touch: Instant,
    /// Calls inotify_init1(2).
    init_inotify: InitInotify,
    /// `None` if it is not available, as at a limit of the user (inotify(7)). It may be later.
    inotify: Option<Inotify>,
    /// What `inotify` watches.
    watched: Places,
    /// It was logged that inotify is not available.
    has_warned: bool,
}

impl Watcher {
    fn new(shared: Arc<Shared>, init_inotify: InitInotify, now: Instant) -> Self {
        let (inotify, watched, has_warned) = (None, Vec::new(), false);
        Self { shared, next_touch: now, init_inotify, inotify, watched, has_warned }
    }

    fn run(&mut self, controlled: &UnixStream, wake: impl Fn()) {
        loop {
            let is_in_place = self.check(Instant::now());
            if !is_in_place {
                self.shared.has_report.store(true, Ordering::Release);
                wake();
            }
            if !self.wait(controlled, if is_in_place { PERIOD } else { RETRY }) {
                return;
            }
        }
    }

    /// True if all files are in place. Touches them if it is time to.
    fn check(&mut self, now: Instant) -> bool {
        let Some(places) = self.shared.places.lock().clone() else { return false };
        // Before the check: what changes after it is reported.
        let watching = self.watch(&places);
        if !places.iter().all(|(path, file)| is_in_place(path, *file)) {
            return false;
        }
        // If a file is missing, that is no fault of inotify.
        if let Err(error) = watching
            && !mem::replace(&mut self.has_warned, true)
        {
            let seconds = PERIOD.as_secs();
            let path = places.first().map(|(path, _)| path.display());
            warn!(
                %error, path = path.map(tracing::field::display),
                "inotify is not available: the socket is checked every {seconds} s instead"
            );
        }
        if now >= self.next_touch {
            places.iter().for_each(|(path, _)| touch(path));
            self.next_touch = now + TOUCH_PERIOD;
        }
        true
    }

    /// Has inotify watch these files, unless it does.
    fn watch(&mut self, places: &Places) -> nix::Result<()> {
        if self.inotify.is_none() || self.watched != *places {
            // First, or both would count.
            self.inotify = None;
            self.inotify = Some(watch(places, self.init_inotify)?);
            self.watched.clone_from(places);
            self.has_warned = false;
        }
        Ok(())
    }

    /// Waits for something to look at; false if the thread is to end.
    fn wait(&self, mut controlled: &UnixStream, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut sources = vec![PollFd::new(controlled.as_fd(), PollFlags::POLLIN)];
        sources.extend(self.inotify.as_ref().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut sources, timeout);
        while self.inotify.as_ref().is_some_and(|inotify| inotify.read_events().is_ok()) {}
        match controlled.read(&mut [0; 64]) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// The path of a lock file may be a symbolic link; that of a socket is none.
fn is_in_place(path: &Path, file: FileId) -> bool {
    socket_file::is_at(path, file)
        || fs::metadata(path).is_ok_and(|metadata| FileId::of(&metadata) == file)
}

fn init_inotify() -> nix::Result<Inotify> {
    Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
}

/// Has changes of the files reported. An unlinked file that is open reports that its attributes change,
/// as its number of links does. Of its directory only the end is watched: others may be busy there.
fn watch(places: &Places, init_inotify: InitInotify) -> nix::Result<Inotify> {
    let inotify = init_inotify()?;
    let moved = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
    for (path, _) in places {
        let flags = moved | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DONT_FOLLOW;
        inotify.add_watch(path, flags)?;
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        inotify.add_watch(directory, moved | AddWatchFlags::IN_ONLYDIR)?;
    }
    Ok(inotify)
}

/// Sets the times of a file. One that cannot be touched, as on a file system that is read-only, stays as
/// it is.
fn touch(path: &Path) {
    let now = TimeSpec::UTIME_NOW;
    let flags = UtimensatFlags::NoFollowSymlink;
    if let Err(error) = utimensat(AT_FDCWD, path, &now, &now, flags) {
        debug!(%error, path = %path.display(), "cannot touch");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::mpsc;
    use std::time::SystemTime;

    use nix::errno::Errno;

    use super::*;

    fn place(path: &Path) -> (PathBuf, FileId) {
        let metadata = fs::symlink_metadata(path).expect("a file");
        (path.to_owned(), FileId::of(&metadata))
    }

    fn watcher(places: Places, init: InitInotify, now: Instant) -> Watcher {
        let has_report = AtomicBool::new(false);
        let shared = Shared { places: Mutex::new(Some(places)), has_report };
        Watcher::new(Arc::new(shared), init, now)
    }

    #[test]
    fn files_are_touched_once_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        let start = Instant::now();
        let mut watcher = watcher(vec![place(&path)], init_inotify, start);
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let mut is_touched = |after: Duration| {
            let times = fs::FileTimes::new().set_modified(old).set_accessed(old);
            file.set_times(times).unwrap();
            assert!(watcher.check(start + after));
            let metadata = file.metadata().unwrap();
            assert_eq!(metadata.modified().unwrap() == old, metadata.accessed().unwrap() == old);
            metadata.modified().unwrap() != old
        };
        assert!(is_touched(Duration::ZERO));
        assert!(!is_touched(TOUCH_PERIOD - Duration::from_secs(1)));
        assert!(is_touched(TOUCH_PERIOD));
        assert!(!is_touched(TOUCH_PERIOD * 2 - Duration::from_secs(1)));
        assert!(is_touched(TOUCH_PERIOD * 2));
    }

    #[test]
    fn a_file_that_is_removed_replaced_or_moved_is_not_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("directory");
        let (path, other) = (directory.join("file"), directory.join("other"));
        for change in [
            |path: &Path, _: &Path| fs::remove_file(path),
            |path: &Path, other: &Path| fs::rename(path, other),
            |path: &Path, other: &Path| fs::rename(other, path),
            |path: &Path, _: &Path| {
                let directory = path.parent().expect("a directory");
                fs::rename(directory, directory.with_extension("away"))
            },
        ] {
            let _ = fs::remove_dir_all(directory.with_extension("away"));
            let _ = fs::create_dir(&directory);
            // Open, so that its number is not used again.
            let _file = File::create(&path).unwrap();
            File::create(&other).unwrap();
            let now = Instant::now();
            let mut watcher = watcher(vec![place(&path)], init_inotify, now);
            assert!(watcher.check(now));
            change(&path, &other).unwrap();
            assert!(!watcher.check(now));
        }
    }

    #[test]
    fn without_inotify_a_missing_file_is_found_by_the_periodic_check_and_inotify_is_tried_again() {
        // No kernel support or a seccomp filter; no descriptors; the limit of the user; no memory.
        let failures: [InitInotify; 5] = [
            || Err(Errno::ENOSYS),
            || Err(Errno::EPERM),
            || Err(Errno::EMFILE),
            || Err(Errno::ENFILE),
            || Err(Errno::ENOMEM),
        ];
        for init in failures {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            // Open, so that its number is not used again.
            let _file = File::create(&path).unwrap();
            let now = Instant::now();
            let mut watcher = watcher(vec![place(&path)], init, now);
            assert!(watcher.check(now) && watcher.has_warned && watcher.inotify.is_none());
            assert!(watcher.check(now));
            fs::remove_file(&path).unwrap();
            assert!(!watcher.check(now));
            let _file = File::create(&path).unwrap();
            *watcher.shared.places.lock() = Some(vec![place(&path)]);
            watcher.init_inotify = init_inotify;
            assert!(watcher.check(now) && watcher.inotify.is_some());
            assert!(!watcher.has_warned, "the next failure is logged again");
        }
    }

    #[test]
    fn a_removed_file_is_reported_and_again_until_it_is_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let _file = File::create(&path).unwrap();
        let (wake, woken) = mpsc::channel();
        let watch = Watch::start(vec![place(&path)], move || wake.send(()).unwrap_or(())).unwrap();
        assert!(!watch.take_report());
        fs::remove_file(&path).unwrap();
        woken.recv().unwrap();
        assert!(watch.take_report());
        watch.set_places(None);
        woken.recv().unwrap();
        let _file = File::create(&path).unwrap();
        watch.set_places(Some(vec![place(&path)]));
        fs::remove_file(&path).unwrap();
        woken.recv().unwrap();
        drop(watch);
        // There may be reports on the way. No more can follow once the thread has ended.
        woken.iter().for_each(drop);
    }
}
