//! Callbacks that need not wait: with workers, they run on the I/O thread, and a worker does what would wait.

mod support;

use std::mem;

use cvmcache::client::{Client, Operation, Ticket};
use cvmcache::plugin::*;
use support::served::{Fixture, serve};
use support::{Fault, id};

/// A cache with an object of three bytes, whose callbacks need not wait.
fn ready() -> (Fixture, Client) {
    let f = serve(2);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.is_ready = true);
    let client = f.client("repo:1");
    (f, client)
}

fn set_ready(f: &Fixture, is_ready: bool) {
    f.cache.change(|state| state.is_ready = is_ready);
}

/// What was called since this was called before.
fn calls(f: &Fixture) -> Vec<&'static str> {
    f.cache.change(|state| mem::take(&mut state.calls))
}

fn submit_change(client: &mut Client, change_by: i32) -> Ticket {
    client.submit(Operation::Refcount { object: id(1), change_by }).expect("it is sent")
}

fn wait(client: &mut Client, ticket: Ticket) -> Result<(), Status> {
    client.wait(ticket).expect("a reply").status()
}

#[test]
fn what_need_not_wait_is_tried_first_and_no_worker_is_asked() {
    let (f, mut client) = ready();
    client.open(&id(1)).unwrap();
    assert_eq!(client.object_info(&id(1)).unwrap().size, 3);
    assert_eq!(client.read(&id(1), 1, 9).unwrap(), "bc");
    client.close(&id(1)).unwrap();
    let tried = [
        ["try_change_refcount", "change_refcount"],
        ["try_object_info", "object_info"],
        ["try_read", "read"],
        ["try_change_refcount", "change_refcount"],
    ];
    assert_eq!(calls(&f), tried.concat());
}

#[test]
fn what_would_wait_is_done_by_a_worker() {
    let (f, mut client) = ready();
    set_ready(&f, false);
    client.open(&id(1)).unwrap();
    assert_eq!(client.object_info(&id(1)).unwrap().size, 3);
    assert_eq!(client.read(&id(1), 1, 9).unwrap(), "bc");
    client.close(&id(1)).unwrap();
    assert_eq!(calls(&f), ["change_refcount", "object_info", "read", "change_refcount"]);
    assert_eq!(f.cache.references(id(1)), 0);
}

#[test]
fn without_workers_nothing_is_tried() {
    let f = serve(0);
    f.cache.insert(id(1), "abc");
    set_ready(&f, true);
    assert_eq!(f.client("repo:1").read(&id(1), 0, 3).unwrap(), "abc");
    assert_eq!(calls(&f), ["read"]);
}

#[test]
fn what_needs_no_worker_overtakes_what_waits() {
    let (f, mut client) = ready();
    f.cache.change(|state| state.hold_reads = true);
    let held = client.queue_read(&id(1), 0, 1).unwrap();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 1);
    assert_eq!(client.object_info(&id(1)).unwrap().size, 3);
    f.cache.change(|state| state.hold_reads = false);
    assert_eq!(client.wait(held).unwrap().into_bytes(), "a");
}

#[test]
fn what_needs_no_worker_is_answered_while_all_workers_wait() {
    let (f, mut client) = ready();
    f.cache.change(|state| state.hold_reads = true);
    let held: Vec<_> = (0..100).map(|_| client.queue_read(&id(1), 0, 1).unwrap()).collect();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 2);
    // A disk that hangs delays only what is on it.
    let mut other = f.client("repo:2");
    other.open(&id(1)).unwrap();
    assert_eq!(other.object_info(&id(1)).unwrap().size, 3);
    f.cache.change(|state| state.hold_reads = false);
    for ticket in held {
        assert_eq!(client.wait(ticket).unwrap().into_bytes(), "a");
    }
}

#[test]
fn a_change_of_references_waits_for_the_one_before_it() {
    let (f, mut client) = ready();
    f.cache.change(|state| (state.hold_references, state.is_ready) = (true, false));
    let open = submit_change(&mut client, 1);
    f.cache.wait_until(|state| state.calls == ["change_refcount"]);
    set_ready(&f, true);
    let close = submit_change(&mut client, -1);
    // It has been taken when the next request is answered.
    client.object_info(&id(1)).unwrap();
    f.cache.change(|state| state.hold_references = false);
    assert_eq!([open, close].map(|ticket| wait(&mut client, ticket)), [Ok(()), Ok(())]);
    let calls = calls(&f);
    let expected = ["change_refcount", "try_object_info", "object_info", "change_refcount"];
    assert_eq!(calls, expected);
    // Nothing is in front of this one.
    assert!(client.exists(&id(1)).unwrap());
    assert_eq!(f.cache.references(id(1)), 0);
}

#[test]
fn references_are_the_sessions_however_they_were_taken_and_given_back() {
    let (f, mut client) = ready();
    client.open(&id(1)).unwrap();
    set_ready(&f, false);
    client.open(&id(1)).unwrap();
    client.close(&id(1)).unwrap();
    set_ready(&f, true);
    client.close(&id(1)).unwrap();
    assert_eq!(client.close(&id(1)).unwrap_err().status(), Some(Status::BadCount));
    assert_eq!(client.open(&id(2)).unwrap_err().status(), Some(Status::NoEntry));
    client.open(&id(1)).unwrap();
    let refused = submit_change(&mut client, -2);
    assert_eq!(wait(&mut client, refused), Err(Status::BadCount));
    assert_eq!(f.cache.references(id(1)), 1);
    client.quit().unwrap();
    f.cache.wait_until(|state| state.objects[&id(1)].references == 0);
}

#[test]
fn a_reference_that_the_plugin_did_not_take_back_is_given_back_at_the_end_of_the_session() {
    let (f, mut client) = ready();
    client.open(&id(1)).unwrap();
    for fault in [Fault::Fail(Status::IoErr), Fault::Panic] {
        f.cache.upset("try_change_refcount", fault);
        assert_eq!(client.close(&id(1)).unwrap_err().status(), Some(Status::IoErr));
        assert_eq!(f.cache.references(id(1)), 1);
    }
    client.quit().unwrap();
    f.cache.wait_until(|state| state.objects[&id(1)].references == 0);
}

#[test]
fn a_panic_on_the_io_thread_is_answered_and_leaves_the_plugin_serving() {
    let (f, mut client) = ready();
    client.open(&id(1)).unwrap();
    for callback in ["try_change_refcount", "try_object_info", "try_read"] {
        f.cache.upset(callback, Fault::Panic);
    }
    assert_eq!(client.open(&id(1)).unwrap_err().status(), Some(Status::IoErr));
    assert_eq!(client.object_info(&id(1)).unwrap_err().status(), Some(Status::IoErr));
    assert_eq!(client.read(&id(1), 0, 3).unwrap_err().status(), Some(Status::IoErr));
    assert_eq!(client.read(&id(1), 0, 3).unwrap(), "abc");
}

#[test]
fn a_reply_of_more_bytes_than_requested_is_not_sent() {
    let (f, mut client) = ready();
    f.cache.upset("read", Fault::TooMuch);
    assert_eq!(client.read(&id(1), 0, 3).unwrap_err().status(), Some(Status::IoErr));
    let too_large = f.client("repo:2").max_object_size() as u32 + 1;
    let read = Operation::Read { object: id(1), offset: 0, size: too_large };
    let ticket = client.submit(read).unwrap();
    assert_eq!(wait(&mut client, ticket), Err(Status::Malformed));
}
