//! `show cli level`: `admin`, `operator` or `user`.
//!
//! What lives here: the word. What it must not know: which level is enough.

use super::ParseError;

/// Reads the level: one word.
pub fn parse(reply: &str) -> Result<&str, ParseError> {
    let text = reply.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase()) {
        Ok(text)
    } else {
        Err(ParseError::new(1, "not a level", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_word() {
        assert_eq!(parse("admin\n"), Ok("admin"));
        assert!(parse("Permission denied\n").is_err());
        assert!(parse("").is_err());
    }
}
