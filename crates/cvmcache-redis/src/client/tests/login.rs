//! Connections: TCP, TLS and unix sockets, users and passwords.

use redis::cmd;

use super::*;
use crate::config::Tls;
use redis_test_servers::{Certificates, Setup, eventually};

#[test]
fn a_server_on_tcp_or_a_unix_socket_serves_with_and_without_a_password() {
    for setup in [
        Setup::new(),
        Setup::new().tcp(),
        Setup::new().password("s3cret"),
        Setup::new().tcp().password("s3cret"),
    ] {
        let server = setup.start();
        connected(&config(&server.url(), LONG)).serves();
    }
}

#[test]
fn a_user_with_a_password_and_a_database_of_its_own_is_served() {
    let server = Setup::new().tcp().line("user me on >p%ss@/ ~* &* +@all").start();
    let url = format!("redis://me:p%25ss%40%2F@127.0.0.1:{}/3", server.port());
    connected(&config(&url, LONG)).set("k").unwrap();
    let mut connection = server.connect();
    cmd("SELECT").arg(3).exec(&mut connection).unwrap();
    assert_eq!(cmd("GET").arg("k").query(&mut connection), Ok("k".to_owned()));
}

#[test]
fn a_server_with_tls_serves_if_its_authority_is_trusted() {
    let certificates = Certificates::new();
    let server = Setup::new().tls(&certificates).start();
    let trusting = |authority: &Certificates| Config {
        tls: Some(Tls::new(Some(&authority.path("ca")), None).unwrap()),
        ..config(&server.url(), LONG)
    };
    connected(&trusting(&certificates)).serves();
    let (failure, at_once) = timed(|| connected(&trusting(&Certificates::new())).ping());
    assert_eq!((failure, at_once), (Err(Failure::Unreachable), true));
}

#[test]
fn the_certificate_is_shown_to_a_server_that_requires_one() {
    let certificates = Certificates::new().mutual();
    let server = Setup::new().tls(&certificates).start();
    let (ca, own, key) =
        (certificates.path("ca"), certificates.path("client"), certificates.key_path("client"));
    let with = |identity| Config {
        tls: Some(Tls::new(Some(&ca), identity).unwrap()),
        ..config(&server.url(), LONG)
    };
    connected(&with(Some((&own, &key)))).serves();
    assert_eq!(connected(&with(None)).ping(), Err(Failure::Unreachable));
}

#[test]
fn a_wrong_password_is_an_error_that_does_not_contain_it() {
    let server = Setup::new().tcp().password("right").start();
    for login in ["", ":wr0ng@", "me:wr0ng@"] {
        let url = format!("redis://{login}127.0.0.1:{}", server.port());
        let error = try_connect(&config(&url, LONG)).err().unwrap();
        assert!(matches!(error, ConfigError::AccessDenied { .. }), "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("127.0.0.1") && !text.contains("wr0ng"), "{text}");
    }
}

#[test]
fn the_password_file_is_read_for_each_connection() {
    let mut server = Setup::new().tcp().password("old").start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "old\n").unwrap();
    let url = format!("redis://127.0.0.1:{}", server.port());
    let client = connected(&Config { password_file: Some(file.clone()), ..config(&url, LONG) });
    client.ping().unwrap();
    server.kill();
    std::fs::write(&file, "new\n").unwrap();
    server.restart();
    eventually("the old password is in the configuration, and refused is the new one", || {
        matches!(client.ping(), Err(Failure::AccessDenied(_)))
    });
    server.say("CONFIG SET requirepass new");
    eventually("the new password is good", || client.ping().is_ok());
}
