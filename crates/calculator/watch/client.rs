//! The tiles of a client.

use super::{calls::Calls, story::Condition};
use crate::{client::Layers, endpoints::Endpoints, recent::Summary};
use cinchona::{
    balance::{self, Balance},
    breaker::{self, Circuit},
    dashboard::{Health, Tile},
};
use std::time::Duration;
use tokio::time::Instant;

/// A client as a dashboard shows it.
#[derive(Clone, Debug)]
pub struct Client {
    layers: Layers,
    balance: Balance,
    calls: Calls,
    endpoints: Endpoints,
    /// An address, and its name.
    names: Vec<(String, String)>,
}

// === impl Client ===

impl Client {
    /// The client of these layers over this channel. Its attempts are known if `endpoints` watched
    /// the layers before the channel was made.
    pub fn new(layers: &Layers, balance: Balance, calls: Calls, endpoints: Endpoints) -> Self {
        Self { layers: layers.clone(), balance, calls, endpoints, names: Vec::new() }
    }

    /// Calls endpoints by names: pairs of an address such as `127.0.0.1:50051` and its name.
    #[must_use]
    pub fn with_names(self, names: Vec<(String, String)>) -> Self {
        Self { names, ..self }
    }

    /// All tiles.
    pub fn tiles(&self) -> Vec<Tile> {
        let circuits = self.layers.breaker.circuits();
        let mut tiles = Vec::from(self.calls.tiles());
        tiles.extend(self.budget());
        tiles.push(self.limits());
        tiles.extend(self.endpoints(&circuits));
        tiles.extend(circuits.iter().map(|circuit| self.breaker(circuit)));
        tiles
    }

    /// The states of breakers and endpoints, which reports their changes.
    pub fn conditions(&self) -> Vec<Condition> {
        let circuits = self.layers.breaker.circuits();
        let circuits = circuits.iter().map(|circuit| {
            let state = state_of(circuit.state()).to_owned();
            Condition::new(format!("breaker {}", self.name(circuit.name())), state)
        });
        let endpoints = self.balance.states().into_iter().map(|seen| {
            let name = self.name(&seen.target.to_string());
            let how = match seen.ejected {
                Some((method, _)) => format!("ejected by {method}"),
                None => connection(seen.state).to_owned(),
            };
            Condition::new(format!("endpoint {name}"), how)
        });
        circuits.chain(endpoints).collect()
    }

    fn endpoints(&self, circuits: &[Circuit]) -> Vec<Tile> {
        let now = Instant::now();
        let states = self.balance.states().into_iter().map(|seen| {
            let recent = self.endpoints.of(&seen.target, now).unwrap_or_default();
            (seen, recent)
        });
        let states: Vec<_> = states.collect();
        let all: f64 = states.iter().map(|(_, recent)| recent.per_second).sum();
        let tile = |(seen, recent): (balance::Snapshot, Summary)| {
            let uri = seen.target.to_string();
            let of_it = circuits.iter().filter(|circuit| circuit.name().starts_with(&uri));
            let is_open = of_it.clone().any(|circuit| circuit.state() != breaker::State::Closed);
            let (state, health) = match (seen.ejected, seen.state) {
                (Some((method, left)), _) => {
                    (format!("ejected by {method}, {} left", seconds(left)), Health::Bad)
                }
                (None, balance::State::Ready) if is_open => {
                    ("connected, breaker open".into(), Health::Bad)
                }
                (None, balance::State::Ready) if recent.failures() >= 5.0 => {
                    ("connected".into(), Health::Warn)
                }
                (None, balance::State::Ready) => ("connected".into(), Health::Good),
                (None, balance::State::TransientFailure) => ("down".into(), Health::Bad),
                (None, state) => (connection(state).into(), Health::Warn),
            };
            let ewma = seen.latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3);
            Tile {
                state,
                health,
                numbers: vec![
                    ("failed".into(), recent.failures(), "%"),
                    ("p50".into(), recent.p50, "ms"),
                    ("p99".into(), recent.p99, "ms"),
                    ("in flight".into(), seen.in_flight as f64, ""),
                    ("peak EWMA".into(), ewma, "ms"),
                    ("attempts".into(), seen.calls as f64, ""),
                ],
                spark: recent.per_second,
                spark_of: "attempts/s".into(),
                share: (all > 0.0).then(|| recent.per_second / all),
                ..Tile::new("endpoint", self.name(&uri))
            }
        };
        states.into_iter().map(tile).collect()
    }

    fn breaker(&self, circuit: &Circuit) -> Tile {
        let state = circuit.state();
        let next = circuit.next_probe_in().filter(|_| state == breaker::State::Open);
        let rate = circuit.failure_rate().map(|rate| ("failed".into(), 100.0 * rate, "%"));
        let rejected = ("rejected".into(), circuit.rejected() as f64, "");
        Tile {
            state: match next {
                Some(left) => format!("{}, probe in {}", state_of(state), seconds(left)),
                None => state_of(state).into(),
            },
            health: match state {
                breaker::State::Closed => Health::Good,
                breaker::State::HalfOpen => Health::Warn,
                _ => Health::Bad,
            },
            numbers: [rejected].into_iter().chain(rate).collect(),
            ..Tile::new("breaker", self.name(circuit.name()))
        }
    }

    fn budget(&self) -> Option<Tile> {
        let retry = &self.layers.retry;
        let (left, most) = retry.counters().budget_tokens?;
        let share = if most > 0.0 { left / most } else { 0.0 };
        let mut state = format!("{left:.0} of {most:.0} tokens left");
        let mut numbers = vec![("budget".into(), 100.0 * share, "%")];
        if let Some(most) = retry.counters().throttle_max_tokens {
            let left = retry.counters().throttle_tokens;
            state += &format!(", throttle {left:.0} of {most:.0}");
            numbers.push(("throttle".into(), 100.0 * left / most, "%"));
        }
        Some(Tile {
            state,
            health: match share {
                share if share < 0.1 => Health::Bad,
                share if share < 0.5 => Health::Warn,
                _ => Health::Good,
            },
            numbers,
            gauge: Some(share),
            ..Tile::new("client", "retry budget")
        })
    }

    fn limits(&self) -> Tile {
        let bulkhead = &self.layers.bulkhead;
        Tile {
            numbers: vec![
                ("turned away".into(), bulkhead.counters().shed as f64, ""),
                ("throttled".into(), self.layers.throttle.counters().throttled as f64, ""),
            ],
            spark: f64::from(bulkhead.counters().in_progress),
            spark_of: "under way".into(),
            ..Tile::new("client", "bulkhead and throttle")
        }
    }

    /// Without scheme, and with names in place of addresses.
    fn name(&self, uri: &str) -> String {
        let bare = uri.strip_prefix("http://").unwrap_or(uri);
        let (address, path) = bare.split_once('/').unwrap_or((bare, ""));
        let named = self.names.iter().find(|(known, _)| known == address);
        let name = named.map_or(address, |(_, name)| name);
        if path.is_empty() { name.to_owned() } else { format!("{name} {path}") }
    }
}

const fn state_of(state: breaker::State) -> &'static str {
    match state {
        breaker::State::Closed => "closed",
        breaker::State::Open => "open",
        breaker::State::HalfOpen => "half-open",
        breaker::State::Isolated => "isolated",
        _ => "unknown",
    }
}

const fn connection(state: balance::State) -> &'static str {
    match state {
        balance::State::Idle => "idle",
        balance::State::Connecting => "connecting",
        balance::State::Ready => "connected",
        balance::State::TransientFailure => "down",
        _ => "unknown",
    }
}

fn seconds(left: Duration) -> String {
    format!("{:.1} s", left.as_secs_f64())
}
