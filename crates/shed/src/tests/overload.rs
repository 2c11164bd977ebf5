//! Three times the load that a server can handle.

use super::*;

const WORKERS: usize = 8;
const WORK: Duration = Duration::from_millis(20);
/// How long a caller waits.
const PATIENCE: Duration = Duration::from_millis(500);

/// A server of 8 workers that handles 400 calls a second, in order of arrival, whether or not the
/// caller still waits: it cannot know.
fn server()
-> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let workers = Arc::new(Semaphore::new(WORKERS));
    service_fn(move |_: Request<Body>| {
        let workers = workers.clone();
        let work = tokio::spawn(async move {
            let _worker = workers.acquire().await;
            sleep(WORK).await;
        });
        async move {
            _ = work.await;
            Ok(Status::ok("").into_http())
        }
    })
}

/// The share of the server's capacity that was answered in time, and the p99, at so many times its
/// capacity, for ten seconds after two of warm-up.
async fn goodput<S, B>(service: S, load: f64) -> (f64, Duration)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let capacity = WORKERS as f64 / WORK.as_secs_f64();
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    for n in 0..(12.0 * capacity * load) as u32 {
        let service = service.clone();
        let at = Duration::from_secs_f64(f64::from(n) / (capacity * load));
        calls.spawn(async move {
            sleep_until(began + at).await;
            let answered = timeout(PATIENCE, call(&service, request())).await;
            let is_good = answered == Ok(Code::Ok) && at > 2 * SECOND;
            is_good.then(|| Instant::now() - (began + at))
        });
    }
    let mut good: Vec<Duration> = calls.join_all().await.into_iter().flatten().collect();
    good.sort_unstable();
    let p99 = good.get(good.len() * 99 / 100).copied().unwrap_or(Duration::MAX);
    (good.len() as f64 / (10.0 * capacity), p99)
}

#[tokio::test(start_paused = true)]
async fn at_three_times_its_capacity_a_server_that_sheds_keeps_its_throughput() {
    for limit in [Limit::default(), Limit::Fixed(WORKERS as u32)] {
        let layer = ShedSettings::new(limit).unwrap().with_rng(Rng::seeded(1)).layer();
        let (share, p99) = goodput(layer.layer(server()), 3.0).await;
        println!(
            "{limit:?}: {:.1} % of its capacity, p99 {p99:?}, limit {}",
            share * 100.0,
            layer.counters().limit
        );
        assert!(share >= 0.9, "{share} with {limit:?}");
        assert!(p99 <= 200 * MS, "{p99:?} with {limit:?}");
    }
    let (share, _) = goodput(server(), 3.0).await;
    assert!(share < 0.1, "without it collapses: {share}");
}

#[tokio::test(start_paused = true)]
async fn below_its_capacity_nothing_is_shed() {
    let layer = ShedLayer::new(Limit::default()).unwrap();
    let (share, p99) = goodput(layer.layer(server()), 0.7).await;
    assert!((0.69..=0.71).contains(&share), "{share}");
    assert_eq!((layer.counters().shed, p99 < 60 * MS), (0, true), "{p99:?}");
}
