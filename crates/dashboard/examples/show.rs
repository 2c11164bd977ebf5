//! The dashboard with made-up data that changes: `cargo run -p cinchona-dashboard --example show`.

use cinchona_core::Switch;
use cinchona_dashboard::{Console, Dashboard, FaultRule, Feed, Health, Link, Map, Spot, Tile};
use std::{
    env, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, time::Instant};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9090".into());
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let start = Instant::now();
    let feed = Feed::new();
    let dashboard = Dashboard::new()
        .tiles(move || tiles((Instant::now() - start).as_secs_f64()))
        .map(map)
        .events(feed.clone())
        .metrics(|| "# TYPE calls_total counter\ncalls_total 3\n".into())
        .faults(Rules { feed: feed.clone(), ..Rules::default() });
    feed.push("server listening on [::1]:50051");
    tokio::spawn(async move {
        for n in 0.. {
            let word = if n % 2 == 0 { "opened: 61 % of 48 calls failed" } else { "closed" };
            feed.push(format!("breaker eu-{} {word}", n % 3 + 1));
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    });
    dashboard.serve(listener, std::future::pending()).await
}

/// The tiles `t` seconds after the start.
fn tiles(t: f64) -> Vec<Tile> {
    let wave = |phase: f64| (t * 0.9 + phase).sin() * 0.5 + (t * 3.1 + phase * 7.0).sin() * 0.2;
    let mut tiles: Vec<_> = (0..3).map(|n| breaker(n, wave(f64::from(n)))).collect();
    tiles.extend((0..4).map(|n| endpoint(n, wave(f64::from(n) * 1.7))));
    tiles.push(Tile {
        state: "retries allowed".into(),
        numbers: vec![("tokens".into(), (60.0 + 30.0 * wave(0.0)).round(), "")],
        gauge: Some(0.6 + 0.3 * wave(0.0)),
        strip: vec![("1".into(), 900.0), ("2".into(), 140.0), ("3".into(), 31.0)],
        strip_of: "attempts per call".into(),
        ..Tile::new("budget", "retries")
    });
    tiles.push(Tile {
        state: "64 in progress, 3 waiting".into(),
        health: Health::Warn,
        numbers: vec![("limit".into(), 64.0, ""), ("shed".into(), 12.0, "/s")],
        spark: 12.0 + 8.0 * wave(2.0),
        spark_of: "shed/s".into(),
        gauge: Some(0.97),
        ..Tile::new("limit", "server")
    });
    let row = |(label, most): (&str, f64)| {
        let cell = |at: u32| (most * (1.0 + (t.floor() + f64::from(at)).sin())).round();
        (label.to_owned(), (0..30).map(cell).collect())
    };
    tiles.push(Tile {
        spark: 300.0 + 90.0 * wave(1.0),
        spark_of: "calls/s".into(),
        heat: [("1 ms", 200.0), ("10 ms", 60.0), ("100 ms", 9.0), ("1 s", 1.0)].map(row).into(),
        heat_of: "latency up to, last 30 s".into(),
        ..Tile::new("client", "calls")
    });
    tiles
}

/// Four nodes, the last of which is hardly heard.
fn map() -> Map {
    let names = ["a", "b", "c", "d"];
    let node = |name: &str| match name {
        "d" => {
            Spot { state: "suspected".into(), health: Health::Warn, phi: 8.9, ..Spot::new(name) }
        }
        _ => Spot { state: "alive".into(), phi: 0.4, ..Spot::new(name) },
    };
    let link = |(from, to): (&str, &str)| {
        let health = if [from, to].contains(&"d") { Health::Bad } else { Health::Good };
        Link { from: from.into(), to: to.into(), health }
    };
    let pairs = names.iter().flat_map(|from| names.iter().map(move |to| (*from, *to)));
    let links = pairs.filter(|(from, to)| from != to).map(link).collect();
    Map { nodes: names.map(node).into(), links }
}

fn breaker(n: u32, wave: f64) -> Tile {
    let (state, health) = match n {
        0 => ("closed", Health::Good),
        1 => ("half open, 2 of 5 probes", Health::Warn),
        _ => ("open, 3.2 s left", Health::Bad),
    };
    Tile {
        state: state.into(),
        health,
        numbers: vec![
            ("failures".into(), 20.0 + 15.0 * wave, "%"),
            ("slow".into(), 1.5, "%"),
            ("opened".into(), f64::from(n), ""),
        ],
        spark: 120.0 + 90.0 * wave,
        spark_of: "calls/s".into(),
        ..Tile::new("breaker", format!("eu-{}", n + 1))
    }
}

fn endpoint(n: u32, wave: f64) -> Tile {
    let cells = ["1", "2", "5", "10", "20", "50", "100+"];
    let weight = |(at, label): (usize, &str)| {
        let off = at as f64 - 2.5 - wave;
        (label.to_owned(), (1000.0 * (-off * off / 2.0).exp()).round())
    };
    Tile {
        state: if n == 3 { "ejected for 30 s" } else { "ready" }.into(),
        health: if n == 3 { Health::Bad } else { Health::Good },
        numbers: vec![
            ("p50".into(), 4.2 + wave, "ms"),
            ("p99".into(), 31.0 + 20.0 * wave, "ms"),
            ("errors".into(), if n == 3 { 44.0 } else { 0.0 }, "%"),
        ],
        spark: 48_000.0 + 20_000.0 * wave,
        spark_of: "requests/s".into(),
        share: Some(0.4 - 0.1 * f64::from(n)),
        strip: cells.into_iter().enumerate().map(weight).collect(),
        strip_of: "latency, ms".into(),
        ..Tile::new("endpoint", format!("10.0.3.{}:50051", 11 + n))
    }
}

/// Rules without an effect.
#[derive(Default)]
struct Rules {
    set: Mutex<Vec<FaultRule>>,
    switch: Switch,
    feed: Feed,
}

impl Rules {
    fn change<T>(&self, change: impl FnOnce(&mut Vec<FaultRule>) -> T) -> T {
        change(&mut self.set.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Console for Rules {
    fn list(&self) -> Vec<FaultRule> {
        self.change(|rules| rules.clone())
    }

    fn set(&self, id: &str, rule: &str) -> Result<(), String> {
        if !rule.contains("ttl=") {
            let carets = "^".repeat(rule.len());
            return Err(format!("no ttl\n  {rule}\n  {carets}\n  allowed: such as ttl=60s"));
        }
        self.feed.push(format!("fault rule {id} set: {rule}"));
        let rule = FaultRule { id: id.into(), rule: rule.into(), ..FaultRule::default() };
        self.change(|rules| {
            rules.retain(|old| old.id != id);
            rules.push(FaultRule { matched: 12_345, injected: 678, ..rule });
        });
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        self.feed.push(format!("fault rule {id} removed"));
        self.change(|rules| rules.retain(|rule| rule.id != id));
        Ok(())
    }

    fn clear(&self) -> Result<(), String> {
        self.feed.push("fault rules cleared");
        self.change(Vec::clear);
        Ok(())
    }

    fn switch(&self) -> Option<&Switch> {
        Some(&self.switch)
    }
}
