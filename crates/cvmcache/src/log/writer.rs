//! A thread that writes lines, behind a bounded queue.
//!
//! The crate tracing-appender has one as well, which panics if the system has no thread to spare.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use crate::threads;

/// How many lines may wait to be written.
const MAX_LINES: usize = 4096;

/// How long the end waits for lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines wait. Clones share it. Writing to it never waits: a line for which there is no room is lost,
/// and counted.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    lines: Sender<Vec<u8>>,
    lost: Arc<AtomicUsize>,
}

/// The thread that takes lines out of a queue. Dropping it waits for those that are in it to be written,
/// but hardly longer than a second; later ones are lost.
#[derive(Debug)]
pub(super) struct Writer {
    /// Nothing is sent: the thread ends when it is gone.
    stop: Option<Sender<()>>,
    /// Disconnected by the end of the thread.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a thread that writes lines to `output`.
pub(super) fn start(mut output: Box<dyn Write + Send>) -> io::Result<(Queue, Writer)> {
    let (sender, lines) = bounded::<Vec<u8>>(MAX_LINES);
    let (stop, stopped) = bounded(0);
    let (running, ended) = bounded(0);
    let run = move || {
        // A line that cannot be written is counted by the output.
        let mut write = |line: Vec<u8>| drop(output.write_all(&line));
        loop {
            select! {
                recv(lines) -> line => match line {
                    Ok(line) => write(line),
                    Err(_) => break,
                },
                recv(stopped) -> _ => {
                    lines.try_iter().for_each(&mut write);
                    break;
                }
            }
        }
        let _ = output.flush();
        drop(running);
    };
    let thread = threads::spawn("log-writer", run)?;
    let queue = Queue { lines: sender, lost: Arc::default() };
    Ok((queue, Writer { stop: Some(stop), ended, thread: Some(thread) }))
}

impl Queue {
    /// How many lines have been lost so far.
    pub(super) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Write for Queue {
    /// Takes one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(line.to_vec()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop = None;
        // One that still writes is left behind.
        if self.ended.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            // A panic in there has been logged already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that takes a line only when it is let.
    struct Slow {
        lets: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.lets.recv();
            let _ = self.written.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_are_not_taken_in_time_are_lost_and_the_others_are_written_in_order() {
        let (let_one, lets) = bounded(0);
        let (written, lines) = crossbeam_channel::unbounded();
        let (mut queue, writer) = start(Box::new(Slow { lets, written })).unwrap();
        let all: Vec<Vec<u8>> = (0..MAX_LINES + 100).map(|n| n.to_string().into_bytes()).collect();
        for line in &all {
            queue.write_all(line).unwrap();
        }
        // The thread may have taken one out already.
        let lost = queue.lost();
        assert!(lost == 100 || lost == 99, "{lost}");
        drop(let_one);
        drop(writer);
        let written: Vec<_> = lines.iter().collect();
        assert_eq!(written.len(), all.len() - lost);
        assert!(all.starts_with(&written[..MAX_LINES]));
        queue.write_all(b"too late").unwrap();
        assert_eq!(lines.try_iter().count(), 0);
    }
}
