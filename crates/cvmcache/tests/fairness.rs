//! Connections that send or hold much, or nothing to the end, and callbacks that take long: other connections are
//! served meanwhile.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cvmcache::Limits;
use cvmcache::client::{ClientMessage, NewUpload, Operation, Request, ServerMessage};
use cvmcache::plugin::*;
use cvmcache_proto::RawMessage;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::id;
use support::served::{serve, serve_with};

fn framed(message: ClientMessage) -> Vec<u8> {
    raw(message).to_frame().expect("a frame")
}

/// A message to be spoilt.
fn raw(message: ClientMessage) -> RawMessage {
    message.into_wire().0.into()
}

#[test]
fn half_a_frame_delays_no_other_connection() {
    // Both ends of the connections are in this process.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let f = serve(0);
    let mut bystander = f.client("repo:1");
    let mut slow: Vec<_> = (0..500).map(|_| f.connection()).collect();
    let handshake =
        framed(ClientMessage::Handshake { protocol_version: 1, name: Some("slow:1".into()) });
    for byte in &handshake {
        for connection in &mut slow {
            connection.send_raw(&[*byte]).unwrap();
        }
        bystander.info().unwrap();
    }
    for connection in &mut slow {
        let message = connection.receive().unwrap();
        assert!(matches!(message, Some(ServerMessage::HandshakeAck(ack)) if ack.result.is_ok()));
    }
}

#[test]
fn a_connection_whose_socket_is_never_empty_delays_no_other() {
    let f = serve(0);
    let mut busy = f.client("busy:1");
    let mut bystander = f.client("repo:1");
    let session = busy.session();
    let info =
        framed(ClientMessage::Request(Request { session, id: 1, operation: Operation::Info }));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each read of the server takes a few bytes and empties the socket, so that it polls for more.
            while !is_over.load(Ordering::Relaxed) {
                for byte in &info {
                    busy.connection_mut().send_raw(&[*byte]).unwrap();
                }
                busy.connection_mut().receive().unwrap();
            }
        });
        for _ in 0..1000 {
            let begun = Instant::now();
            bystander.info().unwrap();
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_connection_that_takes_no_replies_is_not_read_and_delays_no_other() {
    let mut limits = Limits::default();
    limits.max_buffered = 512 * 1024;
    for workers in [0, 4] {
        let f = serve_with(workers, limits.clone());
        f.cache.insert(id(1), vec![7; 128 * 1024]);
        let mut hostile = f.client("evil:1");
        let mut bystander = f.client("repo:1");
        let session = hostile.session();
        let read = |number| {
            let operation = Operation::Read { object: id(1), offset: 0, size: 128 * 1024 };
            ClientMessage::Request(Request { session, id: number, operation })
        };
        const READS: u64 = 1000;
        let connection = hostile.connection_mut();
        let reads = || f.cache.state().calls.iter().filter(|call| **call == "read").count();
        let mut frames = Vec::new();
        for number in 0..READS {
            frames.extend(framed(read(number)));
        }
        connection.send_raw(&frames).unwrap();
        for _ in 0..100 {
            bystander.info().unwrap();
        }
        // What the socket holds and the limit allows for, of 125 MiB in all.
        assert!(reads() < 100, "{} reads were answered that no client takes", reads());
        for _ in 0..READS {
            match connection.receive().unwrap() {
                Some(ServerMessage::Reply(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn connections_that_take_no_replies_stay_below_the_total_and_a_small_client_is_served() {
    const SIZE: u32 = 16 * 1024;
    const CONNECTIONS: usize = 100;
    const READS: u64 = 300;
    let mut limits = Limits::default();
    limits.max_object_size = SIZE;
    limits.max_buffered_total = Some(32 << 20);
    for workers in [0, 4] {
        let f = serve_with(workers, limits.clone());
        f.cache.insert(id(1), vec![7; SIZE as usize]);
        let mut hostile: Vec<_> = (0..CONNECTIONS).map(|_| f.client("evil:1")).collect();
        let mut bystander = f.client("repo:1");
        for client in &mut hostile {
            let session = client.session();
            let read = |id| {
                let operation = Operation::Read { object: self::id(1), offset: 0, size: SIZE };
                framed(ClientMessage::Request(Request { session, id, operation }))
            };
            let frames: Vec<u8> = (0..READS).flat_map(read).collect();
            client.connection_mut().send_raw(&frames).unwrap();
            bystander.info().unwrap();
        }
        let mut ours = 0;
        for byte in 10..110 {
            bystander.store(NewUpload::new(id(byte)), vec![byte; SIZE as usize]).unwrap();
            assert_eq!(bystander.read(&id(byte), 0, SIZE).unwrap().len(), SIZE as usize);
            ours += 1;
        }
        let reads = f.cache.state().calls.iter().filter(|call| **call == "read").count() - ours;
        // A send buffer of 1 MiB counts more than the bytes in it.
        let socket = 1024 * 1024;
        let most = ((32 << 20) + CONNECTIONS * socket) / SIZE as usize;
        assert!(reads <= most, "{reads} of {most}");
        for client in &mut hostile {
            for _ in 0..READS {
                let message = client.connection_mut().receive().unwrap();
                assert!(matches!(message, Some(ServerMessage::Reply(_))));
            }
        }
    }
}

#[test]
fn a_small_reply_that_is_not_read_keeps_no_large_object_in_memory() {
    let f = serve(0);
    f.cache.insert(id(1), vec![7; 128 * 1024]);
    let data = Bytes::from(vec![7; 256 * 1024]);
    f.cache.insert(id(2), data.clone());
    let mut hostile = f.client("evil:1");
    let mut read = |byte, size| hostile.queue_read(&id(byte), 0, size).unwrap();
    // The first ones fill the socket.
    let large: Vec<_> = (0..10).map(|_| read(1, 128 * 1024)).collect();
    let small: Vec<_> = (0..20).map(|_| read(2, 1)).collect();
    hostile.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 30);
    // The last of them has only been counted; on one thread, a reply sent now comes after it.
    f.client("bystander:1").info().unwrap();
    f.cache.change(|state| state.objects.clear());
    assert!(data.is_unique());
    for ticket in large {
        hostile.wait(ticket).unwrap();
    }
    for ticket in small {
        assert_eq!(hostile.wait(ticket).unwrap().into_bytes(), [7][..]);
    }
}

#[test]
fn with_workers_a_flood_of_requests_does_not_starve_other_connections() {
    let f = serve(2);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut hostile = f.client("evil:1");
    let mut bystander = f.client("repo:1");
    let flood: Vec<_> = (0..500).map(|_| hostile.queue_read(&id(1), 0, 3).unwrap()).collect();
    hostile.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 2);
    let info = bystander.submit(Operation::Info).unwrap();
    f.cache.change(|state| state.hold_reads = false);
    bystander.wait(info).unwrap();
    for ticket in flood {
        hostile.wait(ticket).unwrap();
    }
    let state = f.cache.state();
    let place = state.calls.iter().position(|call| *call == "info").expect("it was called");
    assert!(place < 100, "{place} requests of the flood went before");
}

#[test]
fn without_workers_a_flood_of_requests_does_not_starve_other_connections() {
    let f = serve(0);
    let mut hostile = f.client("evil:1");
    let mut bystander = f.client("repo:1");
    bystander.exists(&id(1)).unwrap();
    let flood: Vec<_> = (0..20_000).map(|_| hostile.queue(Operation::Info).unwrap()).collect();
    hostile.flush().unwrap();
    bystander.exists(&id(1)).unwrap();
    let before = f.cache.state().calls.iter().filter(|call| **call == "info").count();
    for ticket in flood {
        hostile.wait(ticket).unwrap();
    }
    // The client has sent them all, and the socket holds far fewer than that.
    assert!(before < 19_000, "{before} requests of the flood went before");
}

#[test]
fn a_flood_of_requests_that_need_no_worker_does_not_starve_other_connections() {
    let f = serve(2);
    f.cache.insert(id(1), "abc");
    let mut hostile = f.client("evil:1");
    let mut bystander = f.client("repo:1");
    f.cache.change(|state| (state.is_ready, state.hold_ready) = (true, true));
    let flood: Vec<_> = (0..1500).map(|_| hostile.queue_read(&id(1), 0, 3).unwrap()).collect();
    hostile.flush().unwrap();
    f.cache.wait_until(|state| state.calls.contains(&"try_read"));
    let info = bystander.submit(Operation::ObjectInfo { object: id(1) }).unwrap();
    f.cache.change(|state| state.hold_ready = false);
    bystander.wait(info).unwrap();
    for ticket in flood {
        hostile.wait(ticket).unwrap();
    }
    let state = f.cache.state();
    let before = state.calls.iter().take_while(|call| **call != "try_object_info");
    let before = before.filter(|call| **call == "try_read").count();
    assert!(before <= 1000, "{before} requests of the flood went before, of more than two turns");
}

#[test]
fn a_callback_that_never_returns_blocks_only_its_worker() {
    let mut limits = Limits::default();
    limits.request_deadline = Some(Duration::from_millis(50));
    limits.shutdown_timeout = Duration::from_millis(50);
    let f = serve_with(2, limits);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    // As many as there are workers, and as may be on their way to them.
    let stuck: Vec<_> = (0..4).map(|_| client.queue_read(&id(1), 0, 3).unwrap()).collect();
    for ticket in stuck {
        let error = client.wait(ticket).unwrap_err();
        assert_eq!(error.status(), Some(Status::Timeout));
    }
    // Others have taken their places.
    for _ in 0..10 {
        client.info().unwrap();
    }
    f.cache.change(|state| state.hold_reads = false);
    assert_eq!(client.read(&id(1), 0, 3).unwrap(), "abc");
    assert_eq!(client.unclaimed_replies(), 0, "nothing is answered twice");
}

#[test]
fn a_request_answered_with_a_timeout_never_runs() {
    let mut limits = Limits::default();
    limits.request_deadline = Some(Duration::from_millis(50));
    let f = serve_with(1, limits);
    f.cache.insert(id(1), "abc");
    let mut client = f.client("repo:1");
    let part = vec![7; client.max_object_size()];
    f.cache.change(|state| state.hold_writes = true);
    let mut upload = client.begin_upload(NewUpload::new(id(2)));
    let first = upload.submit(&mut client, part, false).unwrap();
    let second = upload.submit(&mut client, "end", true).unwrap();
    for ticket in [first, second] {
        assert_eq!(client.wait(ticket).unwrap_err().status(), Some(Status::Timeout));
    }
    f.cache.change(|state| state.hold_writes = false);
    // The second part was waiting for the first one.
    client.quit().unwrap();
    f.cache.wait_until(|state| state.open_uploads == 0);
    assert!(!f.cache.state().objects.contains_key(&id(2)));
}
