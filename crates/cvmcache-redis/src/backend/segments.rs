//! The segments of data: read from objects, and written to keys of uploads, which expire.

use std::time::Duration;

use bytes::Bytes;
use cvmcache::plugin::ObjectId;
use redis::Cmd;

use super::Backend;
use crate::client::{Failure, Traits};
use crate::metadata::SegmentRange;

impl Backend {
    /// Fetches ranges of an object's segments, all at once: one round trip.
    pub(crate) async fn fetch_ranges(
        &self,
        id: &ObjectId,
        ranges: &[SegmentRange],
    ) -> Result<Vec<Bytes>, Failure> {
        let len = ranges.iter().map(|range| range.to - range.from).sum();
        let traits = Traits::REPEATABLE.with_reply(len);
        match ranges {
            [] => Ok(Vec::new()),
            [range] => {
                let mut command = redis::cmd("GETRANGE");
                let key = self.keys.segment(id, range.segment);
                command.arg(key).arg(range.from).arg(range.to - 1);
                let bytes: Vec<u8> = self.client.command(traits, &command).await?;
                Ok(vec![bytes.into()])
            }
            _ => {
                let mut pipeline = redis::pipe();
                for range in ranges {
                    let key = self.keys.segment(id, range.segment);
                    pipeline.cmd("GETRANGE").arg(key).arg(range.from).arg(range.to - 1);
                }
                let bytes: Vec<Vec<u8>> = self.client.pipeline(traits, &pipeline).await?;
                if bytes.len() != ranges.len() {
                    return Err(Failure::InvalidResponse("too few replies".to_owned()));
                }
                Ok(bytes.into_iter().map(Bytes::from).collect())
            }
        }
    }

    /// The command that writes a segment of an upload.
    pub(crate) fn segment_write(
        &self,
        id: &ObjectId,
        token: &str,
        number: u64,
        bytes: &[u8],
        expiry: Duration,
    ) -> SegmentWrite {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.upload(id, token, number)).arg(bytes).arg("PX").arg(millis(expiry));
        SegmentWrite(command)
    }

    pub(crate) async fn write_segment(&self, write: &SegmentWrite) -> Result<(), Failure> {
        self.client.command(Traits::REPEATABLE, &write.0).await
    }

    /// Keeps the first `count` segments of an upload from expiring.
    pub(crate) async fn refresh_expiry(
        &self,
        id: &ObjectId,
        token: &str,
        count: u64,
        expiry: Duration,
    ) -> Result<(), Failure> {
        let mut pipeline = redis::pipe();
        for number in 0..count {
            let key = self.keys.upload(id, token, number);
            pipeline.cmd("PEXPIRE").arg(key).arg(millis(expiry)).ignore();
        }
        self.client.pipeline(Traits::REPEATABLE, &pipeline).await
    }

    /// Deletes the first `count` segments of an upload.
    pub(crate) async fn unlink_segments(
        &self,
        id: &ObjectId,
        token: &str,
        count: u64,
    ) -> Result<(), Failure> {
        let mut command = redis::cmd("UNLINK");
        for number in 0..count {
            command.arg(self.keys.upload(id, token, number));
        }
        self.client.command(Traits::REPEATABLE, &command).await
    }
}

/// A segment of an upload, as a command that may be sent again.
pub(crate) struct SegmentWrite(Cmd);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
