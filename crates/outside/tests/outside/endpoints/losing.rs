//! Servers that are killed, stopped and drained, and ports that refuse, behind a bare balancer.

use super::*;
use crate::world::{Server, refusing};
use cinchona::{
    balance::Picker,
    core::Methods,
    retry::{RetryLayer, RetryPolicy},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tower::Layer;

/// No call takes as long by itself; what a server that has stopped had is given up then.
const LIMIT: Duration = Duration::from_secs(2);

/// Between a signal and its effect, where the machine is busy.
const SLACK: Duration = Duration::from_millis(750);

const PACE: Duration = Duration::from_millis(5);

const PICKERS: [Picker; 3] = [Picker::PeakEwma, Picker::RoundRobin, Picker::PickFirst];

async fn three(picker: Picker) -> (Vec<Server>, Balance) {
    let servers: Vec<Server> = (0..3).map(|_| Server::start(&[])).collect();
    let targets: Vec<_> = servers.iter().map(|server| target(server.addr)).collect();
    let channel = Balance::new(targets, Options { picker, ..Options::default() }).unwrap();
    sleep(SECOND / 2).await;
    (servers, channel)
}

/// Load for 5 s, with `trouble` after one.
async fn under_load(channel: &impl Channel, trouble: impl FnOnce()) -> (Vec<Seen>, Instant) {
    tokio::join!(load(channel, 5 * SECOND, PACE, LIMIT), async {
        sleep(SECOND).await;
        let since = Instant::now();
        trouble();
        since
    })
}

fn report(what: &str, picker: Picker, seen: &[Seen], since: Instant) -> Option<Duration> {
    let last = last_failed(seen, since);
    let failed = failed(seen);
    println!(
        "{what}, {picker:?}: {} of {} failed, the last began {last:?} later",
        failed.len(),
        seen.len()
    );
    last
}

// catalogue: S-B3
// real clock: the servers are processes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a minute"]
async fn a_server_that_is_killed_costs_only_what_it_had() {
    for picker in PICKERS {
        let (mut servers, channel) = three(picker).await;
        let (seen, since) = under_load(&channel, || drop(servers.remove(0))).await;
        let last = report("killed", picker, &seen, since);
        assert!(last.unwrap_or_default() <= SLACK, "{:?}", failed(&seen).last());
        assert!(failed(&seen).iter().all(|call| call.at + call.took >= since));
    }
}

// catalogue: S-B5
// real clock: the servers are processes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a minute"]
async fn a_server_that_is_stopped_costs_only_what_was_sent_to_it_before_it_was_suspected() {
    for picker in PICKERS {
        let (servers, channel) = three(picker).await;
        let (seen, since) = under_load(&channel, || servers[0].signal("STOP")).await;
        report("stopped", picker, &seen, since);
        // From the first call that it had: its limit, and a second of doubt.
        let began = failed(&seen).iter().map(|call| call.at).collect::<Vec<_>>();
        let lasted = began.iter().max().zip(began.iter().min()).map(|(last, first)| *last - *first);
        assert!(lasted.unwrap_or_default() <= LIMIT + SECOND + SLACK, "{:?}", failed(&seen).last());
        servers[0].signal("CONT");
    }
}

// catalogue: S-B3
// real clock: the servers are processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_refuses_costs_nothing() {
    for picker in PICKERS {
        let server = Server::start(&[]);
        let (free, _refuses) = refusing();
        let options = Options { picker, ..Options::default() };
        let channel = Balance::new(vec![target(free), target(server.addr)], options).unwrap();
        let began = Instant::now();
        add(channel.clone(), LIMIT).await.unwrap();
        let first = Instant::now() - began;
        let seen = load(&channel, 2 * SECOND, PACE, LIMIT).await;
        println!("refused, {picker:?}: the first call took {first:?}");
        report("refused", picker, &seen, began);
        assert!(failed(&seen).is_empty(), "{:?}", failed(&seen).first());
    }
}

// catalogue: S-B11
// real clock: the servers are processes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a minute"]
async fn a_server_that_drains_costs_nothing_and_ends_what_it_has() {
    for picker in PICKERS {
        let (servers, channel) = three(picker).await;
        let mut long = JoinSet::new();
        let mut ends = Vec::new();
        for _ in 0..3 {
            let (sender, numbers) = mpsc::channel(1);
            let mut client = CalculatorClient::new(channel.clone());
            long.spawn(async move { client.sum(ReceiverStream::new(numbers)).await.is_ok() });
            ends.push(sender);
        }
        sleep(SECOND / 5).await;
        // As in every gRPC client: what a GOAWAY has crossed on its way is sent again.
        let policy = RetryPolicy::default().with_max_retries(0);
        let transparent = RetryLayer::new(policy, Methods::unknown()).layer(channel);
        let (seen, since) = under_load(&transparent, || servers[0].signal("TERM")).await;
        drop(ends);
        report("drained", picker, &seen, since);
        assert!(failed(&seen).is_empty(), "{:?}", failed(&seen).first());
        assert_eq!(long.join_all().await, [true; 3], "{picker:?}: calls that it had are ended");
    }
}
