//! Errors of the crate `object_store` as those of a store, without secrets.
//!
//! Its texts have URLs, which may be signed, and whole answers of the server: that to a wrong signature repeats the
//! request with its session token. So texts are made anew of status and error code.

use std::error::Error;
use std::io;

use object_store::client::HttpError;

use crate::cold::ColdError;

/// The error codes that S3 sends under status 400 for credentials that have expired.
const EXPIRED: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "RequestExpired",
    "TokenRefreshRequired",
];

/// The error codes of status 404 that say that there is no such object, and not that the bucket is missing.
const NO_OBJECT: &[&str] = &["NoSuchKey", "NoSuchVersion", "BlobNotFound", "NotFound"];

/// What an error of `object_store` means.
pub(crate) fn translate(error: object_store::Error) -> ColdError {
    use object_store::Error as E;

    let text = chain(&error);
    let code = tag(&text, "Code");
    let said = || match (status(&text), code) {
        (Some(status), Some(code)) => format!("status {status}, {code}"),
        (Some(status), None) => format!("status {status}"),
        (None, _) if is_ours(&error) => innermost(&error),
        // Errors of parsers quote what they were given.
        (None, _) => "its answer is not understood".into(),
    };
    match status(&text) {
        Some(404 | 410) => match code {
            Some(code) if !NO_OBJECT.contains(&code) => ColdError::Failed(said()),
            _ => ColdError::NotFound,
        },
        Some(412) => ColdError::Changed,
        Some(401 | 403) => ColdError::Denied(said()),
        Some(400) if code.is_some_and(|code| EXPIRED.contains(&code)) => ColdError::Denied(said()),
        // A success is one with `InternalError` or `SlowDown` in its body.
        Some(408 | 409 | 429 | 500.. | 200..300) => ColdError::Unavailable(said()),
        Some(300..400) => ColdError::Failed(format!("{}, a redirect", said())),
        Some(_) => ColdError::Failed(said()),
        None => match &error {
            E::NotFound { .. } => ColdError::NotFound,
            E::Precondition { .. } => ColdError::Changed,
            E::JoinError { .. } => ColdError::Unavailable(said()),
            _ if find::<HttpError>(&error).is_some() => ColdError::Unavailable(said()),
            _ => match find::<io::Error>(&error).map(io::Error::kind) {
                Some(io::ErrorKind::PermissionDenied) => ColdError::Denied(said()),
                Some(_) => ColdError::Unavailable(said()),
                None => ColdError::Failed(said()),
            },
        },
    }
}

/// True if a server has answered a request for a range with all of the object.
pub(crate) fn is_without_ranges(error: &object_store::Error) -> bool {
    let text = chain(error);
    text.contains("Received non-partial response") || text.contains("Range request not supported")
}

/// True if there is a body with an answer that has no error code of a store.
pub(crate) fn is_page(error: &object_store::Error) -> bool {
    let text = chain(error);
    let body = text.split_once("Server returned non-2xx status code: ");
    let body = body.and_then(|(_, rest)| rest.split_once(": "));
    tag(&text, "Code").is_none()
        && body.is_some_and(|(_, body)| !body.lines().next().unwrap_or_default().trim().is_empty())
}

/// Text in which URLs have neither user and password nor a query.
pub(crate) fn without_secrets(text: &str) -> String {
    text.split_inclusive(|c: char| c.is_whitespace() || "\"'<>()".contains(c))
        .map(|word| match word.split_once("://") {
            None => word.to_owned(),
            Some((scheme, rest)) => {
                let end = rest.len() - rest.trim_end_matches(|c: char| !c.is_alphanumeric()).len();
                let (rest, end) = rest.split_at(rest.len() - end);
                let rest = rest.split(['?', '#']).next().unwrap_or_default();
                let (authority, path) = match rest.find('/') {
                    Some(at) => rest.split_at(at),
                    None => (rest, ""),
                };
                let host = authority.rsplit('@').next().unwrap_or_default();
                let end =
                    end.trim_start_matches(|c: char| c.is_ascii_graphic() && c != '"' && c != ')');
                format!("{scheme}://{host}{path}{end}")
            }
        })
        .collect()
}

/// The texts of an error and of all below it.
fn chain(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += "\n";
        text += &error.to_string();
        source = error.source();
    }
    text
}

/// True if an error is of the network or of a file, and not of what a server has answered.
fn is_ours(error: &object_store::Error) -> bool {
    find::<HttpError>(error).is_some() || find::<io::Error>(error).is_some()
}

/// The text of the innermost error: those around it have URLs.
pub(crate) fn innermost(error: &object_store::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    without_secrets(&innermost.to_string())
}

fn find<T: Error + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// The status of the server's answer: the crate tells it in its texts only.
fn status(text: &str) -> Option<u16> {
    if text.contains("Received redirect without LOCATION") {
        return Some(301);
    }
    if text.contains("Server returned error response") {
        return Some(200);
    }
    let (_, rest) = text.split_once("Server returned non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The word in this element of XML.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (word, _) = rest.split_once('<')?;
    let is_word = !word.is_empty() && word.len() <= 64;
    (is_word && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')).then_some(word)
}
