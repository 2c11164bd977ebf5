//! The tiles, events and map of a client, its servers and their cluster on a dashboard.
//!
//! | module | what is there |
//! |---|---|
//! | [`calls`] | the outcomes of a client's calls, as its callers see them |
//! | [`client`] | the tiles of a client |
//! | [`server`] | the tile of a server, and a console for its faults |
//! | [`map`] | the map of a cluster |
//! | [`story`] | the events: each change of a condition |
//!
//! Without a dashboard nothing here runs: no call is measured and no task started.

pub mod calls;
pub mod client;
pub mod map;
pub mod server;
pub mod story;
