//! The text of a report: of a crash, a panic, or a plugin that was killed.

use std::fmt::{self, Write};
use std::fs;
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::handler::is_from_a_process;
use super::message::Crash;
use super::output::Entry;
use super::stacks::Stacks;

/// How far from the stack pointer a fault may be to be the next thing that the stack was to hold:
/// functions with large frames touch one page after the other.
const NEXT_TO_THE_STACK: u64 = 8192;

/// The plugin that is watched.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) executable: String,
    pub(super) process: Pid,
}

/// A plugin has crashed.
pub(super) fn crash(about: &About, now: SystemTime, crash: &Crash, stacks: &Stacks) -> Entry {
    let signal = SignalName(crash.signal);
    let mut what = format!("process {} crashed: {signal}", about.process);
    if let Some(address) = address(crash) {
        what += &format!(" at address {address:#x}");
    }
    if is_stack_overflow(crash) {
        what += ", a stack overflow";
    }
    let mut fields = vec![
        ("thread", thread(about, crash)),
        ("signal", format!("{signal}, {}", reason(about, crash))),
        ("address", address(crash).map_or("none".to_owned(), |it| format!("{it:#018x}"))),
        ("at", format!("instruction {:#x}", crash.registers.instruction)),
        ("errno", errno(crash.errno)),
    ];
    if is_stack_overflow(crash) {
        fields.push(("hint", "the address is next to the stack pointer: a stack overflow".into()));
    }
    fields.push(("stacks", stacks.source.clone()));
    entry(about, now, what, &fields, &stacks.text)
}

/// A callback or a thread of a plugin has panicked, and the plugin goes on.
pub(super) fn panic(about: &About, now: SystemTime, text: &str) -> Entry {
    let first = text.lines().next().unwrap_or_default();
    let what = format!("process {} panicked: {first}", about.process);
    entry(about, now, what, &[], text)
}

/// There are more panics than are reported.
pub(super) fn panics(about: &About, now: SystemTime) -> Entry {
    let what = format!("process {} panics on; no more is said of it here", about.process);
    entry(about, now, what, &[], "")
}

/// A plugin has ended without a report.
pub(super) fn vanished(about: &About, now: SystemTime) -> Entry {
    let what = format!(
        "process {} has ended without a report: killed by SIGKILL, as the system does when memory \
         runs out, or by a signal that it does not handle",
        about.process
    );
    entry(about, now, what, &[], "")
}

fn entry(
    about: &About,
    now: SystemTime,
    what: String,
    fields: &[(&str, String)],
    text: &str,
) -> Entry {
    let mut all = format!("==== {} {what}\n", about.name);
    let common = [
        ("time", format_rfc3339_seconds(now).to_string()),
        ("version", about.version.clone()),
        ("executable", about.executable.clone()),
        ("process", about.process.to_string()),
    ];
    for (name, value) in common.iter().chain(fields) {
        let _ = writeln!(all, "{:<12}{value}", format!("{name}:"));
    }
    if !text.is_empty() {
        let _ = write!(all, "\n{}\n", text.trim_end());
    }
    all += "==== end\n\n";
    Entry { summary: what, text: all }
}

struct SignalName(i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => write!(f, "{signal}"),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// The address that a fault is about.
fn address(crash: &Crash) -> Option<u64> {
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];
    (faults.contains(&crash.signal) && !is_from_a_process(crash.code)).then_some(crash.address)
}

fn is_stack_overflow(crash: &Crash) -> bool {
    let stack = crash.registers.stack;
    crash.signal == libc::SIGSEGV
        && stack != 0
        && address(crash).is_some_and(|address| address.abs_diff(stack) <= NEXT_TO_THE_STACK)
}

fn reason(about: &About, crash: &Crash) -> String {
    let reason = match (crash.signal, crash.code) {
        (_, code) if is_from_a_process(code) => {
            let process = match crash.sender {
                sender if sender == about.process.as_raw() => "this process".to_owned(),
                sender => format!("process {sender}"),
            };
            return format!("sent by {process} (user {})", crash.sender_user);
        }
        (libc::SIGSEGV, 1) => "nothing is mapped there",
        (libc::SIGSEGV, 2) => "no permission for what is mapped there",
        (libc::SIGSEGV, libc::SI_KERNEL) => "an address that no memory can have",
        (libc::SIGBUS, 1) => "badly aligned",
        (libc::SIGBUS, 2) => "there is nothing behind what is mapped, as when a file is truncated",
        (libc::SIGFPE, 1) => "integer division by zero",
        (libc::SIGILL, _) => "no such instruction",
        _ => return format!("code {}", crash.code),
    };
    format!("code {}: {reason}", crash.code)
}

fn errno(number: i32) -> String {
    match number {
        0 => "0".to_owned(),
        _ => {
            let errno = Errno::from_raw(number);
            format!("{number} ({errno:?}: {})", errno.desc())
        }
    }
}

fn thread(about: &About, crash: &Crash) -> String {
    match fs::read_to_string(format!("/proc/{}/task/{}/comm", about.process, crash.thread)) {
        Ok(name) => format!("{} ({})", crash.thread, name.trim_end()),
        Err(_) => crash.thread.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Registers;
    use super::*;

    fn text(signal: Signal, code: i32, address: u64, stack: u64) -> Entry {
        let about = About {
            name: "cvmcache mine".to_owned(),
            version: "1.2".to_owned(),
            executable: "/bin/mine".to_owned(),
            process: Pid::from_raw(i32::MAX),
        };
        let registers = Registers { stack, ..Registers::default() };
        let sender = i32::MAX;
        let errno = libc::ENOENT;
        let signal = signal as i32;
        let thread = i32::MAX;
        let crash_ =
            Crash { signal, code, errno, thread, sender, sender_user: 7, address, registers };
        let stacks = Stacks { source: "made up".to_owned(), text: "#0 main".to_owned() };
        crash(&about, SystemTime::UNIX_EPOCH, &crash_, &stacks)
    }

    #[test]
    fn a_fault_is_reported_with_its_address() {
        let entry = text(Signal::SIGSEGV, 1, 0x10, 0x7fff_0000);
        assert!(entry.summary.ends_with("crashed: SIGSEGV at address 0x10"), "{entry:?}");
        for line in [
            "time:       1970-01-01T00:00:00Z",
            "version:    1.2",
            "executable: /bin/mine",
            "process:    2147483647",
            "signal:     SIGSEGV, code 1: nothing is mapped there",
            "address:    0x0000000000000010",
            "errno:      2 (ENOENT: No such file or directory)",
            "stacks:     made up",
            "#0 main",
        ] {
            assert!(entry.text.lines().any(|it| it == line), "{line} in {}", entry.text);
        }
    }

    #[test]
    fn a_signal_that_was_sent_is_reported_with_its_sender() {
        let entry = text(Signal::SIGSEGV, libc::SI_USER, 0, 0x7fff_0000);
        assert!(entry.text.contains("SIGSEGV, sent by this process (user 7)\n"), "{entry:?}");
        assert!(entry.text.contains("address:    none\n"), "{entry:?}");
    }

    #[test]
    fn a_fault_next_to_the_stack_pointer_is_a_stack_overflow() {
        assert!(text(Signal::SIGSEGV, 2, 0x7fff_0000, 0x7fff_0010).summary.contains("overflow"));
        assert!(!text(Signal::SIGSEGV, 1, 0x10, 0x7fff_0000).text.contains("overflow"));
    }
}
