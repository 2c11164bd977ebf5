//! The state shared by a layer, its clones and its services.

use crate::{counters::Cells, settings::Settings, tokens::Tokens};

/// The state shared by a layer, its clones and its services.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub(crate) store: T,
    pub(crate) settings: Settings,
    pub(crate) cells: Cells,
    pub(crate) tokens: Tokens,
}
