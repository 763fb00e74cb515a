//! The status of a request that has failed. Success is `Ok(())`, so a [`Status`] is always an error.

use thiserror::Error;

/// Why a request has failed.
///
/// This is the protocol's status without its `OK`: a callback returns `Result<T, Status>`. The
/// client turns each status into an errno, named below, which is what a user of the mount sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Status {
    /// A status that this version of the protocol does not know (`EIO`).
    #[error("unknown status")]
    Unknown,
    /// The plugin does not implement the operation (`EOPNOTSUPP`).
    #[error("not supported by this cache plugin")]
    NoSupport,
    /// The client may not do this (`EPERM`).
    #[error("not allowed")]
    Forbidden,
    /// The cache is full and what is in it cannot be evicted (`ENOSPC`).
    #[error("no space left in the cache")]
    NoSpace,
    /// The object is not in the cache (`ENOENT`).
    #[error("no such object in the cache")]
    NoEntry,
    /// The request makes no sense (`EINVAL`).
    #[error("malformed request")]
    Malformed,
    /// The plugin or its storage failed (`EIO`).
    #[error("input/output error")]
    IoErr,
    /// A checksum did not match (`EIO`).
    #[error("checksum mismatch")]
    Corrupted,
    /// A reply or a part of an upload did not come in time (`EIO`).
    #[error("timed out")]
    Timeout,
    /// The reference count would fall below zero or overflow (`EINVAL`).
    #[error("reference count out of bounds")]
    BadCount,
    /// A read starts beyond the end of the object (`EINVAL`).
    #[error("offset beyond the end of the object")]
    OutOfBounds,
    /// The cache could not be shrunk to its target (`EIO`).
    #[error("the cache could not be shrunk as far as asked")]
    Partial,
}

impl Status {
    /// Every status, in the order of the wire's numbers.
    pub const ALL: [Status; 12] = [
        Status::Unknown,
        Status::NoSupport,
        Status::Forbidden,
        Status::NoSpace,
        Status::NoEntry,
        Status::Malformed,
        Status::IoErr,
        Status::Corrupted,
        Status::Timeout,
        Status::BadCount,
        Status::OutOfBounds,
        Status::Partial,
    ];

    /// The name that the protocol gives it.
    ///
    /// ```
    /// assert_eq!(cvmcache_proto::Status::NoEntry.name(), "NOENTRY");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Status::Unknown => "UNKNOWN",
            Status::NoSupport => "NOSUPPORT",
            Status::Forbidden => "FORBIDDEN",
            Status::NoSpace => "NOSPACE",
            Status::NoEntry => "NOENTRY",
            Status::Malformed => "MALFORMED",
            Status::IoErr => "IOERR",
            Status::Corrupted => "CORRUPTED",
            Status::Timeout => "TIMEOUT",
            Status::BadCount => "BADCOUNT",
            Status::OutOfBounds => "OUTOFBOUNDS",
            Status::Partial => "PARTIAL",
        }
    }

    /// The name that the protocol gives a result, `OK` included.
    ///
    /// ```
    /// use cvmcache_proto::Status;
    ///
    /// assert_eq!([Status::label(Ok(())), Status::label(Err(Status::NoEntry))], ["OK", "NOENTRY"]);
    /// ```
    pub const fn label(result: Result<(), Status>) -> &'static str {
        match result {
            Ok(()) => "OK",
            Err(status) => status.name(),
        }
    }

    /// The number that stands for `result` on the wire.
    pub const fn to_wire(result: Result<(), Status>) -> i32 {
        match result {
            Err(Status::Unknown) => 0,
            Ok(()) => 1,
            Err(Status::NoSupport) => 2,
            Err(Status::Forbidden) => 3,
            Err(Status::NoSpace) => 4,
            Err(Status::NoEntry) => 5,
            Err(Status::Malformed) => 6,
            Err(Status::IoErr) => 7,
            Err(Status::Corrupted) => 8,
            Err(Status::Timeout) => 9,
            Err(Status::BadCount) => 10,
            Err(Status::OutOfBounds) => 11,
            Err(Status::Partial) => 12,
        }
    }

    /// What a number from the wire means. Undefined numbers are [`Status::Unknown`].
    pub const fn from_wire(status: i32) -> Result<(), Status> {
        Err(match status {
            1 => return Ok(()),
            2 => Status::NoSupport,
            3 => Status::Forbidden,
            4 => Status::NoSpace,
            5 => Status::NoEntry,
            6 => Status::Malformed,
            7 => Status::IoErr,
            8 => Status::Corrupted,
            9 => Status::Timeout,
            10 => Status::BadCount,
            11 => Status::OutOfBounds,
            12 => Status::Partial,
            _ => Status::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_the_wire() {
        assert_eq!(Status::from_wire(Status::to_wire(Ok(()))), Ok(()));
        for status in Status::ALL {
            assert_eq!(Status::from_wire(Status::to_wire(Err(status))), Err(status));
        }
    }

    #[test]
    fn undefined_numbers_are_unknown() {
        for number in [-1, 13, i32::MAX, i32::MIN] {
            assert_eq!(Status::from_wire(number), Err(Status::Unknown));
        }
    }
}
