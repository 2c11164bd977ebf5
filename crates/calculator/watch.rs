//! What a client, its servers and their cluster show of themselves on a dashboard.
//!
//! | module | what is there |
//! |---|---|
//! | [`calls`] | what became of the calls of a client, as their callers see it |
//! | [`client`] | the tiles of a client |
//! | [`server`] | the tile of a server, and a console for its faults |
//! | [`map`] | the map of a cluster |
//! | [`story`] | the events: whatever has changed |
//!
//! Nothing here runs unless a dashboard is wanted: without one, no call is measured and no task
//! started.

pub mod calls;
pub mod client;
pub mod map;
pub mod server;
pub mod story;
