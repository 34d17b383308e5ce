//! `haproxy -c`: HAProxy's own word on a configuration.
//!
//! What lives here: one call of the program, and how its words are made fit to
//! print. What it must not know: what the configuration says.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a configuration isn't known to be good.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The program couldn't be run at all.
    #[error("can't run {} to check the configuration: {source}", .binary.display())]
    Run {
        /// The program.
        binary: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// HAProxy wouldn't start with it.
    #[error("HAProxy refuses the configuration {}: {words}", .config.display())]
    Refused {
        /// The file that was checked.
        config: PathBuf,
        /// HAProxy's words, printable, at most 2,000 characters.
        words: String,
    },
}

/// Asks HAProxy whether it would start with this file. Blocks for as long as
/// HAProxy reads it (a tenth of a second for a pool of thousands).
pub fn check(binary: &Path, config: &Path) -> Result<(), CheckError> {
    let output = Command::new(binary)
        .args(["-c", "-f"])
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CheckError::Run { binary: binary.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let words = match printable(&String::from_utf8_lossy(said)) {
        words if words.is_empty() => format!("{} and no words", output.status),
        words => words,
    };
    Err(CheckError::Refused { config: config.to_owned(), words })
}

/// Another program's output as one readable line: blank lines dropped, the
/// others joined by ` | `, control characters escaped, at most 2,000 characters.
pub(crate) fn printable(output: &str) -> String {
    const LIMIT: usize = 2_000;
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut text = String::new();
    for (length, c) in lines.join(" | ").chars().enumerate() {
        if length == LIMIT {
            text.push('…');
            break;
        }
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_one_printable_line() {
        assert_eq!(printable("  one\n\n two\x1b[31m\r\n"), "one | two\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(3_000)).chars().count(), 2_001);
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = check(Path::new("/nonexistent/haproxy"), Path::new("/dev/null")).unwrap_err();
        assert!(error.to_string().starts_with("can't run /nonexistent/haproxy to check"), "{error}");
    }

    #[test]
    fn a_refusal_without_words_says_so() {
        let error = check(Path::new("/bin/false"), Path::new("/dev/null")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "HAProxy refuses the configuration /dev/null: exit status: 1 and no words"
        );
    }
}
