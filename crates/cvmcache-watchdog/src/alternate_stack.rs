//! Alternate signal stacks, for threads that have none.
//!
//! A handler cannot run on a stack that has overflown. The standard library gives every thread that
//! it starts another one, but only in programs with a Rust main function; and threads of C
//! have none. So the threads of the SDK install one each.

#![expect(unsafe_code, reason = "the system takes an alternate stack by its address")]

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ptr;

use nix::libc::{SS_DISABLE, sigaltstack, stack_t};

/// Enough for the handler, and for the registers of any processor.
const SIZE: usize = 64 * 1024;

thread_local! {
    static STACK: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

/// The alternate stack of the thread that owns it.
struct Stack {
    // Not a box: the system writes to it while this value is there.
    memory: *mut [MaybeUninit<u8>],
}

/// Gives the calling thread an alternate stack until it ends, unless it has one.
pub(super) fn ensure() {
    let mut present = disabled();
    // SAFETY: the system only writes to `present`.
    if unsafe { sigaltstack(ptr::null(), &mut present) } == 0 && present.ss_flags & SS_DISABLE != 0
    {
        STACK.with_borrow_mut(|stack| *stack = Some(Stack::install()));
    }
}

impl Stack {
    fn install() -> Self {
        let memory = Box::into_raw(Box::new_uninit_slice(SIZE));
        let stack = stack_t { ss_sp: memory.cast(), ss_flags: 0, ss_size: SIZE };
        // SAFETY: the memory is there, and used by nothing else, until `drop`, which tells the
        // system before.
        unsafe { sigaltstack(&stack, ptr::null_mut()) };
        Self { memory }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: no handler is running on it, because the thread is here.
        unsafe { sigaltstack(&disabled(), ptr::null_mut()) };
        // SAFETY: it was a box, and the system knows of it no more.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

fn disabled() -> stack_t {
    stack_t { ss_sp: ptr::null_mut(), ss_flags: SS_DISABLE, ss_size: SIZE }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_without_an_alternate_stack_gets_one() {
        let is_enabled = || {
            let mut present = disabled();
            // SAFETY: the system only writes to `present`.
            unsafe { sigaltstack(ptr::null(), &mut present) };
            present.ss_flags & SS_DISABLE == 0
        };
        thread::spawn(move || {
            // SAFETY: no handler runs on what the standard library has installed.
            unsafe { sigaltstack(&disabled(), ptr::null_mut()) };
            assert!(!is_enabled());
            ensure();
            assert!(is_enabled());
        })
        .join()
        .unwrap();
    }
}
