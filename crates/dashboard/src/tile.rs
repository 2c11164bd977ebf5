//! What the page shows of one thing.

use serde::Serialize;

/// A breaker, an endpoint, a limit, a budget, a node: how it is now.
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
    /// What it is, such as `breaker`: tiles of a kind stand together, the kinds in the order in
    /// which they first come.
    pub kind: String,
    /// Which one: unique among its kind.
    pub name: String,
    /// Its state in a word or a few, such as `open`. Default empty.
    pub state: String,
    /// How it is. Default [`Health::Good`].
    pub health: Health,
    /// Label, value and unit (such as `ms`, `/s`, `%`, or empty); a value that is no number is
    /// shown as a dash. Default none.
    pub numbers: Vec<(String, f64, &'static str)>,
    /// The number that is drawn over time, as it is now. Default 0.
    pub spark: f64,
    /// What that number is, such as `requests/s`; when empty, nothing is drawn. Default empty.
    pub spark_of: String,
    /// Its share of all traffic, from 0 to 1, drawn as a dot of that area. Default none.
    pub share: Option<f64>,
    /// How full it is, from 0 to 1, drawn as a bar. Default none.
    pub gauge: Option<f64>,
    /// Label and weight of cells in a row, the heaviest the darkest: how many requests were how
    /// slow, or took how many attempts; or the phi of each peer. Default none.
    pub strip: Vec<(String, f64)>,
    /// What the strip is, such as `latency, ms`. Default empty.
    pub strip_of: String,
    /// Label and weights of rows of cells over time, the oldest first, the heaviest the darkest:
    /// how many requests were how slow, second by second. Default none.
    pub heat: Vec<(String, Vec<f64>)>,
    /// What they are, such as `latency, last 30 s`. Default empty.
    pub heat_of: String,
}

/// How something is; the page says it by a colour and by a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Health {
    /// As it should be.
    #[default]
    Good,
    /// To be watched.
    Warn,
    /// Not as it should be.
    Bad,
}

// === impl Tile ===

impl Tile {
    /// A tile that is well and says nothing.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into(), ..Self::default() }
    }
}
