//! Dropping values that a plugin has made, behind the guard against panics.

use crate::service::guard;

/// Drops something that the plugin may have made, such as the data of a reply. Its code may run then,
/// and panic.
pub(crate) fn discard<T>(value: T) {
    let _logged = guard("drop of a reply", || {
        drop(value);
        Ok(())
    });
}
