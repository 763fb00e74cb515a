//! The session of the callback that runs on this thread, for `cvmcache_get_session`.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::ptr;

use cvmcache::Session;

use crate::layout;

thread_local! {
    static CURRENT: RefCell<Option<Session>> = const { RefCell::new(None) };
    /// The last session that was requested, with its names as C has them: they have to stay where
    /// they are for as long as the callback runs.
    static NAMES: RefCell<Option<(Session, Names)>> = const { RefCell::new(None) };
}

struct Names {
    repository: CString,
    instance: Option<CString>,
}

/// Runs a callback for a session; without one, for a request of the server itself, for a session of number
/// 0 without a name.
pub(crate) fn with<T>(session: Option<&Session>, callback: impl FnOnce() -> T) -> T {
    /// Says that it has ended, even if by a panic.
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            CURRENT.set(None);
        }
    }
    CURRENT.set(Some(session.cloned().unwrap_or_else(|| Session::new(0, ""))));
    let _leave = Leave;
    callback()
}

/// True in a callback.
pub(crate) fn in_callback() -> bool {
    CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false)
}

/// The session of the callback that runs on this thread. The names stay until the callback returns.
pub(crate) fn current() -> layout::Session {
    let session = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten();
    let Some(session) = session else {
        return layout::Session {
            id: 0,
            repository_name: ptr::null_mut(),
            client_instance: ptr::null_mut(),
        };
    };
    NAMES.with_borrow_mut(|names| {
        let names = match names {
            Some((whose, names)) if *whose == session => names,
            _ => {
                let fresh = Names {
                    repository: c_string(session.repository()),
                    instance: session.instance().map(first_field).map(c_string),
                };
                &names.insert((session.clone(), fresh)).1
            }
        };
        let pointer = |name: &CString| -> *mut c_char { name.as_ptr().cast_mut() };
        layout::Session {
            id: session.id(),
            repository_name: pointer(&names.repository),
            client_instance: names.instance.as_ref().map_or(ptr::null_mut(), pointer),
        }
    })
}

/// The instance as C has it: a second colon ends it, as in the reference library.
fn first_field(instance: &[u8]) -> &[u8] {
    instance.split(|&byte| byte == b':').next().unwrap_or_default()
}

/// The text as C has it: a zero byte ends it.
pub(crate) fn c_string(text: &[u8]) -> CString {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_callbacks_there_is_no_session() {
        assert!(!in_callback());
        let session = current();
        assert_eq!(session.id, 0);
        assert!(session.repository_name.is_null() && session.client_instance.is_null());
    }

    #[test]
    fn a_callback_knows_its_session_until_it_returns() {
        let with_instance = Session::new(7, "atlas.cern.ch:x");
        let first = with(Some(&with_instance), || {
            assert!(in_callback());
            let (first, again) = (current(), current());
            assert_eq!(first.repository_name, again.repository_name);
            first
        });
        assert_eq!(first.id, 7);
        assert!(!first.client_instance.is_null());
        assert_eq!(current().id, 0);
        let without = with(Some(&Session::new(7, "atlas.cern.ch")), current);
        assert!(!without.repository_name.is_null() && without.client_instance.is_null());
    }

    #[test]
    fn a_second_colon_ends_the_instance() {
        assert_eq!(
            [first_field(b"2:x"), first_field(b"2"), first_field(b"")],
            [&b"2"[..], b"2", b""]
        );
    }

    #[test]
    fn a_zero_byte_ends_a_name() {
        assert_eq!(c_string(b"a\xe9\0b").as_bytes(), b"a\xe9");
    }
}
