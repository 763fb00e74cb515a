//! A plugin that is measured: started or found, and prepared for a workload.

use std::sync::Arc;

use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use cvmcache::plugin::{CacheInfo, Capabilities, Status};
use cvmcache_testkit::PluginProcess;

use super::driver::{Loops, Measurable};
use super::error::Error;
use super::filling;
use super::mount::{Files, Mounts, traffic};
use super::objects::{Generator, Object, Pool, Sizes};
use super::results::PluginSummary;
use super::session::{self, Session};
use super::shape::Shape;
use super::tasks::{self, PluginTask};
use super::workload::Workload;
use crate::error::Result;
use crate::remote;
use crate::target::Plugin;
use crate::unreachable::Unreachable;
use crate::usage;

/// How many objects `stat` and `read` use by default.
const HOT_OBJECTS: usize = 16;

/// How many files `mixed` uses, if there is room.
const FILES: usize = 1000;

/// The bounds of the memory that a raw socket sends from, in bytes: it is as large as the open objects.
const MIN_HOT_BYTES: usize = 1024 * 1024;
const MAX_HOT_BYTES: usize = 64 * 1024 * 1024;

/// Open objects take at most one part in so many of the cache; so do those of a mount, if other clients use
/// it, too.
const OPEN_PART: u64 = 8;

/// Otherwise those of a mount take at most one part in so many.
const MOUNT_PART: u64 = 2;

/// A plugin that is measured.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) summary: PluginSummary,
    pub(super) locator: Locator,
    capabilities: Capabilities,
    part_size: usize,
    /// How many idle sessions it has.
    idle: u64,
    /// Dropped last: the plugin ends then.
    process: Option<PluginProcess>,
}

/// A plugin with the objects of a workload, and the sessions to measure it with.
pub(super) struct Prepared {
    pub(super) loops: Box<dyn Measurable>,
    /// The session that holds objects open.
    holder: Client,
    open: Arc<[Object]>,
    _idle: Vec<Client>,
}

/// The objects of a workload.
pub(super) struct Dataset {
    workload: Workload,
    generator: Generator,
    /// Objects that are stored first and kept open.
    open: Arc<[Object]>,
    /// How many more are stored first, and closed.
    closed: u64,
    begun: Arc<std::sync::atomic::AtomicU64>,
    /// How many objects the working set of `churn` has.
    working_set: u64,
    part_size: usize,
}

impl Candidate {
    pub(super) fn start(plugin: Plugin, idle: u64) -> Result<Self> {
        let (locator, process) = match plugin {
            Plugin::Running(locator) => (locator, None),
            Plugin::ToStart(command) => {
                let process = command.start().map_err(Error::Start)?;
                (process.locator().clone(), Some(process))
            }
        };
        let unreachable = |source| remote::Error::from(Unreachable::new(locator.clone(), source));
        let failed = |source| remote::Error::Client { locator: locator.clone(), source };
        let mut client = session::connect(&locator).map_err(unreachable)?;
        let size_bytes = info(&mut client).map_err(failed)?.map(|info| info.size_bytes);
        let pid = client.plugin_pid().and_then(|pid| pid.try_into().ok());
        let pid = pid.or(process.as_ref().map(PluginProcess::pid));
        let mut name = client.plugin_name().escape_ascii().to_string();
        if name.is_empty() {
            name = pid.and_then(usage::program).unwrap_or_else(|| locator.to_string());
        }
        let summary = PluginSummary { name, locator: locator.to_string(), pid, size_bytes };
        let (capabilities, part_size) = (client.capabilities(), client.max_object_size());
        Ok(Self { summary, locator, capabilities, part_size, idle, process })
    }

    /// True if it was started here, so that no other client has objects in it.
    pub(super) fn is_ours(&self) -> bool {
        self.process.is_some()
    }

    /// The capabilities that it lacks for a workload.
    pub(super) fn lacks(&self, workload: Workload) -> Option<Capabilities> {
        let lacking = workload.needs().difference(self.capabilities);
        (lacking != Capabilities::NONE).then_some(lacking)
    }

    /// Refuses a workload that cannot work.
    pub(super) fn check(&self, workload: Workload, shape: &Shape) -> Result<(), Error> {
        if let Some(lacking) = self.lacks(workload) {
            let plugin = self.summary.name.clone();
            return Err(Error::Incapable { workload: workload.name(), plugin, lacking });
        }
        let object_size = match workload {
            Workload::Ping | Workload::Mixed | Workload::Mount | Workload::Mount4 => {
                return Ok(());
            }
            _ => shape.object_size(workload).unwrap_or_default(),
        };
        let plugin = self.summary.name.clone();
        let count = match workload {
            Workload::Stat | Workload::Read => shape.objects.unwrap_or(1),
            _ => 1,
        };
        match self.summary.size_bytes {
            Some(size) if object_size > size / 2 => {
                Err(Error::ObjectSize { plugin, object_size, size })
            }
            Some(size) if count.saturating_mul(object_size) > size => {
                Err(Error::Objects { plugin, count, object_size, size })
            }
            _ => Ok(()),
        }
    }

    /// Opens sessions, and stores the objects of the workload. `note` is called with the progress,
    /// from 0 to 1.
    pub(super) fn prepare(
        &self,
        workload: Workload,
        shape: &Shape,
        note: &dyn Fn(f64),
    ) -> Result<(Prepared, Dataset), ClientError> {
        let idle = session::idle(&self.locator, self.idle)?;
        let mut holder = session::connect(&self.locator)?;
        let dataset = self.dataset(workload, shape);
        for object in dataset.open.iter() {
            dataset.generator.store(&mut holder, object)?;
        }
        let Dataset { generator, closed, part_size, .. } = &dataset;
        filling::store(&self.locator, generator, *closed, *part_size, note)?;
        let loops: Box<dyn Measurable> = match workload.mount_threads() {
            Some(threads) => {
                let files = dataset.files();
                Box::new(Mounts::open(&self.locator, shape.connections, threads, files)?)
            }
            None => {
                let link = |_| -> Result<_, ClientError> {
                    let link = Session::open(&self.locator, shape.in_flight)?;
                    let tasks = (0..shape.in_flight).filter_map(|_| dataset.task());
                    Ok((link, tasks.collect::<Vec<_>>()))
                };
                let loops: Result<Vec<_>, _> = (0..shape.connections).map(link).collect();
                Box::new(Loops(loops?))
            }
        };
        let open = Arc::clone(&dataset.open);
        Ok((Prepared { loops, holder, open, _idle: idle }, dataset))
    }

    /// The fill; `None` if the plugin does not report it.
    pub(super) fn info(&self, prepared: &mut Prepared) -> Result<Option<CacheInfo>, ClientError> {
        info(&mut prepared.holder)
    }

    /// The error of a measurement, with the output of the plugin if it has ended.
    pub(super) fn failed(&self, workload: Workload, source: ClientError) -> Error {
        let log = match (&source, &self.process) {
            (
                ClientError::Closed | ClientError::Io(_) | ClientError::Connect { .. },
                Some(process),
            ) => process.log(),
            _ => String::new(),
        };
        let plugin = self.summary.name.clone();
        Error::Workload { workload: workload.name(), plugin, source, log }
    }

    fn dataset(&self, workload: Workload, shape: &Shape) -> Dataset {
        let usual =
            if workload.mount_threads().is_some() { Sizes::Mount } else { Sizes::Repository };
        let sizes = shape.object_size(workload).map_or(usual, Sizes::All);
        let generator = Generator::new(sizes);
        let size = self.summary.size_bytes.unwrap_or(u64::MAX);
        let may_be_open = size / OPEN_PART;
        let open = match workload {
            Workload::Stat | Workload::Read if shape.objects.is_some() => Vec::new(),
            Workload::Stat | Workload::Read => within(may_be_open, generator.sample(HOT_OBJECTS)),
            Workload::Mixed => {
                let fit = (may_be_open as f64 / generator.mean_size()) as usize;
                within(may_be_open, generator.sample(fit.clamp(1, FILES)))
            }
            _ => Vec::new(),
        };
        let working_set = size as f64 * shape.working_set / generator.mean_size();
        let working_set = (working_set as u64).max(1);
        let closed = match workload {
            Workload::Stat | Workload::Read => shape.objects.unwrap_or(0),
            Workload::Mount | Workload::Mount4 => {
                let part = if self.is_ours() { MOUNT_PART } else { OPEN_PART };
                let fit = (size / part) as f64 / generator.mean_size();
                (fit as u64).clamp(1, traffic::OBJECTS)
            }
            Workload::Churn => {
                let sizes = (0..working_set).map(|number| generator.object(number).size);
                filling(self.summary.size_bytes.unwrap_or_default(), sizes)
            }
            _ => 0,
        };
        Dataset {
            workload,
            generator,
            open: open.into(),
            closed,
            begun: Arc::default(),
            working_set,
            part_size: self.part_size,
        }
    }
}

impl Prepared {
    /// Closes the open objects, so that they can be evicted, and quits.
    pub(super) fn finish(mut self) -> Result<(), ClientError> {
        for object in self.open.iter() {
            self.holder.close(&object.id)?;
        }
        self.holder.quit()
    }
}

impl Dataset {
    /// The size of the objects that are read over and over, in bytes.
    pub(super) fn hot_bytes(&self) -> usize {
        let open: u64 = self.open.iter().map(|object| object.size).sum();
        (open as usize).clamp(MIN_HOT_BYTES, MAX_HOT_BYTES)
    }

    /// The files that a mount reads.
    fn files(&self) -> Files {
        let step = tasks::READ.min(self.part_size as u64);
        Files { generator: self.generator.clone(), count: self.closed, step }
    }

    /// A task of the closed loop; `None` of a mount, which has a loop of its own.
    pub(super) fn task(&self) -> Option<PluginTask> {
        let (generator, part_size) = (self.generator.clone(), self.part_size);
        let objects = match self.closed {
            0 => Pool::Open(Arc::clone(&self.open)),
            count => Pool::Closed(generator.clone(), count),
        };
        let step = tasks::READ.min(part_size as u64);
        Some(match self.workload {
            Workload::Ping => Box::new(tasks::Ping(generator.object(0).id)),
            Workload::Stat => Box::new(tasks::Stat(objects)),
            Workload::Read => Box::new(tasks::Read { objects, step }),
            Workload::Store => {
                let begun = Arc::clone(&self.begun);
                Box::new(tasks::Store { generator, begun, part_size, upload: None })
            }
            Workload::Mixed => Box::new(tasks::Mixed { objects, step, file: None }),
            Workload::Churn => Box::new(tasks::Churn {
                generator,
                count: self.working_set,
                part_size,
                step,
                object: None,
                upload: None,
                read: None,
            }),
            Workload::Mount | Workload::Mount4 => return None,
        })
    }
}

fn info(client: &mut Client) -> Result<Option<CacheInfo>, ClientError> {
    match client.info() {
        Err(ClientError::Status(Status::NoSupport)) => Ok(None),
        info => info.map(Some),
    }
}

/// The smallest objects whose sizes add up to at most `bytes`; at least one.
fn within(bytes: u64, mut objects: Vec<Object>) -> Vec<Object> {
    let mut sum = 0;
    let fits = |object: &&Object| {
        sum += object.size;
        sum <= bytes
    };
    let count = objects.iter().take_while(fits).count();
    objects.truncate(count.max(1));
    objects
}

/// How many objects of these sizes, one after the other, it takes to fill a cache.
fn filling(size: u64, sizes: impl Iterator<Item = u64>) -> u64 {
    let mut sum = 0;
    let fits = |object: &u64| {
        let has_room = sum < size;
        sum += object;
        has_room
    };
    sizes.take_while(fits).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_objects_stay_within_the_limit_and_are_at_least_one() {
        let objects = Generator::new(Sizes::All(100)).sample(10);
        assert_eq!(within(350, objects.clone()).len(), 3);
        assert_eq!(within(99, objects).len(), 1);
    }

    #[test]
    fn filling_stops_at_nospace_or_after_the_last_object() {
        assert_eq!(filling(100, [40, 40, 40, 40].into_iter()), 3);
        assert_eq!(filling(100, [40, 40].into_iter()), 2);
    }
}
