//! The state shared by a layer, its clones and its services.

use crate::{counters::Cells, settings::DedupSettings, tokens::Tokens};
use cinchona_core::Switch;
use http::HeaderValue;

/// The state shared by a layer, its clones and its services.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub(crate) store: T,
    pub(crate) settings: DedupSettings,
    pub(crate) domain: Option<&'static HeaderValue>,
    pub(crate) switch: Switch,
    pub(crate) cells: Cells,
    pub(crate) tokens: Tokens,
}
