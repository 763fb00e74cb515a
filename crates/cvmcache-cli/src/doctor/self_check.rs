//! The check of a plugin by itself: the output of `PROGRAM --check CONF`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{self, Path};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use memchr::memmem;
use nix::unistd::geteuid;

use super::kind::Kind;
use super::report::Section;
use crate::user::{User, Want};

/// How long a plugin may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most of its output that is read, in bytes.
const MAX_OUTPUT: u64 = 64 * 1024;

/// The most of a program that is searched for the marker, in bytes.
const MAX_PROGRAM: u64 = 200 * 1024 * 1024;

const ELF: &[u8] = b"\x7fELF";

/// Has a plugin check its configuration, and adds its findings. False if it was not run.
pub(super) fn check(program: &Path, conf: &Path, user: &User, section: &mut Section) -> bool {
    // There is a finding about these already.
    if program.is_relative() || !program.is_file() || user.may(program, Want::Execute).is_err() {
        return false;
    }
    let not_asked = |section: &mut Section, found: String, remedy: &str| {
        section.found(Kind::PluginNotAsked, found, remedy);
        false
    };
    let name = program.display();
    match is_ours(program) {
        Ok(true) => {}
        Ok(false) => {
            section.fine(format!("{name} has no --check: the keys of its own are not judged"));
            return false;
        }
        Err(error) => {
            return not_asked(section, format!("cannot read {name}: {error}"), "run it as root");
        }
    }
    let is_self = user.uid() == geteuid().as_raw();
    if !is_self && !geteuid().is_root() {
        let found = format!("only user {user} and root can ask {name}");
        return not_asked(section, found, "run doctor as root");
    }
    let output = path::absolute(conf).and_then(|conf| {
        let mut command = Command::new(program);
        command.arg("--check").arg(conf);
        if !is_self {
            // The plugin runs as that user, with no other groups.
            command.uid(user.uid()).gid(user.gid());
        }
        run(&mut command)
    });
    match output {
        Ok((status, output)) if matches!(status.code(), Some(0 | 1)) => {
            add(&output, program, section);
            true
        }
        Ok((status, _)) => not_asked(section, format!("{name} --check: {status}"), REMEDY),
        Err(error) => not_asked(section, format!("{name} --check: {error}"), REMEDY),
    }
}

const REMEDY: &str = "run it with --check and the configuration yourself";

/// True for a program that understands `--check`; it is not run to find out.
fn is_ours(program: &Path) -> io::Result<bool> {
    has_marker(File::open(program)?.take(MAX_PROGRAM))
}

fn has_marker(mut program: impl Read) -> io::Result<bool> {
    let marker = memmem::Finder::new(cvmcache::CHECK_MARKER.trim_end());
    let mut chunk = Vec::new();
    program.by_ref().take(ELF.len() as u64).read_to_end(&mut chunk)?;
    if chunk != ELF {
        return Ok(false);
    }
    loop {
        // The marker may lie across two chunks.
        let kept = chunk.len().saturating_sub(marker.needle().len());
        chunk.drain(..kept);
        if program.by_ref().take(1 << 20).read_to_end(&mut chunk)? == 0 {
            return Ok(false);
        }
        if marker.find(&chunk).is_some() {
            return Ok(true);
        }
    }
}

/// Runs a command with bounds on its time and its output.
fn run(command: &mut Command) -> io::Result<(ExitStatus, String)> {
    let deadline = Instant::now() + TIMEOUT;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/");
    let mut child = command.spawn()?;
    let result = wait(&mut child, deadline);
    if result.is_err() {
        // It may have ended meanwhile.
        let _ = child.kill();
        child.wait()?;
    }
    result
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<(ExitStatus, String)> {
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s");
    let left = || deadline.saturating_duration_since(Instant::now());
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    // It ends with the output; the main thread does not wait for it.
    thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.take(MAX_OUTPUT).read_to_end(&mut output);
        // There is no receiver after the deadline.
        let _ = sender.send(read.map(|_| output));
    });
    let output = receiver.recv_timeout(left()).map_err(|_| timed_out())??;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, String::from_utf8_lossy(&output).into_owned()));
        }
        if left().is_zero() {
            return Err(timed_out());
        }
        thread::sleep(Duration::from_millis(5));
    }
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
        ["write ", "remove ", "set ", "add ", "name ", "see "]
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
    fn the_marker_is_found_in_programs_only_and_across_chunks() {
        let marker = cvmcache::CHECK_MARKER.as_bytes();
        let blank = vec![0; (1 << 20) - 10];
        assert!(has_marker(&[ELF, &blank, marker].concat()[..]).unwrap());
        assert!(has_marker(&[ELF, marker].concat()[..]).unwrap());
        assert!(!has_marker(&[b"#!/bin/sh\n", marker].concat()[..]).unwrap());
        assert!(!has_marker(&[ELF, &blank].concat()[..]).unwrap());
        assert!(!has_marker(&b""[..]).unwrap());
    }

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
    fn a_flood_of_output_ends_with_the_process() {
        let mut yes = Command::new("yes");
        let (status, output) = run(&mut yes).unwrap();
        assert!(!status.success());
        assert_eq!(output.len() as u64, MAX_OUTPUT);
    }
}
