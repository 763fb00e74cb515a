//! Credentials files: sections of keys and values, as `~/.aws/credentials` and `~/.azure/config` have them, and the
//! provider that reads one again.
//!
//! Errors name the file and the line, and quote nothing of it.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use parking_lot::Mutex;

use crate::cold::ColdError;

/// How often a file is looked at for a change.
const LOOK: Duration = Duration::from_secs(1);

/// One section of a credentials file.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    file: &'a Path,
    name: &'a str,
    line: usize,
    entries: Vec<(&'a str, &'a str)>,
}

impl<'a> Section<'a> {
    /// The section `name` of `text`, which is in `file`.
    pub(crate) fn parse(file: &'a Path, text: &'a str, name: &'a str) -> Result<Self, ColdError> {
        let mut found: Option<Self> = None;
        let mut is_in = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[') {
                let section = section
                    .split_once(']')
                    .ok_or_else(|| malformed(file, number, "a section's name ends with ]"))?;
                is_in = section.0.trim() == name;
                if is_in && found.is_none() {
                    found = Some(Self { file, name, line: number, entries: Vec::new() });
                }
            } else if let Some((key, value)) = line.split_once('=') {
                if let Some(section) = found.as_mut().filter(|_| is_in) {
                    section.entries.push((key.trim(), value.trim()));
                }
            } else {
                return Err(malformed(file, number, "neither [SECTION] nor KEY = VALUE"));
            }
        }
        found.ok_or_else(|| {
            ColdError::Settings(format!("{}: it has no section [{name}]", file.display()))
        })
    }

    /// The value of a key; the last one counts, and an empty one is none.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.entries.iter().rfind(|entry| entry.0.eq_ignore_ascii_case(key))?;
        (!value.is_empty()).then_some(value)
    }

    /// The value of a key that has to be there.
    pub(crate) fn require(&self, key: &str) -> Result<&'a str, ColdError> {
        self.get(key).ok_or_else(|| {
            malformed(self.file, self.line, &format!("section [{}] has no {key}", self.name))
        })
    }
}

/// The text of a credentials file.
pub(crate) fn read(file: &Path) -> Result<String, ColdError> {
    fs::read_to_string(file).map_err(|e| {
        ColdError::Settings(format!("the credentials file {} cannot be read: {e}", file.display()))
    })
}

/// An error in a line of a credentials file.
pub(crate) fn malformed(file: &Path, line: usize, what: &str) -> ColdError {
    ColdError::Settings(format!("{}:{line}: {what}", file.display()))
}

/// What tells that a file was written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
    /// That of a file that is there.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            len: metadata.len(),
            inode: metadata.ino(),
        })
    }
}

/// Credentials of S3 from a file in the form of `~/.aws/credentials`. It is read again when it has changed, and when
/// the store has refused those that were in it.
pub(crate) struct S3File {
    path: PathBuf,
    profile: String,
    is_refused: Arc<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    credential: Arc<AwsCredential>,
    stamp: Option<Stamp>,
    looked: Instant,
}

impl S3File {
    /// Reads the file. `is_refused` is set when the store refuses the credentials.
    pub(crate) fn open(path: &Path, is_refused: Arc<AtomicBool>) -> Result<Self, ColdError> {
        let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".into());
        let stamp = Stamp::of(path);
        let credential = Arc::new(read_s3(path, &profile)?);
        let state = Mutex::new(State { credential, stamp, looked: Instant::now() });
        Ok(Self { path: path.into(), profile, is_refused, state })
    }

    /// The credentials as they are in the file now; those before if it cannot be read.
    fn current(&self, now: Instant) -> Arc<AwsCredential> {
        let mut state = self.state.lock();
        let is_refused = self.is_refused.swap(false, Ordering::Relaxed);
        if !is_refused && now.duration_since(state.looked) < LOOK {
            return Arc::clone(&state.credential);
        }
        state.looked = now;
        let stamp = Stamp::of(&self.path);
        if is_refused || stamp != state.stamp {
            match read_s3(&self.path, &self.profile) {
                Ok(credential) => {
                    state.credential = Arc::new(credential);
                    state.stamp = stamp;
                }
                Err(e) => tracing::warn!("the credentials before stay in force: {e}"),
            }
        }
        Arc::clone(&state.credential)
    }
}

#[async_trait]
impl CredentialProvider for S3File {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // A file of some lines: reading it takes less than handing it to another thread.
        Ok(self.current(Instant::now()))
    }
}

impl fmt::Debug for S3File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3File").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read_s3(file: &Path, profile: &str) -> Result<AwsCredential, ColdError> {
    let text = read(file)?;
    let section = Section::parse(file, &text, profile)?;
    Ok(AwsCredential {
        key_id: section.require("aws_access_key_id")?.into(),
        secret_key: section.require("aws_secret_access_key")?.into(),
        token: section.get("aws_session_token").map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/etc/credentials";

    fn parse<'a>(text: &'a str, section: &'a str) -> Result<Section<'a>, ColdError> {
        Section::parse(Path::new(FILE), text, section)
    }

    #[test]
    fn a_section_has_its_keys_and_no_others() {
        let text =
            "# a comment\n[other]\nkey=1\n\n [ default ] \n key = a=b \n; no\nKey2=\n[x]\nkey=3";
        let section = parse(text, "default").unwrap();
        assert_eq!(section.get("key"), Some("a=b"));
        assert_eq!(section.get("KEY"), Some("a=b"));
        assert_eq!(section.get("key2"), None);
        assert_eq!(parse(text, "x").unwrap().require("key"), Ok("3"));
    }

    #[test]
    fn an_error_names_file_and_line_and_quotes_nothing() {
        for (text, line) in [
            ("[default]\nhunter2", Some(2)),
            ("[default\nkey=hunter2", Some(1)),
            ("\n[default]\naws_secret_access_key=hunter2", Some(2)),
            ("hunter2", Some(1)),
            ("[hunter2]\nkey=hunter2", None),
            ("", None),
        ] {
            let error = parse(text, "default")
                .and_then(|section| section.require("aws_access_key_id").map(drop))
                .unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, ColdError::Settings(_)));
            assert!(text.contains(FILE) && !text.contains("hunter2"), "{text}");
            if let Some(line) = line {
                assert!(text.contains(&format!(":{line}:")), "{text}");
            }
        }
    }

    fn write(file: &Path, key: &str) {
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = hunter2\n");
        fs::write(file, text).unwrap();
    }

    #[test]
    fn credentials_are_read_again_when_their_file_has_changed_or_they_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        write(&file, "first");
        let is_refused = Arc::new(AtomicBool::new(false));
        let provider = S3File::open(&file, Arc::clone(&is_refused)).unwrap();
        assert!(!format!("{provider:?}").contains("hunter2"));
        let start = Instant::now();
        assert_eq!(provider.current(start).key_id, "first");

        write(&file, "the second");
        assert_eq!(provider.current(start).key_id, "first");
        assert_eq!(provider.current(start + LOOK).key_id, "the second");

        write(&file, "third");
        is_refused.store(true, Ordering::Relaxed);
        assert_eq!(provider.current(start + LOOK).key_id, "third");

        fs::write(&file, "[default").unwrap();
        assert_eq!(provider.current(start + 2 * LOOK).key_id, "third");
        fs::remove_file(&file).unwrap();
        assert_eq!(provider.current(start + 3 * LOOK).key_id, "third");
        write(&file, "fourth");
        assert_eq!(provider.current(start + 4 * LOOK).key_id, "fourth");
    }
}
