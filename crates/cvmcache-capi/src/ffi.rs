//! The boundary to C: no panic crosses it, null pointers are refused, and strings change owners.

#![expect(unsafe_code, reason = "pointers from C, and memory of malloc")]

use std::ffi::{CStr, OsStr, c_char};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Runs the body of an exported function. A panic is a bug of this library: the function returns
/// `otherwise` then, and the panic hook has logged the reason.
pub(crate) fn guard<T>(function: &str, otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        report_error(format_args!("{function} has failed by a bug in cvmcache: please report it"));
        otherwise
    })
}

/// Writes an error message to standard error, at once: the log may not have started yet, or have ended.
pub(crate) fn report_error(what: impl std::fmt::Display) {
    // There is no other place for it, if standard error is closed.
    let _ = writeln!(io::stderr(), "libcvmfs_cache: {what}");
}

/// A string that C has passed; `None`, and an error message, for a null pointer.
///
/// # Safety
///
/// `text` is null or a string that stays as it is while the result is used.
pub(crate) unsafe fn string<'a>(function: &str, text: *const c_char) -> Option<&'a OsStr> {
    if text.is_null() {
        report_error(format_args!("{function}: a string is NULL"));
        return None;
    }
    // SAFETY: it is not null, and the caller promises the rest.
    Some(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

/// A value that C has passed a pointer to; `None`, and an error message, for a null pointer.
///
/// # Safety
///
/// `value` is null or points to a `T` that is not changed while the result is used.
pub(crate) unsafe fn value<'a, T>(function: &str, value: *const T) -> Option<&'a T> {
    // SAFETY: the caller promises it.
    let value = unsafe { value.as_ref() };
    if value.is_none() {
        report_error(format_args!("{function}: a pointer is NULL"));
    }
    value
}

/// A string from `malloc`, for C to free; what follows a zero byte is cut off. Null if there is no
/// memory.
pub(crate) fn to_malloc(text: &[u8]) -> *mut c_char {
    // SAFETY: it reads `text.len()` bytes at most.
    unsafe { libc::strndup(text.as_ptr().cast(), text.len()) }
}

/// Takes over a string from `malloc`; `None` for a null pointer. It is null afterwards.
///
/// # Safety
///
/// `*text` is null or a string from `malloc` that has no other user.
pub(crate) unsafe fn take_malloc(text: &mut *mut c_char) -> Option<Vec<u8>> {
    let text = std::mem::replace(text, ptr::null_mut());
    if text.is_null() {
        return None;
    }
    // SAFETY: it is not null, and the caller promises that it is a string.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes().to_vec();
    // SAFETY: the caller promises that it comes from malloc; it is not used afterwards.
    unsafe { free_malloc(text) };
    Some(bytes)
}

/// Frees a string from `malloc`.
///
/// # Safety
///
/// `text` is null or comes from `malloc`, and is not used afterwards.
pub(crate) unsafe fn free_malloc(text: *mut c_char) {
    // SAFETY: the caller promises it.
    unsafe { libc::free(text.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_cross_to_c() {
        assert_eq!(guard("f", 7, || panic!("a test")), 7);
        assert_eq!(guard("f", 7, || 8), 8);
    }

    #[test]
    fn a_string_of_malloc_is_copied_up_to_its_first_zero_byte_and_freed() {
        let mut text = to_malloc(b"caf\xe9\0rest");
        // SAFETY: it comes from malloc, and is a string.
        assert_eq!(unsafe { take_malloc(&mut text) }.unwrap(), b"caf\xe9");
        assert!(text.is_null());
        // SAFETY: it is null.
        assert_eq!(unsafe { take_malloc(&mut text) }, None);
    }
}
