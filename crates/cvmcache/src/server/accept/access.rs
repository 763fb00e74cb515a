//! Which connections are allowed: by network on TCP sockets, by user on unix sockets.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use nix::unistd::{Uid, User, geteuid};
use thiserror::Error;

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
/// By default the plugin's own and root. The mode of the socket, 0600, admits no others either;
/// but modes are changed, by hand or by a directory that is shared.
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
    /// Neither an address nor a network; the part of the text that is meant.
    #[error(
        "{0:?} is not a network: write addresses, or networks like 10.0.0.0/8, with commas between them"
    )]
    Network(String),
    /// The system knows no such user; the part of the text that is meant.
    #[error(
        "there is no user {0:?}: write names or numbers with commas between them, or * for all"
    )]
    User(String),
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A process of this user; `None` if it is not known.
    User(Option<u32>),
    Address(IpAddr),
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
}

impl FromStr for Networks {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = |item: &str| {
            let network = item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| AccessError::Network(item.to_owned()))
        };
        items(text).map(network).collect::<Result<_, _>>().map(Self)
    }
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
            number.or_else(by_name).ok_or_else(|| AccessError::User(item.to_owned()))
        };
        items(text).map(user).collect::<Result<_, _>>().map(Users::OwnAnd)
    }
}

impl Default for Users {
    fn default() -> Self {
        Users::OwnAnd(Vec::new())
    }
}

impl Access {
    pub(crate) fn admits(&self, origin: Origin) -> bool {
        match origin {
            Origin::Address(address) => {
                self.networks.as_ref().is_none_or(|networks| networks.contains(address))
            }
            Origin::User(user) => match &self.users {
                Users::All => true,
                Users::OwnAnd(others) => user.is_some_and(|uid| {
                    let uid = Uid::from_raw(uid);
                    uid == geteuid() || uid.is_root() || others.contains(&uid.as_raw())
                }),
            },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::User(Some(uid)) => write!(f, "user {uid}"),
            Origin::User(None) => f.write_str("an unknown user"),
            Origin::Address(address) => address.fmt(f),
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_allowed_if_a_network_has_it() {
        let networks: Networks = "10.0.0.0/8,192.168.7.1  2001:db8::/32".parse().unwrap();
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
    fn users_are_parsed_from_names_and_numbers() {
        assert_eq!("root, 1001".parse(), Ok(Users::OwnAnd(vec![0, 1001])));
        assert_eq!(" * ".parse(), Ok(Users::All));
        let error = "no-such-user".parse::<Users>().unwrap_err().to_string();
        assert!(error.starts_with("there is no user \"no-such-user\": write"), "{error}");
    }

    #[test]
    fn a_unix_socket_admits_its_own_user_and_root_by_default() {
        let own = geteuid().as_raw();
        let by_default = Access::default();
        for uid in [own, 0] {
            assert!(by_default.admits(Origin::User(Some(uid))));
        }
        assert!(!by_default.admits(Origin::User(Some(own + 4321))));
        assert!(!by_default.admits(Origin::User(None)));
        let open = Access { users: Users::All, ..Access::default() };
        assert!(open.admits(Origin::User(Some(own + 4321))));
        let named = Access { users: Users::OwnAnd(vec![own + 4321]), ..Access::default() };
        assert!(named.admits(Origin::User(Some(own + 4321))));
    }
}
