//! A listening unix socket with its path and its lock file: bound, bound again after its file was removed,
//! and removed.
//!
//! Invariant: a file is removed only if it is the one that was bound here (device and inode), or a socket
//! that no process has open while the lock is held. The path of an inherited socket belongs to the service
//! manager: nothing is bound or removed there.

use std::fs;
use std::io::{self, ErrorKind};
use std::mem;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::stat::Mode;
use tracing::{debug, warn};

use super::errors::ListenError;
use super::lock_file::{LockError, LockFile};
use super::socket_file::{self, Found};
use crate::Locator;
use crate::files::FileId;

/// How long to wait for a lock without a socket, in steps: its holder ends, starts, or is about to bind
/// its socket again.
pub(crate) const LOCK_STEPS: u32 = 100;
pub(crate) const LOCK_STEP: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct NamedListener {
    socket: UnixListener,
    path: PathBuf,
    /// With which mode it is bound; `None` if it was inherited.
    mode: Option<Mode>,
    /// The file at the path; `None` if there was none when the socket was inherited.
    file: Option<FileId>,
    /// It refuses connections.
    is_stopped: bool,
    /// Listeners that were replaced, until their backlogs are empty. They need no event: no connection
    /// comes any more.
    replaced: Vec<UnixListener>,
    /// `None` if an inherited socket is where the plugin cannot write.
    lock: Option<LockFile>,
}

/// What was done about a socket that may not be at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// It is at its path.
    InPlace,
    Bound,
    /// It was inherited, and is not at its path: only the service manager can bind it again.
    Lost,
}

impl NamedListener {
    pub(crate) fn bind(path: &Path, mode: Mode) -> Result<Self, ListenError> {
        let lock = wait_for_lock(path)?;
        make_room(path, None)?;
        let (socket, file) = bind(path, mode)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            mode: Some(mode),
            file: Some(file),
            is_stopped: false,
            replaced: Vec::new(),
            lock: Some(lock),
        })
    }

    /// Takes over a socket that a service manager has made, and will remove.
    pub(crate) fn take_over(socket: UnixListener, path: PathBuf) -> Result<Self, ListenError> {
        // The lock keeps another plugin from replacing the socket, but the plugin's user need
        // not be allowed to write there.
        let lock = match acquire(&path) {
            Err(error @ ListenError::InUse { .. }) => return Err(error),
            Err(error) => {
                debug!(%error, "another plugin started here would replace the socket");
                None
            }
            Ok(lock) => Some(lock),
        };
        let file = fs::symlink_metadata(&path).ok().map(|metadata| FileId::of(&metadata));
        let (mode, is_stopped, replaced) = (None, false, Vec::new());
        Ok(Self { socket, path, mode, file, is_stopped, replaced, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files that have to stay where they are.
    pub(crate) fn places(&self) -> Vec<(PathBuf, FileId)> {
        let socket = self.file.map(|file| (self.path.clone(), file));
        socket.into_iter().chain(self.lock.as_ref().map(LockFile::place)).collect()
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    pub(crate) fn accept(&mut self) -> io::Result<UnixStream> {
        while let Some(replaced) = self.replaced.last() {
            match replaced.accept() {
                Err(error) if is_drained(&error) => drop(self.replaced.pop()),
                accepted => return accepted.map(|(stream, _)| stream),
            }
        }
        self.socket.accept().map(|(stream, _)| stream)
    }

    pub(crate) fn stop(&mut self) {
        if self.mode.is_some() {
            shut_down(&self.socket);
            self.is_stopped = true;
        }
    }

    pub(crate) fn resume(&mut self, registry: &Registry, token: Token) -> Result<(), ListenError> {
        match self.mode {
            Some(mode) if self.is_stopped => self.bind_again(mode, registry, token),
            _ => Ok(()),
        }
    }

    /// Makes the lock file and the socket again if they are not at their paths any more.
    pub(crate) fn renew(
        &mut self,
        registry: &Registry,
        token: Token,
    ) -> Result<Renewed, ListenError> {
        if let Some(lock) = &self.lock
            && !lock.is_in_place()
        {
            // The one before is held until this one is.
            self.lock = Some(acquire(&self.path)?);
            let path = LockFile::path_of(&self.path);
            warn!("the lock file {} was removed: it is made again", path.display());
        }
        if self.is_in_place() && !self.is_stopped {
            return Ok(Renewed::InPlace);
        }
        let Some(mode) = self.mode else { return Ok(Renewed::Lost) };
        self.bind_again(mode, registry, token)?;
        Ok(Renewed::Bound)
    }

    /// True if the service manager has bound it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.mode.is_none()
    }

    /// True if clients find the socket at its path.
    pub(crate) fn is_in_place(&self) -> bool {
        self.file.is_some_and(|file| socket_file::is_at(&self.path, file))
    }

    /// Binds a new socket in place of this one, whose backlog is still accepted.
    fn bind_again(
        &mut self,
        mode: Mode,
        registry: &Registry,
        token: Token,
    ) -> Result<(), ListenError> {
        make_room(&self.path, self.file)?;
        let (mut socket, file) = bind(&self.path, mode)?;
        if let Err(source) = registry.register(&mut socket, token, Interest::READABLE) {
            let _ = fs::remove_file(&self.path);
            return Err(system(&self.path, source));
        }
        let mut replaced = mem::replace(&mut self.socket, socket);
        let _ = registry.deregister(&mut replaced);
        shut_down(&replaced);
        self.replaced.push(replaced);
        (self.file, self.is_stopped) = (Some(file), false);
        Ok(())
    }
}

impl Drop for NamedListener {
    fn drop(&mut self) {
        // The file's number is not used again as long as the socket is open. The lock file stays: removing
        // it would let two processes hold locks on two files of that name.
        if self.mode.is_some() && self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses connections. Fails only for what is not a socket.
fn shut_down(socket: &UnixListener) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Read);
}

/// EINVAL is what a socket says that does not listen any more.
pub(crate) fn is_drained(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::InvalidInput)
}

fn bind(path: &Path, mode: Mode) -> Result<(UnixListener, FileId), ListenError> {
    match socket_file::bind(path, mode) {
        Ok((socket, file)) => Ok((UnixListener::from_std(socket.into()), file)),
        Err(source) => Err(system(path, source)),
    }
}

/// Removes from a path what is `ours`, and what a process that was killed has left. The lock is held.
fn make_room(path: &Path, ours: Option<FileId>) -> Result<(), ListenError> {
    match socket_file::find(path).map_err(|source| system(path, source))? {
        Found::Nothing => Ok(()),
        Found::NoSocket => Err(ListenError::NotASocket { path: path.to_owned() }),
        Found::Live(file) if Some(file) != ours => Err(in_use(path)),
        Found::Live(_) | Found::Stale(_) => {
            fs::remove_file(path).map_err(|source| system(path, source))
        }
    }
}

/// Takes the lock. If it is held and no process listens, waits for one of both to change.
fn wait_for_lock(path: &Path) -> Result<LockFile, ListenError> {
    for _ in 0..LOCK_STEPS {
        match acquire(path) {
            Err(error @ ListenError::InUse { .. }) => {
                if matches!(socket_file::find(path), Ok(Found::Live(_))) {
                    return Err(error);
                }
            }
            result => return result,
        }
        thread::sleep(LOCK_STEP);
    }
    Err(ListenError::NotServed { locator: locator(path), lock: LockFile::path_of(path) })
}

fn acquire(path: &Path) -> Result<LockFile, ListenError> {
    LockFile::acquire(path).map_err(|error| match error {
        LockError::Held => in_use(path),
        LockError::System(source) => {
            ListenError::LockFile { path: LockFile::path_of(path), source }
        }
    })
}

fn locator(path: &Path) -> Locator {
    Locator::Unix(path.to_owned())
}

fn in_use(path: &Path) -> ListenError {
    ListenError::InUse { locator: locator(path) }
}

fn system(path: &Path, source: io::Error) -> ListenError {
    ListenError::System { locator: locator(path), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream as Client;

    use mio::Poll;

    use super::*;

    const LISTENER: Token = Token(1);

    struct Fixture {
        listener: NamedListener,
        poll: Poll,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    fn bind_private(path: &Path) -> Result<NamedListener, ListenError> {
        NamedListener::bind(path, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    impl Fixture {
        fn new() -> Self {
            Self::at("socket".as_ref())
        }

        fn at(name: &Path) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            let mut listener = bind_private(&path).expect("a socket");
            let poll = Poll::new().expect("epoll");
            listener.register(poll.registry(), LISTENER).expect("epoll");
            Self { listener, poll, path, _directory: directory }
        }

        fn renew(&mut self) -> Result<Renewed, ListenError> {
            self.listener.renew(self.poll.registry(), LISTENER)
        }

        fn connect(&self) -> io::Result<Client> {
            Client::connect(&self.path)
        }

        fn accept_all(&mut self) -> usize {
            std::iter::from_fn(|| self.listener.accept().ok()).count()
        }
    }

    #[test]
    fn a_connection_made_before_it_stops_is_accepted_and_none_after() {
        let mut f = Fixture::new();
        let _early = f.connect().unwrap();
        f.listener.stop();
        let late = f.connect().unwrap_err();
        assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
        f.listener.resume(f.poll.registry(), LISTENER).unwrap();
        let _again = f.connect().unwrap();
        assert_eq!(f.accept_all(), 2);
    }

    #[test]
    fn a_socket_whose_file_is_gone_is_bound_again_and_loses_no_connection() {
        for name in ["socket".to_owned(), "n".repeat(200)] {
            let mut f = Fixture::at(name.as_ref());
            assert_eq!(f.renew().unwrap(), Renewed::InPlace);
            let away = f.path.with_extension("away");
            for remove in [
                |path: &Path, _: &Path| fs::remove_file(path),
                |path: &Path, to: &Path| fs::rename(path, to),
            ] {
                let _early = connect_long(&f.path);
                remove(&f.path, &away).unwrap();
                assert_eq!(f.renew().unwrap(), Renewed::Bound);
                let _late = connect_long(&f.path);
                assert_eq!(f.accept_all(), 2);
                assert_eq!(fs::metadata(&f.path).unwrap().mode() & 0o777, 0o600);
                assert!(matches!(bind_private(&f.path), Err(ListenError::InUse { .. })));
            }
            // What was renamed comes back, and no process listens there any more.
            fs::rename(&away, &f.path).unwrap();
            assert_eq!(f.renew().unwrap(), Renewed::Bound);
            let _client = connect_long(&f.path);
            assert_eq!(f.accept_all(), 1);
        }
    }

    /// Connects by way of a descriptor: a long path fits into no address.
    fn connect_long(path: &Path) -> Client {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = nix::fcntl::OFlag::O_PATH.bits();
        let file = fs::File::options().read(true).custom_flags(flags).open(path).expect("a file");
        Client::connect(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("a connection")
    }

    #[test]
    fn a_directory_that_is_removed_and_made_again_has_socket_and_lock_again() {
        let mut f = Fixture::at("directory/socket".as_ref());
        let directory = f.path.parent().unwrap().to_owned();
        fs::remove_dir_all(&directory).unwrap();
        assert!(matches!(f.renew(), Err(ListenError::LockFile { .. })));
        fs::create_dir(&directory).unwrap();
        assert_eq!(f.renew().unwrap(), Renewed::Bound);
        assert!(LockFile::path_of(&f.path).exists());
        let _client = f.connect().unwrap();
        assert_eq!(f.accept_all(), 1);
    }

    #[test]
    fn a_lock_file_that_was_removed_is_made_again_and_the_socket_stays() {
        let mut f = Fixture::new();
        let inode = fs::metadata(&f.path).unwrap().ino();
        let lock = LockFile::path_of(&f.path);
        for replace in [|_: &Path| Ok(()), |path: &Path| fs::write(path, "")] {
            fs::remove_file(&lock).unwrap();
            replace(&lock).unwrap();
            assert_eq!(f.renew().unwrap(), Renewed::InPlace);
            assert!(matches!(LockFile::acquire(&f.path), Err(LockError::Held)));
        }
        assert_eq!(fs::metadata(&f.path).unwrap().ino(), inode);
    }

    #[test]
    fn a_live_socket_is_not_replaced_when_its_lock_file_was_removed() {
        let mut f = Fixture::new();
        fs::remove_file(LockFile::path_of(&f.path)).unwrap();
        let error = bind_private(&f.path).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        let _client = f.connect().unwrap();
        assert_eq!(f.accept_all(), 1);
    }

    #[test]
    fn a_socket_of_another_process_is_neither_replaced_nor_removed() {
        let mut f = Fixture::new();
        fs::remove_file(&f.path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&f.path).unwrap();
        assert!(matches!(f.renew(), Err(ListenError::InUse { .. })));
        let path = f.path.clone();
        let directory = f._directory;
        drop(f.listener);
        let _client = Client::connect(&path).unwrap();
        other.accept().unwrap();
        drop(directory);
    }

    #[test]
    fn a_path_that_something_else_has_taken_is_bound_again_once_it_is_free() {
        let mut f = Fixture::new();
        fs::remove_file(&f.path).unwrap();
        fs::write(&f.path, "precious").unwrap();
        assert!(matches!(f.renew(), Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read(&f.path).unwrap(), b"precious");
        fs::remove_file(&f.path).unwrap();
        assert_eq!(f.renew().unwrap(), Renewed::Bound);
        f.connect().unwrap();
    }

    #[test]
    fn a_lock_without_a_socket_is_waited_for_and_then_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let lock = LockFile::acquire(&path).unwrap();
        let error = bind_private(&path).unwrap_err();
        assert!(matches!(error, ListenError::NotServed { .. }), "{error}");
        let ending = thread::spawn(move || drop(lock));
        bind_private(&path).unwrap();
        ending.join().unwrap();
    }
}
