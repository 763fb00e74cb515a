//! A connection with valid and invalid bytes and messages.

use std::sync::mpsc;

use cvmcache_proto::{FrameError, Operation, Request, StorePart};

use super::*;
use crate::client::fake::{self, DETACH, FakePlugin};

const TIMEOUT: Option<Duration> = Some(Duration::from_millis(20));

#[test]
fn arbitrary_bytes_can_be_sent_and_an_end_of_file_is_none() {
    let (plugin, mut connection) = FakePlugin::with_connection(|end| {
        end.answer_handshake(fake::ack());
    });
    // A handshake of version 1, in two pieces.
    connection.send_raw(&[0x01, 0x05, 0x00, 0x00, 0x82]).unwrap();
    connection.send_raw(&[0x01, 0x02, 0x08, 0x01]).unwrap();
    let ack = connection.receive().unwrap();
    assert_eq!(ack, Some(ServerMessage::HandshakeAck(fake::ack())));
    assert_eq!(connection.receive().unwrap(), None);
    assert_eq!(connection.receive().unwrap(), None, "and it stays ended");
    plugin.join();
}

#[test]
fn an_end_of_file_within_a_message_is_an_error() {
    let (plugin, mut connection) = FakePlugin::with_connection(|end| end.send_raw(&DETACH[..5]));
    assert!(matches!(connection.receive(), Err(ClientError::Closed)));
    plugin.join();
}

#[test]
fn replies_before_an_end_of_file_are_received() {
    let (plugin, mut connection) = FakePlugin::with_connection(|end| {
        end.send_raw(DETACH);
        // What it has not read when it closes makes the system tell of a broken connection.
        end.wait_until_readable();
    });
    connection.send_raw(DETACH).unwrap();
    plugin.join();
    connection.queue(ClientMessage::Quit { session: 1 }).unwrap();
    assert_eq!(connection.receive().unwrap(), Some(ServerMessage::Detach));
    assert_eq!(connection.receive().unwrap(), None);
    let error = connection.send(ClientMessage::Quit { session: 1 }).unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error}");
}

#[test]
fn polling_does_not_wait_for_a_message() {
    let (say, is_said) = mpsc::channel();
    let (plugin, mut connection) = FakePlugin::with_connection(move |end| {
        is_said.recv().unwrap();
        end.send_raw(DETACH);
    });
    assert_eq!(connection.try_receive().unwrap(), None);
    say.send(()).unwrap();
    plugin.join();
    assert_eq!(connection.try_receive().unwrap(), Some(ServerMessage::Detach));
    assert_eq!(connection.try_receive().unwrap(), None);
}

#[test]
fn invalid_messages_are_told_from_invalid_frames() {
    let (plugin, mut connection) = FakePlugin::with_connection(|end| {
        // A handshake, which is a client's; then no frame at all.
        end.send_raw(&[0x01, 0x05, 0x00, 0x00, 0x82, 0x01, 0x02, 0x08, 0x01]);
        end.send_raw(b"HTTP/1.1 400 Bad Request");
    });
    assert!(matches!(connection.receive(), Err(ClientError::BadMessage)));
    let error = connection.receive().unwrap_err();
    assert!(matches!(error, ClientError::Frame(FrameError::Version(b'H'))), "{error}");
    plugin.join();
}

#[test]
fn a_message_whose_send_timed_out_is_sent_before_the_next() {
    let (listen, is_listening) = mpsc::channel();
    let (plugin, mut connection) = FakePlugin::with_connection(move |end| {
        is_listening.recv().unwrap();
        assert!(end.next() == Some(large(1)));
        assert!(end.next() == Some(large(2)));
    });
    connection.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let error = connection.send(large(1)).unwrap_err();
    assert!(matches!(error, ClientError::Timeout), "{error}");
    listen.send(()).unwrap();
    connection.set_read_timeout(None).unwrap();
    connection.send(large(2)).unwrap();
    plugin.join();
}

#[test]
fn a_plugin_that_closed_its_write_half_can_still_be_sent_to() {
    let (listen, is_listening) = mpsc::channel();
    let (plugin, mut connection) = FakePlugin::with_connection(move |end| {
        end.shutdown_write();
        is_listening.recv().unwrap();
        assert!(end.next() == Some(large(1)));
        end.expect_end();
    });
    assert_eq!(connection.receive().unwrap(), None);
    listen.send(()).unwrap();
    connection.send(large(1)).unwrap();
    connection.shutdown_write().unwrap();
    plugin.join();
}

#[test]
fn bytes_of_a_partial_message_do_not_extend_the_deadline_of_a_receive() {
    let (plugin, mut connection) = FakePlugin::with_connection(|end| {
        // A frame of 16 MiB.
        end.send_raw(&[0x01, 0xff, 0xff, 0xff]);
        end.repeat(b"x");
    });
    connection.set_read_timeout(TIMEOUT).unwrap();
    assert!(matches!(connection.receive(), Err(ClientError::Timeout)));
    drop(connection);
    plugin.join();
}

#[test]
fn bytes_read_now_and_then_do_not_extend_the_deadline_of_a_send() {
    let (plugin, mut connection) = FakePlugin::with_connection(fake::PluginEnd::read_slowly);
    connection.set_read_timeout(TIMEOUT).unwrap();
    assert!(matches!(connection.send(large(1)), Err(ClientError::Timeout)));
    let raw = connection.send_raw(&[0; 1024 * 1024]);
    assert!(matches!(raw, Err(ClientError::Timeout)));
    drop(connection);
    plugin.join();
}

#[test]
fn messages_do_not_extend_the_deadline_of_a_send() {
    let (plugin, mut connection) = FakePlugin::with_connection(|end| end.repeat(DETACH));
    connection.set_read_timeout(TIMEOUT).unwrap();
    assert!(matches!(connection.send(large(1)), Err(ClientError::Timeout)));
    drop(connection);
    plugin.join();
}

#[test]
fn other_messages_do_not_extend_the_deadline_of_the_first_match() {
    let (plugin, mut connection) = FakePlugin::with_connection(|end| end.repeat(DETACH));
    connection.set_read_timeout(TIMEOUT).unwrap();
    let mut dropped = 0;
    let error = connection.receive_first(|_| {
        dropped += 1;
        None::<()>
    });
    assert!(matches!(error, Err(ClientError::Timeout)), "{error:?}");
    assert!(dropped > 0);
    let message = connection.receive_first(Some).unwrap();
    assert_eq!(message, Some(ServerMessage::Detach));
    drop(connection);
    plugin.join();
}

/// A message that fits into no socket buffer.
fn large(byte: u8) -> ClientMessage {
    let part = StorePart::new(fake::object(byte), 1, true, vec![byte; 4 * 1024 * 1024]);
    let operation = Operation::Store(part);
    ClientMessage::Request(Request { session: 1, id: 1, operation })
}
