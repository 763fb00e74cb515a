//! Where reports go: the crash dump, syslog and, in the foreground, standard error.
//!
//! They are written by a thread, because each of these may stand still.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};

/// How many reports may wait to be written. Panics beyond that are lost.
const MAX_WAITING: usize = 64;

/// How much of a report goes to syslog, which may take lines away if there are many.
const MAX_SYSLOG_LINES: usize = 500;

/// Something to be reported.
#[derive(Debug)]
pub(super) struct Entry {
    /// What has happened, in a line.
    pub(super) summary: String,
    /// All of it, in lines.
    pub(super) text: String,
}

/// Where reports go.
#[derive(Debug)]
pub(super) struct Output {
    /// A file to append to; absolute.
    pub(super) dump: Option<PathBuf>,
    /// How the plugin is called in syslog.
    pub(super) tag: String,
    /// What lines on standard error begin with.
    pub(super) name: String,
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

enum Job {
    Write(Entry),
    /// To be answered when everything before is written.
    Flush(Sender<()>),
}

impl Writer {
    pub(super) fn start(output: Output) -> Self {
        let (jobs, receiver) = sync_channel(MAX_WAITING);
        let thread = thread::spawn(move || output.work(&receiver));
        Self { jobs, thread }
    }

    pub(super) fn write(&mut self, entry: Entry) {
        match self.jobs.try_send(Job::Write(entry)) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn flush(&mut self, at_most: Duration) {
        let (done, is_done) = mpsc::channel();
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(at_most);
        }
    }

    /// Waits until everything is written, for ever if need be.
    pub(super) fn finish(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

impl Output {
    fn work(&self, jobs: &Receiver<Job>) {
        self.open_syslog();
        for job in jobs {
            match job {
                Job::Write(entry) => self.write(&entry),
                Job::Flush(done) => drop(done),
            }
        }
    }

    fn write(&self, entry: &Entry) {
        let written = self.dump.as_ref().map(|path| (path, append(path, &entry.text)));
        let mut lines = vec![entry.summary.clone()];
        let mut is_safe = false;
        match written {
            Some((path, Ok(()))) => {
                is_safe = true;
                lines.push(format!("more is in {}", path.display()));
            }
            Some((path, Err(error))) => lines.push(format!(
                "cannot write that to {}: {error}; name a file that the plugin's user can write",
                path.display()
            )),
            None => {}
        }
        let mut stderr = format!("{}: {}\n", self.name, lines.join("; "));
        if !is_safe {
            stderr += &entry.text;
        }
        // First, because syslog is more likely to stand still.
        let _ = io::stderr().write_all(stderr.as_bytes());
        self.write_syslog(lines.iter().map(String::as_str).chain(entry.text.lines()));
    }

    fn open_syslog(&self) {
        // Kept by the C library for as long as the process lives.
        let tag = CString::new(self.tag.clone()).unwrap_or_default();
        let _ = openlog(Some(Box::leak(tag.into_boxed_c_str())), LogFlags::empty(), FACILITY);
    }

    /// Without a syslog, nothing happens.
    fn write_syslog<'a>(&self, lines: impl Iterator<Item = &'a str>) {
        let priority = Priority::new(Severity::LOG_ERR, FACILITY);
        for line in lines.filter(|line| !line.is_empty()).take(MAX_SYSLOG_LINES) {
            let _ = syslog(priority, line);
        }
    }
}

const FACILITY: Facility = Facility::LOG_DAEMON;

fn append(path: &PathBuf, text: &str) -> io::Result<()> {
    // There may be data of users in it, such as names of files.
    let mut file = File::options().create(true).append(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
