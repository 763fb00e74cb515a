//! Whether two locators name the same socket or address.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use cvmcache::Locator;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    Same,
    /// Other words for the same place.
    SpelledDifferently,
    Different,
}

/// Compares where a client connects to with where a plugin listens.
pub(crate) fn compare(client: &Locator, plugin: &Locator) -> Agreement {
    let is_same = match (client, plugin) {
        (Locator::Unix(client), Locator::Unix(plugin)) => {
            if client.as_os_str() == plugin.as_os_str() {
                return Agreement::Same;
            }
            // This overlooks double slashes and the like.
            client == plugin || is_same_file(client, plugin)
        }
        (Locator::Tcp { host: client, port }, Locator::Tcp { host: plugin, port: plugins }) => {
            // A plugin on every address, or on a name, has no other spelling for the client.
            let agree = port == plugins && (client == plugin || is_reached(client, plugin));
            return if agree { Agreement::Same } else { Agreement::Different };
        }
        _ => false,
    };
    if is_same { Agreement::SpelledDifferently } else { Agreement::Different }
}

/// True if others than this machine can connect to a plugin that listens there.
pub(crate) fn is_exposed(host: &str) -> bool {
    host.is_empty() || addresses(host).iter().any(|address| !address.to_canonical().is_loopback())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let real =
        |path: &Path| Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_owned()));
    real(one).is_some_and(|one| real(other) == Some(one))
}

fn is_reached(client: &str, plugin: &str) -> bool {
    let Ok(client) = client.parse::<IpAddr>() else { return false };
    plugin.is_empty()
        || addresses(plugin).iter().any(|address| address.is_unspecified() || *address == client)
}

/// None for a name that is not known.
fn addresses(host: &str) -> Vec<IpAddr> {
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn agreement(client: &str, plugin: &str) -> Agreement {
        compare(&client.parse().unwrap(), &plugin.parse().unwrap())
    }

    #[test]
    fn paths_agree_if_they_name_the_same_socket() {
        assert_eq!(agreement("unix=/a/b", "unix=/a/b"), Agreement::Same);
        assert_eq!(agreement("unix=/a/b", "unix=/a//b"), Agreement::SpelledDifferently);
        assert_eq!(agreement("unix=/a/b", "unix=/a/c"), Agreement::Different);
        let directory = tempfile::tempdir().unwrap();
        symlink(directory.path(), directory.path().join("link")).unwrap();
        let path = directory.path().display();
        let (one, other) = (format!("unix={path}/s"), format!("unix={path}/link/s"));
        assert_eq!(agreement(&one, &other), Agreement::SpelledDifferently);
    }

    #[test]
    fn addresses_agree_if_the_plugin_is_reached() {
        for plugin in ["127.0.0.1", "localhost", "", "0.0.0.0", "[::]"] {
            let plugin = format!("tcp={plugin}:1");
            assert_eq!(agreement("tcp=127.0.0.1:1", &plugin), Agreement::Same, "{plugin}");
        }
        assert_eq!(agreement("tcp=127.0.0.1:1", "tcp=127.0.0.1:2"), Agreement::Different);
        assert_eq!(agreement("tcp=10.0.0.1:1", "tcp=10.0.0.2:1"), Agreement::Different);
        assert_eq!(agreement("tcp=127.0.0.1:1", "unix=/a"), Agreement::Different);
    }

    #[test]
    fn an_address_is_exposed_unless_it_is_loopback() {
        assert!(!["127.0.0.1", "::1", "localhost"].into_iter().any(is_exposed));
        assert!(["", "0.0.0.0", "::", "10.0.0.1"].into_iter().all(is_exposed));
    }
}
