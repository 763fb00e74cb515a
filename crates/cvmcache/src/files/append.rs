//! Files that are appended to, such as the debug log.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::stat::makedev;

use super::{FLAGS, open_regular, refuse_other_types};

/// `/dev/null`, `/dev/zero` and `/dev/full`: the devices whose writes never wait.
const SINKS: [(u64, u64); 3] = [(1, 3), (1, 5), (1, 7)];

/// Opens a file to append to it, and makes it if it is not there. It is a regular file, or one of the
/// devices whose writes never wait, such as `/dev/null`.
pub(crate) fn append_to(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true);
    if fs::metadata(path).is_ok_and(|metadata| is_sink(&metadata)) {
        return options.custom_flags(FLAGS.bits()).open(path);
    }
    open_regular(&mut options, path)
}

/// Refuses what [`append_to`] refuses by its type.
pub(crate) fn check_appendable(metadata: &Metadata) -> io::Result<()> {
    if is_sink(metadata) { Ok(()) } else { refuse_other_types(metadata.file_type()) }
}

fn is_sink(metadata: &Metadata) -> bool {
    let is_device = |(major, minor)| metadata.rdev() == makedev(major, minor);
    metadata.file_type().is_char_device() && SINKS.into_iter().any(is_device)
}
