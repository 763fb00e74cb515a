//! `cvmcache ls`: the objects of a plugin, as the listing arrives.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::Args;
use cvmcache::client::{Client, ClientError, Operation, ReplyBody, RequestKind, Ticket};
use cvmcache::plugin::{Capabilities, ListEntry, ObjectType, Status};
use serde::Serialize;

use crate::Verdict;
use crate::error::Result;
use crate::object_type;
use crate::output::{self, FAINT, WARN};
use crate::remote::Remote;

const EXAMPLES: &str = "\
Examples:
  cvmcache ls unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache ls --pinned --type catalog    # CVMCACHE_LOCATOR is set
  cvmcache ls --size --json | jq -s 'sort_by(.size) | reverse | .[:10]'

A line is the type, \"pinned\" if a client holds the object open or else \"-\", with --size
its size, its id, and its description: usually the path that it was first read under.
Terminal control sequences are escaped, as in \\x1b or \\u{9b}.

With --json, a line is an object with the fields type, pinned, size if asked for, id and
description. A description that is not UTF-8 has replacement characters there, and its bytes
in description_hex. The size is null, or -, if the object was evicted meanwhile.

Objects that are stored or evicted meanwhile may be listed or not. What was listed before
an error is printed, and the exit status is 1.";

/// How many requests for a size are in flight.
const SIZES_IN_FLIGHT: usize = 64;

/// List objects: type, whether pinned, id and description
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ls {
    #[command(flatten)]
    remote: Remote,
    /// Only objects of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = object_type::parser())]
    only: Option<ObjectType>,
    /// Only pinned objects: those that a client holds open
    #[arg(long)]
    pinned: bool,
    /// Show sizes, too: one more request for each object
    #[arg(short = 'l', long)]
    size: bool,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// An object to show.
struct Line {
    object_type: ObjectType,
    entry: ListEntry,
    /// `Some` with --size, and then `None` if the object is gone.
    size: Option<Option<u64>>,
}

/// The same for programs.
#[derive(Serialize)]
struct JsonLine<'a> {
    #[serde(rename = "type")]
    object_type: &'static str,
    pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<Option<u64>>,
    id: String,
    description: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description_hex: Option<String>,
}

/// What has been listed so far.
#[derive(Debug, Default)]
struct Totals {
    objects: u64,
    pinned: u64,
    bytes: u64,
}

impl Ls {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let mut client = self.remote.connect_for("ls", Capabilities::LIST)?;
        let mut out = BufWriter::with_capacity(64 * 1024, out);
        let mut totals = Totals::default();
        for object_type in ObjectType::ALL {
            if self.only.is_none_or(|only| only == object_type) {
                self.list(&mut client, object_type, &mut out, &mut totals)?;
            }
        }
        client.quit().map_err(|error| self.remote.error(error))?;
        if io::stderr().is_terminal() {
            output::note(&totals.text(self.size));
        }
        Ok(Verdict::Good)
    }

    /// Holds one part of the listing in memory at a time.
    fn list(
        &self,
        client: &mut Client,
        object_type: ObjectType,
        out: &mut BufWriter<&mut dyn Write>,
        totals: &mut Totals,
    ) -> Result<()> {
        let mut listing = 0;
        loop {
            let part = client.list_part(listing, object_type).map_err(|source| {
                let (name, objects) = (object_type::name(object_type), totals.objects);
                let doing = format!("listing {name} objects, after {objects} in all");
                self.remote.error_while(doing, source)
            })?;
            let entries = part.entries.into_iter().filter(|entry| entry.pinned || !self.pinned);
            if self.size {
                self.print_with_sizes(client, object_type, entries, out, totals)?;
            } else {
                for entry in entries {
                    self.print(&Line { object_type, entry, size: None }, out, totals)?;
                }
            }
            // Shows the part at once, and ends the listing if the reader has closed the pipe.
            out.flush()?;
            if part.last {
                return Ok(());
            }
            listing = part.listing;
        }
    }

    fn print_with_sizes(
        &self,
        client: &mut Client,
        object_type: ObjectType,
        mut entries: impl Iterator<Item = ListEntry>,
        out: &mut dyn Write,
        totals: &mut Totals,
    ) -> Result<()> {
        let mut in_flight: VecDeque<(ListEntry, Ticket)> = VecDeque::with_capacity(SIZES_IN_FLIGHT);
        loop {
            while in_flight.len() < SIZES_IN_FLIGHT
                && let Some(entry) = entries.next()
            {
                let request = Operation::ObjectInfo { object: entry.id };
                let ticket = client.queue(request).map_err(|error| self.remote.error(error))?;
                in_flight.push_back((entry, ticket));
            }
            let Some((entry, ticket)) = in_flight.pop_front() else { return Ok(()) };
            let size = client.wait(ticket).and_then(size);
            let size = size.map_err(|error| {
                self.remote.error_while(format!("asking for the size of {}", entry.id), error)
            })?;
            self.print(&Line { object_type, entry, size: Some(size) }, out, totals)?;
        }
    }

    fn print(&self, line: &Line, out: &mut dyn Write, totals: &mut Totals) -> Result<()> {
        totals.objects += 1;
        totals.pinned += u64::from(line.entry.pinned);
        totals.bytes = totals.bytes.saturating_add(line.size.flatten().unwrap_or(0));
        if self.json { line.print_json(out) } else { line.print(out) }
    }
}

impl Line {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let pinned = match self.entry.pinned {
            true => format!("{WARN}pinned{WARN:#}"),
            false => format!("{FAINT}-     {FAINT:#}"),
        };
        write!(out, "{:<8}  {pinned}  ", object_type::name(self.object_type))?;
        if let Some(size) = self.size {
            let size = size.map_or_else(|| "-".to_owned(), output::bytes);
            write!(out, "{size:>10}  ")?;
        }
        let description = self.entry.description.as_deref().map(output::text);
        let line = format!("{}  {}", self.entry.id, description.unwrap_or_default());
        writeln!(out, "{}", line.trim_end())?;
        Ok(())
    }

    fn print_json(&self, out: &mut dyn Write) -> Result<()> {
        let description = self.entry.description.as_deref();
        let not_utf8 = description.filter(|bytes| str::from_utf8(bytes).is_err());
        let json = serde_json::to_string(&JsonLine {
            object_type: object_type::name(self.object_type),
            pinned: self.entry.pinned,
            size: self.size,
            id: self.entry.id.to_string(),
            description: description.map(String::from_utf8_lossy),
            description_hex: not_utf8
                .map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        })?;
        writeln!(out, "{}", escape_invisible(&json))?;
        Ok(())
    }
}

impl Totals {
    fn text(&self, sizes: bool) -> String {
        let (objects, pinned) = (output::count(self.objects), output::count(self.pinned));
        let bytes = if sizes { format!(", {}", output::bytes(self.bytes)) } else { String::new() };
        format!("{objects} objects, {pinned} pinned{bytes}")
    }
}

/// The size in a reply; none if the object is gone.
fn size(reply: ReplyBody) -> std::result::Result<Option<u64>, ClientError> {
    match reply {
        ReplyBody::ObjectInfo(Ok(info)) => Ok(Some(info.size)),
        ReplyBody::ObjectInfo(Err(Status::NoEntry)) => Ok(None),
        ReplyBody::ObjectInfo(Err(status)) => Err(status.into()),
        _ => Err(ClientError::Unexpected {
            asked: RequestKind::ObjectInfo,
            reason: "it is the answer to something else",
        }),
    }
}

/// Equivalent JSON without terminal control sequences: JSON does not require controls of C1 to be
/// escaped in strings.
fn escape_invisible(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii_graphic() || c == ' ' || c.escape_debug().len() == 1 {
            escaped.push(c);
        } else {
            let mut units = [0; 2];
            escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_json_has_the_same_value() {
        for text in ["/a b", "\"\\\n", "caf\u{e9}", "\u{7f}\u{9b}2J\u{202e}", "\u{e0001}"] {
            let escaped = escape_invisible(&serde_json::to_string(text).unwrap());
            assert!(escaped.chars().all(|c| c.escape_debug().len() == 1 || c.is_ascii_graphic()));
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
