//! The samples of one metric from all that have it.

use crate::{
    metric::{Metric, Value},
    samples::{Key, Labels, Samples, key},
};
use std::collections::HashMap;

/// One metric, whose samples with the same labels become one.
#[derive(Debug)]
pub(crate) struct Merged {
    help: &'static str,
    unit: &'static str,
    is_counter: bool,
    series: Vec<(Labels, Vec<(u64, f64)>)>,
    at: HashMap<Key, usize>,
}

// === impl Merged ===

impl Merged {
    pub(crate) fn new(help: &'static str, unit: &'static str, is_counter: bool) -> Self {
        Self { help, unit, is_counter, series: Vec::new(), at: HashMap::new() }
    }

    /// Adds samples of `owner`; of two with the same labels, the last one stays.
    pub(crate) fn add(&mut self, owner: u64, samples: Samples) {
        for (labels, value) in samples.0 {
            let key = key(&labels);
            let next = self.series.len();
            let at = *self.at.entry(key).or_insert(next);
            if at == next {
                self.series.push((labels, vec![(owner, value)]));
                continue;
            }
            let (shown, values) = &mut self.series[at];
            match values.iter_mut().find(|(other, _)| *other == owner) {
                Some(before) => (*shown, before.1) = (labels, value),
                None => values.push((owner, value)),
            }
        }
    }

    /// What all owners have together.
    pub(crate) fn metric(self, name: String) -> Metric {
        let Self { help, unit, is_counter, series, .. } = self;
        // A state, an age or a share is none of several things.
        let is_of_things = is_counter || unit.starts_with('{') || unit == "By";
        let add = if is_of_things { |one, other| one + other } else { f64::max };
        let series = series.into_iter().filter_map(|(labels, values)| {
            let value = values.into_iter().map(|(_, value)| value).reduce(add)?;
            Some((labels, if is_counter { Value::Counter(value) } else { Value::Gauge(value) }))
        });
        Metric { name, help, unit, series: series.collect() }
    }
}
