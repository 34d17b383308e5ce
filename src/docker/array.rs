//! A JSON array taken apart while it arrives.
//!
//! What lives here: finding where an element ends. What it must not know:
//! what an element means.
//!
//! A list of 10,000 containers is 15 MB of text and more as values; read this
//! way, one element of it is held at a time, and one that is broken inside
//! doesn't spoil the others.

/// Largest element accepted, in bytes. The greatest real ones (hundreds of
/// labels and mounts) stay below 100 kB.
const ELEMENT_LIMIT: usize = 4 << 20;

/// Why bytes are not an array of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArrayError {
    /// A byte outside of an element that does not belong there.
    #[error("it is not an array of objects")]
    NotAnArray,
    /// An element is larger than 4 MiB.
    #[error("one of its elements is larger than 4 MiB")]
    TooLarge,
    /// The bytes ended before the array did.
    #[error("it ends in the middle")]
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Between,
    After,
}

/// Splits `[{…},{…}]` into its objects.
#[derive(Debug)]
pub(super) struct ArraySplitter {
    place: Place,
    element: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl ArraySplitter {
    pub(super) fn new() -> Self {
        Self { place: Place::Before, element: Vec::new(), depth: 0, in_string: false, escaped: false }
    }

    /// Takes the next bytes and calls `each` with every object they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), ArrayError> {
        while let Some(&first) = bytes.first() {
            if self.depth == 0 {
                self.outside(first)?;
                bytes = &bytes[1..];
                continue;
            }
            let end = self.inside(bytes);
            let (part, rest) = bytes.split_at(end);
            if self.element.len() + part.len() > ELEMENT_LIMIT {
                return Err(ArrayError::TooLarge);
            }
            self.element.extend_from_slice(part);
            bytes = rest;
            if self.depth == 0 {
                each(&self.element);
                self.element.clear();
            }
        }
        Ok(())
    }

    /// To be called at the end of the bytes.
    pub(super) fn finish(&self) -> Result<(), ArrayError> {
        if self.place == Place::After { Ok(()) } else { Err(ArrayError::Truncated) }
    }

    fn outside(&mut self, byte: u8) -> Result<(), ArrayError> {
        match (self.place, byte) {
            (_, b' ' | b'\n' | b'\r' | b'\t') | (Place::Between, b',') => {}
            (Place::Before, b'[') => self.place = Place::Between,
            (Place::Between, b']') => self.place = Place::After,
            (Place::Between, b'{') => {
                self.depth = 1;
                self.element.push(byte);
            }
            _ => return Err(ArrayError::NotAnArray),
        }
        Ok(())
    }

    /// How many of `bytes` belong to the object that is open; `depth` is 0
    /// afterwards if they close it.
    fn inside(&mut self, bytes: &[u8]) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return index + 1;
                    }
                }
                _ => {}
            }
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Result<Vec<String>, ArrayError> {
        let mut splitter = ArraySplitter::new();
        let mut found = Vec::new();
        for piece in pieces {
            splitter.feed(piece, |e| found.push(String::from_utf8(e.to_vec()).unwrap()))?;
        }
        splitter.finish().map(|()| found)
    }

    #[test]
    fn every_split_gives_the_same_elements() {
        let text = br#" [{"a":"}]\"{","b":[1,{"c":[]}]} ,{},
            {"d":"\\"}]"#;
        let wanted = [r#"{"a":"}]\"{","b":[1,{"c":[]}]}"#, "{}", r#"{"d":"\\"}"#];
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(split(&pieces).unwrap(), wanted, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn every_early_end_is_noticed() {
        let text = br#"[{"a":1},{"b":"]"}]"#;
        for end in 0..text.len() {
            assert_eq!(split(&[&text[..end]]), Err(ArrayError::Truncated), "end at {end}");
        }
    }

    #[test]
    fn other_things_are_refused() {
        for text in ["{}", "null", "[1]", "[{}]x", "[null]", "<html>"] {
            assert_eq!(split(&[text.as_bytes()]), Err(ArrayError::NotAnArray), "{text}");
        }
        let endless = [b"[{\"a\":\"".as_slice(), &vec![b'x'; ELEMENT_LIMIT]];
        assert_eq!(split(&endless), Err(ArrayError::TooLarge));
    }
}
