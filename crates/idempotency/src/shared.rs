//! What a layer, its clones and its services have in common.

use crate::{counters::Cells, settings::Settings, tokens::Tokens};

/// What a layer, its clones and its services have in common.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub(crate) store: T,
    pub(crate) settings: Settings,
    pub(crate) cells: Cells,
    pub(crate) tokens: Tokens,
}
