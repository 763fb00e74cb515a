//! What the rules of the protocol cost, without a socket: from a request to its reply.

#[path = "support/shelf.rs"]
mod shelf;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use cvmcache::Limits;
use cvmcache::service::{OpenSession, Service};
use cvmcache_proto::{Operation, Reply, Request};
use shelf::{OBJECT, Shelf, upload};

struct Fixture {
    service: Service,
    open: Arc<OpenSession>,
    last_id: u64,
}

impl Fixture {
    fn new() -> Self {
        let shelf = Shelf::with_backend(Duration::ZERO);
        let service = Service::new(Box::new(shelf), "shelf", Limits::default());
        let (_, open) = service.handshake(Some("bench:1".into()), None);
        Self { service, open, last_id: 0 }
    }

    fn ask(&mut self, operation: Operation) -> Reply {
        self.last_id += 1;
        let session = self.open.session().id();
        self.service.handle(&self.open, Request { session, id: self.last_id, operation })
    }
}

fn service(criterion: &mut Criterion) {
    let mut fixture = Fixture::new();
    let mut group = criterion.benchmark_group("service");
    let look = Operation::Refcount { object: OBJECT, change_by: 0 };
    group.bench_function("look", |b| b.iter(|| fixture.ask(black_box(look.clone()))));
    group.bench_function("open and close", |b| {
        b.iter(|| {
            for change_by in [1, -1] {
                black_box(fixture.ask(Operation::Refcount { object: OBJECT, change_by }));
            }
        });
    });
    let stat = Operation::ObjectInfo { object: OBJECT };
    group.bench_function("stat", |b| b.iter(|| fixture.ask(black_box(stat.clone()))));
    let read = Operation::Read { object: OBJECT, offset: 1000, size: 128 * 1024 };
    group.bench_function("read 128 KiB", |b| b.iter(|| fixture.ask(black_box(read.clone()))));
    let store = upload(Bytes::from_static(&[7; 1000]));
    group.bench_function("store and close", |b| {
        b.iter(|| {
            black_box(fixture.ask(store.clone()));
            black_box(fixture.ask(Operation::Refcount { object: OBJECT, change_by: -1 }));
        });
    });
    group.finish();
}

criterion_group!(benches, service);
criterion_main!(benches);
