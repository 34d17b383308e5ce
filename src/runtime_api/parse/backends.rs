//! `show backend`: `# name`, then one name per line.
//!
//! What lives here: the names. What it must not know: whose they are.

use super::{ParseError, lines};

/// Reads the names.
pub fn parse(reply: &str) -> Result<Vec<&str>, ParseError> {
    let mut lines = lines(reply);
    match lines.next() {
        Some((_, "# name")) => {}
        first => {
            return Err(ParseError::new(1, "not a list of backends", first.map_or("", |(_, line)| line)));
        }
    }
    lines
        .map(|(number, line)| {
            if line.contains(' ') {
                Err(ParseError::new(number, "not a backend's name", line))
            } else {
                Ok(line)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_header() {
        assert_eq!(parse("# name\nfallback\nweb:pool:0001\n\n"), Ok(vec!["fallback", "web:pool:0001"]));
        assert_eq!(parse("# name\n"), Ok(vec![]));
        assert!(parse("").is_err());
        assert!(parse("Unknown command\n").is_err());
        assert!(parse("# name\nNo such thing.\n").is_err());
    }
}
