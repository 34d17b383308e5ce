//! Signals, as an engine and an image name them.
//!
//! What lives here: names → numbers, and small sets of numbers. What it must
//! not know: which signal means what to whom.

/// The names of 1 to 31, without `SIG`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The lowest signal for free use, as Docker counts them.
const RTMIN: u8 = 34;
/// The highest.
const RTMAX: u8 = 64;
/// The signal that no process survives.
const KILL: u8 = 9;

/// The number of `15`, `SIGTERM`, `term` or `SIGRTMIN+3`; `None` for what is no
/// signal.
pub(super) fn number(text: &str) -> Option<u8> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let text = text.to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let offset = |text: &str, mark: char| match text {
        "" => Some(0),
        _ => text.strip_prefix(mark)?.parse::<u8>().ok(),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        RTMAX.checked_sub(offset(rest, '-')?)?
    } else {
        let name = if name == "POLL" { "IO" } else { name };
        return NAMES.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, number)| number);
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// A set of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Signals(u64);

impl Signals {
    /// Adds one; a number that is no signal is passed over.
    pub(super) fn add(&mut self, number: u8) {
        self.0 |= Self::bit(number);
    }

    /// Adds those of another set.
    pub(super) fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// True if there is none.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if one of them ends a process whose stop signal is this one.
    pub(super) fn end(self, stop_signal: u8) -> bool {
        self.0 & (Self::bit(stop_signal) | Self::bit(KILL)) != 0
    }

    fn bit(number: u8) -> u64 {
        if (1..=RTMAX).contains(&number) { 1 << (number - 1) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, wanted) in [
            ("15", 15),
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigquit", 3),
            ("9", 9),
            ("SIGWINCH", 28),
            ("SIGSYS", 31),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("SIGRTMAX", 64),
            ("SIGRTMAX-14", 50),
            ("64", 64),
        ] {
            assert_eq!(number(text), Some(wanted), "{text}");
        }
        for text in
            ["", "0", "65", "-1", "300", "SIG", "SIGFOO", "RTMIN+31", "RTMIN-1", "RTMAX-255", "RTMAX+1"]
        {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn what_ends_a_process() {
        let set = |numbers: &[u8]| {
            let mut signals = Signals::default();
            for number in numbers {
                signals.add(*number);
            }
            signals
        };
        assert!(set(&[15]).end(15) && set(&[9]).end(15) && set(&[1, 64]).end(64));
        assert!(!set(&[1, 10, 28]).end(15) && !set(&[15]).end(3) && !set(&[0, 65, 255]).end(15));
        assert!(set(&[0, 65]).is_empty() && !set(&[1]).is_empty());
        let mut both = set(&[1]);
        both.merge(set(&[3]));
        assert!(both.end(3) && both.end(1));
    }
}
