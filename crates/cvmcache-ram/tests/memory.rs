//! The memory of the process: that it stays near the size of the cache whatever is stored, comes back when
//! objects go, and that the process lives when there is not as much as the size.

use std::time::{Duration, Instant};

use cvmcache::client::{Client, ClientError, NewUpload};
use cvmcache::plugin::{HashAlgorithm, ObjectId, ObjectType, Status};
use cvmcache_testkit::{Memory, PluginCommand, PluginProcess};

const MEGABYTE: u64 = 1024 * 1024;

/// The smallest that there is.
const SIZE: u64 = 100 * MEGABYTE;

/// What the process may take beside its objects.
const PROCESS: u64 = 20 * MEGABYTE;

fn plugin(command: &str, size: u64, workers: u32) -> PluginProcess {
    let command: PluginCommand = command.parse().expect("a command");
    command
        .option("CVMFS_CACHE_PLUGIN_SIZE", (size / MEGABYTE).to_string())
        .option("CVMFS_CACHE_PLUGIN_WORKERS", workers.to_string())
        .start()
        .expect("a plugin")
}

fn program() -> String {
    format!("{} {{conf}}", env!("CARGO_BIN_EXE_cvmcache-ram"))
}

/// A client that stores objects of different sizes.
struct Storing<'a> {
    plugin: &'a PluginProcess,
    client: Client,
    number: u64,
    data: Vec<u8>,
    open: Vec<ObjectId>,
    /// One of so many objects is kept open.
    pinned: u64,
}

impl<'a> Storing<'a> {
    fn new(plugin: &'a PluginProcess) -> Self {
        let client = Client::connect(plugin.locator(), "test.cern.ch:1").expect("a client");
        let data = vec![7; 8 << 20];
        Self { plugin, client, number: 0, data, open: Vec::new(), pinned: u64::MAX }
    }

    fn id(number: u64) -> ObjectId {
        let mut digest = [0; ObjectId::DIGEST_LEN];
        // As of a hash: the first bytes are random.
        digest[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        ObjectId::new(HashAlgorithm::Sha1, digest)
    }

    /// A pseudo-random number, the same in each run.
    fn random(&self) -> u64 {
        self.number.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(29) ^ self.number >> 3
    }

    fn store_one(&mut self, len: u64) -> Result<(), ClientError> {
        self.number += 1;
        let id = Self::id(self.number);
        let volatile = self.number.is_multiple_of(7);
        let object_type = if volatile { ObjectType::Volatile } else { ObjectType::Regular };
        let text = format!("/software/release/lib/lib{}.so", self.number);
        let upload = NewUpload::new(id).object_type(object_type).description(text);
        self.client.store(upload, self.data[..len as usize].to_vec())?;
        if self.number.is_multiple_of(self.pinned) {
            self.open.push(id);
            return Ok(());
        }
        self.client.close(&id)
    }

    /// Stores `total` bytes, and checks the resident memory after each megabyte.
    fn store(&mut self, total: u64, what: &str, len: impl Fn(u64) -> u64) {
        let (mut stored, mut next) = (0, 0);
        while stored < total {
            let len = len(self.random());
            match self.store_one(len) {
                Ok(()) | Err(ClientError::Status(Status::NoSpace)) => {}
                Err(error) => panic!("{error}: {}", self.plugin.log()),
            }
            stored += len;
            if stored >= next {
                next += MEGABYTE;
                self.assert_within(SIZE, what);
            }
        }
    }

    fn resident(&self) -> u64 {
        Memory::of(self.plugin.pid()).expect("a process").resident_bytes
    }

    fn assert_within(&self, used: u64, what: &str) {
        let (resident, most) = (self.resident(), used + used / 10 + PROCESS);
        assert!(resident <= most, "{resident} bytes are resident, not {most}: {what}");
    }

    /// Closes all objects but one of so many.
    fn close_but(&mut self, kept: usize) {
        let open = std::mem::take(&mut self.open);
        for (number, id) in open.into_iter().enumerate() {
            if number % kept == 0 {
                self.open.push(id);
            } else {
                self.client.close(&id).expect("it is open");
            }
        }
    }

    /// Shrinks to 0, and waits until the memory is given back.
    fn shrink(&mut self) {
        let used = self.client.shrink(0).expect("it can shrink").used_bytes;
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.resident() > used + used / 10 + PROCESS {
            assert!(Instant::now() < deadline, "{} resident, {used} used", self.resident());
            std::thread::yield_now();
        }
    }
}

#[test]
fn no_sequence_of_sizes_makes_more_resident_than_a_tenth_over_the_size() {
    let plugin = plugin(&program(), SIZE, 0);
    let mut storing = Storing::new(&plugin);
    storing.store(SIZE, "3 KB", |_| 3000);
    storing.store(SIZE, "256 KiB after 3 KB", |_| 256 * 1024);
    storing.store(SIZE / 10, "1 KB after 256 KiB", |_| 1000);
    storing.pinned = 20;
    storing.store(SIZE / 2, "20 KB, some pinned", |_| 20_000);
    storing.store(SIZE / 2, "random", |random| 1 << (random % 20));
    storing.store(SIZE, "7 MB", |_| 7_000_000);
    storing.close_but(2);
    storing.store(SIZE, "uniform", |random| random % 400_000 + 1);
    storing.shrink();
    storing.close_but(usize::MAX);
    storing.shrink();
}

#[test]
fn with_workers_no_sequence_of_sizes_makes_more_resident_than_a_tenth_over_the_size() {
    let plugin = plugin(&program(), SIZE, 4);
    let mut storing = Storing::new(&plugin);
    storing.store(SIZE / 2, "3 KB", |_| 3000);
    storing.store(SIZE, "100 KB", |_| 100_000);
    storing.pinned = 50;
    storing.store(SIZE / 4, "2 KB, some pinned", |_| 2000);
    storing.store(SIZE, "256 KiB", |_| 256 * 1024);
    storing.close_but(2);
    storing.shrink();
}

/// Objects of these sizes, in turns, until ten times as much was stored as there is.
fn survives(limit: &str, workers: u32) {
    let command = format!("prlimit {limit} -- {}", program());
    let plugin = plugin(&command, 1000 * MEGABYTE, workers);
    assert!(plugin.log().contains("the cache will be smaller"), "{}", plugin.log());
    let mut storing = Storing::new(&plugin);
    let mut stored = 0;
    for (count, len) in [(100, 7_000_000), (2000, 20_000), (80, 7_000_000), (4000, 100)] {
        for _ in 0..count {
            match storing.store_one(len) {
                Ok(()) => stored += 1,
                Err(ClientError::Status(Status::NoSpace)) => {}
                Err(error) => panic!("{limit}: {error}: {}", plugin.log()),
            }
        }
    }
    assert!(stored > 6000, "{stored} of 6180 objects");
    let listed = storing.client.list(ObjectType::Regular).expect("a listing");
    assert!(listed.len() > 1000, "{}", listed.len());
    plugin.end().expect("it ends").expect("of its own accord");
}

#[test]
fn a_plugin_survives_that_its_address_space_is_limited() {
    survives("--as=716800000", 0);
}

#[test]
fn a_plugin_survives_that_its_data_is_limited() {
    survives("--data=400000000", 4);
}
