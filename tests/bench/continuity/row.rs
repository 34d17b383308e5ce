//! What came of a case: one row of the table, and whether a bound is broken.
//!
//! What lives here: the bounds' arithmetic. What it must not know: what was done
//! to the containers.

use std::time::Duration;

use super::verdict::{Ending, Failed, Verdict, judge};
use super::visitors::Request;
use crate::figures::{Table, ms, percentile};

/// So many failures of a case are told one by one.
const TOLD: usize = 12;

/// One case.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) runs: usize,
    requests: usize,
    failed: Vec<Failed>,
    lost: Vec<Failed>,
    p99: Duration,
    worst: Duration,
    /// What else was counted.
    pub(crate) besides: Vec<String>,
    /// The bounds that don't hold.
    pub(crate) broken: Vec<String>,
}

impl Row {
    /// A case in which no request may fail; if `may_lose`, those that are lost
    /// inherently are excused.
    pub(crate) fn new(
        name: &str,
        runs: usize,
        requests: &[Request],
        endings: &[Ending],
        log: &std::path::Path,
        may_lose: bool,
    ) -> Self {
        let Verdict { failed, lost } = judge(requests, endings, log);
        let took: Vec<Duration> = requests.iter().map(Request::waited).collect();
        let mut row = Self {
            name: name.to_owned(),
            runs,
            requests: requests.len(),
            failed,
            lost,
            p99: percentile(&took, 99),
            worst: percentile(&took, 100),
            besides: Vec::new(),
            broken: Vec::new(),
        };
        if !may_lose && !row.lost.is_empty() {
            row.broken.push("the containers finish what they were given: nothing may be lost".to_owned());
        }
        row
    }

    /// Of all failures, at most so many may be in one stretch of time that begins
    /// at one of `starts`.
    pub(crate) fn at_most(mut self, allowed: usize, starts: &[std::time::Instant]) -> Self {
        let mut each = vec![0_usize; starts.len() + 1];
        for failure in &self.failed {
            each[starts.iter().filter(|start| **start <= failure.due).count()] += 1;
        }
        let most = each.into_iter().max().unwrap_or_default();
        if most > allowed {
            let many = if starts.is_empty() { "" } else { " in one run" };
            self.broken.push(format!("{most} requests failed{many}, at most {allowed} may"));
        }
        self
    }

    pub(crate) fn no_failure(self) -> Self {
        self.at_most(0, &[])
    }

    /// Another bound, and what was found.
    pub(crate) fn bound(mut self, holds: bool, found: String) -> Self {
        if !holds {
            self.broken.push(found.clone());
        }
        self.besides.push(found);
        self
    }

    /// Tells the failures one by one, and the bounds that don't hold.
    pub(crate) fn tell(&self) {
        let outcome = if self.broken.is_empty() { "holds" } else { "DOES NOT HOLD" };
        println!(
            "{}: {outcome}; {} requests, {} failed, {} lost, worst {}",
            self.name,
            self.requests,
            self.failed.len(),
            self.lost.len(),
            ms(self.worst)
        );
        for (kind, list) in [("failed", &self.failed), ("lost", &self.lost)] {
            for one in list.iter().take(TOLD) {
                println!("    {kind}: {}", one.text);
            }
            if list.len() > TOLD {
                println!("    {kind}: and {} more", list.len() - TOLD);
            }
        }
        for broken in &self.broken {
            println!("    BROKEN: {broken}");
        }
    }
}

/// All rows as a table.
pub(crate) fn print(title: &str, rows: &[Row]) {
    let mut table =
        Table::new(["case", "runs", "requests", "failed", "inherently lost", "p99", "worst", "besides"]);
    for row in rows {
        let mark = if row.broken.is_empty() { "" } else { " (BROKEN)" };
        table.row([
            format!("{}{mark}", row.name),
            row.runs.to_string(),
            row.requests.to_string(),
            row.failed.len().to_string(),
            row.lost.len().to_string(),
            ms(row.p99),
            ms(row.worst),
            row.besides.join("; "),
        ]);
    }
    table.print(title);
}
