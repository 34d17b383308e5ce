//! The pure heart: facts about containers in, an ordered plan of Runtime API
//! commands out.
//!
//! Nothing in here may know tokio, a socket, the clock, the environment, the
//! file system or tracing. Everything is a value, so everything can be tested
//! by building a value.

pub mod name;

pub mod container;
pub mod few;

pub mod check;
pub mod claim;
pub mod duration;
pub mod endpoint;
pub mod inventory;
pub mod label;
pub mod place;
pub mod restarts;
pub mod sticky;

pub mod desired;
pub mod slots;
pub mod state;

pub mod command;
pub mod diff;
pub mod plan;
pub mod simulate;
