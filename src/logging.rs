//! tracing → stderr: one line per event, whatever an event contains.
//!
//! What lives here: the two formats, and the guard against text that tries to
//! write lines of its own. What it must not know: who logs what.

use std::io::{self, Write};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::{LogFormat, LogSettings};

/// Logging can't begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one that tracing understands.
    #[error("--log-level (or HAPILOT_LOG) can't be {filter:?}")]
    Filter {
        /// What was asked for.
        filter: String,
        /// What tracing says about it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody in this process has begun to log already.
    #[error("logging was started twice")]
    Twice,
}

/// Begins to log, for the whole process, to stderr.
pub fn start(settings: &LogSettings) -> Result<(), LoggingError> {
    // bollard writes whole answers of the engine at its lower levels, with every
    // variable of a container's environment: only who names it gets that.
    let filter = EnvFilter::builder()
        .parse(format!("bollard=info,{}", settings.filter))
        .map_err(|source| LoggingError::Filter { filter: settings.filter.clone(), source })?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(OneLine(io::stderr));
    let started = match settings.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| LoggingError::Twice)
}

/// Makes writers that keep each event on one line.
struct OneLine<F>(F);

impl<'a, W: Write, F: Fn() -> W + 'a> MakeWriter<'a> for OneLine<F> {
    type Writer = EscapingWriter<W>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter((self.0)())
    }
}

/// Writes one event per `write`, its control characters escaped but for the
/// line feed at its end. A line that can't be written (a full disk, a reader that is
/// gone) is lost: its writer would complain on stderr, and end when that fails, too.
///
/// tracing hands over an event as one buffer. It escapes fields recorded as
/// `str` or with `?`, but neither a message nor a field recorded with `%`;
/// this writer sees everything.
struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        let text = String::from_utf8_lossy(line);
        let mut safe = String::with_capacity(text.len() + 1);
        for c in text.chars() {
            if needs_escape(c) {
                safe.extend(c.escape_default());
            } else {
                safe.push(c);
            }
        }
        safe.push('\n');
        // One write per line, so that lines of several threads don't mix.
        let _ = self.0.write_all(safe.as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// True for a character that a terminal or a reader of lines acts upon instead
/// of showing it: C0 and C1 controls, line and paragraph separators, and marks
/// that reverse the direction of writing.
pub(crate) fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// An error and what led to it, as one line: `a: b: c`.
#[must_use]
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !line.is_empty() {
            line.push_str(": ");
        }
        for c in error.to_string().chars() {
            if needs_escape(c) {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        next = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn a_line_that_nobody_takes_is_lost_in_silence() {
        let mut writer = EscapingWriter(Full);
        assert_eq!(writer.write(b"event\n").unwrap(), 6);
        writer.flush().unwrap();
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let sink = Shared::default();
        let target = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(OneLine(move || target.clone()))
            .finish();
        let hostile = "a\nERROR forged\r\x1b[31m\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(container = %hostile, "message {hostile}");
            tracing::info!(container = hostile, "second");
        });
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().count(), 2, "{written}");
        assert!(written.chars().all(|c| c == '\n' || !needs_escape(c)), "{written:?}");
        assert!(written.contains(r"a\nERROR forged\r\u{1b}[31m\u{202e}"), "{written}");
    }
}
