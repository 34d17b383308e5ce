//! What lies on disk: the configuration that HAProxy would start with now.
//!
//! What lives here: when it is written again. What it must not know: what it
//! says (`haproxy_config`).
//!
//! HAProxy starts complete if the files are the present state. While it runs
//! nobody reads them, so they may lag behind a little; while it is away every
//! change is written at once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::desired::Scope;
use crate::core::name::{BackendName, ClassName};
use crate::core::state::State;
use crate::haproxy_config::{CONFIG_FILE, ConfigSettings, InstallError, Renderer, install};
use crate::haproxy_process::ConfigQuestion;

/// While HAProxy runs: written when nothing has changed for this long …
const QUIET: Duration = Duration::from_secs(2);
/// … but not later than this after the first change.
const LATEST: Duration = Duration::from_secs(15);
/// After a failure (a full disk), the next attempt.
const AGAIN: Duration = Duration::from_secs(5);

/// The files, and whether they are behind.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    config: ConfigSettings,
    renderer: Renderer,
    /// The program that must accept a configuration before it starts with it.
    checker: Option<PathBuf>,
    first_change: Option<Instant>,
    last_change: Option<Instant>,
    urgent: bool,
    not_before: Option<Instant>,
    /// Who waits for the files, and since when.
    question: Option<(Instant, ConfigQuestion)>,
}

impl Files {
    pub(super) fn new(dir: PathBuf, config: ConfigSettings, checker: Option<PathBuf>) -> Self {
        Self {
            dir,
            config,
            renderer: Renderer::default(),
            checker,
            first_change: None,
            last_change: None,
            urgent: false,
            not_before: None,
            question: None,
        }
    }

    /// The state is no longer what was written. With `urgent` HAProxy is away and
    /// may start at any moment.
    pub(super) fn changed(&mut self, now: Instant, urgent: bool) {
        self.first_change.get_or_insert(now);
        self.last_change = Some(now);
        self.urgent |= urgent;
    }

    /// HAProxy is about to be started.
    pub(super) fn ask(&mut self, question: ConfigQuestion) {
        self.question = Some((Instant::now(), question));
    }

    /// When the next writing is due; `None` if the files are up to date.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first_change, self.last_change);
        let changed = first
            .zip(last)
            .map(|(first, last)| if self.urgent { first } else { (last + QUIET).min(first + LATEST) });
        let changed = changed.map(|due| self.not_before.map_or(due, |at| due.max(at)));
        self.question.as_ref().map(|(asked, _)| *asked).or(changed)
    }

    /// Writes a state and answers who asked; `changed` is what of it may be another
    /// than at the last call. If it can't be written (a full disk)
    /// whoever asked gets the old configuration, where there is one: an old whole one
    /// is better than no HAProxy, and hapilot tells HAProxy the rest when it runs.
    pub(super) async fn write(&mut self, state: &State, changed: Scope) -> Result<(), String> {
        let rendered = self.renderer.render(&self.config, state, changed);
        let dir = self.dir.clone();
        // A configuration is checked when HAProxy is about to see it; the many
        // that nobody reads are not.
        let checker = self.question.as_ref().and(self.checker.clone());
        let written = tokio::task::spawn_blocking(move || install(&rendered, &dir, checker.as_deref())).await;
        let written = match written {
            Ok(Ok(path)) => Ok(path),
            Ok(Err(error)) => Err(error),
            Err(cancelled) => return Err(cancelled.to_string()),
        };
        match &written {
            Ok(_) => {
                (self.first_change, self.last_change, self.urgent, self.not_before) =
                    (None, None, false, None);
            }
            Err(_) => self.not_before = Some(Instant::now() + AGAIN),
        }
        let outcome = written.as_ref().map(drop).map_err(ToString::to_string);
        let old = self.dir.join(CONFIG_FILE);
        self.answer(if written.is_err() && old.exists() { Ok(old) } else { written });
        outcome
    }

    /// Nothing better is known than what lies on disk. False if nothing does.
    pub(super) fn keep(&mut self) -> bool {
        let path = self.dir.join(CONFIG_FILE);
        if !path.exists() {
            return false;
        }
        (self.first_change, self.last_change, self.urgent) = (None, None, false);
        self.answer(Ok(path));
        true
    }

    fn answer(&mut self, outcome: Result<PathBuf, InstallError>) {
        if let Some((_, question)) = self.question.take() {
            // Who asked may have been stopped meanwhile; then nobody waits.
            let _ = question.send(outcome);
        }
    }
}

/// The pool that the start-up configuration brings.
pub(super) fn pool(config: &ConfigSettings) -> BTreeSet<BackendName> {
    let names = |class: &ClassName| {
        let class = class.clone();
        (1..=config.pool_size).map(move |index| BackendName::pool(&class, index))
    };
    config.classes.iter().flat_map(names).collect()
}
