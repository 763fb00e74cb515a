//! Every bound on what clients can make a plugin spend, in one place.

use std::time::Duration;

use cvmcache_proto::{MAX_MAX_OBJECT_SIZE, MIN_MAX_OBJECT_SIZE, frame};
use thiserror::Error;

/// The bounds on what a client can make the server spend. Each can be set; the defaults suit a
/// plugin that serves the mounts of one node. No configuration key sets them: those that bound memory follow
/// what the process may use, and the others are far from what the mounts of a node need. A
/// program sets them with [`ServerBuilder::limits`](crate::ServerBuilder::limits).
///
/// [`ServerBuilder::listen`](crate::ServerBuilder::listen) refuses values that are out of their bounds.
///
/// ```
/// use cvmcache::{Limits, Server};
///
/// # fn builder(plugin: impl cvmcache::CachePlugin) -> cvmcache::ServerBuilder {
/// let mut limits = Limits::default();
/// limits.max_object_size = 512 * 1024;
/// limits.request_deadline = Some(std::time::Duration::from_secs(60));
/// Server::builder(plugin).workers(8).limits(limits)
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest part of an upload and the largest read, in bytes, as the handshake announces it to the
    /// client. From 4 KiB to 512 KiB; default 256 KiB.
    pub max_object_size: u32,
    /// The longest message that is kept while it arrives, in bytes without its attachment; at least
    /// 1 KiB more than `max_text`, at most 16 MiB less a byte, default 64 KiB. Of a longer one,
    /// only the numbers are looked at by which it is answered MALFORMED, unless it is so long by a text
    /// that is cut.
    pub max_message: usize,
    /// The longest description, client name or repository name, in bytes; from 1 to 60 KiB, default
    /// 4 KiB, which a path of the kernel cannot exceed (`PATH_MAX`). A longer description or client name
    /// is cut, before the character that does not fit. A longer repository name is answered MALFORMED,
    /// since it names what would be another repository then.
    pub max_text: usize,
    /// How much memory a connection may take, in bytes, before no more of its requests are taken;
    /// at least 1, default 8 MiB. What counts are replies it has not read, and requests in flight
    /// with their data and the largest reply that they can have. A piece of an object in a reply
    /// counts as `max_object_size`, because it may keep that much in memory. One request may exceed
    /// it.
    pub max_buffered: usize,
    /// How much memory all connections may take together, in bytes; at least 1, by default an eighth of
    /// the memory that the process may use. What counts is what their buffers hold, full or
    /// empty, and requests in flight as in `max_buffered`.
    ///
    /// From half of it on, only connections below their fair share, half of it divided by all connections,
    /// have more than one of their requests taken: the ones that hold most wait. A connection that holds
    /// nothing is always read, so if there are more connections than requests of `max_object_size` fit,
    /// one request of each may exceed it.
    pub max_buffered_total: Option<usize>,
    /// How many requests of one connection are in flight at once; at least 1, default 64. Without
    /// workers there is only ever one.
    pub max_in_flight: usize,
    /// How many uploads a session may have open; default 1024. One more is answered NOSPACE.
    pub max_uploads: usize,
    /// How many uploads all sessions together may have open; default 16,384. From half of it on, only sessions
    /// below their fair share may begin more, but never fewer than one. One more is answered NOSPACE.
    pub max_uploads_total: usize,
    /// How many bytes the open uploads of a session may have in all; default 16 GiB. A part that
    /// would exceed it is answered NOSPACE, and ends its upload.
    pub max_upload_bytes: u64,
    /// How many bytes the open uploads of all sessions together may have; default 64 GiB. From half of it on,
    /// only sessions below their fair share may upload more, but never less than one part. What exceeds it
    /// is answered NOSPACE, and ends its upload. What a plugin has room for is its own to say: this
    /// bound is for plugins that do not.
    pub max_upload_bytes_total: u64,
    /// How long an upload may go without a part before it is aborted; at most 1,000,000 s, default
    /// 1 hour. It may take half as long again. What comes later is answered TIMEOUT.
    pub upload_idle: Duration,
    /// How long a request may take before it is answered TIMEOUT, from when it was received; at most
    /// 1,000,000 s, by default for ever. It may take a quarter as long again. Only with workers:
    /// without them, the callback runs on the I/O thread, which expires the deadline. The callback goes
    /// on, and another thread takes the place of the one that it keeps busy, up to three for each worker.
    pub request_deadline: Option<Duration>,
    /// How many listings a session may have open; default 16. One more is answered NOSPACE.
    pub max_listings: usize,
    /// How many listings all sessions together may have open, as with `max_uploads_total`; default 1024.
    pub max_listings_total: usize,
    /// About how many bytes one part of a listing has; from 4 KiB to 8 MiB, default 512 KiB: a few
    /// thousand objects, and a few milliseconds.
    pub listing_part: usize,
    /// The most pending reloads, by client name; default 4096. Of one more, references are released
    /// when the session ends.
    pub max_reloads: usize,
    /// How many objects all sessions together may have open, with those that were handed over in a
    /// reload; an object counts once for each session. At least 1, by default one for each KiB of the
    /// memory that the process may use; each takes about 64 bytes.
    ///
    /// From half of it on, only sessions below their fair share, half of it divided by all sessions, may open
    /// more, but never fewer than one object. Opening one more is answered NOSPACE, and so is an upload,
    /// which would become an open object.
    ///
    /// References that are handed over in reloads have at most half of it. Beyond that, they are given back
    /// when the session ends.
    pub max_references: Option<usize>,
    /// The grace period of a shutdown, for callbacks that are still running, and for clients to read
    /// their last replies; at most an hour, default 5 s.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_object_size: 256 * 1024,
            max_message: 64 * 1024,
            max_text: 4 * 1024,
            max_buffered: 8 * 1024 * 1024,
            max_buffered_total: None,
            max_in_flight: 64,
            max_uploads: 1024,
            max_uploads_total: 16 * 1024,
            max_upload_bytes: 16 << 30,
            max_upload_bytes_total: 64 << 30,
            upload_idle: Duration::from_secs(3600),
            request_deadline: None,
            max_listings: 16,
            max_listings_total: 1024,
            listing_part: 512 * 1024,
            max_reloads: 4096,
            max_references: None,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

/// The part of the memory that all connections may take together, by default.
const BUFFERED_SHARE: u64 = 8;

/// How much memory there is by default for each object that sessions have open, in bytes: 16 times
/// of what it takes.
const MEMORY_PER_REFERENCE: u64 = 1024;

/// A limit that is out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{limit} is {value}, but must be from {min} to {max}")]
pub struct InvalidLimit {
    /// What it limits: usually the name of a field of [`Limits`].
    pub limit: &'static str,
    /// Its value; times are in seconds.
    pub value: usize,
    /// The least that is allowed.
    pub min: usize,
    /// The most that is allowed.
    pub max: usize,
}

impl Limits {
    /// Puts a share of so many bytes of memory where no other limit is set.
    pub(crate) fn resolve(mut self, memory: u64) -> Self {
        let share = |part| usize::try_from(memory / part).unwrap_or(usize::MAX).max(1);
        self.max_buffered_total.get_or_insert(share(BUFFERED_SHARE));
        self.max_references.get_or_insert(share(MEMORY_PER_REFERENCE));
        self
    }

    /// Checks what the protocol bounds.
    pub(crate) fn check(&self) -> Result<(), InvalidLimit> {
        let check = |limit, value, min, max| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(InvalidLimit { limit, value, min, max })
            }
        };
        let object_sizes = (MIN_MAX_OBJECT_SIZE as usize, MAX_MAX_OBJECT_SIZE as usize);
        check("max_object_size", self.max_object_size as usize, object_sizes.0, object_sizes.1)?;
        // A message with a text has to fit beside an attachment.
        check("max_text", self.max_text, 1, 60 * 1024)?;
        check("max_message", self.max_message, self.max_text + 1024, frame::MAX_LEN)?;
        check("max_buffered", self.max_buffered, 1, usize::MAX)?;
        let total = self.max_buffered_total.unwrap_or(usize::MAX);
        check("max_buffered_total", total, 1, usize::MAX)?;
        check("max_references", self.max_references.unwrap_or(usize::MAX), 1, usize::MAX)?;
        check("max_in_flight", self.max_in_flight, 1, usize::MAX)?;
        // Descriptions count as they are, so one part with the last entry fits into a frame.
        check("listing_part", self.listing_part, 4 * 1024, 8 * 1024 * 1024)?;
        let seconds = |time: Duration| usize::try_from(time.as_secs()).unwrap_or(usize::MAX);
        let deadline = self.request_deadline.unwrap_or_default();
        check("shutdown_timeout in seconds", seconds(self.shutdown_timeout), 0, 3600)?;
        check("request_deadline in seconds", seconds(deadline), 0, 1_000_000)?;
        check("upload_idle in seconds", seconds(self.upload_idle), 0, 1_000_000)
    }
}
