//! The blocks of shell in the book, and a place where they can be run.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use snapbox::cmd::cargo_bin;
use tempfile::TempDir;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The blocks of shell in a text.
pub fn blocks(text: &str) -> Vec<String> {
    let rest = text.split("\n```sh\n").skip(1);
    rest.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

pub fn page(name: &str) -> String {
    let path = root().join(if name == "README.md" { "" } else { "docs" }).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands in for what tests cannot do: installing and building. A plugin that is started in one
/// terminal runs until the commands of the other are done.
const PRELUDE: &str = r#"
sudo() { :; }
cargo() {
    if [ "$1" = run ]; then
        while [ "$1" != -- ]; do shift; done
        shift
        cvmcache "$@"
    fi
}
redis-server() {
    command redis-server "$@" >redis.log
    redis=$4
    until redis-cli -s "$redis" ping >ping.log 2>&1; do sleep 0.02; done
}
serve() {
    "$@" </dev/null &
    served=$!
    socket=$(sed -n 's/^CVMFS_CACHE_PLUGIN_LOCATOR=unix=//p' "$2")
    until [ -S "$socket" ]; do kill -0 $served; sleep 0.02; done
}
finish() {
    if [ "$served" ]; then kill "$served"; wait "$served"; fi
    if [ "$redis" ]; then redis-cli -s "$redis" shutdown nosave; fi
}
trap finish EXIT
"#;

/// A directory of its own for commands, in which what they write to `/tmp` is, too.
pub struct Shell {
    directory: TempDir,
    replaced: Vec<(String, String)>,
}

impl Shell {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let replaced = vec![("/tmp/".to_owned(), format!("{}/", directory.path().display()))];
        Self { directory, replaced }
    }

    /// Has a program there, by the name that the page gives it.
    pub fn link(&self, program: &Path, name: &str) {
        let link = self.directory.path().join(name);
        fs::create_dir_all(link.parent().expect("a directory")).expect("it can be made");
        if link.exists() {
            fs::remove_file(&link).expect("it can be removed");
        }
        symlink(program, link).expect("a link");
    }

    /// What is somewhere else than on the machine that a page is about.
    pub fn replace(mut self, this: &str, by: &str) -> Self {
        self.replaced.push((this.to_owned(), by.to_owned()));
        self
    }

    /// Runs commands, each of which has to succeed, and returns what they print.
    pub fn run(&self, commands: &[String]) -> String {
        let is_served = |line: &&str| line.starts_with("target/") && line.ends_with(".conf");
        let lines = commands.iter().flat_map(|block| block.lines());
        let mut script = format!("set -e{PRELUDE}");
        for line in lines {
            script.push_str(if is_served(&line) { "serve " } else { "" });
            script.push_str(line);
            script.push('\n');
        }
        for (this, by) in &self.replaced {
            script = script.replace(this, by);
        }
        let program = cargo_bin!("cvmcache");
        let directory = program.parent().expect("a directory").display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(self.directory.path());
        command.env("PATH", format!("{directory}:{path}")).env_remove("CVMCACHE_LOCATOR");
        let output = command.output().expect("bash is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, said) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{commands:#?}: {}\n{printed}{said}", output.status);
        printed
    }
}
