//! `cvmcache sessions`: the clients of a plugin, and what each holds.

use std::collections::HashMap;
use std::io::Write;

use bytesize::ByteSize;
use clap::Args;

use crate::Verdict;
use crate::admin::AdminRemote;
use crate::admin::schema::{Session, Sessions as Answer};
use crate::error::Result;
use crate::output::{self, FAINT};
use crate::user::User;

const EXAMPLES: &str = "\
Examples:
  cvmcache sessions unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache sessions --json | jq '.sessions[] | select(.unsent_bytes > 0)'

Columns, of each session:
  client  process and user of the client, or its address over TCP
  age     since it connected
  refs    objects that it holds open, which cannot be evicted
  upl     uploads that have begun and not ended
  busy    requests that workers have
  unsent  bytes of replies that it has not taken
  req     requests since it connected, in thousands (k), millions (M) and so on
  hits    of the objects that it opened, how many were there

It uses the plugin's administration socket, as the plugin's user or root.";

const INSTEAD: &str = "the protocol does not tell of other clients; what it does tell is shown by \
                       cvmcache info, ls and top";

const HEADER: [&str; 10] =
    ["id", "repository", "client", "age", "refs", "upl", "busy", "unsent", "req", "hits"];

/// The fewest columns of a repository.
const NARROWEST: usize = 12;

/// Show the clients of a plugin: what each holds, waits for, and has requested
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sessions {
    #[command(flatten)]
    remote: AdminRemote,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Sessions {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let admin = self.remote.find("sessions", INSTEAD)?;
        let answer = admin.get::<Answer>("/v1/sessions")?;
        if self.json {
            output::json(out, &answer.json)?;
        } else {
            print(out, answer.value.sessions, output::terminal_width())?;
        }
        Ok(Verdict::Good)
    }
}

fn print(out: &mut dyn Write, mut sessions: Vec<Session>, width: Option<usize>) -> Result<()> {
    sessions.sort_by(|one, other| (&one.repository, one.id).cmp(&(&other.repository, other.id)));
    let mut users = HashMap::new();
    let mut rows: Vec<_> = sessions.iter().map(|session| row(session, &mut users)).collect();
    let total = total(&sessions);
    if let Some(width) = width {
        let others: usize = (0..HEADER.len())
            .filter(|column| *column != 1)
            .map(|column| {
                let cells = rows.iter().chain([&total]).map(|row| row[column].chars().count());
                cells.chain([HEADER[column].len()]).max().unwrap_or_default() + 2
            })
            .sum();
        // The last column has nothing behind it.
        let room = width.saturating_sub(others).max(NARROWEST);
        for row in &mut rows {
            row[1] = output::shortened(&row[1], room);
        }
    }
    if !rows.is_empty() {
        rows.push(total);
        output::table(out, &HEADER, rows, 3)?;
    }
    let repositories = {
        let mut names: Vec<_> = sessions.iter().map(|session| &session.repository).collect();
        names.dedup();
        names.len()
    };
    let plural = |n: usize, one: &str, more: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{} {more}", output::count(n as u64)),
    };
    let sessions = plural(sessions.len(), "session", "sessions");
    let repositories = plural(repositories, "repository", "repositories");
    writeln!(out, "{FAINT}{sessions} of {repositories}{FAINT:#}")?;
    Ok(())
}

fn row(session: &Session, users: &mut HashMap<u32, String>) -> Vec<String> {
    vec![
        session.id.to_string(),
        output::escaped(&session.repository),
        client(session, users),
        output::age(session.age_seconds),
        session.references.to_string(),
        session.uploads.to_string(),
        session.in_flight.to_string(),
        size(session.unsent_bytes),
        number(session.requests),
        output::percent(ratio(session.hits, session.misses)),
    ]
}

fn total(sessions: &[Session]) -> Vec<String> {
    let sum = |of: fn(&Session) -> u64| sessions.iter().map(of).sum::<u64>();
    let (hits, misses) = (sum(|session| session.hits), sum(|session| session.misses));
    vec![
        String::new(),
        "total".to_owned(),
        String::new(),
        String::new(),
        sum(|session| session.references).to_string(),
        sum(|session| session.uploads).to_string(),
        sum(|session| session.in_flight).to_string(),
        size(sum(|session| session.unsent_bytes)),
        number(sum(|session| session.requests)),
        output::percent(ratio(hits, misses)),
    ]
}

/// The process and its user, as far as they are known.
fn client(session: &Session, users: &mut HashMap<u32, String>) -> String {
    if let Some(address) = &session.address {
        return output::escaped(address);
    }
    let user = session.uid.map(|uid| {
        let name = || User::named(&uid.to_string()).map(|user| user.to_string());
        users.entry(uid).or_insert_with(|| name().unwrap_or_else(|| uid.to_string())).clone()
    });
    match (session.pid, user) {
        (Some(pid), Some(user)) => format!("{pid} {user}"),
        (Some(pid), None) => pid.to_string(),
        (None, Some(user)) => user,
        (None, None) => "-".to_owned(),
    }
}

/// Hits among all that was opened; none before the first.
pub(crate) fn ratio(hits: u64, misses: u64) -> Option<f64> {
    let all = hits.saturating_add(misses);
    (all > 0).then(|| hits as f64 / all as f64)
}

/// A number in at most five columns.
fn number(n: u64) -> String {
    match n {
        0..100_000 => n.to_string(),
        100_000..10_000_000 => format!("{}k", n / 1000),
        10_000_000..10_000_000_000 => format!("{}M", n / 1_000_000),
        n => format!("{}G", n / 1_000_000_000),
    }
}

/// A size in few columns.
fn size(bytes: u64) -> String {
    if bytes == 0 { "0".to_owned() } else { ByteSize(bytes).display().iec_short().to_string() }
}

#[cfg(test)]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;

    fn session(id: u64, repository: &str) -> Session {
        Session {
            id,
            repository: repository.to_owned(),
            pid: Some(1_234_567),
            uid: Some(0),
            address: None,
            age_seconds: 200_000.0,
            references: 12_345,
            uploads: 12,
            in_flight: 32,
            unsent_bytes: 130 << 20,
            requests: 4_000_000_000,
            hits: 999,
            misses: 1,
        }
    }

    fn shown(sessions: Vec<Session>, width: Option<usize>) -> String {
        let mut out = Vec::new();
        print(&mut out, sessions, width).unwrap();
        anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
    }

    #[test]
    fn large_numbers_and_long_names_fit_into_80_columns() {
        let remote = Session {
            address: Some("10.0.0.7".to_owned()),
            pid: None,
            ..session(9, "atlas-conditions-of-this-year.cern.ch:1")
        };
        let none = Session { hits: 0, misses: 0, ..session(1234, "x.cern.ch") };
        let shown = shown(vec![none, remote, session(1, "atlas.cern.ch")], Some(80));
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert_data_eq!(
            shown,
            str![[r#"
id    repository        client        age   refs  upl  busy  unsent    req  hits
9     atlas-co…rn.ch:1  10.0.0.7       2d  12345   12    32  130.0M  4000M  99 %
1     atlas.cern.ch     1234567 root   2d  12345   12    32  130.0M  4000M  99 %
1234  x.cern.ch         1234567 root   2d  12345   12    32  130.0M  4000M     -
      total                                37035   36    96  390.0M    12G  99 %
3 sessions of 3 repositories

"#]]
        );
    }

    #[test]
    fn names_are_whole_where_there_is_no_terminal() {
        let name = "r".repeat(200);
        assert!(shown(vec![session(1, &name)], None).contains(&name));
        assert_eq!(shown(vec![], None), "0 sessions of 0 repositories\n");
    }

    #[test]
    fn numbers_take_at_most_five_columns() {
        let shown = [99_999, 100_000, 9_999_999, 10_000_000, 12_000_000_000].map(number);
        assert_eq!(shown, ["99999", "100k", "9999k", "10M", "12G"]);
    }
}
