//! A plugin that crashes on command: by a read of an object whose digest is all one byte,
//! the code of the crash. Only for tests.

#![expect(unsafe_code, reason = "it is here to do what must not be done")]

use std::error::Error;
use std::hint::black_box;
use std::process::{self, ExitCode};
use std::{ptr, thread};

use cvmcache::plugin::*;
use cvmcache::{CachePlugin, PluginContext, Session};
use nix::libc;
use nix::sys::signal::{Signal, raise};

/// The commands of a read, besides raising the signal of that number.
#[path = "crash_command.rs"]
mod crash_command;

struct Crashing;

impl CachePlugin for Crashing {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        Ok(ObjectInfo::new(3, ObjectType::Regular))
    }

    fn read(&self, _: &Session, id: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        match id.digest()[0] {
            crash_command::NOTHING => {}
            crash_command::USE_NULL => use_null(),
            crash_command::OVERFLOW => _ = overflow(0),
            crash_command::OVERFLOW_IN_C => overflow_in_c(),
            crash_command::ABORT => process::abort(),
            crash_command::PANIC => panic!("panic on purpose"),
            crash_command::EXIT => process::exit(3),
            crash_command::STICK => stick(),
            crash_command::CRASH_IN_HANDLER => crash_in_handler(),
            signal => {
                let signal = Signal::try_from(i32::from(signal)).map_err(|_| Status::NoEntry)?;
                raise(signal).map_err(|_| Status::IoErr)?;
            }
        }
        Ok(b"abc".to_vec().into())
    }
}

fn main() -> ExitCode {
    cvmcache::run("crashing", make)
}

/// On the main thread: `CRASHING_SIGNAL` in the configuration is the number of a signal to raise.
fn make(context: &PluginContext) -> Result<Crashing, Box<dyn Error + Send + Sync>> {
    if let Some(signal) = context.options().parse_value::<i32>("CRASHING_SIGNAL")? {
        raise(Signal::try_from(signal)?)?;
    }
    Ok(Crashing)
}

#[inline(never)]
fn use_null() {
    // SAFETY: none; this is the crash.
    black_box(unsafe { libc::strlen(black_box(ptr::null())) });
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "this is the crash")]
fn overflow(depth: u64) -> u64 {
    black_box(overflow(black_box(depth + 1))) + 1
}

/// The same without an alternate stack.
fn overflow_in_c() {
    extern "C" fn begin(_: *mut libc::c_void) -> *mut libc::c_void {
        overflow(0);
        ptr::null_mut()
    }
    let mut thread = 0;
    // SAFETY: the function takes no arguments and uses nothing of this thread's.
    unsafe {
        libc::pthread_create(&mut thread, ptr::null(), begin, ptr::null_mut());
        libc::pthread_join(thread, ptr::null_mut());
    }
}

#[inline(never)]
fn stick() {
    loop {
        thread::park();
    }
}

/// Crashes on a thread whose alternate stack has no room for what a handler does.
fn crash_in_handler() {
    let crashing = thread::spawn(|| {
        // SAFETY: none; this is what makes the handler crash. Below the stack there is a page
        // that may not be used.
        unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(ptr::null_mut(), 2 * page, libc::PROT_NONE, flags, -1, 0);
            let usable = memory.byte_add(page);
            libc::mprotect(usable, page, libc::PROT_READ | libc::PROT_WRITE);
            let stack = libc::stack_t { ss_sp: usable, ss_flags: 0, ss_size: libc::MINSIGSTKSZ };
            libc::sigaltstack(&stack, ptr::null_mut());
        }
        use_null();
    });
    let _ = crashing.join();
}
