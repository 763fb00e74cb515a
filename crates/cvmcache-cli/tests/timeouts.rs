//! `--timeout` of all commands that talk to a plugin, against peers that say a lot and no answer.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::client::{HandshakeAck, Reply, ReplyBody, ServerMessage};
use cvmcache::plugin::Capabilities;
use cvmcache_proto::frame;
use support::cvmcache;

/// What a peer sends over and over instead of an answer.
#[derive(Clone, Copy, Debug)]
enum Talk {
    /// Requests to detach.
    Detach,
    /// Replies to requests that were not sent.
    Foreign,
    /// A byte of a frame of 16 MiB.
    Dribble,
}

/// More than the timeout takes, and less than a test that hangs.
const BOUND: Duration = Duration::from_secs(20);

fn encoded(message: ServerMessage) -> Vec<u8> {
    let (message, attachment) = message.into_wire();
    let mut bytes = Vec::new();
    frame::encode(message, attachment.len(), &mut bytes).expect("a peer");
    bytes
}

/// Answers a handshake, if it is to, and then talks. The threads end with their connections, or the tests.
fn start_peer(path: &Path, talk: Talk, greets: bool) {
    let listener = UnixListener::bind(path).expect("a peer");
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(move || serve(connection.expect("a peer"), talk, greets));
        }
    });
}

fn serve(mut connection: UnixStream, talk: Talk, greets: bool) {
    let ack = HandshakeAck {
        result: Ok(()),
        name: "peer".into(),
        protocol_version: 1,
        session: 1,
        max_object_size: 4096,
        capabilities: Capabilities::ALL,
        pid: None,
    };
    let mut listener = connection.try_clone().expect("a peer");
    thread::spawn(move || while let Ok(1..) = listener.read(&mut [0; 4096]) {});
    let mut sent = Ok(());
    if greets {
        sent = connection.write_all(&encoded(ServerMessage::HandshakeAck(ack)));
    }
    let body = || ReplyBody::Refcount(Ok(()));
    let (first, again) = match talk {
        Talk::Detach => (Vec::new(), encoded(ServerMessage::Detach)),
        Talk::Foreign => {
            (Vec::new(), encoded(ServerMessage::Reply(Reply { id: 1 << 40, body: body() })))
        }
        Talk::Dribble => (vec![0x01, 0xff, 0xff, 0xff], vec![b'x']),
    };
    sent = sent.and_then(|()| connection.write_all(&first));
    while sent.is_ok() {
        // So that it is not the machine that is tested.
        thread::sleep(Duration::from_millis(5));
        sent = connection.write_all(&again);
    }
}

#[test]
fn a_timeout_is_the_bound_of_an_answer_whatever_else_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let file = file.to_str().unwrap();
    let id = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    for (number, talk) in [Talk::Detach, Talk::Foreign, Talk::Dribble].into_iter().enumerate() {
        let path = directory.path().join(format!("socket{number}"));
        start_peer(&path, talk, true);
        let locator = format!("unix={}", path.display());
        let commands: &[&[&str]] = &[
            &["info", &locator, "--timeout", "1"],
            &["ls", &locator, "--timeout", "1"],
            &["stat", &locator, id, "--timeout", "1"],
            &["get", &locator, id, "--timeout", "1"],
            &["put", &locator, file, "--timeout", "1"],
            &["shrink", &locator, "0", "--timeout", "1"],
            &["check", &locator, "--filter", "object-absent", "--timeout", "1"],
        ];
        thread::scope(|scope| {
            for arguments in commands {
                scope.spawn(move || {
                    let begun = Instant::now();
                    let output = cvmcache(arguments).output().unwrap();
                    assert!(begun.elapsed() < BOUND, "{talk:?}: {arguments:?}");
                    assert_eq!(
                        output.status.code(),
                        Some(1),
                        "{talk:?}: {arguments:?}: {output:?}"
                    );
                    let text = [output.stdout, output.stderr].concat();
                    let text = String::from_utf8(text).unwrap();
                    assert!(text.contains("within the timeout"), "{arguments:?}: {text}");
                });
            }
        });
    }
}

#[test]
fn a_handshake_has_one_timeout_with_the_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    start_peer(&path, Talk::Dribble, false);
    let locator = format!("unix={}", path.display());
    let begun = Instant::now();
    let output = cvmcache(&["info", &locator, "--timeout", "1"]).output().unwrap();
    assert!(begun.elapsed() < BOUND);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("does not answer the handshake within the timeout"), "{text}");
}
