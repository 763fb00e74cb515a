//! Stores the objects of a workload, many at a time, before it is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvmcache::Locator;
use cvmcache::client::ClientError;

use super::driver::{Link, Next, Task};
use super::objects::Generator;
use super::session::Session;
use super::tasks::Store;

/// How many are stored at the same time.
const AT_ONCE: u64 = 16;

/// Stores the first `count` objects of a generator, and closes them. `note` is called with the progress,
/// from 0 to 1.
pub(super) fn store(
    locator: &Locator,
    generator: &Generator,
    count: u64,
    part_size: usize,
    note: &dyn Fn(f64),
) -> Result<(), ClientError> {
    let begun = Arc::new(AtomicU64::new(0));
    let task = |_| {
        let (generator, begun) = (generator.clone(), Arc::clone(&begun));
        Store { generator, begun, part_size, upload: None }
    };
    let mut tasks: Vec<_> = (0..AT_ONCE.min(count)).map(task).collect();
    let mut link = Session::open(locator, tasks.len())?;
    for (number, task) in tasks.iter_mut().enumerate() {
        link.queue(number, task.begin())?;
    }
    let mut stored = 0;
    while stored < count {
        let (number, reply) = link.receive()?;
        match tasks[number].proceed(reply)? {
            Next::Request(request) => link.queue(number, request)?,
            Next::Done(_) => {
                stored += 1;
                if stored % 1024 == 0 {
                    note(stored as f64 / count as f64);
                }
                if begun.load(Ordering::Relaxed) < count {
                    link.queue(number, tasks[number].begin())?;
                }
            }
        }
    }
    Ok(())
}
