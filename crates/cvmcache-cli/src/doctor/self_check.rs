//! The check of a plugin by itself: the output of `PROGRAM --check CONF`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{self, Path};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::threads;
use nix::errno::Errno;
use nix::unistd::geteuid;

use super::command_line::CommandLine;
use super::kind::Kind;
use super::program::Program;
use super::report::Section;
use crate::user::{User, Want};

/// How long a plugin may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most of its output that is read, in bytes.
const MAX_OUTPUT: u64 = 64 * 1024;

/// How many lines of its standard error a finding has.
const MAX_LINES: usize = 3;

/// Its exit status if it does not understand its arguments.
const USAGE: i32 = 2;

/// Has a plugin check its configuration, and adds its findings. False if it was not run.
pub(super) fn check(line: &CommandLine, conf: &Path, user: &User, section: &mut Section) -> bool {
    let program = &line.program;
    // There is a finding about these already.
    if program.is_relative() || !program.is_file() || user.may(program, Want::Execute).is_err() {
        return false;
    }
    let name = program.display();
    let asked = match Program::read(program) {
        Ok(Program::Sdk) => program.clone(),
        Ok(Program::Script(script)) => match script.plugin() {
            Some(plugin) => {
                let found = format!("{name} is a script, and {} was asked", plugin.display());
                let remedy = "nothing to do, if the script changes neither arguments nor files";
                section.found(Kind::PluginAskedBehindScript, found, remedy);
                plugin
            }
            None => return without_check(format!("{name} is a script"), section),
        },
        Ok(_) => return without_check(format!("{name} has no --check"), section),
        Err(error) => {
            let found = format!("cannot read {name}: {error}");
            section.found(Kind::PluginNotAsked, found, "run doctor as root");
            return false;
        }
    };
    let is_self = user.uid() == geteuid().as_raw();
    if !is_self && !geteuid().is_root() {
        let found = format!("only user {user} and root can ask {name}");
        section.found(Kind::PluginNotAsked, found, "run doctor as root");
        return false;
    }
    let ask = |arguments: Vec<OsString>| {
        let mut command = Command::new(&asked);
        command.arg("--check").args(arguments);
        if !is_self {
            // The plugin runs as that user, with no other groups.
            command.uid(user.uid()).gid(user.gid());
        }
        run(&mut command)
    };
    let conf = match path::absolute(conf) {
        Ok(conf) => conf.into_os_string(),
        Err(error) => return judge(Err(error), &asked, line, section),
    };
    let arguments = arguments(line, &conf, section);
    let is_usual = arguments == [conf.clone()];
    let answer = ask(arguments);
    if !is_usual && answer.as_ref().is_ok_and(|answer| answer.status.code() == Some(USAGE)) {
        judge(answer, &asked, line, section);
        // What the configuration is like is to be known all the same.
        return judge(ask(vec![conf]), &asked, line, section);
    }
    judge(answer, &asked, line, section)
}

/// Notes that there is no program that could be asked.
pub(super) fn program_unknown(section: &mut Section) {
    let found = "which program is started with it is not known here";
    let remedy = "name it with --program, or the client's configuration";
    section.found(Kind::PluginNotAsked, found, remedy);
}

fn without_check(found: String, section: &mut Section) -> bool {
    let remedy = "see the plugin's documentation for them";
    section.found(Kind::PluginWithoutCheck, found, remedy);
    false
}

/// The arguments of the plugin, with the configuration that is judged for the one that is named.
fn arguments(line: &CommandLine, conf: &OsStr, section: &mut Section) -> Vec<OsString> {
    let named = line.configuration.as_ref().map(|named| named.path.as_os_str());
    let is_option = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    let mut arguments = Vec::new();
    for argument in &line.arguments {
        if is_option(argument) {
            // As it is, --help would be obeyed.
            let found = format!("{} takes no option {argument:?}", line.program.display());
            section.found(Kind::CmdlineArguments, found, line.remedy.clone());
        } else if named == Some(argument) {
            arguments.push(conf.to_owned());
        } else {
            arguments.push(argument.clone());
        }
    }
    if named.is_none() {
        arguments.push(conf.to_owned());
    }
    arguments
}

/// What a program has printed, and how it ended.
#[derive(Debug)]
struct Answer {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Adds an answer as findings. False if there is none.
fn judge(
    answer: io::Result<Answer>,
    program: &Path,
    line: &CommandLine,
    section: &mut Section,
) -> bool {
    let name = program.display();
    let ask = format!("see what {name} --check says");
    match answer {
        Ok(Answer { status, stdout, .. })
            if matches!(status.code(), Some(0 | 1)) && has_verdict(&stdout) =>
        {
            add(&stdout, program, section);
            true
        }
        Ok(Answer { status, stderr, .. }) if status.code() == Some(USAGE) => {
            section.found(Kind::CmdlineArguments, last_lines(&stderr), line.remedy.clone());
            true
        }
        Ok(Answer { status, stderr, .. }) => {
            let found = format!("{name} --check: {status}: {}", last_lines(&stderr));
            section.found(Kind::PluginFails, found, ask);
            true
        }
        // The file cannot be run: an interpreter or a library is missing, or it is for another machine.
        Err(error) if is_of_program(&error) => {
            section.found(Kind::PluginFails, format!("cannot run {name}: {error}"), ask);
            true
        }
        Err(error) => {
            section.found(Kind::PluginNotAsked, format!("{name} --check: {error}"), ask);
            false
        }
    }
}

fn has_verdict(output: &str) -> bool {
    output.lines().any(|line| line == "ok" || line.starts_with("error: "))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match &lines[lines.len().saturating_sub(MAX_LINES)..] {
        [] => "it printed no reason".to_owned(),
        lines => lines.join("; "),
    }
}

fn is_of_program(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::ENOEXEC | Errno::EACCES | Errno::ELIBBAD))
}

/// Runs a command with bounds on its time and its output.
fn run(command: &mut Command) -> io::Result<Answer> {
    let deadline = Instant::now() + TIMEOUT;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
    let mut child = command.spawn()?;
    let result = wait(&mut child, deadline);
    if result.is_err() {
        // It may have ended meanwhile.
        let _ = child.kill();
        child.wait()?;
    }
    result
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<Answer> {
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s");
    let left = || deadline.saturating_duration_since(Instant::now());
    let (stdout, stderr) = (read(child.stdout.take())?, read(child.stderr.take())?);
    let text = |output: Receiver<io::Result<Vec<u8>>>| {
        let output = output.recv_timeout(left()).map_err(|_| timed_out())??;
        io::Result::Ok(String::from_utf8_lossy(&output).into_owned())
    };
    let (stdout, stderr) = (text(stdout)?, text(stderr)?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Answer { status, stdout, stderr });
        }
        if left().is_zero() {
            return Err(timed_out());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads to the end, on a thread that is not waited for, or to a bound; then the pipe is closed.
fn read(pipe: Option<impl Read + Send + 'static>) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = pipe {
        // It ends with the output; the main thread does not wait for it.
        threads::spawn("output", move || {
            let mut output = Vec::new();
            let read = pipe.take(MAX_OUTPUT).read_to_end(&mut output);
            // There is no receiver after the deadline.
            let _ = sender.send(read.map(|_| output));
        })?;
    }
    Ok(receiver)
}

/// Adds the lines of a check as findings.
fn add(output: &str, program: &Path, section: &mut Section) {
    if output.lines().any(|line| line == "ok") {
        section.fine(format!("{} accepts its configuration", program.display()));
    }
    for line in output.lines() {
        let Some((severity, text)) = line.split_once(": ") else { continue };
        let (kind, usual) = match severity {
            "error" => (Kind::PluginError, "correct it, or see the plugin's --help"),
            "warning" => (Kind::PluginWarning, "correct it, or see the plugin's --help"),
            "note" => (Kind::PluginNote, "nothing to do"),
            _ => continue,
        };
        let (found, remedy) = split(text).unwrap_or((text, usual));
        section.found(kind, found, remedy);
    }
}

/// Tells what is wrong from the remedy, as in `KEY="x": write a number` or `it is full; remove some`.
fn split(text: &str) -> Option<(&str, &str)> {
    let is_remedy = |rest: &str| {
        ["write ", "remove ", "set ", "add ", "name ", "see ", "save ", "use "]
            .iter()
            .any(|verb| rest.starts_with(verb))
    };
    let by_colon = || text.rsplit_once(": ").filter(|(_, rest)| is_remedy(rest));
    text.rsplit_once("; ").or_else(by_colon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_check_are_findings_with_their_remedies() {
        let mut section = Section::new("file");
        let lines = "error: K=\"1\": write 2\nwarning: too small; write more\nnote: one\nother\n";
        add(lines, Path::new("/ram"), &mut section);
        let kinds = [Kind::PluginError, Kind::PluginWarning, Kind::PluginNote];
        assert_eq!(section.kinds(), kinds);
        assert_eq!(split("K=\"1\": write 2"), Some(("K=\"1\"", "write 2")));
        assert_eq!(split("cannot lock /s: Permission denied"), None);
    }

    #[test]
    fn an_answer_that_is_none_is_an_error_with_the_last_lines_of_standard_error() {
        let line = CommandLine::of(Path::new("/plugin"), Path::new("/conf"));
        for (script, kind) in [
            ("echo ok", None),
            ("echo error: x; exit 1", Some(Kind::PluginError)),
            ("echo unexpected argument >&2; exit 2", Some(Kind::CmdlineArguments)),
            ("echo Usage:", Some(Kind::PluginFails)),
            ("echo libmissing.so >&2; exit 127", Some(Kind::PluginFails)),
            ("kill -ILL $$", Some(Kind::PluginFails)),
        ] {
            let mut section = Section::new("file");
            let answer = run(Command::new("sh").arg("-c").arg(script));
            assert!(judge(answer, &line.program, &line, &mut section));
            assert_eq!(section.kinds(), Vec::from_iter(kind), "{script}");
        }
        let mut section = Section::new("file");
        let answer = run(&mut Command::new("/nowhere/plugin"));
        assert!(judge(answer, &line.program, &line, &mut section));
        assert_eq!(section.kinds(), [Kind::PluginFails]);
        assert_eq!(last_lines("1\n2\n\n3\n4\n"), "2; 3; 4");
    }

    #[test]
    fn options_are_not_passed_on_and_are_errors() {
        let mut line = CommandLine::of(Path::new("/plugin"), Path::new("/conf"));
        line.arguments = ["--help", "/conf", ""].map(OsString::from).to_vec();
        let mut section = Section::new("file");
        let arguments = arguments(&line, OsStr::new("/other"), &mut section);
        assert_eq!(arguments, ["/other", ""]);
        assert_eq!(section.kinds(), [Kind::CmdlineArguments]);
    }

    #[test]
    fn a_flood_of_output_ends_with_the_process() {
        let answer = run(&mut Command::new("yes")).unwrap();
        assert!(!answer.status.success());
        assert_eq!(answer.stdout.len() as u64, MAX_OUTPUT);
    }
}
