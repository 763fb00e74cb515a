//! A running plugin: whether it admits the client, and serves the configuration.
//!
//! Doctor is a client for a moment. A plugin that clients started ends with its last connection,
//! also if that is this one; but then it was about to end anyway.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use cvmcache::client::{Client, ClientError};
use cvmcache::{Locator, config_keys, threads};
use procfs::process::Process;

use super::administration;
use super::command_line::{Starter, cannot};
use super::kind::Kind;
use super::plugin_conf::PluginConf;
use super::report::Section;
use super::socket::{self, Remains};
use crate::output;
use crate::user::{User, Want};

/// How long a plugin may take to let a client in, and to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a plugin gets another configuration, or is a new one. Its end would be that of every mount.
const ANEW: &str = "unmount all that use it: one that clients start ends then, and starts anew with the \
                    next mount; only then restart one that a service manager started";

const SILENT_REMEDY: &str =
    "look at its log; if it stays silent, unmount all that use it, and mount again";

/// Up to this share, from 0 to 1, a plugin's size may differ from the configured: some count what
/// they need for themselves.
const SIZE_TOLERANCE: f64 = 0.05;

/// Checks the plugin behind a locator. `starter` is `None` without the client's configuration.
pub(crate) fn check(
    locator: &Locator,
    conf: Option<&PluginConf>,
    starter: Option<&Starter>,
    user: &User,
    section: &mut Section,
) {
    let Some(result) = connect(locator, TIMEOUT) else {
        let found = format!("no answer on {locator} for {} s", TIMEOUT.as_secs());
        found_silent(locator, found, section);
        return;
    };
    match result {
        Ok(client) => {
            if let Locator::Unix(path) = locator {
                check_owner(path, user, section);
                check_peer(path, conf, user, section);
            }
            check_client(locator, client, conf, section);
        }
        Err(ClientError::Connect { source, .. }) => match source.kind() {
            io::ErrorKind::PermissionDenied => check_hidden(locator, user, section),
            _ => check_absent(locator, &source, starter, user, section),
        },
        Err(ClientError::Timeout) => {
            let found = format!("what listens on {locator} does not answer the handshake");
            found_silent(locator, found, section);
        }
        Err(error @ (ClientError::Frame(_) | ClientError::BadMessage)) => {
            let remedy = "use another path or port for the plugin";
            section.found(Kind::NotAPlugin, format!("{locator}: {error}"), remedy);
        }
        Err(error) => {
            let remedy = "look at its log; who may connect is in CVMFS_CACHE_PLUGIN_ALLOW and \
                          CVMFS_CACHE_PLUGIN_ALLOW_USERS";
            section.found(Kind::PluginRefuses, format!("{locator}: {error}"), remedy);
        }
    }
}

/// Connects with a timeout: connect(2) itself blocks while the backlog of the socket is full.
fn connect(locator: &Locator, timeout: Duration) -> Option<Result<Client, ClientError>> {
    let (sender, receiver) = mpsc::channel();
    let locator = locator.clone();
    let connecting = threads::spawn("connect", move || {
        let builder = Client::builder().name("cvmcache:doctor").timeout(timeout / 2);
        // The receiver is gone after the timeout.
        let _ = sender.send(builder.connect(&locator));
    });
    // Without a thread there is no answer, either.
    connecting.ok()?;
    receiver.recv_timeout(timeout).ok()
}

/// A finding that a plugin does not answer, with what it says about itself.
fn found_silent(locator: &Locator, found: String, section: &mut Section) {
    let found = match administration::health(locator) {
        Some(problems) => format!("{found}: {problems}"),
        None => found,
    };
    section.found(Kind::PluginSilent, found, SILENT_REMEDY);
}

fn check_client(
    locator: &Locator,
    mut client: Client,
    conf: Option<&PluginConf>,
    section: &mut Section,
) {
    // Plugins of the reference library send no name.
    let name = match client.plugin_name().escape_ascii().to_string() {
        name if name.is_empty() => "a plugin without a name".to_owned(),
        name => name,
    };
    let pid = client.plugin_pid();
    let process = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    section.fine(format!("it runs: {name}{process}"));
    let info = client.info().ok();
    let is_compared = administration::check(locator, pid, conf, ANEW, section);
    // The answer that matters has been given.
    let _ = client.quit();
    if is_compared {
        return;
    }
    let sizes = info.zip(conf.and_then(|conf| Some((conf, conf.size?))));
    let Some((info, (conf, size))) = sizes else { return };
    let difference = info.size_bytes.abs_diff(size);
    if difference as f64 > size as f64 * SIZE_TOLERANCE {
        let found = format!(
            "its size is {}, but that of {} is {}",
            output::bytes(info.size_bytes),
            conf.path.display(),
            output::bytes(size),
        );
        section.found(Kind::SizeNotInUse, found, ANEW);
    }
}

/// Checks whether the user can connect to what doctor can.
fn check_owner(path: &Path, user: &User, section: &mut Section) {
    if let Err(obstacle) = user.may(path, Want::Write) {
        let users = config_keys::ALLOW_USERS.name();
        let remedy =
            format!("add {users}={user} to its configuration, or run it as {user}; {ANEW}");
        section.found(Kind::PluginForeign, cannot(user, "connect to", path, &obstacle), remedy);
    }
}

/// Checks whether the plugin lets in the user that its socket lets in.
fn check_peer(path: &Path, conf: Option<&PluginConf>, user: &User, section: &mut Section) {
    let Some(conf) = conf.filter(|conf| !conf.admits(user)) else { return };
    let is_owner = path.metadata().is_ok_and(|socket| socket.uid() == user.uid());
    if !is_owner && user.uid() != 0 && user.may(path, Want::Write).is_ok() {
        let users = config_keys::ALLOW_USERS.name();
        let found = format!("{users} in {} does not have user {user}", conf.path.display());
        section.found(Kind::PluginRefuses, found, format!("add {user} to {users}; {ANEW}"));
    }
}

/// The program of the plugin that has locked its socket already.
pub(crate) fn program(locator: &Locator) -> Option<PathBuf> {
    let Locator::Unix(path) = locator else { return None };
    let holder = cvmcache::lock_holder(&socket::lock_path(path))?;
    let program = Process::new(holder.try_into().ok()?).ok()?.exe().ok()?;
    // One that was replaced since has another name.
    program.is_file().then_some(program)
}

fn check_hidden(locator: &Locator, user: &User, section: &mut Section) {
    let before = section.kinds().len();
    if let Locator::Unix(path) = locator {
        check_owner(path, user, section);
    }
    if section.kinds().len() == before {
        let remedy = format!("run cvmcache doctor as root, or as {user}");
        section.found(Kind::NotLookedAt, format!("may not connect to {locator}"), remedy);
    }
}

fn check_absent(
    locator: &Locator,
    error: &io::Error,
    starter: Option<&Starter>,
    user: &User,
    section: &mut Section,
) {
    if let Locator::Unix(path) = locator
        && socket::check_remains(path, user, section) == Remains::Something
    {
        return;
    }
    let found = format!("cannot connect to {locator}: {error}");
    match starter {
        Some(Starter::External) => {
            let remedy = "start the plugin before the first mount, or set CVMFS_CACHE_NAME_CMDLINE \
                          in the client's configuration";
            section.found(Kind::PluginNotRunning, found, remedy);
        }
        Some(Starter::Client(_)) => {
            section.found(
                Kind::PluginNotStarted,
                found,
                "nothing to do: the first mount starts it",
            );
        }
        Some(Starter::Unknown) | None => {
            let remedy = "start it, unless the client's configuration has a CMDLINE that does";
            section.found(Kind::PluginNotStarted, found, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_listener_that_does_not_accept_ends_in_a_timeout() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let result = connect(&Locator::Unix(path), Duration::from_millis(20));
        assert!(matches!(result, None | Some(Err(ClientError::Timeout))));
    }
}
