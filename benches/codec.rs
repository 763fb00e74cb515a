//! What it costs to read a request and to write a reply, without a socket.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cvmcache_proto::{
    ClientMessage, Data, Decoder, DecoderLimits, HashAlgorithm, ObjectId, Operation, Reply,
    ReplyBody, Request, ServerMessage, StorePart, frame,
};

const OBJECT: ObjectId = ObjectId::new(HashAlgorithm::Sha1, [7; 20]);

fn request(operation: Operation) -> Vec<u8> {
    let request = Request { session: 42, id: 4711, operation };
    let (message, attachment) = ClientMessage::Request(request).into_wire();
    let mut bytes = Vec::new();
    frame::encode(message, attachment.len(), &mut bytes).expect("it fits into a frame");
    bytes.extend_from_slice(&attachment);
    bytes
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> ClientMessage {
    let mut rest = bytes;
    loop {
        let buffer = decoder.buffer();
        let (now, later) = rest.split_at(rest.len().min(buffer.capacity() - buffer.len()));
        buffer.extend_from_slice(now);
        rest = later;
        if let Some(frame) = decoder.next_frame().expect("it is a frame") {
            return ClientMessage::from_frame(frame).expect("it is a message");
        }
    }
}

fn codec(criterion: &mut Criterion) {
    let part = StorePart {
        expected_size: Some(4 << 20),
        description: Some("/sw/lib/libCore.so".into()),
        ..StorePart::new(OBJECT, 1, false, vec![7; 256 * 1024])
    };
    let mut group = criterion.benchmark_group("decode");
    for (name, operation) in [
        ("refcount", Operation::Refcount { object: OBJECT, change_by: 1 }),
        ("read", Operation::Read { object: OBJECT, offset: 1 << 20, size: 128 * 1024 }),
        ("store 256 KiB", Operation::Store(part)),
    ] {
        let bytes = request(operation);
        let mut decoder = Decoder::new(DecoderLimits::default());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(&mut decoder, &bytes)));
    }
    group.finish();

    let data = Data::from(Bytes::from(vec![7; 128 * 1024]));
    let mut group = criterion.benchmark_group("encode");
    for (name, body) in [
        ("refcount reply", ReplyBody::Refcount(Ok(()))),
        ("read reply", ReplyBody::Read { result: Ok(data), data_crc32: None }),
    ] {
        let reply = ServerMessage::Reply(Reply { id: 4711, body });
        let mut out = BytesMut::with_capacity(1024);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                let (message, attachment) = reply.clone().into_wire();
                frame::encode(message, attachment.len(), &mut out).expect("it fits into a frame");
                attachment
            });
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
