//! The command line by which the client starts its plugin.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::kind::Kind;
use super::report::Section;
use crate::user::{Obstacle, Reason, User, Want, quoted};

/// What starts the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Starter {
    /// The client, with this program and this configuration file of the plugin's.
    Client { program: PathBuf, configuration: Option<Configuration> },
    /// Not the client.
    External,
    /// The command line is not understood.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) path: PathBuf,
    /// There is a finding about it already.
    pub(crate) is_reported: bool,
}

/// True for a command line that has blanks where it needs commas.
pub(crate) fn has_blank_for_comma(key: &str, value: &OsStr) -> bool {
    let arguments = value.as_bytes().split(|&byte| byte == b',');
    let has_blank = |argument: &[u8]| {
        let is_file = || Path::new(OsStr::from_bytes(argument)).exists();
        argument.iter().any(u8::is_ascii_whitespace) && !is_file()
    };
    key.ends_with("_CMDLINE") && { arguments }.any(has_blank)
}

/// Checks whether the user can run the command line.
pub(crate) fn check(key: &str, value: &OsStr, user: &User, section: &mut Section) -> Starter {
    let mut value = value.to_owned();
    if has_blank_for_comma(key, &value) {
        let found = format!("{key}={}", value.display());
        let words = value.as_bytes().split(|byte| byte.is_ascii_whitespace() || *byte == b',');
        let words = Vec::from_iter(words.filter(|word| !word.is_empty()));
        value = OsString::from_vec(words.join(&b','));
        section.found(Kind::CmdlineBlanks, found, format!("write {key}={}", value.display()));
    }
    let mut words = value.as_bytes().split(|&byte| byte == b',').map(OsStr::from_bytes);
    let program = Path::new(words.next().unwrap_or_default());
    check_program(key, program, user, section);
    let Some(last) = words.next_back().filter(|word| !word.as_bytes().starts_with(b"-")) else {
        let remedy = format!("write {key}={},/path/to/its.conf", program.display());
        let found = format!("{key} names no configuration file for {}", program.display());
        section.found(Kind::ConfigurationNotNamed, found, remedy);
        return Starter::Client { program: program.to_owned(), configuration: None };
    };
    let path = PathBuf::from(last);
    let is_reported = !check_configuration(key, &path, user, section);
    let configuration = Some(Configuration { path, is_reported });
    Starter::Client { program: program.to_owned(), configuration }
}

fn check_program(key: &str, program: &Path, user: &User, section: &mut Section) {
    let name = program.display();
    if program.is_relative() {
        let remedy = format!("write the program's whole path in {key}");
        section.found(Kind::PathRelative, format!("{key} starts {name:?}"), remedy);
        return;
    }
    match user.may(program, Want::Execute) {
        Ok(()) if program.is_file() => section.fine(format!("user {user} can run {name}")),
        Ok(()) => {
            let remedy = format!("write the program's path in {key}");
            section.found(Kind::ProgramNotExecutable, format!("{name} is not a file"), remedy);
        }
        Err(obstacle) => {
            let kind = match obstacle.reason {
                Reason::Missing | Reason::NotADirectory => Kind::ProgramMissing,
                Reason::Mode { .. } | Reason::System(_) => Kind::ProgramNotExecutable,
                Reason::Hidden(_) => Kind::NotLookedAt,
            };
            let remedy = match kind {
                Kind::ProgramMissing => format!("write the program's path in {key}, or install it"),
                _ => obstacle.remedy(user),
            };
            section.found(kind, cannot(user, "run", program, &obstacle), remedy);
        }
    }
}

fn check_configuration(key: &str, path: &Path, user: &User, section: &mut Section) -> bool {
    let name = path.display();
    if path.is_relative() {
        let remedy = format!("write the whole path of the plugin's configuration file in {key}");
        section.found(Kind::PathRelative, format!("{key} names {name:?}"), remedy);
        return false;
    }
    match user.may(path, Want::Read) {
        Ok(()) => {
            section.fine(format!("user {user} can read {name}"));
            true
        }
        Err(obstacle) => {
            let kind = match obstacle.reason {
                Reason::Missing | Reason::NotADirectory => Kind::ConfigurationMissing,
                Reason::Mode { .. } | Reason::System(_) => Kind::ConfigurationUnreadable,
                Reason::Hidden(_) => Kind::NotLookedAt,
            };
            let remedy = match kind {
                Kind::ConfigurationMissing => {
                    format!("write {}, or its right path in {key}", quoted(path))
                }
                _ => obstacle.remedy(user),
            };
            section.found(kind, cannot(user, "read", path, &obstacle), remedy);
            false
        }
    }
}

/// The text of what a user cannot do, and why.
pub(crate) fn cannot(user: &User, what: &str, path: &Path, obstacle: &Obstacle) -> String {
    if obstacle.path == path {
        return format!("user {user} cannot {what} it: {obstacle}");
    }
    format!("user {user} cannot {what} {}: {obstacle}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn mistakes_in_a_command_line_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let [program, plain, conf] = ["program", "plain", "conf"].map(|name| {
            let path = directory.path().join(name);
            fs::write(&path, "").unwrap();
            path.into_os_string().into_string().unwrap()
        });
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        for (line, kinds) in [
            (format!("{program},{conf}"), vec![]),
            (format!("{program} {conf}"), vec![Kind::CmdlineBlanks]),
            (format!("{program}, {conf}"), vec![Kind::CmdlineBlanks]),
            (program.clone(), vec![Kind::ConfigurationNotNamed]),
            (format!("{program},/nowhere/conf"), vec![Kind::ConfigurationMissing]),
            (format!("{program},conf"), vec![Kind::PathRelative]),
            (format!("{plain},{conf}"), vec![Kind::ProgramNotExecutable]),
            (format!("/,{conf}"), vec![Kind::ProgramNotExecutable]),
            (format!("/nowhere,{conf}"), vec![Kind::ProgramMissing]),
            (format!("{plain}/x,{conf}"), vec![Kind::ProgramMissing]),
            (format!("program,{conf}"), vec![Kind::PathRelative]),
        ] {
            let mut section = Section::new("file");
            check("CVMFS_CACHE_ram_CMDLINE", OsStr::new(&line), &User::current(), &mut section);
            assert_eq!(section.kinds(), kinds, "{line}");
        }
    }
}
