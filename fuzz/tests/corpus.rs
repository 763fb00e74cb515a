//! The inputs in the corpus, and random ones, break no rule.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{fs, io};

use cvmcache_fuzz::admin::Administered;
use cvmcache_fuzz::{decoder, service};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Runs every input of a corpus, which must not be empty.
fn run_all(target: &str, run: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let inputs = read(&directory)
        .unwrap_or_else(|error| panic!("cannot read the corpus {}: {error}", directory.display()));
    assert!(!inputs.is_empty(), "the corpus {} is empty", directory.display());
    for (path, input) in inputs {
        // What is wrong has been printed by then, but not with what.
        assert!(
            catch_unwind(AssertUnwindSafe(|| run(&input))).is_ok(),
            "failed: {}",
            path.display()
        );
    }
}

fn read(directory: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let with_path = |path: PathBuf| fs::read(&path).map(|input| (path, input));
    fs::read_dir(directory)?.map(|entry| with_path(entry?.path())).collect()
}

#[test]
fn the_administration_socket_passes_on_its_corpus() {
    let target = Administered::start();
    run_all("admin", |input| target.run(input));
}

#[test]
fn the_decoder_passes_on_its_corpus() {
    run_all("decoder", decoder::run);
}

#[test]
fn the_service_passes_on_its_corpus() {
    run_all("service", service::run);
}

/// Most of them begin as requests do.
#[test]
fn the_administration_socket_passes_on_random_inputs() {
    let begin = prop_oneof![Just(&b""[..]), Just(&b"GET /v1"[..]), Just(&b"POST /v1/"[..])];
    let inputs = (vec(any::<u8>(), 0..16), begin, vec(any::<u8>(), 0..1000));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let target = Administered::start();
    let result = TestRunner::new(config).run(&inputs, |(lengths, begin, stream)| {
        target.run(&[&[lengths.len() as u8], &lengths[..], begin, &stream].concat());
        Ok(())
    });
    result.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decoder_passes_on_random_inputs(input in vec(any::<u8>(), 0..1000)) {
        decoder::run(&input);
    }

    /// Most of the time with all capabilities, since without them there is less to do.
    #[test]
    fn the_service_passes_on_random_inputs(
        capabilities in prop_oneof![4 => Just(0), 1 => any::<u8>()],
        steps in vec(any::<u8>(), 0..2500),
    ) {
        let mut input = steps;
        input.insert(0, capabilities);
        service::run(&input);
    }
}
