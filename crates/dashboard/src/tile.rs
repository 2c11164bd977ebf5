//! The state of one thing, as the page shows it.

use serde::Serialize;

/// A breaker, an endpoint, a limit, a budget or a node, in its current state.
///
/// ```
/// use cinchona_dashboard::{Health, Tile};
///
/// let tile = Tile {
///     state: "half of it left".into(),
///     health: Health::Warn,
///     numbers: vec![("tokens".into(), 50.0, ""), ("refill".into(), 10.0, "/s")],
///     gauge: Some(0.5),
///     ..Tile::new("budget", "retries")
/// };
/// assert_eq!((tile.kind.as_str(), tile.spark), ("budget", 0.0));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tile {
    /// Its kind, such as `breaker`: tiles of a kind stand together, the kinds in order of first
    /// appearance.
    pub kind: String,
    /// Its name: unique among its kind.
    pub name: String,
    /// Its state in a word or two, such as `open`. Default: empty.
    pub state: String,
    /// Its health. Default [`Health::Good`].
    pub health: Health,
    /// Label, value and unit (such as `ms`, `/s`, `%`, or empty); a value that is not a number is
    /// shown as a dash. Default: none.
    pub numbers: Vec<(String, f64, &'static str)>,
    /// The current value of the number drawn over time. Default 0.
    pub spark: f64,
    /// The name of that number, such as `requests/s`; when empty, nothing is drawn. Default: empty.
    pub spark_of: String,
    /// Its share of all traffic, from 0 to 1, drawn as the area of a dot. Default: none.
    pub share: Option<f64>,
    /// How full it is, from 0 to 1, drawn as a bar. Default: none.
    pub gauge: Option<f64>,
    /// Label and weight of cells in a row; the heaviest is the darkest: requests by latency or by
    /// attempts, or the phi of each peer. Default: none.
    pub strip: Vec<(String, f64)>,
    /// The title of the strip, such as `latency, ms`. Default: empty.
    pub strip_of: String,
    /// Label and weights of rows of cells over time, the oldest first; the heaviest is the darkest:
    /// requests by latency, second by second. Default: none.
    pub heat: Vec<(String, Vec<f64>)>,
    /// The title of the heat map, such as `latency, last 30 s`. Default: empty.
    pub heat_of: String,
}

/// The health of a thing; the page shows it by a colour and a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Health {
    /// As it should be.
    #[default]
    Good,
    /// Worth watching.
    Warn,
    /// Not as it should be.
    Bad,
}

// === impl Tile ===

impl Tile {
    /// A healthy tile without values.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into(), ..Self::default() }
    }
}
