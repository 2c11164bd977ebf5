//! Hours of endpoints that come, go, hang, refuse, vanish and misbehave, in virtual time.

use super::*;
use cinchona_core::Rejected;
use cinchona_plumbing::cause::find_cause;
use rand::RngExt as _;
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// One of the endpoints: its behaviour, and since when.
struct Place {
    network: Network,
    server: ScriptedServer,
    serving: Mutex<Option<Serving>>,
    /// Healthy since then.
    well_since: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Well,
    Refuses,
    Hangs,
    Vanishes,
    /// Accepts and sends nothing.
    Silent,
    Resets,
}

const FATES: [Fate; 9] = [
    Fate::Well,
    Fate::Well,
    Fate::Well,
    Fate::Well,
    Fate::Refuses,
    Fate::Hangs,
    Fate::Vanishes,
    Fate::Silent,
    Fate::Resets,
];

impl Place {
    fn new() -> Self {
        let place = Self {
            network: Network::new(),
            server: ScriptedServer::new([Answer::After(5 * MS, Box::new(ok()))]),
            serving: Mutex::default(),
            well_since: Mutex::default(),
        };
        place.meets(Fate::Well);
        place
    }

    fn meets(&self, fate: Fate) {
        let network = &self.network;
        network.refuse(matches!(fate, Fate::Refuses));
        network.blackhole(matches!(fate, Fate::Vanishes));
        network.release();
        let serves = matches!(fate, Fate::Well | Fate::Resets | Fate::Hangs | Fate::Vanishes);
        let mut serving = self.serving.lock().unwrap();
        match fate {
            Fate::Vanishes => network.freeze(),
            Fate::Hangs => network.hold(),
            Fate::Well => {}
            Fate::Refuses | Fate::Silent | Fate::Resets => network.reset(),
        }
        if !serves {
            *serving = None;
        } else if serving.is_none() {
            *serving = Some(network.serve_service(self.server.clone()));
        }
        if matches!(fate, Fate::Silent) {
            let incoming = network.incoming();
            // It is never read.
            tokio::spawn(async move {
                let _incoming = incoming;
                sleep(3600 * SECOND).await;
            });
        }
        let is_well = matches!(fate, Fate::Well | Fate::Resets);
        let mut since = self.well_since.lock().unwrap();
        *since = is_well.then(|| since.filter(|_| serves).unwrap_or_else(Instant::now));
    }
}

/// The results of a run.
#[derive(Debug, Default)]
struct Seen {
    /// How long a call has waited for an endpoint without success.
    longest: Duration,
    /// Seconds in which an endpoint was not used that had been healthy for longer than any backoff.
    out: usize,
    well: usize,
}

async fn run(seed: u64, time: Duration) -> Seen {
    let count = [1, 2, 3, 5][seed as usize / 4 % 4];
    let places: Arc<Vec<Place>> = Arc::new((0..count).map(|_| Place::new()).collect());
    let networks: Vec<Network> = places.iter().map(|place| place.network.clone()).collect();
    let connector = service_fn(move |uri: Uri| {
        let n: usize = uri.host().unwrap()[1..].parse().unwrap();
        networks[n].connector().oneshot(uri)
    });
    let (targets, found) = watch::channel((0..count).map(target).collect::<Vec<_>>());
    let picker = [Picker::PeakEwma, Picker::RoundRobin, Picker::LeastRequest, Picker::PickFirst];
    let picker = picker[seed as usize % 4];
    let options = Options { picker, rng: Rng::seeded(seed), ..Options::default() };
    let longest_backoff = SECOND * 144;
    let balance = Balance::with_connector(found, connector, options).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let calling = tokio::spawn({
        let (balance, is_over) = (balance.clone(), is_over.clone());
        async move {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                // Long enough for a wait and an attempt of two seconds.
                let call = balance.clone().oneshot(request());
                let outcome = timeout(4 * SECOND, call).await;
                let error = outcome.ok().and_then(Result::err);
                if error.is_some_and(|error| find_cause::<Rejected>(&*error).is_some()) {
                    longest = longest.max(Instant::now() - began);
                }
                sleep(SECOND).await;
            }
            longest
        }
    });
    let mut rng = Rng::seeded(seed).draw();
    let (mut seen, end) = (Seen::default(), Instant::now() + time);
    while Instant::now() < end {
        for _ in 0..rng.random_range(1..60) {
            sleep(SECOND).await;
            for (place, state) in places.iter().zip(balance.states()) {
                let since = *place.well_since.lock().unwrap();
                let is_well = since.is_some_and(|since| since + longest_backoff < Instant::now());
                if is_well && picker != Picker::PickFirst {
                    seen.well += 1;
                    seen.out += usize::from(state.state != State::Ready);
                }
            }
        }
        let n = rng.random_range(0..count);
        places[n].meets(FATES[rng.random_range(0..FATES.len())]);
        if rng.random_bool(0.1) {
            let some: Vec<Target> =
                (0..count).filter(|_| rng.random_bool(0.8)).map(target).collect();
            targets.send_replace(some);
            sleep(SECOND * 5).await;
            targets.send_replace((0..count).map(target).collect());
        }
    }
    let connects: Vec<u64> = places.iter().map(|place| place.network.connects()).collect();
    is_over.store(true, Ordering::Relaxed);
    seen.longest = calling.await.unwrap();
    // The first attempt after a loss is immediate, and the others follow the backoff; a changed
    // list makes another attempt.
    let most = time.as_secs() / 2;
    assert!(connects.iter().all(|count| *count < most), "{seed}: {connects:?}");
    seen
}

async fn campaign(seeds: std::ops::Range<u64>, time: Duration) {
    let mut all = Seen::default();
    for seed in seeds {
        let seen = run(seed, time).await;
        assert!(seen.longest <= SECOND * 3 / 2 + MS, "{seed}: {seen:?}");
        all.well += seen.well;
        all.out += seen.out;
        all.longest = all.longest.max(seen.longest);
    }
    println!("{all:?}");
    assert!(all.well > 0);
    assert!(all.out * 100 <= all.well, "healthy endpoints are out: {all:?}");
}

/// The number in this variable of the environment, or this one.
fn given(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

// catalogue: S-B2, S-B3, S-B13
// The long form is CINCHONA_SEEDS=200 CINCHONA_SECONDS=7200; another CINCHONA_SEED is 200 others.
#[tokio::test(start_paused = true)]
async fn whatever_happens_to_endpoints_calls_end_and_healthy_ones_are_used() {
    let time = SECOND * given("CINCHONA_SECONDS", 600) as u32;
    let count = given("CINCHONA_SEEDS", 16);
    let first = given("CINCHONA_SEED", 1).saturating_sub(1).saturating_mul(count);
    campaign(first..first.saturating_add(count), time).await;
}
