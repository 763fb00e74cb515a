//! The tutorial's plugin after its first step: it serves the files of a directory, and takes none.
//! The whole of it is `examples/directory.rs`; docs/tutorial.md goes from here to there.

// ANCHOR: all
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use cvmcache::plugin::*;
use cvmcache::{CachePlugin, Session};

struct Directory {
    path: PathBuf,
}

impl Directory {
    fn open(&self, id: &ObjectId) -> PluginResult<File> {
        File::open(self.path.join(id.to_string())).map_err(status)
    }
}

impl CachePlugin for Directory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn workers(&self) -> usize {
        8
    }

    fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let size = self.open(id)?.metadata().map_err(status)?.len();
        Ok(ObjectInfo::new(size, ObjectType::Regular))
    }

    fn read(&self, _: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let file = self.open(id)?;
        if offset > file.metadata().map_err(status)?.len() {
            return Err(Status::OutOfBounds);
        }
        let mut buffer = ReadBuffer::new(len as usize)?;
        buffer.read_at(&file, offset).map_err(status)?;
        Ok(buffer.into())
    }
}

/// The status for an error of the file system.
fn status(error: std::io::Error) -> Status {
    match error.kind() {
        std::io::ErrorKind::NotFound => Status::NoEntry,
        std::io::ErrorKind::StorageFull => Status::NoSpace,
        _ => Status::IoErr,
    }
}

fn main() -> ExitCode {
    const KEY: &str = "CVMFS_CACHE_PLUGIN_DIRECTORY";
    cvmcache::run("directory", |context| {
        let options = context.options();
        match options.get(KEY) {
            Some(path) => Ok(Directory { path: path.into() }),
            None => Err(options.missing(KEY, "write in which directory the objects are")),
        }
    })
}
// ANCHOR_END: all
