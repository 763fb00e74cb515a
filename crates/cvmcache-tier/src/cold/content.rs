//! The bytes of an object as a store of the crate `object_store` answers them, held to the length that it said.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::GetResultPayload;

use crate::cold::{ColdError, failure};

/// How much of a file is read at once.
const READ: u64 = 1024 * 1024;

/// The bytes of `range`: a stream that ends early, or goes on, is an error.
pub(crate) fn content(
    payload: GetResultPayload,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes, ColdError>> {
    match payload {
        GetResultPayload::Stream(stream) => {
            exactly(stream.map_err(failure::translate).boxed(), range.end - range.start)
        }
        GetResultPayload::File(file, _) => read_file(file, range),
    }
}

fn exactly(
    content: BoxStream<'static, Result<Bytes, ColdError>>,
    len: u64,
) -> BoxStream<'static, Result<Bytes, ColdError>> {
    stream::try_unfold((content, len), |(mut content, left)| async move {
        match content.try_next().await? {
            None if left == 0 => Ok(None),
            None => Err(ColdError::Unavailable(format!("{left} bytes of its answer are missing"))),
            Some(bytes) => match left.checked_sub(bytes.len() as u64) {
                Some(left) => Ok(Some((bytes, (content, left)))),
                None => Err(ColdError::Failed("its answer is longer than it said".into())),
            },
        }
    })
    .boxed()
}

fn read_file(file: File, range: Range<u64>) -> BoxStream<'static, Result<Bytes, ColdError>> {
    stream::try_unfold((file, range), |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let len = (range.end - range.start).min(READ);
            let mut bytes = BytesMut::zeroed(len as usize);
            file.read_exact_at(&mut bytes, range.start)?;
            io::Result::Ok((bytes.freeze(), (file, range.start + len..range.end)))
        });
        match read.await {
            Ok(Ok(read)) => Ok(Some(read)),
            Ok(Err(e)) => Err(ColdError::Unavailable(e.to_string())),
            Err(e) => Err(ColdError::Unavailable(e.to_string())),
        }
    })
    .boxed()
}
