//! A plugin in C, linked with our library for C.

use std::path::{Path, PathBuf};
use std::process::Command;

use escargot::format::Message;

/// The program from a source among the tests of the library, in this directory.
pub fn compile(source: &str, directory: &Path) -> PathBuf {
    let capi = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cvmcache-capi");
    let library = library();
    let program = directory.join(source.trim_end_matches(".c"));
    let mut command = Command::new("gcc");
    command.arg("-std=c99").arg("-I").arg(capi.join("include")).arg("-o").arg(&program);
    command.arg(capi.join("tests/c/plugins").join(source)).arg(&library).arg("-lpthread");
    command.arg(format!("-Wl,-rpath,{}", directory.display()));
    let status = command.status().expect("the Debian package gcc is installed");
    assert!(status.success(), "{command:?}: {status}");
    // The loader looks for the name that is in the library.
    let name = directory.join("libcvmfs_cache.so.2.12.0");
    let _ = std::os::unix::fs::symlink(&library, name);
    program
}

fn library() -> PathBuf {
    let build = escargot::CargoBuild::new().package("cvmcache-capi");
    let mut files = Vec::new();
    for message in build.exec().expect("cargo builds it") {
        let message = message.expect("cargo builds it");
        if let Message::CompilerArtifact(artifact) = message.decode().expect("cargo's format")
            && artifact.target.name == "cvmfs_cache"
        {
            files.extend(artifact.filenames.iter().map(|path| path.to_path_buf()));
        }
    }
    let is_shared = |path: &PathBuf| path.extension().is_some_and(|it| it == "so");
    files.into_iter().find(is_shared).expect("cargo builds a shared library")
}
