//! Users, and their permissions on files.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{self, AccessFlags, Uid, getegid, geteuid};

/// The group of those that are in none; see `overflowgid` in proc_sys_kernel(5).
const NO_GROUP: u32 = 65534;

/// A user whose permissions can be checked.
///
/// A client changes to its user and that user's first group, and to none of the other groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// A permission that a user needs on a file; with a directory, writing is making files in it, and
/// executing is going through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Read,
    Write,
    Execute,
}

/// Why a user cannot do something.
#[derive(Debug)]
pub(crate) struct Obstacle {
    /// The file, or a directory on the way to it.
    pub(crate) path: PathBuf,
    pub(crate) reason: Reason,
}

#[derive(Debug)]
pub(crate) enum Reason {
    Missing,
    NotADirectory,
    /// Its mode does not permit it.
    Mode {
        want: Want,
        mode: u32,
        owner: u32,
    },
    /// The kernel does not permit it, whatever the mode is.
    System(io::Error),
    /// Only another user can determine it.
    Hidden(String),
}

impl User {
    /// The user of this name or number. A number need not be that of a known user, as in a container: it
    /// has no group then.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (user, number) = match name.parse() {
            Ok(uid) => (unistd::User::from_uid(Uid::from_raw(uid)), Some(uid)),
            Err(_) => (unistd::User::from_name(name), None),
        };
        match user.ok()? {
            Some(unistd::User { name, uid, gid, .. }) => {
                Some(Self { name, uid: uid.as_raw(), gid: gid.as_raw() })
            }
            None => number.map(|uid| Self { name: uid.to_string(), uid, gid: NO_GROUP }),
        }
    }

    /// The user that runs this program.
    pub(crate) fn current() -> Self {
        let (uid, gid) = (geteuid(), getegid());
        let name = match unistd::User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            _ => uid.to_string(),
        };
        Self { name, uid: uid.as_raw(), gid: gid.as_raw() }
    }

    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    pub(crate) fn gid(&self) -> u32 {
        self.gid
    }

    /// Whether the user can do that with a file, and get there.
    ///
    /// For the user of this process, the kernel decides; for others, it is worked out from modes.
    pub(crate) fn may(&self, path: &Path, want: Want) -> Result<(), Obstacle> {
        let by_mode = self.may_by_mode(path, want);
        let is_self = self.uid == geteuid().as_raw();
        match (unistd::eaccess(path, want.flags()), by_mode) {
            (Ok(()), by_mode) if is_self => by_mode.or_else(|obstacle| match obstacle.reason {
                // The kernel knows of more than modes.
                Reason::Mode { .. } | Reason::Hidden(_) => Ok(()),
                _ => Err(obstacle),
            }),
            (_, Err(obstacle)) => Err(obstacle),
            (Err(errno), Ok(())) if is_self || errno == Errno::EROFS => {
                Err(Obstacle { path: path.to_owned(), reason: Reason::System(errno.into()) })
            }
            (_, Ok(())) => Ok(()),
        }
    }

    fn may_by_mode(&self, path: &Path, want: Want) -> Result<(), Obstacle> {
        self.walk(path, want)?;
        // Links may lead through directories of which the path itself knows nothing.
        match path.canonicalize() {
            Ok(real) if real != path => self.walk(&real, want),
            _ => Ok(()),
        }
    }

    fn walk(&self, path: &Path, want: Want) -> Result<(), Obstacle> {
        let ancestors = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
        for directory in Vec::from_iter(ancestors).into_iter().rev() {
            let obstacle = |reason| Obstacle { path: directory.to_owned(), reason };
            let metadata = metadata(directory)?;
            if !metadata.is_dir() {
                return Err(obstacle(Reason::NotADirectory));
            }
            self.permits(directory, &metadata, Want::Execute).map_err(obstacle)?;
        }
        let permitted = self.permits(path, &metadata(path)?, want);
        permitted.map_err(|reason| Obstacle { path: path.to_owned(), reason })
    }

    fn permits(&self, path: &Path, metadata: &Metadata, want: Want) -> Result<(), Reason> {
        let (mode, owner) = (metadata.mode(), metadata.uid());
        if self.mode_permits(mode, owner, metadata.gid(), metadata.is_dir(), want) {
            return Ok(());
        }
        if has_acl(path) {
            let reason = "it has an access control list, which only the kernel understands";
            return Err(Reason::Hidden(reason.to_owned()));
        }
        Err(Reason::Mode { want, mode: mode & 0o7777, owner })
    }

    fn mode_permits(&self, mode: u32, owner: u32, group: u32, directory: bool, want: Want) -> bool {
        if self.uid == 0 {
            return want != Want::Execute || directory || mode & 0o111 != 0;
        }
        let shift = match () {
            () if self.uid == owner => 6,
            () if self.gid == group => 3,
            () => 0,
        };
        mode >> shift & want.bit() != 0
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Want {
    fn bit(self) -> u32 {
        match self {
            Want::Read => 4,
            Want::Write => 2,
            Want::Execute => 1,
        }
    }

    fn flags(self) -> AccessFlags {
        match self {
            Want::Read => AccessFlags::R_OK,
            Want::Write => AccessFlags::W_OK,
            Want::Execute => AccessFlags::X_OK,
        }
    }
}

/// As a clause about the user: "… because PATH …".
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            Reason::Missing => write!(f, "{path} does not exist"),
            Reason::NotADirectory => write!(f, "{path} is not a directory"),
            Reason::Mode { mode, owner, .. } => {
                let owner = User::named(&owner.to_string()).map(|user| user.name);
                let owner = owner.unwrap_or_else(|| "an unknown user".to_owned());
                write!(f, "{path} belongs to {owner} and has mode {mode:04o}")
            }
            Reason::System(error) => write!(f, "{path}: {error}"),
            Reason::Hidden(why) => write!(f, "{path}: {why}"),
        }
    }
}

impl Obstacle {
    /// What to do so that the user can do it.
    pub(crate) fn remedy(&self, user: &User) -> String {
        let path = quoted(&self.path);
        match &self.reason {
            Reason::Mode { want: Want::Execute, .. } if self.path.is_dir() => {
                format!("use a path outside of {path}, or chmod a+x {path}")
            }
            Reason::Mode { want: Want::Execute, .. } => format!("chmod a+x {path}"),
            Reason::Mode { want: Want::Read, .. } => format!("chmod a+r {path}"),
            // It may be one that has to belong to another user, such as /var/lib.
            Reason::Mode { want: Want::Write, .. } if self.path.is_dir() => {
                let own = quoted(&self.path.join("cvmcache"));
                format!("install -d -o {user} {own}, and use a path in there")
            }
            Reason::Mode { want: Want::Write, .. } => format!("chown {user} {path}"),
            Reason::Missing => "write the right path".to_owned(),
            Reason::NotADirectory => format!("use another path, or move {path} away"),
            Reason::System(_) => format!("use a path on a file system that {user} can use so"),
            Reason::Hidden(_) => format!("run cvmcache doctor as root, or as {user}"),
        }
    }
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    match shlex::try_quote(&text) {
        Ok(quoted) => quoted.into_owned(),
        Err(_) => format!("{text:?}"),
    }
}

fn metadata(path: &Path) -> Result<Metadata, Obstacle> {
    path.metadata().map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => Reason::Missing,
            io::ErrorKind::NotADirectory => Reason::NotADirectory,
            io::ErrorKind::PermissionDenied => Reason::Hidden(error.to_string()),
            _ => Reason::System(error),
        };
        Obstacle { path: path.to_owned(), reason }
    })
}

fn has_acl(path: &Path) -> bool {
    let result = rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0; 1]);
    matches!(result, Ok(1..) | Err(rustix::io::Errno::RANGE))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const STRANGER: (u32, u32) = (54321, 54321);

    fn user((uid, gid): (u32, u32)) -> User {
        User { name: "someone".to_owned(), uid, gid }
    }

    #[test]
    fn modes_apply_to_the_owner_the_group_or_others() {
        for (who, mode, want, permitted) in [
            ((1, 9), 0o600, Want::Write, true),
            ((1, 9), 0o466, Want::Write, false),
            ((9, 2), 0o060, Want::Read, true),
            ((9, 2), 0o606, Want::Read, false),
            ((9, 9), 0o001, Want::Execute, true),
            ((9, 9), 0o770, Want::Execute, false),
            ((0, 0), 0o000, Want::Write, true),
            ((0, 0), 0o666, Want::Execute, false),
        ] {
            let is = user(who).mode_permits(mode, 1, 2, false, want);
            assert_eq!(is, permitted, "{who:?} {mode:o} {want:?}");
        }
    }

    #[test]
    fn a_parent_directory_may_deny_access() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        let closed = parent.path().join("closed");
        fs::create_dir(&closed).unwrap();
        let file = closed.join("file");
        fs::write(&file, "").unwrap();
        let link = parent.path().join("link");
        symlink(&file, &link).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        for path in [&file, &link] {
            let obstacle = user(STRANGER).may(path, Want::Read).unwrap_err();
            assert_eq!(obstacle.path, closed.canonicalize().unwrap(), "{obstacle}");
            assert!(matches!(obstacle.reason, Reason::Mode { mode: 0o700, .. }), "{obstacle}");
        }
        fs::set_permissions(&closed, Permissions::from_mode(0o711)).unwrap();
        user(STRANGER).may(&link, Want::Read).unwrap();
        assert!(user(STRANGER).may(&link, Want::Write).is_err());
    }

    #[test]
    fn a_missing_path_is_reported_as_missing() {
        let obstacle = User::current().may(Path::new("/nowhere/at/all"), Want::Read).unwrap_err();
        assert_eq!(obstacle.to_string(), "/nowhere does not exist");
    }

    #[test]
    fn a_user_is_found_by_name_or_number() {
        assert_eq!(User::named("root"), User::named("0"));
        assert_eq!(User::named("no-such-user"), None);
        let unknown = User::named("54321").unwrap();
        assert_eq!((unknown.to_string().as_str(), unknown.uid()), ("54321", 54321));
    }
}
