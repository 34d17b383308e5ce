//! Any bytes, split anywhere, through the framing: no panic, and the same
//! replies as unsplit.
#![no_main]

use bytes::BytesMut;
use hapilot::runtime_api::codec::Codec;
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;

fn replies(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut codec, mut buffer, mut replies) = (Codec::with_limit(1 << 20), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Ok(Some(reply)) = codec.decode(&mut buffer) {
            replies.push(reply.to_vec());
        }
    }
    replies
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, stream) = input;
    let (front, back) = stream.split_at(usize::from(cut).min(stream.len()));
    assert_eq!(replies(&[front, back]), replies(&[stream]));
});
