//! Framing: where a reply ends.
//!
//! What lives here: the prompt as the end mark (after `prompt`, every version
//! ends a reply in a line feed and `> `), and the bound of a reply. Every other
//! framing is ambiguous in some version. What it must not know: what a reply
//! means.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Longest reply taken, in bytes. A dump of 100,000 servers has 7 MB.
pub const REPLY_LIMIT: usize = 64 * 1024 * 1024;

/// What ends a reply.
const PROMPT: &[u8] = b"\n> ";

/// What precedes a reply once per line of a payload.
const PAYLOAD_PROMPT: &[u8] = b"+ ";

/// Why the stream can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A reply has more than [`REPLY_LIMIT`] bytes.
    #[error("a reply has more than {REPLY_LIMIT} bytes")]
    ReplyTooLong,
    /// The stream ended in the middle of a reply.
    #[error("the connection was closed in the middle of a reply")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Cuts the stream into replies, and ends lines.
#[derive(Debug)]
pub struct Codec {
    /// Bytes of the present reply in which no prompt begins.
    scanned: usize,
    limit: usize,
}

impl Default for Codec {
    fn default() -> Self {
        Self::with_limit(REPLY_LIMIT)
    }
}

impl Codec {
    /// A codec with another bound than [`REPLY_LIMIT`], in bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { scanned: 0, limit }
    }
}

/// Where the prompt begins, searched from `from` on.
fn find_prompt(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let at = rest.windows(PROMPT.len()).position(|window| window == PROMPT)?;
    Some(from + at)
}

impl Decoder for Codec {
    type Item = Bytes;
    type Error = CodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        let Some(end) = find_prompt(bytes, self.scanned) else {
            // The last two bytes may be the beginning of a prompt.
            self.scanned = bytes.len().saturating_sub(PROMPT.len() - 1);
            return if self.scanned > self.limit { Err(CodecError::ReplyTooLong) } else { Ok(None) };
        };
        self.scanned = 0;
        if end > self.limit {
            return Err(CodecError::ReplyTooLong);
        }
        let mut reply = bytes.split_to(end).freeze();
        bytes.advance(PROMPT.len());
        while reply.starts_with(PAYLOAD_PROMPT) {
            reply.advance(PAYLOAD_PROMPT.len());
        }
        Ok(Some(reply))
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        match self.decode(bytes)? {
            Some(reply) => Ok(Some(reply)),
            None if bytes.is_empty() => Ok(None),
            None => Err(CodecError::Closed),
        }
    }
}

/// Takes one command without its line feed.
impl Encoder<&str> for Codec {
    type Error = CodecError;

    fn encode(&mut self, line: &str, out: &mut BytesMut) -> Result<(), CodecError> {
        debug_assert!(!line.contains(['\n', ';']) && !line.is_empty(), "not one command: {line:?}");
        out.reserve(line.len() + 1);
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(codec: &mut Codec, pieces: &[&[u8]]) -> Result<Vec<String>, CodecError> {
        let mut buffer = BytesMut::new();
        let mut replies = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(reply) = codec.decode(&mut buffer)? {
                replies.push(String::from_utf8(reply.to_vec()).unwrap());
            }
        }
        while let Some(reply) = codec.decode_eof(&mut buffer)? {
            replies.push(String::from_utf8(reply.to_vec()).unwrap());
        }
        Ok(replies)
    }

    #[test]
    fn replies_end_at_the_prompt_whatever_they_end_in() {
        // 2.6 ends some texts without a line feed of their own, 3.x with one.
        let stream = b"\n> Server deleted.\n> 3.4.7-1\n\n> \n> a\n>b\n > c\n\n> ";
        let replies = all(&mut Codec::default(), &[stream]).unwrap();
        assert_eq!(replies, ["", "Server deleted.", "3.4.7-1\n", "", "a\n>b\n > c\n"]);
    }

    #[test]
    fn the_prompts_of_a_payload_are_no_part_of_the_reply() {
        let replies = all(&mut Codec::default(), &[b"+ + + Success!\n\n> + \n> "]).unwrap();
        assert_eq!(replies, ["Success!\n", ""]);
    }

    #[test]
    fn the_end_in_the_middle_of_a_reply_is_an_error() {
        for stream in [&b"x"[..], b"\n", b"\n>", b"abc\n> d", b"\n> \n>"] {
            assert!(matches!(all(&mut Codec::default(), &[stream]), Err(CodecError::Closed)), "{stream:?}");
        }
        assert!(all(&mut Codec::default(), &[]).unwrap().is_empty());
    }

    #[test]
    fn an_endless_reply_is_refused_at_the_bound() {
        let stream = [b'x'; 32];
        assert!(matches!(all(&mut Codec::with_limit(20), &[&stream]), Err(CodecError::ReplyTooLong)));
        let whole = [&stream[..], b"\n> "].concat();
        assert!(matches!(all(&mut Codec::with_limit(20), &[&whole]), Err(CodecError::ReplyTooLong)));
        assert_eq!(all(&mut Codec::with_limit(32), &[&whole]).unwrap().len(), 1);
    }

    #[test]
    fn a_line_gets_its_end() {
        let mut out = BytesMut::new();
        Codec::default().encode("show info", &mut out).unwrap();
        assert_eq!(&out[..], b"show info\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn where_the_stream_is_split_makes_no_difference(
            texts in prop::collection::vec("[ab>+ \n]{0,9}", 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream: Vec<u8> = texts.iter().flat_map(|t| [t.as_bytes(), PROMPT].concat()).collect();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            let whole = all(&mut Codec::default(), &[&stream]).unwrap();
            prop_assert_eq!(all(&mut Codec::default(), &pieces).unwrap(), whole);
        }

        #[test]
        fn garbage_is_never_a_panic(stream in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = BytesMut::from(&stream[..]);
            let mut codec = Codec::with_limit(100);
            while let Ok(Some(_)) = codec.decode_eof(&mut buffer) {}
        }
    }
}
