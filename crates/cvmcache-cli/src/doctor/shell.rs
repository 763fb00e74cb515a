//! Lines of the client's configuration as a shell evaluates them.
//!
//! Nothing is run: quotes are understood, and everything else with a meaning to a shell is reported as
//! unclear.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::file::Line;

/// What a shell makes of more than the value of one key. A bracket, as in an IPv6 address, is one where no
/// file matches.
const SHELL: &[u8] = b"$`;&|<>(){}*?~\\";

/// What the client replaces, differently for each repository.
const TEMPLATES: [&str; 2] = ["@fqrn@", "@org@"];

/// What a line sets its key to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(OsString),
    /// To nothing: a shell does not take it for an assignment.
    Lost,
    /// To a value that only a shell could compute.
    Unclear,
}

/// The value that a line gives to its key.
pub(crate) fn value(line: &Line) -> Value {
    let is_for_shell = line.value.as_bytes().iter().any(|byte| SHELL.contains(byte));
    let value = line.value.to_string_lossy();
    if is_for_shell || TEMPLATES.iter().any(|template| value.contains(template)) {
        return Value::Unclear;
    }
    // A quote that goes on in the next line is nothing that doctor follows.
    let Some(words) = shlex::bytes::split(line.text.trim_ascii()) else { return Value::Unclear };
    let words = match words.as_slice() {
        [word, rest @ ..] if [&b"export"[..], b"readonly", b"eval"].contains(&&word[..]) => rest,
        words => words,
    };
    // Of several assignments in a line the client knows the first.
    let value = match words {
        [word, rest @ ..] if rest.iter().all(|word| is_assignment(word)) => {
            word.strip_prefix(line.key.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        }
        _ => None,
    };
    value.map_or(Value::Lost, |value| Value::Text(OsString::from_vec(value.to_vec())))
}

/// True for a line with a quote that is not closed in it: a shell reads on to the next one.
pub(crate) fn has_open_quote(line: &Line) -> bool {
    let mut open = None;
    let mut bytes = line.text.iter();
    let mut before = b' ';
    while let Some(&byte) = bytes.next() {
        match (byte, open) {
            (b'\\', None | Some(b'"')) => _ = bytes.next(),
            (b'#', None) if before.is_ascii_whitespace() => return false,
            (b'"' | b'\'', None) => open = Some(byte),
            (byte, Some(quote)) if byte == quote => open = None,
            _ => {}
        }
        before = byte;
    }
    open.is_some()
}

fn is_assignment(word: &[u8]) -> bool {
    let mut parts = word.splitn(2, |&byte| byte == b'=');
    let is_name = |name: &[u8]| {
        name.iter().all(|&byte| byte == b'_' || byte.is_ascii_alphanumeric())
            && name.first().is_some_and(|byte| !byte.is_ascii_digit())
    };
    parts.next().is_some_and(is_name) && parts.next().is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::ConfFile;
    use super::*;

    #[test]
    fn a_quote_is_open_unless_it_is_closed_in_its_line() {
        for (line, expected) in [
            (&b"K=\"v"[..], true),
            (b"K=v\"", true),
            (b"K='v\"", true),
            (b"K=it's", true),
            (b"K=\"v\\\"", true),
            (b"K=\"v\"", false),
            (b"K='it\"s'", false),
            (b"K=\\\"v", false),
            (b"K=v # it's", false),
            (b"K=\"$(cat \"f\")\"", false),
        ] {
            let file = ConfFile::parse(Path::new("default.local"), line);
            assert_eq!(has_open_quote(&file.lines()[0]), expected, "{line:?}");
        }
    }

    #[test]
    fn values_are_what_a_shell_makes_of_them() {
        for (line, expected) in [
            (&b"K=v"[..], Value::Text("v".into())),
            (b"  export K='v w' # comment", Value::Text("v w".into())),
            (b"K=\"v#w\"x", Value::Text("v#wx".into())),
            (b"K=''", Value::Text("".into())),
            (b"K=\xe9", Value::Text(OsString::from_vec(vec![0xe9]))),
            (b"K=v L=w", Value::Text("v".into())),
            (b"K = v", Value::Lost),
            (b"K= v", Value::Lost),
            (b"K =v", Value::Lost),
            (b"K=v w", Value::Lost),
            (b"K=$HOME/v", Value::Unclear),
            (b"K=/@fqrn@/v", Value::Unclear),
            (b"K=v; L=w", Value::Unclear),
            (b"K='v", Value::Unclear),
            (b"K=tcp=[::1]:4", Value::Text("tcp=[::1]:4".into())),
        ] {
            let file = ConfFile::parse(Path::new("default.local"), line);
            assert_eq!(value(&file.lines()[0]), expected, "{line:?}");
        }
    }
}
