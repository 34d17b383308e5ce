//! Figures: percentiles, what a process used, and a table.
//!
//! What lives here: numbers and how they are shown. What it must not know:
//! where they come from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

/// The value that `percent` of all do not exceed.
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len());
    sorted[place - 1]
}

pub fn median(values: &[Duration]) -> Duration {
    percentile(values, 50)
}

/// Milliseconds with as many digits as mean something.
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 100.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// CPU time of a process, to the nanosecond. A thread's time up to the last
/// look is not lost when it ends (tokio's blocking ones do, 10 s after work).
pub struct Cpu {
    pid: u32,
    threads: BTreeMap<OsString, u64>,
    told: u64,
}

impl Cpu {
    pub fn of(pid: u32) -> Self {
        Self { pid, threads: BTreeMap::new(), told: 0 }
    }

    /// The time since the last call; at first, since the process began.
    pub fn used(&mut self) -> Duration {
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap() {
            let task = task.unwrap();
            // It may end between the two readings.
            let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let nanos = stat.split(' ').next().unwrap().parse().unwrap();
            self.threads.insert(task.file_name(), nanos);
        }
        let all: u64 = self.threads.values().sum();
        Duration::from_nanos(all - std::mem::replace(&mut self.told, all))
    }
}

/// A line of `/proc/<pid>/status` in MB (of 1,000,000 bytes): `VmRSS`, `VmHWM`.
pub fn memory_mb(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024.0 / 1e6
}

/// Lines of columns, each as wide as it must be.
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self(vec![head.map(str::to_owned).to_vec()])
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.into());
    }

    pub fn print(&self, title: &str) {
        println!("\n{title}\n");
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap();
        for (index, row) in self.0.iter().enumerate() {
            let cells: Vec<String> =
                row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column))).collect();
            println!("| {} |", cells.join(" | "));
            if index == 0 {
                let rules: Vec<String> = (0..row.len()).map(|column| "-".repeat(width(column))).collect();
                println!("| {} |", rules.join(" | "));
            }
        }
        println!();
    }
}
