use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use super::*;
use cvmcache_testkit::check_key_table;
use redis_test_servers::Certificates;

fn options(lines: &str) -> Options {
    Options::parse(lines.as_bytes()).for_plugin("redis")
}

fn config(lines: &str) -> Config {
    Config::from_options(&options(lines)).unwrap()
}

#[track_caller]
fn error(lines: &str) -> String {
    match Config::from_options(&options(lines)) {
        Ok(config) => panic!("{lines:?} was taken: {config:?}"),
        Err(error) => error.to_string(),
    }
}

const SOMEWHERE: &str = "CVMFS_CACHE_PLUGIN_REDIS_URL=redis://somewhere";

fn with(lines: &str) -> String {
    format!("{SOMEWHERE}\n{lines}")
}

#[test]
fn the_url_is_the_only_required_key() {
    let config = config(SOMEWHERE);
    assert_eq!(config.server.to_string(), "redis://somewhere:6379");
    assert_eq!(config.size, 1000 << 20);
    assert_eq!(&*config.prefix, "cvmfs");
    assert_eq!(config.timeout, Duration::from_secs(5));
    assert_eq!(config.lease, Duration::from_secs(60));
    assert!(config.secret.is_none() && !config.per_repository && config.tls.is_none());
}

#[test]
fn every_key_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (key, password) = (directory.path().join("key"), directory.path().join("password"));
    fs::write(&key, [7; 32]).unwrap();
    fs::write(&password, "s3cret\nanything\n").unwrap();
    let config = config(&with(&format!(
        "CVMFS_CACHE_PLUGIN_SIZE=200\nCVMFS_CACHE_PLUGIN_REDIS_PREFIX=a.b/c:d_e-9\n\
         CVMFS_CACHE_PLUGIN_REDIS_PER_REPOSITORY=On\nCVMFS_CACHE_PLUGIN_REDIS_TIMEOUT=100\n\
         CVMFS_CACHE_PLUGIN_REDIS_LEASE=3\nCVMFS_CACHE_PLUGIN_REDIS_KEYFILE={}\n\
         CVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE={}\n",
        key.display(),
        password.display()
    )));
    assert_eq!(config.size, 200 << 20);
    assert_eq!(&*config.prefix, "a.b/c:d_e-9");
    assert!(config.per_repository);
    assert_eq!(config.timeout, Duration::from_millis(100));
    assert_eq!(config.lease, Duration::from_secs(3));
    assert_eq!(config.secret.as_deref(), Some(&[7; 32][..]));
    assert_eq!(read_password(&config.password_file.unwrap()).unwrap(), "s3cret");
}

#[test]
fn the_keys_of_the_tutorial_are_understood() {
    let tutorial = "CVMFS_CACHE_redis_REDIS_SERVER_ADDRESS=10.0.0.1\n";
    assert_eq!(config(tutorial).server.to_string(), "redis://10.0.0.1:6379");
    let with_port = format!("{tutorial}CVMFS_CACHE_redis_REDIS_SERVER_PORT=7000");
    assert_eq!(config(&with_port).server.to_string(), "redis://10.0.0.1:7000");
    assert_eq!(
        config(&format!("{with_port}\n{SOMEWHERE}")).server.to_string(),
        "redis://somewhere:6379"
    );
    let v6 = "CVMFS_CACHE_redis_REDIS_SERVER_ADDRESS=::1";
    assert_eq!(config(v6).server.to_string(), "redis://[::1]:6379");
}

#[test]
fn a_url_is_parsed_to_its_server() {
    for (url, shown, tls, cluster) in [
        ("redis://h", "redis://h:6379", false, false),
        ("redis://u:p@h:1/2", "redis://h:1", false, false),
        ("redis://:p@[::1]:1", "redis://[::1]:1", false, false),
        ("rediss://h:1", "rediss://h:1", true, false),
        ("unix:///run/redis.sock?db=1&user=u&pass=p", "unix:///run/redis.sock", false, false),
        ("redis+unix:///run/redis.sock", "unix:///run/redis.sock", false, false),
        ("redis+cluster://a:1", "redis+cluster://a:1", false, true),
        ("redis+cluster://u:p@a:1,b:2,[::1]:3", "redis+cluster://a:1,b:2,[::1]:3", false, true),
        ("rediss+cluster://a,b", "rediss+cluster://a:6379,b:6379", true, true),
    ] {
        let server: Server = url.parse().unwrap();
        assert_eq!(server.to_string(), shown, "{url}");
        assert_eq!((server.uses_tls(), server.is_cluster()), (tls, cluster), "{url}");
        let has_password = url.contains(":p@") || url.contains("pass=p");
        assert_eq!(server.password(), has_password.then_some("p"), "{url}");
    }
}

#[test]
fn an_invalid_url_is_refused_with_a_remedy() {
    for (url, remedy) in [
        ("", "redis://host:6379"),
        ("somewhere:6379", "redis://host:6379"),
        ("http://somewhere", "redis://host:6379"),
        ("redis://", "redis://host:6379"),
        ("redis://h:port", "redis://host:6379"),
        ("redis://h/first", "redis://host:6379"),
        ("redis://h/-1", "from 0"),
        ("redis://a,b", "redis+cluster://"),
        ("redis+cluster://a,,b", "redis://host:6379"),
        ("redis+cluster://a/1", "no database"),
        ("unix+cluster:///run/redis.sock", "no unix sockets"),
        ("rediss://h/#insecure", "name a CA"),
    ] {
        let shown = match url.split_once("://") {
            Some((scheme, rest)) => {
                format!("{scheme}://{}", if rest.is_empty() { "" } else { "***" })
            }
            None if url.is_empty() => String::new(),
            None => "***".to_owned(),
        };
        let key = format!("CVMFS_CACHE_PLUGIN_REDIS_URL={shown:?}: ");
        // A comment begins with #, so the whole of it is set.
        let mut options = Options::new();
        options.set(URL, url);
        let error = Config::from_options(&options).unwrap_err().to_string();
        assert!(error.starts_with(&key) && error.contains(remedy), "{url}: {error}");
    }
    let mut options = Options::new();
    options.set(URL, OsString::from_vec(b"redis://\xff".to_vec()));
    assert!(Config::from_options(&options).is_err());
}

#[test]
fn no_text_contains_the_password() {
    for url in [
        "redis://user:s3cret@h",
        "redis://:s3cret@h:1/2",
        "unix:///run/redis.sock?pass=s3cret",
        "rediss+cluster://user:s3cret@a,b",
    ] {
        let config = Config::new(url).unwrap();
        assert_eq!(config.server.password(), Some("s3cret"), "{url}");
        let shown = format!("{config:?} {:?} {}", config.server, config.server);
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    for url in [
        "redis://user:s3cret@h:port",
        "redis://user:s3cret/and@more@h",
        "redis://user:s3cret@",
        "redis://:s3cret",
        "redis://user:s3cret%40h",
        "http://user:s3cret@h",
        "user:s3cret@h",
        "redis://a:s3cret@x@h:port?pass=s3cret",
        "unix://?pass=s3cret",
        "redis://user:s3cret@a,b",
        // What is left of a password with a # in it.
        "redis://user:s3cret",
        "redis://user:s3",
        "redis://s3cret:x",
        "redis://user:4711/s3cret@h",
        "redis://h/s3cret",
        "redis+cluster://user:s3cret/x,b@h",
        "s3cret://h",
        "s3cret",
        "user:s3cret",
        "redis:/user:s3cret@h",
        "rediss://user:s3cret@h/#insecure",
    ] {
        let mut options = Options::new();
        options.set(URL, url);
        let error = Config::from_options(&options).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", Config::new(url).unwrap_err());
        assert!(!shown.contains("s3"), "{shown}");
    }
    let secret = Secret::new(b"s3cret".repeat(6)).unwrap();
    assert!(!format!("{secret:?}").contains("115"), "{secret:?}");
}

#[test]
fn a_url_with_a_comment_in_it_is_refused_and_not_printed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("conf");
    for (line, is_refused) in [
        ("CVMFS_CACHE_PLUGIN_REDIS_URL=redis://user:4711#s3cret@h", true),
        ("CVMFS_CACHE_redis_REDIS_URL = redis://user47#s3cret@h", true),
        ("export CVMFS_CACHE_PLUGIN_REDIS_URL='redis://user:4711#@h'", true),
        ("CVMFS_CACHE_PLUGIN_REDIS_URL=redis://h # 4711#", false),
        ("#CVMFS_CACHE_PLUGIN_REDIS_URL=redis://h#\nCVMFS_CACHE_PLUGIN_REDIS_URL=redis://h", false),
    ] {
        fs::write(&file, line).unwrap();
        let read = Config::from_options(&Options::from_file(&file).unwrap().for_plugin("redis"));
        assert_eq!(read.is_err(), is_refused, "{line}");
        if let Err(error) = read {
            let shown = format!("{error} {error:?}");
            let hidden = !shown.contains("4711") && !shown.contains("user");
            assert!(shown.contains("%23") && hidden, "{shown}");
        }
    }
}

#[test]
fn a_password_in_the_place_of_its_file_is_not_printed() {
    for url in ["redis://h", "http://h"] {
        let lines = format!(
            "CVMFS_CACHE_PLUGIN_REDIS_URL={url}\nCVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE=s3cret"
        );
        let options = options(&lines);
        let first = Config::from_options(&options).unwrap_err();
        let shown = format!("{first} {first:?} {:?}", Config::errors(&options));
        assert!(!shown.contains("s3cret") && shown.contains("PASSWORD_FILE"), "{shown}");
    }
}

#[test]
fn an_invalid_server_address_is_not_printed() {
    let options = options("CVMFS_CACHE_redis_REDIS_SERVER_ADDRESS=user:s3cret@h:port");
    let shown = format!("{:?}", Config::errors(&options));
    assert!(!shown.contains("s3cret") && shown.contains("SERVER_ADDRESS"), "{shown}");
}

#[test]
fn an_error_names_key_value_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let short = directory.path().join("short");
    fs::write(&short, [7; 31]).unwrap();
    let empty = directory.path().join("empty");
    fs::write(&empty, "\nx").unwrap();
    let huge = directory.path().join("huge");
    fs::write(&huge, vec![7; 1 << 17]).unwrap();
    let path = |path: &Path| path.display().to_string();
    for (key, value, remedy) in [
        ("CVMFS_CACHE_PLUGIN_SIZE", "50%", "write megabytes"),
        ("CVMFS_CACHE_PLUGIN_SIZE", "lots", "as in 1000"),
        ("CVMFS_CACHE_PLUGIN_SIZE", "99999999999999", "as in 1000"),
        ("CVMFS_CACHE_PLUGIN_REDIS_PREFIX", "a{b}", "letters"),
        ("CVMFS_CACHE_PLUGIN_REDIS_PREFIX", "a*", "letters"),
        ("CVMFS_CACHE_PLUGIN_REDIS_PREFIX", "", "1 to 64"),
        ("CVMFS_CACHE_PLUGIN_REDIS_PER_REPOSITORY", "perhaps", "on or off"),
        ("CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT", "0", "from 100 to 60000"),
        ("CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT", "5s", "from 100 to 60000"),
        ("CVMFS_CACHE_PLUGIN_REDIS_LEASE", "3601", "from 3 to 3600"),
        ("CVMFS_CACHE_PLUGIN_REDIS_KEYFILE", "/nowhere/key", "that the plugin's user can read"),
        ("CVMFS_CACHE_PLUGIN_REDIS_KEYFILE", &path(&short), "head -c 32"),
        ("CVMFS_CACHE_PLUGIN_REDIS_KEYFILE", &path(&huge), "the right file"),
        ("CVMFS_CACHE_PLUGIN_REDIS_KEYFILE", "/", "cannot read"),
        (
            "CVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE",
            "/nowhere/password",
            "that the plugin's user can read",
        ),
        ("CVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE", &path(&empty), "write it there"),
        ("CVMFS_CACHE_PLUGIN_REDIS_CA", "/nowhere/ca", "write rediss://"),
        ("CVMFS_CACHE_PLUGIN_REDIS_CERT_KEY", "/nowhere/key", "write rediss://"),
    ] {
        let error = error(&with(&format!("{key}={value}")));
        assert!(error.starts_with(&format!("{key}={value:?}: ")), "{error}");
        assert!(error.contains(remedy), "{error}");
    }
    assert!(error("").starts_with("CVMFS_CACHE_PLUGIN_REDIS_URL is missing: name the server"));
    let both =
        "CVMFS_CACHE_PLUGIN_REDIS_URL=redis://:p@h\nCVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE=/p";
    assert!(error(both).contains("has a password already"));
    let bad_port =
        "CVMFS_CACHE_redis_REDIS_SERVER_ADDRESS=h\nCVMFS_CACHE_redis_REDIS_SERVER_PORT=x";
    assert!(error(bad_port).starts_with("CVMFS_CACHE_redis_REDIS_SERVER_PORT=\"x\": "));
}

#[test]
fn an_unusable_certificate_is_an_error_of_its_key() {
    let certificates = Certificates::new();
    let other = Certificates::new();
    let lines = |ca: &Path, certificate: &Path, key: &Path| {
        format!(
            "CVMFS_CACHE_PLUGIN_REDIS_URL=rediss://h\nCVMFS_CACHE_PLUGIN_REDIS_CA={}\n\
             CVMFS_CACHE_PLUGIN_REDIS_CERT={}\nCVMFS_CACHE_PLUGIN_REDIS_CERT_KEY={}",
            ca.display(),
            certificate.display(),
            key.display()
        )
    };
    let (ca, own, key) =
        (certificates.path("ca"), certificates.path("client"), certificates.key_path("client"));
    assert!(config(&lines(&ca, &own, &key)).tls.is_some());
    let nowhere = Path::new("/nowhere");
    for (lines, key) in [
        (lines(nowhere, &own, &key), CA),
        (lines(&key, &own, &key), CA),
        (lines(&ca, nowhere, &key), CERT),
        (lines(&ca, &own, nowhere), CERT_KEY),
        (lines(&ca, &own, &ca), CERT_KEY),
        (lines(&ca, &key, &key), CERT),
        (lines(&ca, &own, &other.key_path("client")), CERT),
    ] {
        let error = error(&lines);
        assert!(error.starts_with(&format!("{}=", key.name())), "{error}");
    }
    let alone =
        format!("CVMFS_CACHE_PLUGIN_REDIS_URL=rediss://h\n{}={}", CERT.name(), own.display());
    assert!(error(&alone).starts_with("CVMFS_CACHE_PLUGIN_REDIS_CERT_KEY is missing"));
}

#[test]
fn the_tables_of_configuration_keys_are_those_of_the_cache() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let reference = root.join("crates/cvmcache-redis/src/config/keys.md");
    check_key_table(&reference, "", Config::KEYS);
    check_key_table(&root.join("docs/redis.md"), "<!-- configuration keys -->\n", Config::KEYS);
}

#[test]
fn all_mistakes_are_found_at_once_even_without_a_server() {
    let lines = "CVMFS_CACHE_PLUGIN_REDIS_URL=http://x\n\
                 CVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE=/nowhere/password\n\
                 CVMFS_CACHE_PLUGIN_REDIS_CA=/nowhere/ca\n\
                 CVMFS_CACHE_PLUGIN_SIZE=10%\n\
                 CVMFS_CACHE_PLUGIN_REDIS_PREFIX={}\n\
                 CVMFS_CACHE_PLUGIN_REDIS_KEYFILE=/nowhere/key\n\
                 CVMFS_CACHE_PLUGIN_REDIS_PER_REPOSITORY=maybe\n\
                 CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT=1\n\
                 CVMFS_CACHE_PLUGIN_REDIS_LEASE=1\n";
    let errors = Config::errors(&options(lines));
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let named = lines.lines().map(|line| line.split('=').next().unwrap());
    for (error, key) in errors.iter().zip(named) {
        assert!(error.starts_with(&format!("{key}=")), "{error} is not of {key}");
    }
    assert_eq!(errors.len(), 9, "{errors:#?}");
}
