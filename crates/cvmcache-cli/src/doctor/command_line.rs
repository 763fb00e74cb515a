//! The command line by which the client starts its plugin.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::kind::Kind;
use super::program::{Program, Script};
use super::report::Section;
use crate::user::{Obstacle, Reason, User, Want, quoted};

/// What starts the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Starter {
    /// The client, with this command line.
    Client(CommandLine),
    /// Not the client.
    External,
    /// The command line is not understood.
    Unknown,
}

/// What the client splits at the commas, and passes to execvp(3) as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The configuration file among the arguments.
    pub(crate) configuration: Option<Configuration>,
    /// What to write instead, if the plugin does not understand its arguments.
    pub(crate) remedy: String,
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
    let program = Path::new(words.next().unwrap_or_default()).to_owned();
    let arguments: Vec<_> = words.map(OsStr::to_owned).collect();
    let content = check_program(key, &program, user, section);
    let usual = |conf: &Path| format!("write {key}={},{}", program.display(), conf.display());
    let Some(path) = configuration(&arguments) else {
        let remedy = usual(Path::new("/path/to/its.conf"));
        let found = format!("{key} names no configuration file for {}", program.display());
        section.found(Kind::ConfigurationNotNamed, found, remedy.clone());
        return Starter::Client(CommandLine { program, arguments, configuration: None, remedy });
    };
    let remedy = usual(&path);
    // One of the SDK says so itself.
    if arguments.iter().any(|argument| argument.is_empty()) && content != Some(Program::Sdk) {
        let found = format!("{key} has an empty argument: a comma too many");
        section.found(Kind::CmdlineEmptyArgument, found, remedy.clone());
    }
    let is_reported = !check_configuration(key, &path, user, section);
    let configuration = Some(Configuration { path, is_reported });
    Starter::Client(CommandLine { program, arguments, configuration, remedy })
}

impl CommandLine {
    /// The usual one.
    pub(crate) fn of(program: &Path, conf: &Path) -> Self {
        Self {
            program: program.to_owned(),
            arguments: vec![conf.into()],
            configuration: Some(Configuration { path: conf.to_owned(), is_reported: false }),
            remedy: format!("start it with {} alone", conf.display()),
        }
    }
}

/// Which of the arguments is the configuration file: the first that is a file, or could be one by its
/// whole path, or else the last that is no option.
fn configuration(arguments: &[OsString]) -> Option<PathBuf> {
    let is_option = |path: &Path| path.as_os_str().as_bytes().starts_with(b"-");
    let paths = || {
        let paths = arguments.iter().filter(|argument| !argument.is_empty()).map(Path::new);
        paths.filter(move |path| !is_option(path))
    };
    let is_absolute = |path: &&Path| path.is_absolute();
    let file = paths().filter(is_absolute).find(|path| path.is_file());
    file.or_else(|| paths().find(is_absolute)).or_else(|| paths().next_back()).map(Path::to_owned)
}

/// Checks whether the user can run a program; returns what it is, if that can be told.
fn check_program(key: &str, program: &Path, user: &User, section: &mut Section) -> Option<Program> {
    let name = program.display();
    if program.as_os_str().is_empty() {
        let remedy = format!("write the program's path in {key}, before the first comma");
        section.found(Kind::ProgramMissing, format!("{key} begins with no program"), remedy);
        return None;
    }
    if program.is_relative() {
        let remedy = format!("write the program's whole path in {key}");
        section.found(Kind::PathRelative, format!("{key} starts {name:?}"), remedy);
        return None;
    }
    match user.may(program, Want::Execute) {
        Ok(()) if program.is_file() => return check_content(program, user, section),
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
    None
}

/// Checks whether the kernel can run what is in a program's file.
fn check_content(program: &Path, user: &User, section: &mut Section) -> Option<Program> {
    let name = program.display();
    // A program can be one that may be run, and not read.
    let content = Program::read(program).ok();
    match &content {
        Some(Program::Unknown) => {
            let found = format!("{name} is empty, or neither a program nor a script");
            section.found(Kind::ProgramNotExecutable, found, "install the plugin anew");
        }
        Some(Program::Script(Script { interpreter: None, .. })) => {
            let found = format!("{name} is a script whose first line does not begin with #!");
            let remedy = "write #!/bin/sh as its first line, or the right interpreter";
            section.found(Kind::InterpreterNotNamed, found, remedy);
        }
        Some(Program::Script(Script { interpreter: Some(path), .. })) => {
            match user.may(path, Want::Execute) {
                Ok(()) => section.fine(format!("user {user} can run {name}")),
                Err(Obstacle { reason: Reason::Hidden(_), .. }) => {}
                Err(obstacle) => {
                    let found = format!("{name} begins with #!{}, but {obstacle}", path.display());
                    let remedy = match path.as_os_str().as_bytes().ends_with(b"\r") {
                        true => format!(r"sed -i 's/\r$//' {}", quoted(program)),
                        false => format!("write the right interpreter in {name}, or install it"),
                    };
                    section.found(Kind::ProgramNotExecutable, found, remedy);
                }
            }
        }
        Some(Program::Sdk | Program::Other) | None => {
            section.fine(format!("user {user} can run {name}"));
        }
    }
    content
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
        let file = |name: &str, text: &str, mode| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let [plain, conf] = ["plain", "conf"].map(|name| file(name, "", 0o644));
        let program = file("program", "#!/bin/sh\n", 0o755);
        let empty = file("empty", "", 0o755);
        let unnamed = file("unnamed", "exec true\n", 0o755);
        let windows = file("windows", "#!/bin/sh\r\nexec true\r\n", 0o755);
        let missing = file("missing", "#!/nowhere/sh\n", 0o755);
        let closed = file("closed", &format!("#!{plain}\n"), 0o755);
        for (line, kinds) in [
            (format!("{program},{conf},"), vec![Kind::CmdlineEmptyArgument]),
            (format!("{program},,{conf}"), vec![Kind::CmdlineEmptyArgument]),
            (format!("{program},"), vec![Kind::ConfigurationNotNamed]),
            (format!(",{conf}"), vec![Kind::ProgramMissing]),
            (format!("{program},{conf},-d"), vec![]),
            (format!("{program},serve,{conf},more"), vec![]),
            (format!("{empty},{conf}"), vec![Kind::ProgramNotExecutable]),
            (format!("{unnamed},{conf}"), vec![Kind::InterpreterNotNamed]),
            (format!("{windows},{conf}"), vec![Kind::ProgramNotExecutable]),
            (format!("{missing},{conf}"), vec![Kind::ProgramNotExecutable]),
            (format!("{closed},{conf}"), vec![Kind::ProgramNotExecutable]),
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
