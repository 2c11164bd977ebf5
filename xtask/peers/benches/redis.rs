//! Claim and finish in Redis against the two bare commands that they need: `cargo xtask bench
//! redis`. Starts its own `redis-server`.

use cinchona::{
    core::BoxError,
    idempotency::{Claim, Store},
};
use cinchona_redis::RedisStore;
use cinchona_testkit::Redis;
use redis::{Client, aio::ConnectionManager};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

const CALLERS: u32 = 64;
const PAIRS: u32 = 500;
const ROUNDS: usize = 15;
const RECORD: &[u8] = &[7; 200];

fn main() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { compare(&Redis::start().await).await })
}

async fn compare(redis: &Redis) -> Result<(), BoxError> {
    let store = RedisStore::new(&redis.url())?.with_timeout(Duration::from_secs(10))?;
    let bare = ConnectionManager::new(Client::open(redis.url())?).await?;
    let (mut ratios, mut rates) = (Vec::new(), (Vec::new(), Vec::new()));
    for round in 0..ROUNDS {
        let prefix = format!("round {round}");
        // The order alternates between rounds.
        let (bare, ours) = if round % 2 == 0 {
            let bare = rate(|caller| commands(bare.clone(), prefix.clone(), caller)).await?;
            (bare, rate(|caller| pairs(store.clone(), prefix.clone(), caller)).await?)
        } else {
            let ours = rate(|caller| pairs(store.clone(), prefix.clone(), caller)).await?;
            (rate(|caller| commands(bare.clone(), prefix.clone(), caller)).await?, ours)
        };
        ratios.push(ours / bare);
        rates.0.push(bare);
        rates.1.push(ours);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "redis: {:.0} claim-and-finish pairs a second, {:.0} of SET NX PX and SET; ratio {:.2}",
        median(&mut rates.1),
        median(&mut rates.0),
        median(&mut ratios)
    );
    Ok(())
}

async fn rate<F>(caller: impl Fn(u32) -> F) -> Result<f64, BoxError>
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        callers.spawn(caller(n));
    }
    callers.join_all().await.into_iter().collect::<Result<(), _>>()?;
    Ok(f64::from(CALLERS * PAIRS) / (Instant::now() - began).as_secs_f64())
}

async fn pairs(store: RedisStore, prefix: String, caller: u32) -> Result<(), BoxError> {
    for n in 0..PAIRS {
        let key = format!("{prefix} {caller} {n}").into_bytes();
        let claim = store.claim(&key, 1, n.into(), Duration::from_secs(30)).await?;
        assert!(matches!(claim, Claim::Granted { lapsed: false }));
        assert!(store.finish(&key, n.into(), RECORD).await?);
    }
    Ok(())
}

async fn commands(
    mut redis: ConnectionManager,
    prefix: String,
    caller: u32,
) -> Result<(), BoxError> {
    for n in 0..PAIRS {
        let key = format!("bare {prefix} {caller} {n}");
        let mut claim = redis::cmd("SET");
        claim.arg(&key).arg(&[1_u8; 33][..]).arg("NX").arg("PX").arg(30_000);
        let () = claim.query_async(&mut redis).await?;
        let mut finish = redis::cmd("SET");
        finish.arg(&key).arg(RECORD).arg("PX").arg(300_000);
        let () = finish.query_async(&mut redis).await?;
    }
    Ok(())
}
