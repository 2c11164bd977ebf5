//! A tile of a layer's metrics.

use crate::Tile;
use cinchona_core::{Instrument, Observable};

impl Tile {
    /// A tile of the current values of all metrics of a layer: each sample is a number, labelled
    /// with the end of the instrument's name and the values of its labels.
    ///
    /// ```
    /// use cinchona_core::{Instrument, Observable};
    /// use cinchona_dashboard::Tile;
    ///
    /// #[derive(Clone)]
    /// struct Limit;
    ///
    /// impl Observable for Limit {
    ///     const INSTRUMENTS: &'static [Instrument<Self>] = &[
    ///         Instrument::gauge("my.limit.in_progress", "{call}", "Calls in progress.", |_| 3.0),
    ///         Instrument::gauges("my.limit.age", "s", "How old each is.", |_, add| {
    ///             add(&[("call", "a")], 0.5);
    ///         }),
    ///     ];
    /// }
    ///
    /// let tile = Tile::of("server", "limit", &Limit);
    /// let numbers = vec![("in progress".into(), 3.0, ""), ("age a".into(), 0.5, "s")];
    /// assert_eq!(tile, Tile { numbers, ..Tile::new("server", "limit") });
    /// ```
    pub fn of<T: Observable>(kind: impl Into<String>, name: impl Into<String>, layer: &T) -> Self {
        let mut tile = Self::new(kind, name);
        for instrument in T::INSTRUMENTS {
            tile.add(instrument, layer);
        }
        tile
    }

    fn add<T>(&mut self, instrument: &'static Instrument<T>, layer: &T) {
        let what = instrument.name().rsplit('.').next().unwrap_or_default().replace('_', " ");
        // A count of named things, such as `{calls}`, needs no unit.
        let unit = if instrument.unit().starts_with('{') { "" } else { instrument.unit() };
        instrument.read(layer, &mut |labels, value| {
            let values = labels.iter().map(|(_, value)| *value);
            let label = [&*what].into_iter().chain(values).collect::<Vec<_>>().join(" ");
            self.numbers.push((label, value, unit));
        });
    }
}
