//! A look into a running plugin by its administration socket: its health, and whether it runs with the files
//! that are there now.

use std::time::Duration;

use cvmcache::Locator;

use super::kind::Kind;
use super::plugin_conf::PluginConf;
use super::report::Section;
use crate::admin::schema::{Configuration, Health, Setting, Version};
use crate::admin::{Admin, Error};
use crate::output;

/// How long each answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many keys a finding names.
const MAX_KEYS: usize = 5;

/// What the kernel appends to the path of a program whose file was removed or replaced (proc(5)).
const DELETED: &str = " (deleted)";

/// Checks health, program and configuration. True if the configuration in force is known.
pub(super) fn check(
    locator: &Locator,
    pid: Option<u64>,
    conf: Option<&PluginConf>,
    anew: &str,
    section: &mut Section,
) -> bool {
    let Some(admin) = Admin::of(locator, pid, TIMEOUT) else {
        section.fine("it has no administration socket to look into it by");
        return false;
    };
    match look(&admin, conf, anew, section) {
        Ok(is_known) => is_known,
        Err(error) if error.is_refusal() => {
            section.found(Kind::NotLookedAt, error.to_string(), "run cvmcache doctor as root");
            false
        }
        Err(error) => {
            let remedy = "look at its log, and at cvmcache admin";
            section.found(Kind::AdministrationFails, error.to_string(), remedy);
            false
        }
    }
}

/// What a plugin that does not answer its clients says about itself.
pub(super) fn health(locator: &Locator) -> Option<String> {
    let admin = Admin::of(locator, None, TIMEOUT)?;
    let health = admin.get_of_any_status::<Health>("/v1/health").ok()?.value;
    (!health.problems.is_empty()).then(|| output::escaped(&health.problems.join("; ")))
}

fn look(
    admin: &Admin,
    conf: Option<&PluginConf>,
    anew: &str,
    section: &mut Section,
) -> Result<bool, Error> {
    let health = admin.get_of_any_status::<Health>("/v1/health")?.value;
    if health.status == "ok" {
        section.fine(format!("it is well, says {}", admin.path().display()));
    }
    for problem in &health.problems {
        let remedy = "look at its log, and at the storage or server behind it";
        section.found(Kind::PluginFailing, output::escaped(problem), remedy);
    }
    let version = admin.get::<Version>("/v1/version")?.value;
    if let Some(program) = version.executable.as_deref().and_then(|it| it.strip_suffix(DELETED)) {
        let found = format!(
            "{}, which process {} runs, was replaced or removed {}",
            output::escaped(program),
            version.pid,
            "after the start"
        );
        section.found(Kind::ProgramReplaced, found, anew);
    }
    let settings = admin.get::<Configuration>("/v1/configuration")?.value.settings;
    if let Some(conf) = conf.filter(|_| !settings.is_empty()) {
        compare(conf, &settings, anew, section);
    }
    Ok(!settings.is_empty())
}

/// Compares a file with what the plugin has read when it started.
fn compare(conf: &PluginConf, settings: &[Setting], anew: &str, section: &mut Section) {
    let differences: Vec<_> = settings.iter().filter_map(|it| difference(conf, it)).collect();
    let path = conf.path.display();
    if differences.is_empty() {
        section.fine(format!("it runs with {path} as it is now"));
        return;
    }
    let rest = match differences.len().saturating_sub(MAX_KEYS) {
        0 => String::new(),
        rest => format!("; and {rest} more"),
    };
    let named = differences[..differences.len().min(MAX_KEYS)].join("; ");
    let found = format!("{path} is not what the plugin runs with: {named}{rest}");
    section.found(Kind::ConfigurationNotInUse, found, anew);
}

/// How the value of a file differs from that in force.
fn difference(conf: &PluginConf, setting: &Setting) -> Option<String> {
    let key = output::escaped(&setting.key);
    let in_file = conf.value(&setting.key).map(|value| value.to_string_lossy());
    let in_force = setting.value.as_deref();
    match (in_file, in_force, setting.source.as_str()) {
        // It is not told, so all that is known is whether there is one.
        (Some(_), Some(value), "file") if value.contains("(secret)") => None,
        (Some(file), Some(value), _) if file == value => None,
        (None, _, source) if source != "file" => None,
        (Some(_), _, "environment") => None,
        (Some(file), in_force, _) => {
            let in_force = in_force.map_or_else(|| "nothing".to_owned(), output::escaped);
            Some(format!("{key}={}, but {in_force} is in force", output::escaped(&file)))
        }
        (None, in_force, _) => {
            let in_force = in_force.map(output::escaped).unwrap_or_default();
            Some(format!("{key} is not there, but {in_force} is in force"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::ConfFile;
    use super::*;
    use crate::user::User;

    fn setting(key: &str, value: Option<&str>, source: &str) -> Setting {
        let (value, source) = (value.map(str::to_owned), source.to_owned());
        Setting { key: format!("CVMFS_CACHE_{key}"), value, default: None, source }
    }

    fn differences(file: &str, settings: &[Setting]) -> Vec<String> {
        let file = ConfFile::parse(Path::new("/conf"), file.as_bytes());
        let conf = PluginConf::check(&file, &User::current(), &mut Section::new("file"));
        settings.iter().filter_map(|setting| difference(&conf, setting)).collect()
    }

    #[test]
    fn values_that_a_file_no_longer_has_or_has_anew_differ() {
        let file = "CVMFS_CACHE_PLUGIN_LOCATOR=unix=/s\nCVMFS_CACHE_PLUGIN_SIZE=200\n\
                    CVMFS_CACHE_PLUGIN_POLL=200\nCVMFS_CACHE_PLUGIN_TOKEN=new\n\
                    CVMFS_CACHE_PLUGIN_DEBUGLOG=/log\n";
        let found = differences(
            file,
            &[
                setting("PLUGIN_LOCATOR", Some("unix=/s"), "file"),
                setting("PLUGIN_SIZE", Some("100"), "file"),
                // The default is written out now.
                setting("PLUGIN_POLL", Some("200"), "default"),
                setting("PLUGIN_TOKEN", Some("(secret)"), "file"),
                setting("PLUGIN_DEBUGLOG", None, "default"),
                setting("PLUGIN_WORKERS", Some("4"), "file"),
                setting("PLUGIN_METRICS", None, "default"),
                setting("PLUGIN_ALLOW", Some("10.0.0.0/8"), "default"),
            ],
        );
        assert_eq!(
            found,
            [
                "CVMFS_CACHE_PLUGIN_SIZE=200, but 100 is in force",
                "CVMFS_CACHE_PLUGIN_DEBUGLOG=/log, but nothing is in force",
                "CVMFS_CACHE_PLUGIN_WORKERS is not there, but 4 is in force",
            ]
        );
    }

    #[test]
    fn keys_with_the_name_of_the_plugin_are_those_of_every_plugin() {
        let file = "CVMFS_CACHE_ram_LOCATOR=unix=/s\nCVMFS_CACHE_PLUGIN_SIZE=100\n";
        let found = differences(
            file,
            &[
                setting("PLUGIN_LOCATOR", Some("unix=/s"), "file"),
                setting("ram_SIZE", Some("100"), "file"),
            ],
        );
        assert_eq!(found, [""; 0]);
    }
}
