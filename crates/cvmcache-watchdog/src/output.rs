//! The targets of reports: the crash dump, syslog and, in the foreground, standard error.
//!
//! Each of these may stand still. The file and syslog have a thread each, so that neither waits for
//! the other; standard error gets what it takes.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};

/// How many reports may wait to be written. Panics beyond that are lost.
const MAX_WAITING: usize = 64;

/// How much of a report goes to syslog, which may take lines away if there are many.
const MAX_SYSLOG_LINES: usize = 500;

/// What a pipe takes at once, if it takes anything.
const PIPE: usize = 4096;

const FACILITY: Facility = Facility::LOG_DAEMON;

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

/// The threads that write.
#[derive(Debug)]
pub(super) struct Writer {
    files: Worker,
    syslog: Worker,
}

#[derive(Debug)]
struct Worker {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

enum Job {
    Write(Arc<Entry>),
    /// Is dropped when everything before is written.
    Flush(#[expect(dead_code, reason = "only that it is dropped matters")] Sender<()>),
}

impl Writer {
    pub(super) fn start(output: Output) -> io::Result<Self> {
        let tag = output.tag.clone();
        let syslog = Worker::start(move |jobs| work_on_syslog(&tag, &jobs))?;
        let failures = syslog.jobs.clone();
        let files = Worker::start(move |jobs| output.work(&jobs, &failures))?;
        Ok(Self { files, syslog })
    }

    pub(super) fn write(&mut self, entry: Entry) {
        let entry = Arc::new(entry);
        for worker in [&self.files, &self.syslog] {
            // There are panics without end, and no room for this one.
            let _ = worker.jobs.try_send(Job::Write(Arc::clone(&entry)));
        }
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn flush(&mut self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        for worker in [&self.files, &self.syslog] {
            let (done, is_done) = mpsc::channel();
            if worker.jobs.try_send(Job::Flush(done)).is_ok() {
                let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// Waits until everything is written, for ever if need be.
    pub(super) fn finish(self) {
        // Files first: their errors go to syslog.
        for worker in [self.files, self.syslog] {
            drop(worker.jobs);
            let _ = worker.thread.join();
        }
    }
}

impl Worker {
    fn start(work: impl FnOnce(Receiver<Job>) + Send + 'static) -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(MAX_WAITING);
        let thread = thread::Builder::new().spawn(move || work(receiver))?;
        Ok(Self { jobs, thread })
    }
}

impl Output {
    fn work(&self, jobs: &Receiver<Job>, syslog: &SyncSender<Job>) {
        for job in jobs {
            if let Job::Write(entry) = job
                && let Some(failure) = self.write(&entry)
            {
                let entry = Entry { summary: String::new(), text: failure };
                let _ = syslog.try_send(Job::Write(Arc::new(entry)));
            }
        }
    }

    /// Returns the error if the file cannot be written.
    fn write(&self, entry: &Entry) -> Option<String> {
        let written = self.dump.as_ref().map(|path| (path.display(), append(path, &entry.text)));
        let (remark, failure) = match written {
            Some((path, Ok(()))) => (format!("; more is in {path}"), None),
            Some((path, Err(error))) => {
                let failure = format!(
                    "cannot write the report to {path}: {error}; name a file that the plugin's \
                     user can write"
                );
                (format!("; {failure}\n{}", entry.text), Some(failure))
            }
            None => (format!("\n{}", entry.text), None),
        };
        write_to_stderr(&format!("{}: {}{remark}\n", self.name, entry.summary));
        failure
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    // There may be data of users in it, such as names of files.
    let mut options = File::options();
    // A FIFO would be waited for; the flag makes no difference to a regular file.
    options.create(true).append(true).mode(0o600).custom_flags(OFlag::O_NONBLOCK.bits());
    let mut file = options.open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("it is a FIFO, not a regular file"));
    }
    file.write_all(text.as_bytes())
}

/// Writes as much as it can without blocking.
fn write_to_stderr(text: &str) {
    let mut stderr = io::stderr();
    for part in text.as_bytes().chunks(PIPE) {
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        let is_ready = poll(&mut ready, PollTimeout::from(100_u8)).is_ok_and(|ready| ready > 0);
        if !is_ready || stderr.write_all(part).is_err() {
            return;
        }
    }
}

/// Without a syslog, nothing happens. One that stands still stops this thread.
fn work_on_syslog(tag: &str, jobs: &Receiver<Job>) {
    // Kept by the C library for as long as the process lives.
    let tag = Box::leak(CString::new(tag).unwrap_or_default().into_boxed_c_str());
    let _ = openlog(Some(tag), LogFlags::empty(), FACILITY);
    let priority = Priority::new(Severity::LOG_ERR, FACILITY);
    for job in jobs {
        let Job::Write(entry) = job else { continue };
        for line in entry.text.lines().filter(|line| !line.is_empty()).take(MAX_SYSLOG_LINES) {
            let _ = syslog(priority, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_report_is_appended_to_a_regular_file_and_a_fifo_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (file, fifo) = (directory.path().join("dump"), directory.path().join("fifo"));
        append(&file, "one\n").unwrap();
        append(&file, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        append(&fifo, "report\n").unwrap_err();
        let _both_ends = File::options().read(true).write(true).open(&fifo).unwrap();
        append(&fifo, "report\n").unwrap_err();
    }
}
