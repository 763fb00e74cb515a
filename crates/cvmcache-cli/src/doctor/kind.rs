//! The kinds of findings: their names, which scripts and docs/doctor.md use, severities, and why they
//! matter.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// Mounts fail, or go without the plugin.
    Error,
    /// It works, but probably not as intended.
    Warning,
    /// Good to know.
    Note,
}

/// What can be found. The names are kebab-case, and stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    // Both files.
    FileUnreadable,
    KeyTwice,
    // The client's file.
    CarriageReturn,
    NotAnAssignment,
    QuoteNotClosed,
    NotExpanded,
    UserUnknown,
    PrimaryMissing,
    InstanceNameBad,
    TypeMissing,
    TypeUnknown,
    NotExternal,
    TierMissing,
    TiersCircular,
    ClientKeyMisspelled,
    ClientLocatorMissing,
    ClientLocatorBad,
    LocatorNotForClient,
    LocatorShared,
    CmdlineBlanks,
    CmdlineEmptyArgument,
    CmdlineArguments,
    PathRelative,
    ProgramMissing,
    ProgramNotExecutable,
    InterpreterNotNamed,
    ConfigurationNotNamed,
    ConfigurationMissing,
    ConfigurationUnreadable,
    OtherConfiguration,
    // The plugin's file.
    LineSkipped,
    KeyMisspelled,
    KeyUnknown,
    PluginLocatorMissing,
    PluginLocatorBad,
    LocatorsDiffer,
    LocatorsSpelledDifferently,
    PluginError,
    PluginWarning,
    PluginNote,
    PluginFails,
    PluginNotAsked,
    PluginWithoutCheck,
    PluginAskedBehindScript,
    AllowBad,
    AllowMissing,
    AllowExcludesClient,
    AllowUsersBad,
    WorkersBad,
    PollBad,
    DebugLogNotWritable,
    CrashDumpNotWritable,
    MetricsBad,
    MetricsExposed,
    // The socket.
    SocketNameLong,
    SocketDirectoryMissing,
    SocketDirectoryNotWritable,
    SocketDirectoryExposed,
    SocketDirectoryNotKept,
    SocketOnNetwork,
    NotASocket,
    StaleSocket,
    SocketNotRemovable,
    LockNotWritable,
    LockHeld,
    // The plugin behind it.
    PluginNotRunning,
    PluginNotStarted,
    PluginForeign,
    PluginRefuses,
    PluginSilent,
    NotAPlugin,
    SizeNotInUse,
    ConfigurationNotInUse,
    ProgramReplaced,
    PluginFailing,
    AdministrationFails,
    // Where doctor lacks permissions.
    NotLookedAt,
}

impl Kind {
    pub(crate) fn severity(self) -> Severity {
        self.about().0
    }

    /// Why it matters, in one clause.
    pub(crate) fn why(self) -> &'static str {
        self.about().1
    }

    #[rustfmt::skip]
    fn about(self) -> (Severity, &'static str) {
        use Severity::{Error, Note, Warning};
        match self {
            Self::FileUnreadable => (Error, "nothing that it says can be checked"),
            Self::KeyTwice => (Warning, "only the last one counts"),
            Self::CarriageReturn => (Error, "the client takes it for a part of the value"),
            Self::NotAnAssignment => (Error, "the client has a shell read its configuration, which \
                takes this for a command and leaves the key empty"),
            Self::QuoteNotClosed => (Error, "the client has a shell read its configuration, which reads on to the next quote"),
            Self::NotExpanded => (Note, "doctor reads lines of KEY=VALUE, it does not run a shell as the client does"),
            Self::UserUnknown => (Error, "the client cannot become that user, so nothing is mounted"),
            Self::PrimaryMissing => (Error, "without it, the client uses its own cache on disk and no plugin"),
            Self::InstanceNameBad => (Error, "the client takes names of up to 24 letters, digits and underscores"),
            Self::TypeMissing => (Error, "the client does not mount with a cache of no type"),
            Self::TypeUnknown => (Error, "the client knows posix, ram, tiered and external caches"),
            Self::NotExternal => (Error, "only a cache of type external is a plugin"),
            Self::TierMissing => (Error, "a tiered cache consists of an upper and a lower one"),
            Self::TiersCircular => (Error, "a cache cannot be a part of itself"),
            Self::ClientKeyMisspelled => (Warning, "the client does not look at it"),
            Self::ClientLocatorMissing => (Error, "the client does not know where its plugin listens"),
            Self::ClientLocatorBad => (Error, "the client does not find its plugin"),
            Self::LocatorNotForClient => (Error, "the client understands less than plugins do, and does not get there"),
            Self::LocatorShared => (Warning, "both caches are one plugin: what the client moves \
                from one to the other is there already"),
            Self::CmdlineBlanks => (Error, "commas separate the arguments, and a blank becomes part \
                of one or ends the value"),
            Self::CmdlineEmptyArgument => (Warning, "the plugin gets an argument that is empty, and \
                may take it for its configuration"),
            Self::CmdlineArguments => (Error, "the plugin refuses these arguments, and does not start"),
            Self::PathRelative => (Warning, "it depends on the directory that the process happens to be in"),
            Self::ProgramMissing => (Error, "the client cannot start its plugin"),
            Self::ProgramNotExecutable => (Error, "the client cannot start its plugin"),
            Self::InterpreterNotNamed => (Warning, "the kernel does not run it; the client gets it \
                run only where its C library calls /bin/sh"),
            Self::ConfigurationNotNamed => (Warning, "the plugin then listens at its default \
                locator, or does not start"),
            Self::ConfigurationMissing => (Error, "the plugin does not start without it"),
            Self::ConfigurationUnreadable => (Error, "the plugin runs as that user, and does not start without it"),
            Self::OtherConfiguration => (Warning, "the client starts its plugin with another file \
                than the one that was checked"),
            Self::LineSkipped => (Warning, "the plugin skips what is not KEY=VALUE"),
            Self::KeyMisspelled => (Warning, "the plugin does not look at it"),
            Self::KeyUnknown => (Note, "most plugins do not look at it"),
            Self::PluginLocatorMissing => (Error, "the plugin does not start"),
            Self::PluginLocatorBad => (Error, "the plugin does not start"),
            Self::LocatorsDiffer => (Error, "the client looks for its plugin where it does not listen"),
            Self::LocatorsSpelledDifferently => (Note, "they mean the same, but are easily changed apart"),
            Self::PluginError => (Error, "the plugin does not start: it says so itself, asked with --check"),
            Self::PluginWarning => (Warning, "the plugin says so itself, asked with --check"),
            Self::PluginNote => (Note, "the plugin says so itself, asked with --check"),
            Self::PluginFails => (Error, "asked with --check, it ends without an answer, as it \
                would when it is started"),
            Self::PluginNotAsked => (Note, "the plugin could not be asked, so the keys of its own are not judged"),
            Self::PluginWithoutCheck => (Note, "it cannot be asked, so the keys of its own are not judged"),
            Self::PluginAskedBehindScript => (Note, "what the script changes is not known"),
            Self::AllowBad => (Error, "the plugin does not start, or refuses every client"),
            Self::AllowMissing => (Warning, "there is no authentication: any host that can connect \
                can read and fill the cache"),
            Self::AllowExcludesClient => (Error, "the plugin turns the client away"),
            Self::AllowUsersBad => (Error, "the plugin does not start"),
            Self::WorkersBad => (Error, "the plugin does not start"),
            Self::PollBad => (Error, "the plugin does not start"),
            Self::DebugLogNotWritable => (Error, "the plugin does not start without its log"),
            Self::CrashDumpNotWritable => (Warning, "crashes are reported to syslog only"),
            Self::MetricsBad => (Error, "the plugin does not start, or its metrics are not found"),
            Self::MetricsExposed => (Warning, "any host that can connect can read them, and block others"),
            Self::SocketNameLong => (Error, "with .lock after it, the name is longer than the 255 \
                bytes of a file name"),
            Self::SocketDirectoryMissing => (Error, "the plugin cannot make its socket"),
            Self::SocketDirectoryNotWritable => (Error, "the plugin runs as that user, and cannot make its socket"),
            Self::SocketDirectoryExposed => (Warning, "any user can replace the plugin's socket"),
            Self::SocketDirectoryNotKept => (Note, "the system removes what lies there, at boot or after a while"),
            Self::SocketOnNetwork => (Warning, "locks may not work there, and other machines that \
                share the path fight for it"),
            Self::NotASocket => (Error, "the plugin leaves it alone and refuses to start"),
            Self::StaleSocket => (Note, "a plugin was killed, and the next one to start replaces it"),
            Self::SocketNotRemovable => (Error, "a killed plugin left it, and the next one cannot replace it"),
            Self::LockNotWritable => (Error, "the plugin cannot lock it, and refuses to start"),
            Self::LockHeld => (Error, "a process holds the lock but does not listen: no new mount \
                gets a plugin, and none can start"),
            Self::PluginNotRunning => (Error, "the client's configuration has no command line to \
                start it, so nothing is mounted"),
            Self::PluginNotStarted => (Note, "it does not run yet"),
            Self::PluginForeign => (Error, "the client cannot connect to a socket that is not its user's"),
            Self::PluginRefuses => (Error, "the client gets no session, so nothing is mounted"),
            Self::PluginSilent => (Error, "the client would wait for ever"),
            Self::NotAPlugin => (Error, "what listens there does not speak the protocol of cache plugins"),
            Self::SizeNotInUse => (Warning, "it was started with another configuration"),
            Self::ConfigurationNotInUse => (Warning, "the plugin reads its configuration when it \
                starts, and what changed since is not in force"),
            Self::ProgramReplaced => (Note, "the old program goes on running until the plugin is started anew"),
            Self::PluginFailing => (Error, "clients wait, or get errors: the plugin says so itself"),
            Self::AdministrationFails => (Warning, "clients may be served all the same, but the \
                plugin cannot be looked into"),
            Self::NotLookedAt => (Note, "doctor may not look there"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_book_has_every_finding_and_no_other() {
        let book = include_str!("../../../../docs/doctor.md");
        let rows = book.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.strip_suffix('`')?;
            Some(format!("{name}: {}", cells.next()?))
        });
        let documented = BTreeSet::from_iter(rows);
        let severity = |kind: &Kind| format!("{:?}", kind.severity()).to_lowercase();
        let kinds = Kind::value_variants().iter();
        let existing = kinds.map(|kind| format!("{kind}: {}", severity(kind))).collect();
        let difference: Vec<_> = documented.symmetric_difference(&existing).collect();
        assert!(difference.is_empty(), "{difference:#?}");
    }
}
