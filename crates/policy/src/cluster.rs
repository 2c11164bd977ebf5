//! What a node of a cluster makes of what it sees: who belongs to it, who is gone, which side of a
//! partition this node is on, and whether it may accept writes.
//!
//! A pure state machine: [`View::look`] is given the time and the nodes in gossip, and returns the
//! events to send and the pairs to publish. Its host carries the pairs to other nodes, and says
//! what an address is (`A`).

mod event;
mod facts;
pub mod members;
pub mod partition;
mod permission;
mod settings;
pub mod suspicion;
mod twin;
mod view;

pub use event::Event;
pub use facts::{ADDRESS, BEAT, Facts, GONE, HEARS, Ids, LEFT, MEMBERS, Seen, life, tag_key};
pub use permission::Permission;
pub use settings::Settings;
pub use twin::Twin;
pub use view::{External, Known, Outcome, View};

#[cfg(test)]
mod tests;
