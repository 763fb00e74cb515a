//! Whether a plugin would have its administration socket: a start goes on without it, so obstacles are
//! warnings.

use std::path::Path;

use super::Findings;
use super::socket::{self, Live, Place};
use crate::config_keys::{ADMIN, CRASH_DUMP, DEBUG_LOG};
use crate::run::admin::{Choice, Directory};
use crate::server::lock_path;
use crate::{Locator, Options};

/// Checks the administration socket of a plugin that would listen at this locator.
pub(super) fn check(
    locator: Option<&Locator>,
    options: &Options,
    live: &Live,
    findings: &mut Findings,
) {
    let choice = match Choice::of(options) {
        Ok(choice) => choice,
        Err(error) => return findings.error(error),
    };
    let Some(locator) = locator else { return };
    let path = match choice.path(locator, Directory::Find) {
        Ok(Some(path)) => path,
        Ok(None) => return,
        Err(error) => return findings.warning(error),
    };
    // The directory of those of TCP locators is made at the start.
    let is_made = matches!(locator, Locator::Tcp { .. }) && options.get(ADMIN).is_none();
    if is_made && path.parent().is_some_and(|directory| !directory.exists()) {
        return;
    }
    if let Some(obstacle) = obstacle(&path, locator, options, live) {
        let (path, key) = (path.display(), ADMIN.name());
        findings.warning(format!(
            "there would be no administration socket {path}: {obstacle}; set {key} to another path, or to no"
        ));
    }
}

/// Why the socket could not be bound.
fn obstacle(path: &Path, locator: &Locator, options: &Options, live: &Live) -> Option<String> {
    if let Some(user) = other_use(path, locator, options) {
        return Some(format!("the path is that of {user}"));
    }
    match socket::look(path) {
        Ok(Place::Free) => None,
        // A plugin that serves already has its administration socket, too.
        Ok(Place::Served { by }) if live.may_be(by) => None,
        Ok(Place::Served { by: Some(process) }) => Some(format!("process {process} serves there")),
        Ok(Place::Served { by: None }) => Some("some process serves there".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// What else of the configuration would have this path first.
fn other_use(path: &Path, locator: &Locator, options: &Options) -> Option<&'static str> {
    if let Locator::Unix(socket) = locator {
        if path == socket {
            return Some("the plugin's own socket");
        }
        if path == lock_path(socket) {
            return Some("the lock file of the plugin's own socket");
        }
    }
    let keys = [(DEBUG_LOG, "the debug log"), (CRASH_DUMP, "the crash dump")];
    let has_path = |key| options.get(key).is_some_and(|value| Path::new(value) == path);
    keys.into_iter().find(|(key, _)| has_path(*key)).map(|(_, user)| user)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        options: Options,
    }

    impl Fixture {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().expect("a directory"), options: Options::new() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn check(&self) -> String {
            self.check_beside(&Live::No)
        }

        fn check_beside(&self, live: &Live) -> String {
            let mut findings = Findings::default();
            let locator = Locator::Unix(self.path("socket"));
            check(Some(&locator), &self.options, live, &mut findings);
            findings.to_string()
        }
    }

    #[test]
    fn an_obstacle_to_the_administration_socket_is_a_warning_with_a_remedy() {
        let mut f = Fixture::new();
        assert_eq!(f.check(), "ok\n");
        assert_eq!(fs::read_dir(f.directory.path()).unwrap().count(), 0, "nothing is left behind");
        fs::create_dir(f.path("socket.admin")).unwrap();
        let said = f.check();
        assert!(said.starts_with("warning: there would be no administration socket "), "{said}");
        assert!(said.contains("socket.admin\" exists and is not a socket: remove it"), "{said}");
        assert!(said.ends_with("set CVMFS_CACHE_PLUGIN_ADMIN to another path, or to no\nok\n"));
        f.options.set(ADMIN, "no");
        assert_eq!(f.check(), "ok\n");
        for (name, said) in [
            ("a".repeat(251), "a name of at most 255 bytes"),
            ("none/admin".to_owned(), "in a directory that exists"),
            ("socket".to_owned(), "the path is that of the plugin's own socket"),
            ("socket.lock".to_owned(), "the path is that of the lock file"),
            ("log".to_owned(), "the path is that of the debug log"),
        ] {
            f.options.set(ADMIN, f.path(&name));
            f.options.set(DEBUG_LOG, f.path("log"));
            let found = f.check();
            assert!(found.starts_with("warning: ") && found.contains(said), "{name}: {found}");
        }
    }

    #[test]
    fn a_live_socket_is_an_obstacle_unless_it_is_of_the_plugin_that_serves() {
        let f = Fixture::new();
        let listener = UnixListener::bind(f.path("socket.admin")).unwrap();
        let said = f.check();
        assert!(said.contains(": some process serves there; set "), "{said}");
        assert_eq!(f.check_beside(&Live::Yes([1].into())), "ok\n");
        drop(listener);
        assert_eq!(f.check(), "ok\n", "it is stale");
    }
}
