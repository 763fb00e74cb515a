//! The session that a callback serves.

use std::fmt;

use bytes::Bytes;

/// A client's session with the plugin: one mounted repository.
///
/// It lasts from the client's handshake until it quits or its connection ends.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    id: u64,
    name: Bytes,
}

impl Session {
    /// A session for the tests of a plugin.
    ///
    /// `name` is what a client sends in its handshake: the repository, a colon, and the instance.
    ///
    /// ```
    /// use cvmcache::Session;
    ///
    /// let session = Session::new(7, "atlas.cern.ch:2");
    /// assert_eq!(session.repository(), b"atlas.cern.ch");
    /// assert_eq!(session.instance(), Some(&b"2"[..]));
    /// ```
    pub fn new(id: u64, name: impl Into<Bytes>) -> Self {
        Self { id, name: name.into() }
    }

    /// The number of the session. It is never used again as long as the server runs. Sessions of
    /// clients count from 1; what the server requests for itself, as for
    /// [metrics](crate::ServerBuilder::metrics), comes under 0 and an empty name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name that the client gave: usually `repository:instance`. It need not be UTF-8.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The repository: the part of the name before the first colon. It need not be UTF-8.
    pub fn repository(&self) -> &[u8] {
        self.split().0
    }

    /// The instance: the part of the name behind the first colon, if there is one.
    pub fn instance(&self) -> Option<&[u8]> {
        self.split().1
    }

    fn split(&self) -> (&[u8], Option<&[u8]>) {
        match self.name.iter().position(|&byte| byte == b':') {
            Some(colon) => (&self.name[..colon], Some(&self.name[colon + 1..])),
            None => (&self.name, None),
        }
    }
}

/// The name, with whatever could upset a terminal or a log escaped, and the number.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (session {})", self.name.escape_ascii(), self.id)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_repository_and_an_instance() {
        let session = Session::new(7, "atlas.cern.ch:2:x");
        assert_eq!(session.repository(), b"atlas.cern.ch");
        assert_eq!(session.instance(), Some(&b"2:x"[..]));
        assert_eq!(session.to_string(), "atlas.cern.ch:2:x (session 7)");
    }

    #[test]
    fn a_name_need_not_be_utf8() {
        let session = Session::new(1, &b"caf\xe9\n"[..]);
        assert_eq!(session.repository(), b"caf\xe9\n");
        assert_eq!(session.instance(), None);
        assert_eq!(session.to_string(), "caf\\xe9\\n (session 1)");
    }
}
