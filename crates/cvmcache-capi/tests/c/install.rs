//! The library in a directory of its own, and programs that are linked with it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use escargot::format::Message;
use parking_lot::Mutex;

/// Which of the two libraries a program is linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Library {
    Shared,
    Static,
}

/// What a program needs beside the static library, as `rustc --print native-static-libs` has it.
const NATIVE: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

const WARNINGS: [&str; 4] = ["-pedantic", "-Wall", "-Wextra", "-Werror"];

/// A prefix with `include` and `lib`, as cargo-c would fill it.
pub(crate) static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libcvmfs_cache");
    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    let _ = fs::remove_dir_all(&prefix);
    fs::create_dir_all(&include).expect("a directory");
    fs::create_dir_all(&lib).expect("a directory");
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/libcvmfs_cache.h");
    fs::copy(header, include.join("libcvmfs_cache.h")).expect("the header is there");
    let built = build();
    for (ending, name) in [(".so", "libcvmfs_cache.so.2.12.0"), (".a", "libcvmfs_cache.a")] {
        let is_it = |path: &&PathBuf| path.to_string_lossy().ends_with(ending);
        let library = built.iter().find(is_it).expect("cargo builds both libraries");
        fs::copy(library, lib.join(name)).expect("there is room");
    }
    // valgrind reads all of it, each time.
    let shared = lib.join("libcvmfs_cache.so.2.12.0");
    run(Command::new("strip").arg("--strip-debug").arg(shared), "binutils");
    symlink("libcvmfs_cache.so.2.12.0", lib.join("libcvmfs_cache.so")).expect("a link");
    prefix
});

fn build() -> Vec<PathBuf> {
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
    files
}

/// The program from a source in `plugins/`, compiled against the installed header.
pub(crate) fn program(source: &str, library: Library) -> PathBuf {
    static PROGRAMS: Mutex<Option<HashMap<(String, Library), PathBuf>>> = Mutex::new(None);
    let mut programs = PROGRAMS.lock();
    let programs = programs.get_or_insert_default();
    let key = (source.to_owned(), library);
    programs.entry(key).or_insert_with(|| compile(source, library)).clone()
}

fn compile(source: &str, library: Library) -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/plugins");
    let program = PREFIX.join(format!("{source}-{library:?}"));
    let (compiler, standard) =
        if source.ends_with(".cpp") { ("g++", "-std=c++11") } else { ("gcc", "-std=c99") };
    let lib = PREFIX.join("lib");
    let mut command = Command::new(compiler);
    command.args([standard, "-g"]).args(WARNINGS);
    command.arg("-I").arg(PREFIX.join("include")).arg("-o").arg(&program);
    command.arg(plugins.join(source));
    match library {
        Library::Shared => {
            command.arg("-L").arg(&lib).args(["-lcvmfs_cache", "-lpthread"]);
            command.arg(format!("-Wl,-rpath,{}", lib.display()));
        }
        Library::Static => {
            command.arg(lib.join("libcvmfs_cache.a")).args(NATIVE);
        }
    }
    run(&mut command, compiler);
    program
}

/// Runs a program of the system, which has to succeed, and returns what it prints.
pub(crate) fn run(command: &mut Command, package: &str) -> String {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?}: {error}; is the Debian package {package} installed?"),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}
