//! `cvmcache doctor` asks the program of a plugin for its judgement of a configuration.

mod support;

use std::fs;
use std::path::Path;

use support::site::Site;
use support::{cvmcache, program, ram, start_ram};

#[test]
fn a_program_that_is_named_judges_its_configuration() {
    let mut site = Site::new();
    site.plugin += "CVMFS_CACHE_PLUGIN_SIZE=lots\n";
    site.write();
    let (conf, program) = (site.path("plugin.conf"), ram());
    let arguments = ["doctor", "--config", conf.to_str().unwrap(), "--user", &site.user];
    let command = cvmcache(&arguments).arg("--program").arg(&program);
    command.assert().code(1).stdout_eq("...\n  error    plugin-error: [..]lots[..]\n...\n");
    // One that runs need not be named.
    let plugin = start_ram();
    let mut site = Site::around(plugin.locator());
    site.plugin += "CVMFS_CACHE_PLUGIN_SIZE=lots\n";
    site.write();
    let conf = site.path("plugin.conf");
    let arguments = ["doctor", "--config", conf.to_str().unwrap(), "--user", &site.user];
    let expected = "...\n  error    plugin-error: [..]lots[..]\n...\n";
    cvmcache(&arguments).assert().code(1).stdout_eq(expected);
}

/// A site with the program of a plugin of the SDK.
fn site_of(plugin: &Path) -> Site {
    let mut site = Site::new();
    let usual = site.path("program").display().to_string();
    site.replace_in_client(&usual, &plugin.display().to_string());
    site
}

#[test]
fn a_plugin_of_the_sdk_judges_its_own_configuration() {
    type Mistake = fn(&mut Site);
    let mistakes: &[(&str, &str, Mistake)] = &[
        ("plugin-error", "SIZE", |site| site.replace_in_plugin("SIZE=100", "SIZE=lots")),
        ("plugin-warning", "is CVMFS_CACHE_PLUGIN_SIZE meant", |site| {
            site.plugin += "CVMFS_CACHE_PLUGIN_SZIE=1\n";
        }),
        ("cmdline-arguments", "unexpected argument \"\"", |site| {
            site.replace_in_client("plugin.conf", "plugin.conf,");
        }),
        ("cmdline-arguments", "unexpected argument \"more\"", |site| {
            site.replace_in_client("plugin.conf", "plugin.conf,more");
        }),
        ("cmdline-arguments", "takes no option \"--check\"", |site| {
            let conf = site.path("plugin.conf").display().to_string();
            site.replace_in_client(&conf, &format!("--check,{conf}"));
        }),
        ("plugin-error", "cannot listen on tcp=192.0.2.1:4224", |site| {
            let socket = format!("unix={}", site.path("socket").display());
            site.replace_in_plugin(&socket, "tcp=192.0.2.1:4224");
        }),
    ];
    for (name, text, make) in mistakes {
        let mut site = site_of(&ram());
        make(&mut site);
        assert_judged(&site, name, text);
    }
}

#[test]
fn a_mistake_in_the_arguments_hides_none_in_the_configuration() {
    let mut site = site_of(&ram());
    site.replace_in_client("plugin.conf", "plugin.conf,");
    site.replace_in_client("=external", "=externl");
    site.replace_in_plugin("SIZE=100", "SIZE=lots");
    for (name, text) in
        [("type-unknown", "externl"), ("cmdline-arguments", "unexpected"), ("plugin-error", "lots")]
    {
        assert_judged(&site, name, text);
    }
}

#[test]
fn the_redis_cache_judges_its_own_keys() {
    for (line, text) in [
        ("", "CVMFS_CACHE_PLUGIN_REDIS_URL"),
        ("CVMFS_CACHE_PLUGIN_REDIS_URL=redis://127.0.0.1:1\nCVMFS_CACHE_PLUGIN_SIZE=x\n", "SIZE"),
        (
            "CVMFS_CACHE_PLUGIN_REDIS_URL=redis://127.0.0.1:1\n\
             CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT=x\n",
            "TIMEOUT",
        ),
    ] {
        let mut site = site_of(&program("cvmcache-redis"));
        site.replace_in_plugin("CVMFS_CACHE_PLUGIN_SIZE=100\n", line);
        assert_judged(&site, "plugin-error", text);
    }
}

#[test]
fn a_metrics_port_that_another_process_has_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = site_of(&ram());
    let port = listener.local_addr().unwrap().port();
    site.plugin += &format!("CVMFS_CACHE_PLUGIN_METRICS={port}\n");
    assert_judged(&site, "plugin-error", "METRICS");
}

#[test]
fn the_plugin_behind_a_script_is_asked() {
    let mut site = Site::new();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", ram().display());
    fs::write(site.path("program"), script).unwrap();
    site.replace_in_plugin("SIZE=100", "SIZE=lots");
    assert_judged(&site, "plugin-asked-behind-script", "is a script");
    assert_judged(&site, "plugin-error", "lots");
}

fn assert_judged(site: &Site, name: &str, text: &str) {
    let (names, _) = site.findings();
    assert!(names.iter().any(|found| found == name), "{names:?}");
    let output = site.doctor(&[]).output().expect("doctor starts");
    let output = String::from_utf8_lossy(&output.stdout);
    let lines = output.lines().filter(|line| line.contains(&format!(" {name}: ")));
    let about: Vec<_> = lines.filter(|line| line.contains(text)).collect();
    assert!(!about.is_empty(), "{output}");
}

#[test]
fn a_program_that_is_not_of_the_sdk_is_not_run() {
    let site = Site::new();
    let trace = site.path("trace");
    let script = format!("#!/bin/sh\necho $* > {}\n# {}", trace.display(), cvmcache::CHECK_MARKER);
    fs::write(site.path("program"), script).unwrap();
    let output = site.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("plugin-without-check: "), "{text}");
    assert!(!trace.exists());
}
