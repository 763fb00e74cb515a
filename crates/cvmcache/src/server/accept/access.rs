//! Which connections are allowed: by network on TCP sockets, by user on unix sockets.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, User, geteuid};
use thiserror::Error;

use crate::Locator;
use crate::config_keys::{ALLOW, ALLOW_USERS};

/// The networks whose clients may connect to a TCP socket.
///
/// A text names addresses and networks, with commas or blanks between them. An empty one names none,
/// so that no client can connect. Names of hosts are not understood.
///
/// ```
/// use cvmcache::Networks;
///
/// let networks: Networks = "10.0.0.0/8, 192.168.7.1, ::1".parse()?;
/// assert!(networks.contains("10.1.2.3".parse().unwrap()));
/// assert!(!networks.contains("192.168.7.2".parse().unwrap()));
/// # Ok::<(), cvmcache::AccessError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// The users whose clients may connect to a unix socket.
///
/// By default the plugin's own and root, and the mode of the socket, 0600, admits no others either. If
/// there are others, the mode is 0666, and the server looks at the user of each connection.
///
/// A text names users, or their numbers, with commas or blanks between them, or is `*` for all.
/// Names are looked up when it is parsed.
///
/// ```
/// use cvmcache::Users;
///
/// assert_eq!("root, 1001".parse(), Ok(Users::OwnAnd(vec![0, 1001])));
/// assert_eq!("*".parse(), Ok(Users::All));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Users {
    /// The user of the plugin, root, and these.
    OwnAnd(Vec<u32>),
    /// Every user that can open the socket.
    All,
}

/// Why a text names no networks or users.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Neither addresses nor networks; all parts of the text that are meant.
    #[error(
        "{}: write addresses, or networks like 10.0.0.0/8, with commas between them",
        not_networks(.0)
    )]
    Networks(Vec<String>),
    /// The system knows no such users; all parts of the text that are meant.
    #[error(
        "there is no user {}: write names or numbers with commas between them, or * for all",
        quoted(.0, "or")
    )]
    Users(Vec<String>),
}

fn not_networks(items: &[String]) -> String {
    let verb = if items.len() == 1 { "is not a network" } else { "are not networks" };
    format!("{} {verb}", quoted(items, "and"))
}

fn quoted(items: &[String], conjunction: &str) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
    enumerated(&items, conjunction)
}

/// As in `a, b and c`.
fn enumerated(items: &[String], conjunction: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A process of this machine; `None` if it is not known which.
    Process(Option<Credentials>),
    Address(IpAddr),
}

/// The process that has connected, as it was then (SO_PEERCRED of unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    /// `None` if it is not visible from here, as from within a container.
    pub(crate) pid: Option<u32>,
}

/// Which connections a server allows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// `None` for all.
    pub(crate) networks: Option<Networks>,
    pub(crate) users: Users,
}

impl Networks {
    /// True if the address is in one of the networks. An IPv4 address counts as such in whatever
    /// form it comes.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// Why no client can connect to a socket that is bound to one of these addresses, with the remedy; `None` if
    /// some may. The addresses of clients are of the family of the socket's, or of both if that is `::`.
    pub(crate) fn closed_at(&self, locator: &Locator, addresses: &[IpAddr]) -> Option<String> {
        let is_open = |address: &IpAddr| match address.to_canonical() {
            IpAddr::V4(_) => self.0.iter().any(|network| matches!(network, IpNet::V4(_))),
            IpAddr::V6(any) if any.is_unspecified() => !self.0.is_empty(),
            IpAddr::V6(_) => self.0.iter().any(|network| matches!(network, IpNet::V6(_))),
        };
        let key = ALLOW.name();
        (!addresses.iter().any(is_open)).then(|| {
            format!(
                "no client can connect to {locator}: {key} names no network with addresses of its \
                 family; name the clients' networks, as in 10.0.0.0/8, ::1"
            )
        })
    }
}

impl FromStr for Networks {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = |item: &str| {
            let network = item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
            network.map(to_canonical).map_err(|_| item.to_owned())
        };
        all(items(text).map(network)).map(Self).map_err(AccessError::Networks)
    }
}

/// An IPv4 network that is written as one of IPv4-mapped IPv6 addresses (`::ffff:10.0.0.0/104`), as such:
/// [`IpAddr::to_canonical`] for networks.
fn to_canonical(network: IpNet) -> IpNet {
    /// The bits before the IPv4 address.
    const MAPPED: u8 = 96;
    let v4 = || {
        let IpAddr::V4(address) = network.addr().to_canonical() else { return None };
        let len = network.prefix_len().checked_sub(MAPPED)?;
        Ipv4Net::new(address, len).ok()
    };
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(_) => v4().map_or(network, IpNet::V4),
    }
}

/// All values, or else all errors.
fn all<T, E>(results: impl Iterator<Item = Result<T, E>>) -> Result<Vec<T>, Vec<E>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

impl FromStr for Users {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == "*" {
            return Ok(Users::All);
        }
        let user = |item: &str| {
            let number = item.parse().ok();
            let by_name = || User::from_name(item).ok().flatten().map(|user| user.uid.as_raw());
            number.or_else(by_name).ok_or_else(|| item.to_owned())
        };
        all(items(text).map(user)).map(Users::OwnAnd).map_err(AccessError::Users)
    }
}

impl Default for Users {
    fn default() -> Self {
        Users::OwnAnd(Vec::new())
    }
}

impl Users {
    /// Those besides the plugin's own and root; `None` for all.
    fn others(&self) -> Option<Vec<u32>> {
        let Self::OwnAnd(users) = self else { return None };
        let own = geteuid().as_raw();
        Some(users.iter().copied().filter(|&uid| uid != own && uid != 0).collect())
    }

    /// True if clients of other users than the plugin's own and root are let in.
    pub(crate) fn admits_others(&self) -> bool {
        self.others().is_none_or(|others| !others.is_empty())
    }

    /// The directories of a unix socket that keep users from it that are let in, each with a remedy. A
    /// mode that lets in a group may be meant so, and is named all the same.
    pub(crate) fn closed_directories(&self, socket: &Path) -> Vec<String> {
        const SEARCH: u32 = 0o001;
        if !self.admits_others() {
            return Vec::new();
        }
        let parent = match socket.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = fs::canonicalize(parent).unwrap_or_default();
        let closed = parent.ancestors().filter_map(|directory| {
            let (directory, mode) = (directory.display(), mode_without(directory, SEARCH)?);
            Some(format!(
                "{directory} has mode {mode:04o}, which keeps users that {key} names from the socket in it: \
                 chmod o+x {directory}, or choose another directory",
                key = ALLOW_USERS.name()
            ))
        });
        closed.collect()
    }

    /// Why the mode of a unix socket that was inherited keeps users from it that are let in.
    pub(crate) fn closed_socket(&self, socket: &Path) -> Option<String> {
        const WRITE: u32 = 0o002;
        let mode = mode_without(socket, WRITE).filter(|_| self.admits_others())?;
        let (socket, key) = (socket.display(), ALLOW_USERS.name());
        Some(format!(
            "{socket} has mode {mode:04o}, which keeps users that {key} names from it: set \
             SocketMode=0666 in the socket unit"
        ))
    }
}

/// As in `users cvmfs, root and 1001`.
impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(others) = self.others() else { return f.write_str("all users") };
        let own = [geteuid().as_raw(), 0];
        let own = if own[0] == own[1] { &own[..1] } else { &own };
        let names: Vec<_> = own.iter().copied().chain(others).map(name_of).collect();
        let noun = if names.len() == 1 { "user" } else { "users" };
        write!(f, "{noun} {}", enumerated(&names, "and"))
    }
}

/// The mode of a file, if it lacks this bit.
fn mode_without(path: &Path, bit: u32) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    (mode & bit == 0).then_some(mode)
}

/// The name of a user; the number if it has none.
fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid));
    user.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

impl Access {
    /// The mode of a unix socket, by which the system admits at least all users that are let in.
    pub(crate) fn socket_mode(&self) -> Mode {
        Mode::from_bits_truncate(if self.users.admits_others() { 0o666 } else { 0o600 })
    }

    pub(crate) fn admits(&self, origin: Origin) -> bool {
        match origin {
            Origin::Address(address) => {
                self.networks.as_ref().is_none_or(|networks| networks.contains(address))
            }
            Origin::Process(process) => match &self.users {
                Users::All => true,
                Users::OwnAnd(others) => process.is_some_and(|process| {
                    let uid = Uid::from_raw(process.uid);
                    uid == geteuid() || uid.is_root() || others.contains(&uid.as_raw())
                }),
            },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Process(Some(process)) => write!(f, "user {}", process.uid),
            Origin::Process(None) => f.write_str("an unknown user"),
            Origin::Address(address) => address.fmt(f),
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\t']).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_address_is_allowed_if_a_network_has_it() {
        let networks: Networks = "10.0.0.0/8,192.168.7.1 \t2001:db8::/32".parse().unwrap();
        for inside in ["10.255.0.1", "::ffff:10.0.0.1", "192.168.7.1", "2001:db8:1::1"] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.168.7.2", "::1", "2001:db9::1"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!("".parse(), Ok(Networks(Vec::new())));
        let error = "10.0.0.0/8,home".parse::<Networks>().unwrap_err().to_string();
        assert!(error.starts_with("\"home\" is not a network: write"), "{error}");
    }

    #[test]
    fn networks_of_another_family_than_that_of_the_socket_admit_no_client() {
        let is_closed = |networks: &str, address: &str| {
            let networks: Networks = networks.parse().unwrap();
            let locator = Locator::Tcp { host: address.to_owned(), port: 1 };
            let reason = networks.closed_at(&locator, &[address.parse().unwrap()]);
            assert!(reason.iter().all(|reason| reason.contains("CVMFS_CACHE_PLUGIN_ALLOW names")));
            reason.is_some()
        };
        for (networks, v4, v6, any) in [
            ("", true, true, true),
            ("10.0.0.0/8", false, true, false),
            ("::ffff:10.0.0.0/104", false, true, false),
            ("::/0", true, false, false),
            ("::1, 127.0.0.1", false, false, false),
        ] {
            let closed = ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::1", "::"]
                .map(|address| is_closed(networks, address));
            assert_eq!(closed, [v4, v4, v4, v6, any], "{networks}");
        }
    }

    #[test]
    fn an_ipv4_network_is_the_same_in_whatever_form_it_is_written() {
        for (text, inside, outside) in [
            ("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::ffff:7f00:1", "::ffff:127.0.0.1", "::1"),
            ("::ffff:127.0.0.1/128", "127.0.0.1", "127.0.0.2"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
            ("::ffff:10.1.2.3/104", "::ffff:10.255.0.1", "::ffff:11.0.0.1"),
            ("::ffff:0:0/96", "192.0.2.1", "2001:db8::1"),
            ("0.0.0.0/0", "::ffff:192.0.2.1", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("::1", "::1", "0.0.0.1"),
        ] {
            let networks: Networks = text.parse().unwrap();
            assert!(networks.contains(inside.parse().unwrap()), "{text} has {inside}");
            assert!(!networks.contains(outside.parse().unwrap()), "{text} has {outside}");
        }
        let error = "home, ::1, ::ffff:10.0.0.0/129".parse::<Networks>().unwrap_err().to_string();
        let expected = r#""home" and "::ffff:10.0.0.0/129" are not networks: write"#;
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn the_mode_of_a_socket_lets_in_all_that_are_to_be_let_in_and_no_more() {
        let own = geteuid().as_raw();
        let mode = |users| Access { users, ..Access::default() }.socket_mode().bits();
        assert_eq!(mode(Users::default()), 0o600);
        assert_eq!(mode(Users::OwnAnd(vec![own, 0])), 0o600);
        assert_eq!(mode(Users::OwnAnd(vec![own + 4321])), 0o666);
        assert_eq!(mode(Users::All), 0o666);
        let text = Users::OwnAnd(vec![own + 4_000_000, own]).to_string();
        assert!(text.ends_with(&format!(" and {}", own + 4_000_000)), "{text}");
        assert!(text.starts_with("users ") && text.contains("root"), "{text}");
    }

    #[test]
    fn what_keeps_users_from_the_socket_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let closed = |users: Users| users.closed_directories(&path).concat();
        let named = format!("{} has mode 0700", directory.path().display());
        set_mode(directory.path(), 0o700);
        assert_eq!(closed(Users::default()), "");
        assert!(closed(Users::All).contains(&named));
        set_mode(directory.path(), 0o711);
        assert!(!closed(Users::All).contains(&named));
        fs::write(&path, "").unwrap();
        set_mode(&path, 0o660);
        assert_eq!(Users::default().closed_socket(&path), None);
        assert!(Users::All.closed_socket(&path).unwrap().contains("SocketMode=0666"));
        set_mode(&path, 0o666);
        assert_eq!(Users::All.closed_socket(&path), None);
    }

    #[test]
    fn users_are_parsed_from_names_and_numbers() {
        assert_eq!("root, 1001".parse(), Ok(Users::OwnAnd(vec![0, 1001])));
        assert_eq!(" * ".parse(), Ok(Users::All));
        let error = "no-such-user".parse::<Users>().unwrap_err().to_string();
        assert!(error.starts_with("there is no user \"no-such-user\": write"), "{error}");
        let error = "x-one, root, x-two,x-three".parse::<Users>().unwrap_err().to_string();
        let expected = r#"there is no user "x-one", "x-two" or "x-three": write"#;
        assert!(error.starts_with(expected), "{error}");
    }

    fn of(uid: Option<u32>) -> Origin {
        Origin::Process(uid.map(|uid| Credentials { uid, pid: None }))
    }

    #[test]
    fn a_unix_socket_admits_its_own_user_and_root_by_default() {
        let own = geteuid().as_raw();
        let by_default = Access::default();
        for uid in [own, 0] {
            assert!(by_default.admits(of(Some(uid))));
        }
        assert!(!by_default.admits(of(Some(own + 4321))));
        assert!(!by_default.admits(of(None)));
        let open = Access { users: Users::All, ..Access::default() };
        assert!(open.admits(of(Some(own + 4321))));
        let named = Access { users: Users::OwnAnd(vec![own + 4321]), ..Access::default() };
        assert!(named.admits(of(Some(own + 4321))));
    }
}
