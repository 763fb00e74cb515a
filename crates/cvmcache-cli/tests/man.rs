//! Manual pages: one for each command, that readers of manual pages understand.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

#[test]
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
fn man_warns_of_no_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cvmcache"));
    let written = command.arg("man").arg(directory.path()).status().unwrap();
    assert!(written.success());
    let entries = fs::read_dir(directory.path()).unwrap();
    let pages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    for name in ["cvmcache.1", "cvmcache-check.1", "cvmcache-doctor.1"] {
        assert!(pages.iter().any(|page| page.file_name() == Some(OsStr::new(name))), "{pages:?}");
    }
    assert!(!pages.iter().any(|page| page.ends_with("cvmcache-soak-client.1")), "{pages:?}");
    for page in pages {
        let output = Command::new("man").args(["--warnings", "-l"]).arg(&page).output();
        let output = output.expect("man: install the package man-db");
        assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert_eq!(warnings, "", "{}", page.display());
    }
}
