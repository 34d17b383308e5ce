//! The files that a farm's hapilot would write.
//!
//! What lives here: what is kept from one writing to the next, held against a fresh
//! one. What it must not know: why the state changed.

use std::net::{Ipv4Addr, SocketAddr};

use hapilot::core::desired::Scope;
use hapilot::core::state::State;
use hapilot::haproxy_config::{ConfigPath, ConfigSettings, Renderer, RuntimeSocket, render};

/// What writes them.
#[derive(Debug)]
pub struct Files {
    renderer: Renderer,
    settings: ConfigSettings,
}

impl Files {
    /// Nothing is written yet.
    pub fn new() -> Self {
        let path = |text| ConfigPath::new(text).unwrap();
        let runtime = RuntimeSocket::unix(path("/run/hapilot/admin.sock")).unwrap();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let usual = ConfigSettings::new(path("/run/hapilot"), http, runtime);
        Self { renderer: Renderer::default(), settings: ConfigSettings { pool_size: 2, ..usual } }
    }

    /// Who is told only what was touched writes the same as who writes all anew.
    pub fn are_up_to_date(&mut self, state: &State, touched: Scope) {
        let written = self.renderer.render(&self.settings, state, touched);
        assert_eq!(written, render(&self.settings, state), "the files are behind");
    }
}
