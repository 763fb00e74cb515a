//! Forking, which is sound only in a process with a single thread.

use std::fs;
use std::io;

use nix::unistd::{self, ForkResult};

/// Forks.
///
/// # Errors
///
/// If there are other threads: the child would have none of them, but all the locks that they
/// hold. Also those of the system.
pub fn fork() -> io::Result<ForkResult> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads > 1 {
        return Err(io::Error::other(format!(
            "this process has {threads} threads already; call this before anything that starts \
             one"
        )));
    }
    #[expect(unsafe_code, reason = "there is no other way to have a process of one's own code")]
    // SAFETY: this is the only thread, so the child is as able as the parent.
    Ok(unsafe { unistd::fork() }?)
}

/// Ends this process at once, without what its parent has registered for its own end.
#[expect(unsafe_code, reason = "exit() would do what is for the parent to do")]
pub(crate) fn exit() -> ! {
    // SAFETY: it takes no pointers, and nothing of this process is used afterwards.
    unsafe { nix::libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_split() {
        let error = fork().unwrap_err();
        assert!(error.to_string().contains("threads already"), "{error}");
    }
}
