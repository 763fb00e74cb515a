//! Where the administration socket of a plugin is.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cvmcache::admin::AdminSocket;
use cvmcache::{Locator, Options, config_keys};
use nix::unistd::geteuid;
use procfs::process::Process;

/// What the configuration of a running plugin has about its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Configured {
    No,
    At(PathBuf),
}

/// Where it can be by the rules for all plugins, the likeliest place first.
pub(super) fn candidates(locator: &Locator) -> Vec<PathBuf> {
    match locator {
        Locator::Tcp { host, port } => {
            let directories = directories();
            let hosts = hosts(host);
            let locators =
                hosts.iter().map(|host| Locator::Tcp { host: host.clone(), port: *port });
            let of = |locator: Locator| {
                let paths = directories.iter().map(move |at| AdminSocket::path_of(&locator, at));
                paths.collect::<Vec<_>>()
            };
            locators.flat_map(of).collect()
        }
        locator => vec![AdminSocket::path_of(locator, Path::new(""))],
    }
}

/// The first that exists.
pub(super) fn first(places: &[PathBuf]) -> Option<PathBuf> {
    places.iter().find(|path| exists(path)).cloned()
}

/// True if it is there, or may be: a directory that cannot be entered hides it.
pub(super) fn exists(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

/// What the configuration file of a process on this machine has.
pub(super) fn configured(pid: u64) -> Option<Configured> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let arguments = Process::new(pid.try_into().ok()?).ok()?.cmdline().ok()?;
    let config = arguments.into_iter().rfind(|argument| !argument.is_empty())?;
    let options = Options::from_file(&process.join("cwd").join(config)).ok()?;
    let value = options.get(config_keys::ADMIN)?;
    if value == "no" { Some(Configured::No) } else { Some(Configured::At(value.into())) }
}

/// The directories in which plugins that listen on TCP sockets have them.
fn directories() -> Vec<PathBuf> {
    let own = env::var_os("RUNTIME_DIRECTORY");
    let own = own.iter().flat_map(env::split_paths).filter(|path| path.is_absolute());
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(|path| PathBuf::from(path).join("cvmcache"));
    let users = entries("/run/user", |_| true).map(|user| user.join("cvmcache"));
    let temporary = env::temp_dir().join(format!("cvmcache-{}", geteuid()));
    own.chain([PathBuf::from("/run/cvmcache")])
        .chain(entries("/run/cvmcache", |_| true))
        .chain(runtime)
        .chain(users)
        .chain([temporary])
        .chain(entries("/tmp", |name| name.starts_with("cvmcache-")))
        .collect()
}

/// The directories in a directory, sorted.
fn entries(directory: &str, is_one: impl Fn(&str) -> bool) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_one));
    // A link in a directory that all users can write to leads to where its owner likes.
    let real = named.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
    let mut paths: Vec<_> = real.map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter()
}

/// The host, and for one that is this machine, the other names by which a plugin may listen there.
fn hosts(host: &str) -> Vec<String> {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_here = host.is_empty()
        || host == "localhost"
        || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified());
    let others: &[&str] =
        if is_here { &["", "localhost", "127.0.0.1", "0.0.0.0", "::1", "::"] } else { &[] };
    let mut hosts = vec![host.to_owned()];
    hosts.extend(others.iter().filter(|other| **other != host).map(|&other| other.to_owned()));
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_unix_locator_is_beside_the_plugins_own() {
        let places = candidates(&"unix=/run/ram.socket".parse().unwrap());
        assert_eq!(places, [Path::new("/run/ram.socket.admin")]);
    }

    #[test]
    fn a_plugin_on_a_loopback_address_is_found_by_all_names_of_this_machine() {
        let of = |locator: &str| candidates(&locator.parse().unwrap());
        let places = of("tcp=localhost:4242");
        for name in ["tcp--4242.admin", "tcp-localhost-4242.admin", "tcp-127.0.0.1-4242.admin"] {
            assert!(places.contains(&Path::new("/run/cvmcache").join(name)), "{places:?}");
        }
        let places = of("tcp=node7:4242");
        assert!(places.iter().all(|path| path.ends_with("tcp-node7-4242.admin")), "{places:?}");
    }
}
