//! The signal handler of the plugin, on the alternate stack of the thread that crashes.
//!
//! Only what is async-signal-safe: system calls, atomics and the stack. Every wait has an end. What
//! happens here while a signal is handled happens once: all signals are blocked meanwhile, so that
//! a crash of the handler itself makes the system end the process, by that signal.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, siginfo_t, ucontext_t};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise, sigaction,
};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::unistd::{Pid, getpid, gettid};

use super::alternate_stack;
use super::message::{Crash, GOODBYE, Registers};

/// How long a plugin that has crashed waits for its watchdog.
const PATIENCE: Duration = Duration::from_secs(30);

/// The signals of a crash, and SIGQUIT, which requests a dump and the end.
const SIGNALS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGQUIT,
    Signal::SIGXFSZ,
];

/// Signals that request the end of a process. A program may handle them late, after its start, or never:
/// then it ends by their default action, without a crash.
const REQUESTS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// The way to the watchdog. Never closed: a handler may be about to use it.
static WATCHDOG: OnceLock<Line> = OnceLock::new();
/// There is no watchdog any more.
static DISARMED: AtomicBool = AtomicBool::new(false);
/// A thread has crashed, and reports it.
static CRASHING: AtomicBool = AtomicBool::new(false);

struct Line {
    socket: OwnedFd,
    /// The process that is watched, and not a child that it has forked.
    process: Pid,
}

/// Whether `arm` was called.
pub(super) fn is_armed() -> bool {
    WATCHDOG.get().is_some()
}

/// Handles crashes from now on, and reports a normal exit to the watchdog. Once in a process.
pub(super) fn arm(socket: OwnedFd) -> io::Result<()> {
    if WATCHDOG.set(Line { socket, process: getpid() }).is_err() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    alternate_stack::ensure();
    #[expect(unsafe_code, reason = "signal handlers and atexit are the business of this file")]
    // SAFETY: `at_exit` is a function of this program that does not unwind.
    if unsafe { libc::atexit(at_exit) } != 0 {
        return Err(io::Error::from(io::ErrorKind::OutOfMemory));
    }
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_SIGINFO;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::all());
    for signal in SIGNALS {
        #[expect(unsafe_code, reason = "there is no other way to handle these signals")]
        // SAFETY: `handle` does nothing but what is async-signal-safe, see there.
        unsafe { sigaction(signal, &action) }?;
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::SA_ONSTACK, SigSet::all());
    // One that is ignored stays ignored, and another handler its program's.
    for signal in REQUESTS.into_iter().filter(|&signal| handler_of(signal) == libc::SIG_DFL) {
        #[expect(unsafe_code, reason = "there is no other way to handle these signals")]
        // SAFETY: `end` does nothing but what is async-signal-safe, see there.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Holds back requests of the end while `start` runs, between the fork and `arm`, when the watchdog would
/// take them for SIGKILL.
pub(super) fn without_requests<T>(start: impl FnOnce() -> T) -> T {
    let before = SigSet::from_iter(REQUESTS).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let result = start();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    result
}

/// Says goodbye to the watchdog. Crashes end the process without a dump from now on.
pub(super) fn disarm() {
    if DISARMED.swap(true, Ordering::Relaxed) {
        return;
    }
    if let Some(line) = line() {
        let _ = line.tell(GOODBYE, Duration::ZERO);
        let _ = shutdown(line.socket.as_raw_fd(), Shutdown::Write);
    }
}

/// Whether `disarm` was called.
pub(super) fn is_disarmed() -> bool {
    DISARMED.load(Ordering::Relaxed)
}

/// Tells the watchdog something, unless that would take time.
pub(super) fn tell(message: &[u8]) -> nix::Result<()> {
    match line() {
        Some(line) if !is_disarmed() => line.tell(message, Duration::ZERO),
        _ => Ok(()),
    }
}

/// `None` in a child that was forked and uses no other program: what it does is not watched.
fn line() -> Option<&'static Line> {
    WATCHDOG.get().filter(|line| line.process == getpid())
}

impl Line {
    fn tell(&self, message: &[u8], patience: Duration) -> nix::Result<()> {
        let deadline = Instant::now() + patience;
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match send(self.socket.as_raw_fd(), message, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN) if self.wait(PollFlags::POLLOUT, deadline) => {}
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the socket is ready or its other end has closed; false after the deadline.
    fn wait(&self, what: PollFlags, deadline: Instant) -> bool {
        let mut sockets = [PollFd::new(self.socket.as_fd(), what)];
        wait(&mut sockets, deadline)
    }
}

/// Whether any of them is ready before the deadline.
fn wait(sockets: &mut [PollFd<'_>], deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Not less than what is left, or this would spin in the last millisecond.
        let left = PollTimeout::try_from(left + Duration::from_millis(1));
        match poll(sockets, left.unwrap_or(PollTimeout::MAX)) {
            Ok(ready) if ready > 0 => return true,
            Ok(_) | Err(Errno::EINTR) if Instant::now() < deadline => {}
            _ => return false,
        }
    }
}

extern "C" fn at_exit() {
    if line().is_some() {
        disarm();
    }
}

extern "C" fn handle(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    if let Some(line) = line().filter(|_| !is_disarmed()) {
        let deadline = Instant::now() + PATIENCE;
        if CRASHING.swap(true, Ordering::Relaxed) {
            // Another thread crashed first, and ends the process after its report.
            wait(&mut [], deadline);
        } else {
            let crash = describe(number, errno, info, context);
            if line.tell(&crash.encode(), PATIENCE).is_ok() {
                line.wait(PollFlags::POLLIN, deadline);
            }
        }
    }
    end_by(number);
}

/// Ends the process by the default action of a signal, after a goodbye to the watchdog. Async-signal-safe.
pub(super) fn end_by_request(number: c_int) {
    disarm();
    end_by(number);
}

/// Ends the process by a signal that requests it, which is no crash.
extern "C" fn end(number: c_int) {
    let Ok(signal) = Signal::try_from(number) else { return };
    // A later handler of the program, such as signal-hook's, may call the one before it.
    let here: extern "C" fn(c_int) = end;
    if handler_of(signal) == here as usize {
        end_by_request(number);
    }
}

/// The address of the handler of a signal, or what stands for its default action. Async-signal-safe.
fn handler_of(signal: Signal) -> usize {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    #[expect(unsafe_code, reason = "nix's sigaction does not ask without setting")]
    // SAFETY: the system only writes to `action`, and all its bits may be zero.
    unsafe {
        libc::sigaction(signal as c_int, ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction
    }
}

/// Ends the process as the signal would have: when the handler returns, and with a core dump if the
/// system makes one.
fn end_by(number: c_int) {
    let Ok(signal) = Signal::try_from(number) else { return };
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    #[expect(unsafe_code, reason = "the system has to end the process in its own way")]
    // SAFETY: the default action runs no code of this process.
    let _ = unsafe { sigaction(signal, &default) };
    // Blocked until the handler returns.
    let _ = raise(signal);
}

#[expect(unsafe_code, reason = "what the system tells a handler comes by pointers")]
fn describe(number: c_int, errno: i32, info: *mut siginfo_t, context: *mut c_void) -> Crash {
    let mut crash = Crash { signal: number, errno, thread: gettid().as_raw(), ..Crash::default() };
    // SAFETY: the system passes a handler with SA_SIGINFO a siginfo_t that lives as long as it runs.
    if let Some(info) = unsafe { info.as_ref() } {
        crash.code = info.si_code;
        if is_from_a_process(info.si_code) {
            // SAFETY: these fields are there if a process sent the signal.
            (crash.sender, crash.sender_user) = unsafe { (info.si_pid(), info.si_uid()) };
        } else {
            // SAFETY: this field is there if the system sent the signal because of a fault, and
            // any bits make a number.
            crash.address = unsafe { info.si_addr() } as u64;
        }
    }
    // SAFETY: the system passes such a handler a ucontext_t that lives as long as it runs.
    if let Some(context) = unsafe { context.cast::<ucontext_t>().as_ref() } {
        crash.registers = registers(context);
    }
    crash
}

/// Whether the signal comes from kill(2) or the like, as opposed to a fault.
pub(super) fn is_from_a_process(code: i32) -> bool {
    code <= 0
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &ucontext_t) -> Registers {
    let register = |number: c_int| context.uc_mcontext.gregs[number as usize] as u64;
    Registers {
        instruction: register(libc::REG_RIP),
        stack: register(libc::REG_RSP),
        frame: register(libc::REG_RBP),
        link: 0,
    }
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &ucontext_t) -> Registers {
    let context = &context.uc_mcontext;
    Registers {
        instruction: context.pc,
        stack: context.sp,
        frame: context.regs[29],
        link: context.regs[30],
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_: &ucontext_t) -> Registers {
    Registers::default()
}
