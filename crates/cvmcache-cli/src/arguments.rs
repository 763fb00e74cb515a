//! The command line: which commands there are.

use clap::{Parser, Subcommand};

#[cfg(feature = "tier")]
use crate::tier;
use crate::{
    admin, bench, check, completions, config, detach, doctor, get, info, log_level, ls, man, put,
    sessions, shrink, soak, stat, stats, top,
};

const EXAMPLES: &str = "\
Examples:
  cvmcache doctor /etc/cvmfs/default.local
  cvmcache info unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache check --spawn './my-plugin {conf}'
  cvmcache bench --spawn './my-plugin {conf}' --limit

LOCATOR is where the plugin listens, as in its configuration: unix=/path/to/socket
or tcp=host:port. Commands that look into a plugin take it from CVMCACHE_LOCATOR
if it is not given.

Exit status:
  0  all is well
  1  the command found something wrong, or could not do its work
  2  it was not understood";

/// Checks, measures and looks after any CernVM-FS cache plugin, in any language.
#[derive(Debug, Parser)]
#[command(name = "cvmcache", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) color: colorchoice_clap::Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Admin(admin::command::AdminCommand),
    Bench(Box<bench::Bench>),
    Check(check::Check),
    Completions(completions::Completions),
    Config(config::Config),
    Detach(detach::Detach),
    Doctor(doctor::Doctor),
    Get(get::Get),
    Info(info::Info),
    LogLevel(log_level::LogLevel),
    Ls(ls::Ls),
    Man(man::Man),
    Put(put::Put),
    Sessions(sessions::Sessions),
    Shrink(shrink::Shrink),
    Soak(soak::Soak),
    SoakClient(soak::SoakClient),
    Stat(stat::Stat),
    Stats(stats::Stats),
    #[cfg(feature = "tier")]
    Tier(tier::Tier),
    Top(top::Top),
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_error_in_the_command_line() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has none", command.get_name());
        }
    }

    /// The words of each `cvmcache` command in the blocks of shell in a page.
    fn commands(page: &str) -> Vec<Vec<String>> {
        let blocks = page.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        let lines = blocks.flat_map(|block| {
            block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>()
        });
        lines.filter_map(|line| words_of(&line)).collect()
    }

    fn words_of(line: &str) -> Option<Vec<String>> {
        let line = line.split(" | ").next()?.split(" # ").next()?.trim_end_matches(" &");
        let line = line.replace("cargo run --release -p cvmcache-cli -- ", "cvmcache ");
        let words = shlex::split(&line)?;
        let is_command = |word: &String| {
            word == "cvmcache" || word.ends_with("/cvmcache") && !word.contains('=')
        };
        is_command(words.first()?).then_some(words)
    }

    #[test]
    fn the_commands_in_the_book_parse() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pages = fs::read_dir(root.join("docs")).unwrap().map(|page| page.unwrap().path());
        let mut seen = 0;
        for page in pages.chain([root.join("README.md"), root.join("CONTRIBUTING.md")]) {
            if page.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            for words in commands(&fs::read_to_string(&page).unwrap()) {
                // In the table of rows it stands for what they are.
                let words: Vec<_> = words.into_iter().filter(|word| word != "ARGUMENTS").collect();
                let parsed = Arguments::try_parse_from(&words);
                assert!(parsed.is_ok(), "{}: {words:?}: {}", page.display(), parsed.unwrap_err());
                seen += 1;
            }
        }
        assert!(seen > 15, "there are {seen} only");
    }
}
