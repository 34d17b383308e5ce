//! Lines taken out of bytes that arrive in any pieces.
//!
//! What lives here: finding where a line ends. What it must not know: what a
//! line means, and where the bytes come from.
//!
//! Of several hundred engines each has a stream of events that is silent for
//! most of the time, so nothing is kept while there is no line: `tokio_util`'s
//! reader of lines, which bollard uses, keeps 8 kB.

use bytes::BytesMut;

/// The longest line accepted, in bytes. Events have some hundreds, and more only
/// where a container has many labels.
const LINE_LIMIT: usize = 1 << 20;

/// A line is longer than 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than 1 MiB")]
pub(super) struct TooLong;

/// What has come of the next lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: BytesMut,
    /// How much of it holds no end of a line.
    scanned: usize,
}

impl Lines {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// The next line that is whole and not blank, without its end.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, TooLong> {
        while let Some(end) = self.text.iter().skip(self.scanned).position(|byte| *byte == b'\n') {
            let mut line = self.text.split_to(self.scanned + end + 1);
            self.scanned = 0;
            if self.text.is_empty() {
                self.text = BytesMut::new();
            }
            line.truncate(line.trim_ascii_end().len());
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
        self.scanned = self.text.len();
        if self.scanned > LINE_LIMIT { Err(TooLong) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next().unwrap())
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        let mut lines = Lines::default();
        lines.feed(&vec![b'x'; LINE_LIMIT]);
        assert_eq!(lines.next(), Ok(None));
        lines.feed(b"x");
        assert_eq!(lines.next(), Err(TooLong));
    }

    #[test]
    fn nothing_is_kept_between_two_lines() {
        let mut lines = Lines::default();
        lines.feed(b"one\r\n\r\n\n");
        assert_eq!(all(&mut lines), ["one"]);
        assert_eq!(lines.text.capacity(), 0);
    }

    proptest! {
        /// However the bytes are split, the same lines come.
        #[test]
        fn in_any_pieces(text in "[ab\n]{0,40}", pieces in prop::collection::vec(1..6_usize, 40)) {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            let mut rest = text.as_bytes();
            for length in pieces {
                let (piece, after) = rest.split_at(length.min(rest.len()));
                lines.feed(piece);
                rest = after;
                if length % 2 == 0 {
                    seen.extend(all(&mut lines));
                }
            }
            lines.feed(rest);
            seen.extend(all(&mut lines));
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            prop_assert_eq!(seen, whole.split('\n').filter(|line| !line.is_empty()).collect::<Vec<_>>());
        }
    }
}
