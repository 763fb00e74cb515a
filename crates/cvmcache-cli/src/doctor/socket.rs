//! Whether a plugin can create its socket and its lock file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;
use procfs::net::{UnixNetEntry, UnixState};
use procfs::process::{FDTarget, Process};

use super::command_line::cannot;
use super::kind::Kind;
use super::report::Section;
use crate::user::{Reason, User, Want, quoted};

/// The longest name of a file, in bytes.
const MAX_NAME: usize = 255;

/// Where the system removes files after a while, or at the end of a login session.
const TEMPORARY: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run/user"];

/// File systems that several machines can share, by the number that the kernel has for them.
const SHARED: [(i64, &str); 9] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x1983_0326, "BeeGFS"),
    (0x0102_1997, "9P"),
];

const SHARED_REMEDY: &str = "use a directory on a disk of this machine, such as /var/lib/cvmfs";

/// Checks the directory of a socket. False if there is no directory.
pub(crate) fn check_directory(path: &Path, user: &User, section: &mut Section) -> bool {
    let name = path.file_name().unwrap_or_default();
    if name.len() + ".lock".len() > MAX_NAME {
        let found = format!("the name of the socket has {} bytes", name.len());
        section.found(Kind::SocketNameLong, found, "use a name of at most 250 bytes");
        return false;
    }
    let directory = path.parent().unwrap_or(path);
    match user.may(directory, Want::Write) {
        Ok(()) if directory.is_dir() => {
            section.fine(format!("user {user} can make files in {}", directory.display()));
        }
        Ok(()) => {
            let found = format!("{} is not a directory", directory.display());
            section.found(Kind::SocketDirectoryMissing, found, "use another path");
            return false;
        }
        Err(obstacle) => {
            let found = cannot(user, "make files in", directory, &obstacle);
            match obstacle.reason {
                Reason::Missing | Reason::NotADirectory => {
                    let remedy = match obstacle.reason {
                        Reason::Missing => format!("install -d -o {user} {}", quoted(directory)),
                        _ => obstacle.remedy(user),
                    };
                    section.found(Kind::SocketDirectoryMissing, found, remedy);
                    return false;
                }
                Reason::Hidden(_) => {
                    section.found(Kind::NotLookedAt, found, obstacle.remedy(user));
                }
                Reason::Mode { .. } | Reason::System(_) => {
                    let remedy = obstacle.remedy(user);
                    section.found(Kind::SocketDirectoryNotWritable, found, remedy);
                }
            }
        }
    }
    check_kind_of_directory(directory, user, section);
    true
}

fn check_kind_of_directory(directory: &Path, user: &User, section: &mut Section) {
    let name = directory.display();
    if let Ok(metadata) = directory.metadata()
        && metadata.mode() & 0o1002 == 0o0002
    {
        let found = format!("{name} is world-writable");
        let remedy = format!("chmod o-w {}", quoted(directory));
        section.found(Kind::SocketDirectoryExposed, found, remedy);
    }
    if let Ok(system) = statfs(directory)
        && let Some(system) = shared(system.filesystem_type().0)
    {
        section.found(Kind::SocketOnNetwork, format!("{name} is on {system}"), SHARED_REMEDY);
    }
    let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    if TEMPORARY.iter().any(|temporary| real.starts_with(temporary)) {
        let remedy = "use a directory that is kept, such as /var/lib/cvmfs";
        section.found(Kind::SocketDirectoryNotKept, format!("the socket is in {name}"), remedy);
    } else if real.starts_with("/run") && real != Path::new("/run") {
        let remedy = format!(
            "echo 'd {} 0755 {user} -' > /etc/tmpfiles.d/cvmcache.conf makes it at every boot",
            real.display()
        );
        section.found(Kind::SocketDirectoryNotKept, format!("the socket is in {name}"), remedy);
    }
}

fn shared(number: impl TryInto<i64>) -> Option<&'static str> {
    // Some are negative where the system's numbers have 32 bits.
    let number = number.try_into().ok()? & 0xffff_ffff;
    SHARED.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// What stands in the way of the next plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Nothing; it can start.
    Nothing,
    /// Something, which has been said.
    Something,
}

/// Checks what is left at the path of a socket without a listener.
pub(crate) fn check_remains(path: &Path, user: &User, section: &mut Section) -> Remains {
    let name = path.display();
    let socket = match path.symlink_metadata() {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let remedy = match metadata.is_dir() {
                true => {
                    format!("name a file in it, as in {}", path.join("cvmcache.socket").display())
                }
                false => format!("mv {0} {0}.old, or use another path", quoted(path)),
            };
            section.found(Kind::NotASocket, format!("{name} is not a socket"), remedy);
            return Remains::Something;
        }
        other => other.ok(),
    };
    let lock = check_lock(path, user, section);
    if lock == Remains::Something {
        return lock;
    }
    let Some(socket) = socket else { return Remains::Nothing };
    if is_kept(path, &socket, user) {
        let found = format!("{name} belongs to another user than {user}");
        section.found(Kind::SocketNotRemovable, found, format!("rm {}", quoted(path)));
        return Remains::Something;
    }
    let found = format!("no process listens on {name}, and none holds its lock");
    section.found(Kind::StaleSocket, found, "nothing to do");
    Remains::Nothing
}

/// True if a sticky directory keeps a file from being removed by a user.
fn is_kept(path: &Path, file: &fs::Metadata, user: &User) -> bool {
    let Some(Ok(directory)) = path.parent().map(Path::metadata) else { return false };
    let is_sticky = directory.mode() & 0o1000 != 0;
    is_sticky && user.uid() != 0 && ![file.uid(), directory.uid()].contains(&user.uid())
}

fn check_lock(socket: &Path, user: &User, section: &mut Section) -> Remains {
    let path = lock_path(socket);
    if let Some(pid) = cvmcache::lock_holder(&path) {
        check_holder(pid, &path, section);
        return Remains::Something;
    }
    if path.symlink_metadata().is_err() {
        return Remains::Nothing;
    }
    if let Err(obstacle) = user.may(&path, Want::Write) {
        let remedy = match obstacle.path == path {
            true => format!("chown {user} {}", quoted(&path)),
            false => obstacle.remedy(user),
        };
        let kind = match obstacle.reason {
            Reason::Hidden(_) => Kind::NotLookedAt,
            // It has been said of the directory.
            _ if obstacle.path != path => return Remains::Something,
            _ => Kind::LockNotWritable,
        };
        section.found(kind, cannot(user, "write", &path, &obstacle), remedy);
        return Remains::Something;
    }
    Remains::Nothing
}

/// Says what there is to do about a process that holds a lock and cannot be connected to. It may serve
/// mounts whose clients connected before the name of its socket was removed, so that its end would be
/// theirs.
fn check_holder(pid: u32, lock: &Path, section: &mut Section) {
    let name = lock.display();
    let (found, remedy) = match connections(pid) {
        Some(0) => (
            format!("process {pid} holds {name}, and no client is connected to it"),
            "look again in a minute, it may be starting or ending; if not, look at its log".to_owned(),
        ),
        Some(count) => (
            format!("process {pid} holds {name}, and {count} clients are connected to it"),
            format!(
                "let it run: it serves them, and may bind its socket again within a minute; if not, \
                 unmount all that use it, and look whether process {pid} ends by itself"
            ),
        ),
        None => (
            format!("process {pid} holds {name}; it may serve clients"),
            "look again in a minute, it may be starting or ending; as root, doctor can tell whether \
             clients are connected to it"
                .to_owned(),
        ),
    };
    section.found(Kind::LockHeld, found, remedy);
}

/// How many clients are connected to a process by unix sockets; `None` if it does not show them.
fn connections(pid: u32) -> Option<usize> {
    let process = Process::new(pid.try_into().ok()?).ok()?;
    let sockets: BTreeSet<u64> = process
        .fd()
        .ok()?
        .flatten()
        .filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let is_accepted = |entry: &UnixNetEntry| {
        // An accepted socket has the name of the one that listens.
        entry.state == UnixState::CONNECTED
            && entry.path.is_some()
            && sockets.contains(&entry.inode)
    };
    Some(procfs::net::unix().ok()?.iter().filter(|entry| is_accepted(entry)).count())
}

/// The lock file beside a socket.
pub(crate) fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::fcntl::{Flock, FlockArg};

    use super::*;

    fn remains(path: &Path) -> Vec<Kind> {
        let mut section = Section::new("socket");
        check_remains(path, &User::current(), &mut section);
        section.kinds()
    }

    #[test]
    fn a_stale_socket_is_told_from_other_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert_eq!(remains(&path), []);
        File::create(lock_path(&path)).unwrap();
        assert_eq!(remains(&path), []);
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(remains(&path), [Kind::StaleSocket]);
        let lock = File::open(lock_path(&path)).unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        assert_eq!(remains(&path), [Kind::LockHeld]);
        drop(lock);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(remains(&path), [Kind::NotASocket]);
    }

    #[test]
    fn permissions_of_directories_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: &Path| {
            let mut section = Section::new("socket");
            check_directory(path, &User::current(), &mut section);
            let mut kinds = section.kinds();
            kinds.retain(|&kind| kind != Kind::SocketDirectoryNotKept);
            kinds
        };
        assert_eq!(check(&directory.path().join("s")), []);
        assert_eq!(check(&directory.path().join("x/s")), [Kind::SocketDirectoryMissing]);
        assert_eq!(check(&directory.path().join("s".repeat(251))), [Kind::SocketNameLong]);
        fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(check(&directory.path().join("file/s")), [Kind::SocketDirectoryMissing]);
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(check(&open.join("s")), [Kind::SocketDirectoryExposed]);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(check(&open.join("s")), []);
    }

    #[test]
    fn advice_about_a_process_that_holds_a_lock_depends_on_its_clients() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let pid = std::process::id();
        let before = connections(pid).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let _accepted = listener.accept().unwrap();
        assert!(connections(pid).unwrap() > before);
        let lock = File::create(lock_path(&path)).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        fs::remove_file(&path).unwrap();
        let mut section = Section::new("socket");
        check_remains(&path, &User::current(), &mut section);
        let text = format!("{section:?}");
        assert!(text.contains("let it run") && !text.contains("kill"), "{text}");
    }

    #[test]
    fn network_file_systems_are_recognised() {
        assert_eq!(shared(0x6969_i64), Some("NFS"));
        assert_eq!(shared(0xff53_4d42_u32.cast_signed()), Some("CIFS"));
        assert_eq!(shared(0xef53_i64), None);
    }
}
