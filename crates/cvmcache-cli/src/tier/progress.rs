//! The progress of a job: a bar on a terminal, and a line from time to time elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::filter::LevelFilter;

use super::job::Job;
use crate::output;

#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    total: Option<u64>,
    is_terminal: bool,
    next_line: Instant,
}

/// Lines in a log, as of a cron job.
const LINES: Duration = Duration::from_secs(10);

/// The bar, which lines of the log are to be above of.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

impl Progress {
    pub(super) fn new(total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = match total {
            Some(_) => "{prefix} {bar:24} {human_pos}/{human_len} {eta:>4} {wide_msg}",
            None => "{prefix} {spinner} {human_pos} objects {wide_msg}",
        };
        let style = ProgressStyle::with_template(template);
        // The template is part of the program.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let _ = BAR.set(bar.clone());
        let next_line = Instant::now() + LINES;
        Self { bar, total, is_terminal: io::stderr().is_terminal(), next_line }
    }

    pub(super) fn show(&mut self, job: &Job) {
        let objects = job.looked_at.max(job.done + job.skipped + job.failed);
        let failed = match job.failed {
            0 => String::new(),
            failed => format!(", {} failed", output::count(failed)),
        };
        let rest = format!("{}{failed}", output::bytes(job.bytes));
        self.bar.set_prefix(job.job.clone());
        self.bar.set_message(rest.clone());
        // More than there were in the beginning: what is new is not a reason for 101 %.
        self.bar.set_position(self.total.map_or(objects, |total| objects.min(total)));
        if !self.is_terminal && job.running && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINES;
            let of = self.total.map(|total| format!(" of {}", output::count(total)));
            let (kind, of) = (&job.job, of.unwrap_or_default());
            output::note(&format!("{kind}: {}{of} objects, {rest}", output::count(objects)));
        }
    }

    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes warnings of a tier that is opened here to standard error, above the bar.
pub(super) fn log_to_stderr() {
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(|| Above);
    // There is none before.
    let _ = log.try_init();
}

struct Above;

impl Write for Above {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match BAR.get() {
            Some(bar) => bar.suspend(|| io::stderr().write(buffer)),
            None => io::stderr().write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
