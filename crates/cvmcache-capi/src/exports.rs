//! The functions of `libcvmfs_cache.h`, exported to C. The header documents what they do; here is what they
//! rely on.
//!
//! No function panics. Each takes null pointers, and writes an error message to standard error where
//! they make no sense. A *string* is a pointer to bytes that end with a zero, and that stay as they are
//! until the function returns.

#![expect(unsafe_code, reason = "the functions are called by their names, with pointers")]

use std::ffi::{OsStr, c_char, c_int, c_uint};
use std::path::Path;
use std::ptr;

use crate::ffi::{free_malloc, guard, report_error, string, to_malloc, value};
use crate::layout::{Callbacks, Context, Hash, OptionMap, Session};
use crate::{context, process, session, watchdog};

/// Gets the process into order.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_init_global() {
    guard("cvmcache_init_global", (), process::prepare);
}

/// Does nothing: what is left is the process's.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_cleanup_global() {}

/// 1 if a client has started this process.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_is_supervised() -> c_int {
    guard("cvmcache_is_supervised", 0, || process::is_supervised().into())
}

/// Makes a context.
///
/// # Safety
///
/// `callbacks` is null or points to a table whose entries are null or functions of the type that
/// the header says. They stay callable until the context has ended, on a thread that is not the
/// caller's, and they write only where the header says that they may. A `description` that they
/// set is a string from `malloc`, and is not used by them afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_init(callbacks: *mut Callbacks) -> *mut Context {
    guard("cvmcache_init", ptr::null_mut(), || {
        // SAFETY: the caller promises it.
        let callbacks = unsafe { value("cvmcache_init", callbacks) };
        callbacks.map_or(ptr::null_mut(), context::init)
    })
}

/// Listens: 1, or 0 and an error message.
///
/// # Safety
///
/// `locator` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_listen(ctx: *mut Context, locator: *mut c_char) -> c_int {
    with("cvmcache_listen", 0, ctx, |context| {
        // SAFETY: the caller promises it.
        let locator = unsafe { string("cvmcache_listen", locator) };
        locator.is_some_and(|locator| context.listen(locator)).into()
    })
}

/// Starts the threads.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_process_requests(ctx: *mut Context, nworkers: c_uint) {
    with("cvmcache_process_requests", (), ctx, |context| context.process_requests(nworkers));
}

/// Lets `nworkers` of `cvmcache_process_requests` mean something.
///
/// # Safety
///
/// The callbacks of the context can be called on several threads at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_allow_workers(ctx: *mut Context) {
    with("cvmcache_allow_workers", (), ctx, |context| context.allow_workers());
}

/// Asks for an administration socket, beside the plugin's own or at a path.
///
/// # Safety
///
/// `path` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_admin(ctx: *mut Context, path: *const c_char) {
    with("cvmcache_admin", (), ctx, |context| match path.is_null() {
        true => context.serve_admin(None),
        false => {
            // SAFETY: the caller promises it.
            let path = unsafe { string("cvmcache_admin", path) };
            context.serve_admin(path);
        }
    });
}

/// Asks clients to close the file catalogs they can do without.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_ask_detach(ctx: *mut Context) {
    with("cvmcache_ask_detach", (), ctx, |context| context.ask_detach());
}

/// Ends the threads.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_terminate(ctx: *mut Context) {
    with("cvmcache_terminate", (), ctx, |context| context.terminate());
}

/// Waits for the end of the threads, and frees the context.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_wait_for(ctx: *mut Context) {
    guard("cvmcache_wait_for", (), || context::wait_for(ctx));
}

/// The most bytes in a part of an upload, and in a read; 0 if there is no such context.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_max_object_size(ctx: *mut Context) -> u32 {
    with("cvmcache_max_object_size", 0, ctx, |context| context.max_object_size())
}

/// Starts the watchdog.
///
/// # Safety
///
/// `crash_dump_file` is null or a string. There is only one thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_spawn_watchdog(crash_dump_file: *const c_char) {
    guard("cvmcache_spawn_watchdog", (), || {
        process::prepare();
        let file = match crash_dump_file.is_null() {
            true => None,
            // SAFETY: the caller promises it.
            false => unsafe { string("cvmcache_spawn_watchdog", crash_dump_file) },
        };
        watchdog::spawn(file);
    });
}

/// Ends the watchdog.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_terminate_watchdog() {
    guard("cvmcache_terminate_watchdog", (), watchdog::terminate);
}

/// Fills in the session of the callback that runs on this thread.
///
/// # Safety
///
/// `session` is null or points to memory for a session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_get_session(session: *mut Session) {
    guard("cvmcache_get_session", (), || {
        if session.is_null() {
            return report_error("cvmcache_get_session: a pointer is NULL");
        }
        // SAFETY: the caller promises it.
        unsafe { session.write(session::current()) };
    });
}

/// -1, 0 or 1; a null pointer is less than any name.
///
/// # Safety
///
/// `a` and `b` are null or point to names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_hash_cmp(a: *mut Hash, b: *mut Hash) -> c_int {
    // SAFETY: the caller promises it.
    let (a, b) = unsafe { (a.as_ref(), b.as_ref()) };
    let order = match (a, b) {
        (Some(a), Some(b)) => a.compare(b),
        _ => a.is_some().cmp(&b.is_some()),
    };
    order as c_int
}

/// The name as a string from `malloc`, or null.
///
/// # Safety
///
/// `h` is null or points to a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_hash_print(h: *const Hash) -> *mut c_char {
    guard("cvmcache_hash_print", ptr::null_mut(), || {
        // SAFETY: the caller promises it.
        let hash = unsafe { value("cvmcache_hash_print", h) };
        hash.map_or(ptr::null_mut(), |hash| to_malloc(hash.print().as_bytes()))
    })
}

/// Makes a map, to be freed by `cvmcache_options_fini`.
#[unsafe(no_mangle)]
pub extern "C" fn cvmcache_options_init() -> *mut OptionMap {
    guard("cvmcache_options_init", ptr::null_mut(), || {
        process::prepare();
        Box::into_raw(Box::new(OptionMap::new()))
    })
}

/// Frees a map.
///
/// # Safety
///
/// `opts` is null or a map that is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_fini(opts: *mut OptionMap) {
    guard("cvmcache_options_fini", (), || {
        if !opts.is_null() {
            // SAFETY: it comes from `Box::into_raw`, and the caller gives it up.
            drop(unsafe { Box::from_raw(opts) });
        }
    });
}

/// Makes a map with the same options, to be freed by `cvmcache_options_fini`.
///
/// # Safety
///
/// `opts` is null or a map that is not changed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_clone(opts: *mut OptionMap) -> *mut OptionMap {
    guard("cvmcache_options_clone", ptr::null_mut(), || {
        // SAFETY: the caller promises it.
        let options = unsafe { value("cvmcache_options_clone", opts) };
        options.map_or(ptr::null_mut(), |options| Box::into_raw(Box::new(options.clone())))
    })
}

/// Sets an option.
///
/// # Safety
///
/// `opts` is null or a map that no other thread uses meanwhile; `key` and `value` are null or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_set(
    opts: *mut OptionMap,
    key: *const c_char,
    value: *const c_char,
) {
    const NAME: &str = "cvmcache_options_set";
    // SAFETY: the caller promises it.
    let strings = || unsafe { string(NAME, key).zip(string(NAME, value)) };
    // SAFETY: the caller promises it.
    unsafe {
        change(NAME, (), opts, |map| {
            if let Some((key, value)) = strings() {
                map.set(key, value);
            }
        });
    }
}

/// Removes an option.
///
/// # Safety
///
/// `opts` is null or a map that no other thread uses meanwhile; `key` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_unset(opts: *mut OptionMap, key: *const c_char) {
    const NAME: &str = "cvmcache_options_unset";
    // SAFETY: the caller promises it.
    let key = || unsafe { string(NAME, key) };
    // SAFETY: the caller promises it.
    unsafe {
        change(NAME, (), opts, |map| {
            if let Some(key) = key() {
                map.unset(key);
            }
        });
    }
}

/// Adds the options in a file: 0, or -1 and an error message.
///
/// # Safety
///
/// `opts` is null or a map that no other thread uses meanwhile; `path` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_parse(
    opts: *mut OptionMap,
    path: *const c_char,
) -> c_int {
    const NAME: &str = "cvmcache_options_parse";
    let parse = |map: &mut OptionMap, path: &OsStr| match map.parse(Path::new(path)) {
        Ok(()) => 0,
        Err(error) => {
            report_error(error);
            -1
        }
    };
    // SAFETY: the caller promises it.
    let path = || unsafe { string(NAME, path) };
    // SAFETY: the caller promises it.
    unsafe { change(NAME, -1, opts, |map| path().map_or(-1, |path| parse(map, path))) }
}

/// The value of an option as a string from `malloc`, or null.
///
/// # Safety
///
/// `opts` is null or a map that is not changed meanwhile; `key` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_get(
    opts: *mut OptionMap,
    key: *const c_char,
) -> *mut c_char {
    guard("cvmcache_options_get", ptr::null_mut(), || {
        // SAFETY: the caller promises it.
        let options = unsafe { value("cvmcache_options_get", opts) };
        // SAFETY: the caller promises it.
        let key = unsafe { string("cvmcache_options_get", key) };
        let found = options.zip(key).and_then(|(options, key)| options.get(key));
        found.map_or(ptr::null_mut(), |value| to_malloc(value.as_encoded_bytes()))
    })
}

/// All options as a string from `malloc`, or null.
///
/// # Safety
///
/// `opts` is null or a map that is not changed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_dump(opts: *mut OptionMap) -> *mut c_char {
    guard("cvmcache_options_dump", ptr::null_mut(), || {
        // SAFETY: the caller promises it.
        let options = unsafe { value("cvmcache_options_dump", opts) };
        options.map_or(ptr::null_mut(), |options| to_malloc(&options.dump()))
    })
}

/// Frees a string.
///
/// # Safety
///
/// `value` is null or a string that `cvmcache_options_get` or `cvmcache_options_dump` has returned,
/// and that is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cvmcache_options_free(value: *mut c_char) {
    // SAFETY: the caller promises it.
    unsafe { free_malloc(value) };
}

/// Runs the body of a function of contexts.
fn with<T>(
    function: &str,
    otherwise: T,
    ctx: *mut Context,
    body: impl FnOnce(&context::Context) -> T,
) -> T
where
    T: Copy,
{
    guard(function, otherwise, || {
        context::find(function, ctx).map_or(otherwise, |context| body(&context))
    })
}

/// Runs the body of a function that changes a map.
///
/// # Safety
///
/// `opts` is null or a map that no other thread uses meanwhile.
unsafe fn change<T: Copy>(
    function: &str,
    otherwise: T,
    opts: *mut OptionMap,
    body: impl FnOnce(&mut OptionMap) -> T,
) -> T {
    guard(function, otherwise, || {
        // SAFETY: the caller promises it.
        match unsafe { opts.as_mut() } {
            Some(map) => body(map),
            None => {
                report_error(format_args!("{function}: the option map is NULL"));
                otherwise
            }
        }
    })
}
