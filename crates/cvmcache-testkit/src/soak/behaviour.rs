//! What a client does: each method is one operation, and checks its result.

use cvmcache::client::{Operation, Shrunk};
use cvmcache::plugin::{Breadcrumb, ObjectType, Status};

use super::actor::Actor;
use super::object::Object;
use super::violation::{CheckResult, Expect, Violation, ensure};

/// How much clients read at once.
const STEP: u32 = 128 * 1024;

/// How many requests a pipeline has in flight.
const PIPELINED: usize = 32;

impl Actor {
    /// Opens an object or, if it is not in the cache, stores it; reads it; and closes it or holds it.
    pub(super) fn use_object(&mut self) -> CheckResult {
        let object = self.pick();
        let opened = self.client.open(&object.id).allow(Status::NoEntry, "to open an object")?;
        if opened.is_some() {
            self.counter.add("hit", 1);
            self.verify(&object)?;
            return self.hold_or_close(object);
        }
        let stored = self.client.store(object.new_upload(), object.all_content());
        if stored.allow(Status::NoSpace, "to store an object")?.is_none() {
            self.counter.add("store-refused", 1);
            return Ok(());
        }
        self.counter.add("store", 1);
        if self.rng.bool() {
            self.verify(&object)?;
        }
        self.hold_or_close(object)
    }

    /// Checks an object that is open: it must be in the cache, and unchanged.
    pub(super) fn check_held(&mut self) -> CheckResult {
        let Some(index) = self.rng.choice(0..self.held.len()) else { return self.use_object() };
        let object = self.held[index];
        self.verify(&object)?;
        self.counter.add("held-check", 1);
        if self.rng.u8(..3) == 0 {
            self.held.swap_remove(index);
            self.close(&object)?;
        }
        Ok(())
    }

    /// Reads an open object from beginning to end, as clients do, and compares.
    pub(super) fn verify(&mut self, object: &Object) -> CheckResult {
        let id = object.id;
        let expected = |what: &str| format!("{what} of {id}, which is open");
        let info = self.client.object_info(&id).expect_ok(expected("size and type"))?;
        ensure(
            (info.size, info.object_type) == (object.size, object.object_type),
            format_args!("{id} to be {} bytes, {:?}", object.size, object.object_type),
            format_args!("it is {} bytes, {:?}", info.size, info.object_type),
        )?;
        let mut offset = 0;
        // The last read finds the end, and nothing else.
        while offset <= object.size {
            let data = self.client.read(&id, offset, STEP).expect_ok(expected("bytes"))?;
            check_content(object, offset, STEP, &data)?;
            self.counter.add("read", 1);
            self.counter.add("read-bytes", data.len() as u64);
            offset += u64::from(STEP);
        }
        Ok(())
    }

    /// Has many requests in flight, and waits for them in any order.
    pub(super) fn pipeline(&mut self) -> CheckResult {
        let held = self.held.clone();
        let mut reads = Vec::new();
        let mut infos = Vec::new();
        for _ in 0..PIPELINED {
            match self.rng.choice(&held) {
                Some(&object) if self.rng.bool() => {
                    let offset = self.rng.u64(..=object.size);
                    let size = self.rng.u32(..=STEP);
                    let read = self.client.queue_read(&object.id, offset, size);
                    reads.push((object, offset, size, read.expect_ok("to send a read")?));
                }
                _ => {
                    let operation = self.read_only_request();
                    let ticket = self.client.queue(operation).expect_ok("to send a request")?;
                    infos.push(ticket);
                }
            }
        }
        self.rng.shuffle(&mut reads);
        self.rng.shuffle(&mut infos);
        for ticket in infos {
            self.client.wait(ticket).expect_ok("a reply of the right kind")?;
        }
        for (object, offset, size, read) in reads {
            let data = self.client.wait(read).expect_ok("bytes of an open object")?.into_bytes();
            check_content(&object, offset, size, &data)?;
        }
        self.counter.add("pipelined", PIPELINED as u64);
        Ok(())
    }

    /// A request that changes nothing.
    fn read_only_request(&mut self) -> Operation {
        let object = self.pick().id;
        match self.rng.u8(..5) {
            0 => Operation::Info,
            1 => Operation::Refcount { object, change_by: 0 },
            2 => Operation::ObjectInfo { object },
            3 => Operation::BreadcrumbLoad { repository: "nowhere".into() },
            _ => Operation::Read { object, offset: self.rng.u64(..10_000), size: 4096 },
        }
    }

    /// Lists objects: those that the client holds open must be listed as pinned.
    pub(super) fn list(&mut self) -> CheckResult {
        for object_type in ObjectType::ALL {
            // Listings of this session that were not continued count against the limit.
            let entries = self.client.list(object_type).allow(Status::NoSpace, "a listing")?;
            let Some(entries) = entries else { return Ok(()) };
            self.counter.add("listed", entries.len() as u64);
            for object in self.held.iter().filter(|held| held.object_type == object_type) {
                let entry = entries.iter().find(|entry| entry.id == object.id);
                let is_right = entry.is_some_and(|entry| {
                    let description = entry.description.as_deref();
                    entry.pinned && description == Some(object.description().as_bytes())
                });
                ensure(
                    is_right,
                    format_args!("{} to be listed as pinned, since it is open", object.id),
                    format_args!("the listing has {entry:?}"),
                )?;
            }
        }
        // A listing that is not continued ends with the session.
        if self.rng.u8(..4) == 0 {
            let part = self.client.list_part(0, ObjectType::Regular);
            part.allow(Status::NoSpace, "the beginning of a listing")?;
        }
        self.counter.add("list", 1);
        Ok(())
    }

    pub(super) fn ask_info(&mut self) -> CheckResult {
        let info = self.client.info().expect_ok("figures of the cache")?;
        self.counter.add("info", 1);
        ensure(
            info.pinned_bytes <= info.used_bytes && info.used_bytes <= info.size_bytes,
            "pinned <= used <= size",
            format_args!("{info:?}"),
        )
    }

    pub(super) fn shrink(&mut self) -> CheckResult {
        // Mostly a little: an empty cache tests nothing.
        let part = self.rng.f64().powf(0.25);
        let target = (self.cache_size as f64 * part) as u64;
        let shrunk: Shrunk = self.client.shrink(target).expect_ok("the cache to be shrunk")?;
        self.counter.add("shrink", 1);
        ensure(
            shrunk.partial || shrunk.used_bytes <= target,
            format_args!("at most {target} bytes in use after a shrink"),
            format_args!("{shrunk:?}"),
        )
    }

    pub(super) fn leave_breadcrumb(&mut self) -> CheckResult {
        let revision = self.rng.bool().then(|| self.rng.u64(..));
        let catalog = self.pick().id;
        let breadcrumb = Breadcrumb { catalog, timestamp: self.rng.u64(..), revision };
        // Each client has a name of its own, and a plugin may limit how many breadcrumbs it keeps.
        let repository = self.name.clone();
        let stored = self.client.store_breadcrumb(repository.clone(), breadcrumb);
        if stored.allow(Status::NoSpace, "to leave a breadcrumb")?.is_none() {
            return Ok(());
        }
        let loaded = self.client.load_breadcrumb(repository);
        self.counter.add("breadcrumb", 1);
        if let Some(loaded) = loaded.allow(Status::NoEntry, "a breadcrumb")? {
            let expected = format_args!("{breadcrumb:?}");
            return ensure(loaded == breadcrumb, expected, format_args!("it is {loaded:?}"));
        }
        Ok(())
    }

    /// Begins an upload and aborts it, or leaves that to the end of the session.
    pub(super) fn abandon_upload(&mut self) -> CheckResult {
        let object = self.absent_object();
        let part = self.client.max_object_size();
        let parts = self.rng.u64(1..=4);
        let object = object.with_size(part as u64 * (parts + 1));
        let mut upload = self.client.begin_upload(object.new_upload());
        for number in 0..parts {
            let data = object.content(number * part as u64, part);
            let written = upload.write(&mut self.client, data);
            if written.allow(Status::NoSpace, "to upload a part")?.is_none() {
                self.counter.add("upload-refused", 1);
                if number > 0 {
                    upload.abort(&mut self.client).expect_ok("to abort a refused upload")?;
                }
                return Ok(());
            }
        }
        self.counter.add("upload-abandoned", 1);
        if self.rng.u8(..8) > 0 {
            upload.abort(&mut self.client).expect_ok("to abort an upload")?;
        }
        let there = self.client.exists(&object.id).expect_ok("a reply")?;
        ensure(!there, "an upload without commit to leave no object", "there is one")
    }
}

fn check_content(object: &Object, offset: u64, size: u32, data: &[u8]) -> CheckResult {
    let expected = object.content(offset, size as usize);
    if data == expected {
        return Ok(());
    }
    let differs = data.iter().zip(&expected).position(|(seen, expected)| seen != expected);
    Err(Violation::new(
        format_args!("{} bytes of {} from {offset}", expected.len(), object.id),
        format_args!("there are {}, of which number {differs:?} is wrong", data.len()),
    ))
}
