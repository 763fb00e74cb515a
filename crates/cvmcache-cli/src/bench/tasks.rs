//! The state machines of the workloads: which request follows which reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvmcache::client::{ClientError, Operation, ReplyBody, RequestKind};
use cvmcache::plugin::{ObjectId, Status};

use super::driver::{Next, Task};
use super::measure::Done;
use super::objects::{Generator, Object, Pool};

/// The size of a read, in bytes, unless the plugin allows less.
pub(super) const READ: u64 = 128 * 1024;

/// A task of a plugin's client.
pub(super) type PluginTask = Box<dyn Task<Operation, ReplyBody>>;

type Step = Result<Next<Operation>, ClientError>;

/// Checks for an absent object.
#[derive(Debug)]
pub(super) struct Ping(pub(super) ObjectId);

impl Task<Operation, ReplyBody> for Ping {
    fn begin(&mut self) -> Operation {
        Operation::Refcount { object: self.0, change_by: 0 }
    }

    fn proceed(&mut self, reply: ReplyBody) -> Step {
        match reply {
            // A plugin without reference counts replies NOSUPPORT.
            ReplyBody::Refcount(Ok(()) | Err(Status::NoEntry | Status::NoSupport)) => done(0),
            reply => refused(&reply, RequestKind::Refcount),
        }
    }
}

/// Gets the size of an object.
#[derive(Debug)]
pub(super) struct Stat(pub(super) Pool);

impl Task<Operation, ReplyBody> for Stat {
    fn begin(&mut self) -> Operation {
        Operation::ObjectInfo { object: self.0.any().id }
    }

    fn proceed(&mut self, reply: ReplyBody) -> Step {
        match reply {
            ReplyBody::ObjectInfo(Ok(_)) => done(0),
            reply => refused(&reply, RequestKind::ObjectInfo),
        }
    }
}

/// Reads a piece of an object.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) objects: Pool,
    /// How large a piece is.
    pub(super) step: u64,
}

impl Task<Operation, ReplyBody> for Read {
    fn begin(&mut self) -> Operation {
        let object = self.objects.any();
        let steps = (object.size / self.step).max(1);
        read(&object, fastrand::u64(..steps) * self.step, self.step)
    }

    fn proceed(&mut self, reply: ReplyBody) -> Step {
        match reply {
            ReplyBody::Read { result: Ok(data), .. } => done(data.len() as u64),
            reply => refused(&reply, RequestKind::Read),
        }
    }
}

/// Stores new objects, and closes them.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) generator: Generator,
    /// How many have been begun, by all tasks.
    pub(super) begun: Arc<AtomicU64>,
    pub(super) part_size: usize,
    pub(super) upload: Option<Upload>,
}

impl Task<Operation, ReplyBody> for Store {
    fn begin(&mut self) -> Operation {
        let object = self.generator.object(self.begun.fetch_add(1, Ordering::Relaxed));
        self.upload.insert(Upload::new(object)).next(&self.generator, self.part_size)
    }

    fn proceed(&mut self, reply: ReplyBody) -> Step {
        match (reply, &mut self.upload) {
            (ReplyBody::Store { result: Ok(()), .. }, Some(upload)) => {
                Ok(Next::Request(upload.next(&self.generator, self.part_size)))
            }
            (ReplyBody::Refcount(Ok(())), Some(Upload { object, .. })) => {
                let Object { size, .. } = *object;
                Ok(Next::Done(Done { bytes: size, stored: size, missed: false }))
            }
            (reply, _) => refused(&reply, RequestKind::Store),
        }
    }
}

/// The state of an upload.
#[derive(Debug)]
pub(super) struct Upload {
    object: Object,
    next_part: u64,
    is_complete: bool,
}

impl Upload {
    pub(super) fn new(object: Object) -> Self {
        Self { object, next_part: 1, is_complete: false }
    }

    /// The next part; after the last, closing the object.
    pub(super) fn next(&mut self, generator: &Generator, part_size: usize) -> Operation {
        if self.is_complete {
            return close(&self.object);
        }
        let part = generator.part(&self.object, self.next_part, part_size);
        self.next_part += 1;
        self.is_complete = part.last;
        Operation::Store(part)
    }
}

/// Opens files, gets their size, reads all of them, and closes them.
#[derive(Debug)]
pub(super) struct Mixed {
    pub(super) objects: Pool,
    pub(super) step: u64,
    /// The file, and how much of it has been read.
    pub(super) file: Option<(Object, u64)>,
}

impl Task<Operation, ReplyBody> for Mixed {
    fn begin(&mut self) -> Operation {
        let object = self.objects.any();
        self.file = Some((object, 0));
        open(&object)
    }

    fn proceed(&mut self, reply: ReplyBody) -> Step {
        let Some((object, offset)) = &mut self.file else {
            return refused(&reply, RequestKind::Refcount);
        };
        Ok(Next::Request(match reply {
            ReplyBody::Refcount(Ok(())) if *offset < object.size => {
                Operation::ObjectInfo { object: object.id }
            }
            ReplyBody::Refcount(Ok(())) => return done(object.size),
            ReplyBody::ObjectInfo(Ok(_)) => read(object, 0, self.step),
            // After a reply without bytes, the read would be repeated for ever.
            ReplyBody::Read { result: Ok(data), .. } if !data.is_empty() => {
                *offset += data.len() as u64;
                match *offset < object.size {
                    true => read(object, *offset, self.step),
                    false => close(object),
                }
            }
            reply => return refused(&reply, RequestKind::Read),
        }))
    }
}

/// Opens an object of a working set, reads from it and closes it; or stores it, if it is missing.
#[derive(Debug)]
pub(super) struct Churn {
    pub(super) generator: Generator,
    /// How many objects the working set has.
    pub(super) count: u64,
    pub(super) part_size: usize,
    pub(super) step: u64,
    pub(super) object: Option<Object>,
    pub(super) upload: Option<Upload>,
    /// How much has been read of the object.
    pub(super) read: Option<u64>,
}

impl Task<Operation, ReplyBody> for Churn {
    fn begin(&mut self) -> Operation {
        (self.upload, self.read) = (None, None);
        let object = self.generator.object(fastrand::u64(..self.count));
        open(self.object.insert(object))
    }

    fn proceed(&mut self, reply: ReplyBody) -> Step {
        let Some(object) = self.object else { return refused(&reply, RequestKind::Refcount) };
        let is_new = self.upload.is_none();
        Ok(Next::Request(match reply {
            ReplyBody::Refcount(Err(Status::NoEntry)) if is_new => {
                self.upload.insert(Upload::new(object)).next(&self.generator, self.part_size)
            }
            ReplyBody::Refcount(Ok(())) => match (&self.upload, self.read) {
                (None, None) => read(&object, 0, self.step),
                (None, Some(bytes)) => return done(bytes),
                (Some(_), _) => {
                    let size = object.size;
                    return Ok(Next::Done(Done { bytes: size, stored: size, missed: true }));
                }
            },
            ReplyBody::Read { result: Ok(data), .. } => {
                self.read = Some(data.len() as u64);
                close(&object)
            }
            ReplyBody::Store { result: Ok(()), .. } => match &mut self.upload {
                Some(upload) => upload.next(&self.generator, self.part_size),
                None => return refused(&reply, RequestKind::Store),
            },
            reply => return refused(&reply, RequestKind::Refcount),
        }))
    }
}

pub(super) fn open(object: &Object) -> Operation {
    Operation::Refcount { object: object.id, change_by: 1 }
}

pub(super) fn close(object: &Object) -> Operation {
    Operation::Refcount { object: object.id, change_by: -1 }
}

fn read(object: &Object, offset: u64, step: u64) -> Operation {
    let size = step.min(object.size.saturating_sub(offset)) as u32;
    Operation::Read { object: object.id, offset, size }
}

fn done(bytes: u64) -> Step {
    Ok(Next::Done(Done { bytes, ..Done::default() }))
}

/// The status of a reply, or that it is of another kind than the request.
pub(super) fn refused<T>(reply: &ReplyBody, asked: RequestKind) -> Result<T, ClientError> {
    let reason = "it is of another kind than the request";
    Err(match reply.status() {
        Ok(()) => ClientError::Unexpected { asked, reason },
        Err(status) => ClientError::Status(status),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cvmcache::plugin::{Data, ObjectInfo, ObjectType};

    use super::super::objects::Sizes;
    use super::*;

    const PART: usize = 4096;

    /// A plugin that evicts nothing.
    #[derive(Default)]
    struct Cache {
        objects: BTreeMap<ObjectId, u64>,
        open: i32,
    }

    impl Cache {
        fn reply(&mut self, operation: Operation) -> ReplyBody {
            match operation {
                Operation::Refcount { object, change_by } => {
                    let is_there = self.objects.contains_key(&object);
                    self.open += if is_there { change_by } else { 0 };
                    ReplyBody::Refcount(if is_there { Ok(()) } else { Err(Status::NoEntry) })
                }
                Operation::Store(part) => {
                    *self.objects.entry(part.object).or_default() += part.data.len() as u64;
                    self.open += i32::from(part.last);
                    ReplyBody::Store { result: Ok(()), part: part.number }
                }
                Operation::ObjectInfo { object } => ReplyBody::ObjectInfo(Ok(ObjectInfo::new(
                    self.objects[&object],
                    ObjectType::Regular,
                ))),
                Operation::Read { object, offset, size } => {
                    assert!(offset + u64::from(size) <= self.objects[&object]);
                    let result = Ok(Data::from(vec![0; size as usize]));
                    ReplyBody::Read { result, data_crc32: None }
                }
                operation => panic!("{operation:?}"),
            }
        }

        fn serve(&mut self, task: &mut dyn Task<Operation, ReplyBody>) -> (Done, usize) {
            let mut operation = task.begin();
            for requests in 1.. {
                match task.proceed(self.reply(operation)).unwrap() {
                    Next::Request(next) => operation = next,
                    Next::Done(done) => return (done, requests),
                }
            }
            unreachable!()
        }
    }

    fn generator() -> Generator {
        Generator::new(Sizes::All(10_000))
    }

    #[test]
    fn an_object_is_stored_in_parts_and_closed() {
        let generator = generator();
        let mut store = Store { generator, begun: Arc::default(), part_size: PART, upload: None };
        let mut cache = Cache::default();
        for _ in 0..2 {
            let (done, requests) = cache.serve(&mut store);
            assert_eq!((done.stored, requests, cache.open), (10_000, 4, 0));
        }
        assert_eq!(cache.objects.into_values().collect::<Vec<_>>(), [10_000; 2]);
    }

    #[test]
    fn a_file_is_read_up_to_a_short_reply() {
        let objects = Pool::Closed(generator(), 1);
        let mut cache = Cache::default();
        cache.objects.insert(objects.any().id, 10_000);
        let mut mixed = Mixed { objects: objects.clone(), step: 4096, file: None };
        let (done, requests) = cache.serve(&mut mixed);
        assert_eq!((done.bytes, requests, cache.open), (10_000, 6, 0));
        let (done, _) = cache.serve(&mut Read { objects, step: 4096 });
        assert_eq!(done.bytes, 4096);
    }

    #[test]
    fn a_missing_object_is_stored_and_hit_the_next_time() {
        let generator = generator();
        let (part_size, step) = (PART, 4096);
        let (object, upload, read) = (None, None, None);
        let mut churn = Churn { generator, count: 1, part_size, step, object, upload, read };
        let mut cache = Cache::default();
        let (done, requests) = cache.serve(&mut churn);
        assert_eq!((done.missed, done.stored, requests, cache.open), (true, 10_000, 5, 0));
        let (done, requests) = cache.serve(&mut churn);
        assert_eq!((done.missed, done.bytes, requests, cache.open), (false, 4096, 3, 0));
    }

    #[test]
    fn a_failure_status_or_a_reply_of_another_kind_is_an_error() {
        let mut stat = Stat(Pool::Open(generator().sample(1).into()));
        let no_space = ReplyBody::ObjectInfo(Err(Status::NoSpace));
        let error = stat.proceed(no_space).err().unwrap();
        assert_eq!(error.status(), Some(Status::NoSpace));
        let error = stat.proceed(ReplyBody::Refcount(Ok(()))).err().unwrap();
        assert!(matches!(error, ClientError::Unexpected { .. }));
    }
}
