//! The tile of a server, and a console for its faults.

use super::story::Condition;
use crate::{recent::lock, server::Layers};
use cinchona::{
    core::Switch,
    dashboard::{Console, FaultRule, Health, Tile},
    fault::{FaultLayer, Listed, Malformed, Rule, Rules},
    idempotency::{DedupLayer, Store},
    shed::{ShedCounters, ShedLayer},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// A server as a dashboard shows it; clones are the same.
#[derive(Debug)]
pub struct Server<S> {
    name: String,
    shed: ShedLayer,
    dedup: DedupLayer<S>,
    faults: FaultLayer,
    requests: Arc<Meter>,
    injected: Arc<Meter>,
    turned_away: Arc<Meter>,
}

/// The fault rules of one or more servers, as a dashboard changes them.
///
/// With several servers, a rule is for all of them, unless its name begins with that of one:
/// `server-1/slow` is for `server-1`.
#[derive(Clone, Debug)]
pub struct FaultConsole {
    servers: Vec<(String, Rules)>,
    hint: String,
}

/// The rate of a counter that began at 0, from its values at earlier readings.
#[derive(Debug)]
struct Meter(Mutex<VecDeque<(Instant, f64)>>);

/// The period of a rate.
const PERIOD: Duration = Duration::from_secs(1);
/// Readings closer together than this count as one.
const APART: Duration = Duration::from_millis(100);

// === impl Server ===

impl<S: Store> Server<S> {
    /// The server of these layers.
    pub fn new(name: impl Into<String>, layers: &Layers<S>) -> Self {
        let now = Instant::now();
        Self {
            name: name.into(),
            shed: layers.shed.clone(),
            dedup: layers.dedup.clone(),
            faults: layers.faults.clone(),
            requests: Arc::new(Meter::new(now)),
            injected: Arc::new(Meter::new(now)),
            turned_away: Arc::new(Meter::new(now)),
        }
    }

    /// Its tile.
    pub fn tile(&self) -> Tile {
        let now = Instant::now();
        let ShedCounters { limit, shed, in_progress, waiting, .. } = self.shed.counters();
        let (dedup, faults) = (self.dedup.counters(), self.faults.counters());
        let all = (dedup.executed + dedup.replayed).max(1);
        let requests = self.requests.per_second(faults.matched as f64, now);
        let injected = self.injected.per_second(faults.injected() as f64, now);
        let turned_away = self.turned_away.per_second(shed as f64, now);
        let state = match () {
            () if turned_away >= 0.5 => format!("turns {turned_away:.0} away each second"),
            () if injected >= 0.5 => format!("{injected:.0} faults each second"),
            () => format!("{in_progress} in progress, {waiting} waiting"),
        };
        let is_well = turned_away == 0.0 && injected == 0.0 && waiting == 0;
        let is_limited = limit < u32::MAX;
        let most = if is_limited { f64::from(limit) } else { f64::NAN };
        Tile {
            state,
            health: if is_well { Health::Good } else { Health::Warn },
            numbers: vec![
                ("limit".into(), most, ""),
                ("turned away".into(), shed as f64, ""),
                ("injected".into(), faults.injected() as f64, ""),
                ("executed".into(), dedup.executed as f64, ""),
                ("replayed".into(), dedup.replayed as f64, ""),
                ("dedup hits".into(), 100.0 * dedup.replayed as f64 / all as f64, "%"),
            ],
            spark: requests,
            spark_of: "requests/s".into(),
            gauge: is_limited.then(|| f64::from(in_progress) / most),
            ..Tile::new("server", &*self.name)
        }
    }
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            shed: self.shed.clone(),
            dedup: self.dedup.clone(),
            faults: self.faults.clone(),
            requests: self.requests.clone(),
            injected: self.injected.clone(),
            turned_away: self.turned_away.clone(),
        }
    }
}

// === impl FaultConsole ===

impl FaultConsole {
    /// The rules of these servers, each with its name.
    pub fn new(servers: Vec<(String, Rules)>) -> Self {
        let hint = match &*servers {
            [_, .., (last, _)] => {
                format!("A rule is for all servers; one named {last}/slow is for {last} alone.")
            }
            _ => String::new(),
        };
        Self { servers, hint }
    }

    /// The rules in force, which reports when they come and go.
    pub fn conditions(&self) -> Vec<Condition> {
        let condition =
            |rule: FaultRule| Condition::new(format!("fault rule {}", rule.id), rule.rule);
        self.list().into_iter().map(condition).collect()
    }

    /// The servers that a rule of this name is for.
    fn meant<'a>(&'a self, id: &'a str) -> Result<impl Iterator<Item = &'a Rules>, String> {
        let prefix = id.split_once('/').map(|(prefix, _)| prefix).filter(|_| self.is_of_many());
        if let Some(prefix) = prefix
            && !self.servers.iter().any(|(name, _)| name == prefix)
        {
            let names: Vec<_> = self.servers.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("there is no {prefix}; the servers are {}", names.join(", ")));
        }
        let meant = move |(name, _): &&(String, Rules)| prefix.is_none_or(|meant| meant == name);
        Ok(self.servers.iter().filter(meant).map(|(_, rules)| rules))
    }

    const fn is_of_many(&self) -> bool {
        self.servers.len() > 1
    }
}

impl Console for FaultConsole {
    fn list(&self) -> Vec<FaultRule> {
        let mut all: Vec<FaultRule> = Vec::new();
        let each = self.servers.iter().flat_map(|(_, rules)| rules.list());
        for Listed { id, rule, matched, injected, age, .. } in each {
            match all.iter_mut().find(|known| known.id == id) {
                Some(known) => {
                    known.matched += matched;
                    known.injected += injected;
                }
                None => all.push(FaultRule { id, rule: rule.to_string(), matched, injected, age }),
            }
        }
        all
    }

    fn set(&self, id: &str, rule: &str) -> Result<(), String> {
        let rule: Rule = rule.parse().map_err(|error: Malformed| error.to_string())?;
        for rules in self.meant(id)? {
            rules.set(id, rule.clone()).map_err(|invalid| invalid.to_string())?;
        }
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        // Of all, whether or not they have it: some may have lost it by its ttl already.
        let removed = self.servers.iter().filter(|(_, rules)| rules.remove(id)).count();
        if removed > 0 { Ok(()) } else { Err(format!("there is no rule {id}")) }
    }

    fn clear(&self) -> Result<(), String> {
        self.servers.iter().for_each(|(_, rules)| rules.clear());
        Ok(())
    }

    fn hint(&self) -> &str {
        &self.hint
    }

    /// The name of the server, if there is only one.
    fn switch(&self) -> Option<&Switch> {
        match &*self.servers {
            [(_, rules)] => Some(rules.switch()),
            _ => None,
        }
    }
}

// === impl Meter ===

impl Meter {
    fn new(now: Instant) -> Self {
        Self(Mutex::new([(now, 0.0)].into()))
    }

    fn per_second(&self, value: f64, now: Instant) -> f64 {
        let mut looks = lock(&self.0);
        if looks.back().is_none_or(|(at, _)| now - *at >= APART) {
            looks.push_back((now, value));
        }
        // One that is older than the period stays, so that the period is covered.
        while looks.get(1).is_some_and(|(at, _)| now - *at >= PERIOD) {
            looks.pop_front();
        }
        let Some((at, before)) = looks.front() else { return 0.0 };
        let took = (now - *at).as_secs_f64();
        if took > 0.0 { (value - before) / took } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn console(names: &[&str]) -> FaultConsole {
        FaultConsole::new(names.iter().map(|name| ((*name).into(), Rules::new(1))).collect())
    }

    fn ids(rules: &Rules) -> Vec<String> {
        rules.list().into_iter().map(|rule| rule.id).collect()
    }

    #[test]
    fn a_rule_is_for_all_servers_unless_its_name_begins_with_one() {
        let console = console(&["server-1", "server-2"]);
        console.set("all", "rate=0.5 status=UNAVAILABLE ttl=60s").unwrap();
        console.set("server-2/slow", "delay=1s ttl=60s").unwrap();
        assert_eq!(ids(&console.servers[0].1), ["all"]);
        assert_eq!(ids(&console.servers[1].1), ["all", "server-2/slow"]);
        let listed: Vec<_> = console.list().into_iter().map(|rule| rule.id).collect();
        assert_eq!(listed, ["all", "server-2/slow"]);
        assert_eq!(console.conditions()[1].what, "fault rule server-2/slow");
        let unknown = console.set("server-9/slow", "delay=1s ttl=60s").unwrap_err();
        assert_eq!(unknown, "there is no server-9; the servers are server-1, server-2");
        console.remove("all").unwrap();
        assert_eq!(console.remove("all").unwrap_err(), "there is no rule all");
        assert_eq!(console.list().len(), 1);
        assert!(console.hint().contains("server-2/slow") && console.switch().is_none());
    }

    #[test]
    fn one_server_takes_any_name_and_has_its_switch() {
        let console = console(&["server"]);
        console.set("a/b", "delay=1s ttl=60s").unwrap();
        assert_eq!(ids(&console.servers[0].1), ["a/b"]);
        assert!(console.switch().is_some() && console.hint().is_empty());
        assert!(console.set("c", "rate=3").unwrap_err().contains('^'));
        assert!(console.set("c", "delay=1s").unwrap_err().contains("ttl"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_meter_tells_the_rate_of_the_last_second_to_however_many_look() {
        let meter = Meter::new(Instant::now());
        assert_eq!(meter.per_second(0.0, Instant::now()), 0.0);
        for n in 1..=10 {
            advance(Duration::from_millis(500)).await;
            let value = 50.0 * f64::from(n);
            assert_eq!(meter.per_second(value, Instant::now()), 100.0);
            assert_eq!(meter.per_second(value, Instant::now()), 100.0);
        }
        advance(Duration::from_secs(5)).await;
        meter.per_second(500.0, Instant::now());
        advance(Duration::from_secs(1)).await;
        assert_eq!(meter.per_second(500.0, Instant::now()), 0.0);
    }
}
