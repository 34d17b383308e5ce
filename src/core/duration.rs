//! A span of time as people write it: `500ms`, `30s`, `5m`, `2h`.
//!
//! What lives here: the one way in which flags and labels are read. What it
//! must not know: what a span is for, and what to say when it can't be read.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A whole number and its unit (ms, s, m, h), without a blank; `None` for
/// anything else.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis)
}

/// The same in milliseconds, if it lies within a range.
pub(super) fn milliseconds(text: &str, range: &RangeInclusive<Duration>) -> Option<u32> {
    parse(text).filter(|value| range.contains(value)).and_then(|value| value.as_millis().try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_unit_and_nothing_else() {
        for (text, wanted) in [("0s", 0), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(wanted)), "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "5 s",
            " 5s",
            "5s ",
            "+5s",
            "-5s",
            "1.5s",
            "5S",
            "5d",
            "99999999999999999h",
            "\u{665}s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
