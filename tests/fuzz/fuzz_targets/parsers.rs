//! Any text through every parser of a `show`: an error, never a panic.
#![no_main]

use hapilot::runtime_api::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = parse::version::parse(&text);
    let _ = parse::cli_level::parse(&text);
    let _ = parse::info::parse(&text);
    let _ = parse::map_listing::parse(&text);
    let _ = parse::map_entries::parse(&text);
    let _ = parse::backends::parse(&text);
    let _ = parse::servers_state::parse(&text);
    let _ = parse::servers_conn::parse(&text);
    let _ = parse::stat::parse(&text);
});
