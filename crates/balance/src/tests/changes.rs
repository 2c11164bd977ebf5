//! The cost of changes of the list, and what remains of a balancer.

use super::*;
use rand::RngExt as _;

fn numbered(n: usize) -> Target {
    format!("http://n{n}").parse::<Uri>().unwrap().into()
}

/// A balancer over a watch, of which only `n0` is there.
fn one_up(targets: Vec<Target>) -> (World, watch::Sender<Vec<Target>>, Balance) {
    let world = World::of(1);
    let network = world.networks[0].clone();
    let connector = service_fn(move |uri: Uri| {
        let network = network.clone();
        async move {
            match uri.host() {
                Some("n0") => network.connector().oneshot(uri).await,
                _ => Err(std::io::ErrorKind::ConnectionRefused.into()),
            }
        }
    });
    let (sender, found) = watch::channel(targets);
    let options = Options { rng: Rng::seeded(1), ..Options::default() };
    let balance = Balance::with_connector(found, connector, options).unwrap();
    (world, sender, balance)
}

// catalogue: S-B10
#[tokio::test(start_paused = true)]
async fn of_thousands_of_endpoints_the_one_that_is_up_is_found_immediately() {
    let mut targets: Vec<Target> = (0..5000).rev().map(numbered).collect();
    targets.extend(targets.clone());
    let (_world, _sender, balance) = one_up(targets);
    let began = Instant::now();
    assert_eq!(call(&balance).await, Code::Ok);
    assert!(Instant::now() - began < 2 * MS);
    assert_eq!(balance.states().len(), 5000, "each once");
}

// catalogue: S-B10
#[tokio::test(start_paused = true)]
async fn endpoints_that_come_and_go_leave_nothing_behind() {
    let (_world, sender, balance) = one_up(vec![numbered(0)]);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    sleep(MS).await;
    let before = tasks();
    let mut rng = Rng::seeded(1).draw();
    for round in 1..2000 {
        let some = (0..5).map(|_| numbered(round * 100 + rng.random_range(0..100)));
        sender.send_replace(some.chain([numbered(0)]).collect());
        sleep(MS).await;
        assert_eq!(call(&balance).await, Code::Ok);
    }
    sender.send_replace(vec![numbered(0)]);
    sleep(SECOND).await;
    assert_eq!(tasks(), before);
    let states = balance.states();
    assert_eq!((states.len(), states[0].calls), (1, 1999), "what stays keeps its numbers");
}

// catalogue: S-B11
#[tokio::test(start_paused = true)]
async fn a_balancer_that_is_dropped_leaves_no_task_and_no_connection() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for picker in [Picker::RoundRobin, Picker::PickFirst] {
        let mut world = World::of(3);
        world.networks[1].blackhole(true);
        world.kill(2);
        sleep(MS).await;
        let before = tasks();
        let balance = world.balance(by(picker));
        let other = balance.clone();
        calls(&balance, 10).await;
        drop(balance);
        assert_eq!(call(&other).await, Code::Ok, "a clone is the same");
        drop(other);
        sleep(10 * SECOND).await;
        assert_eq!(world.networks[0].live(), 0);
        assert_eq!(tasks(), before, "{picker:?}");
    }
}

// catalogue: S-E4
#[tokio::test(start_paused = true)]
async fn a_list_that_changes_all_the_time_delays_no_second_endpoint() {
    let world = World::of(3);
    world.networks[0].blackhole(true);
    world.networks[2].blackhole(true);
    let targets = world.targets();
    let (sender, found) = watch::channel(targets.clone());
    let balance = world.balance_over(found, by(Picker::PickFirst));
    let changing = tokio::spawn(async move {
        for n in 0.. {
            sleep(100 * MS).await;
            sender.send_replace(targets[..2 + n % 2].to_vec());
        }
    });
    let began = Instant::now();
    assert_eq!(call(&balance).await, Code::Ok);
    assert!(Instant::now() - began < SECOND / 2, "{:?}", Instant::now() - began);
    changing.abort();
}

// catalogue: S-P7
#[tokio::test(start_paused = true)]
async fn a_dropped_balancer_leaves_nothing_whatever_it_was_doing() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let health = || Options { health: Some(String::new()), ..by(Picker::RoundRobin) };
    let outliers = || Options { outlier: OutlierDetection::default(), ..by(Picker::PeakEwma) };
    let all: [fn() -> Options; 4] = [
        || by(Picker::RoundRobin),
        || by(Picker::PickFirst),
        Options::of_one_endpoint,
        || by(Picker::WeightedRoundRobin),
    ];
    let all = all.into_iter().map(|options| options()).chain([health(), outliers()]);
    for (n, options) in all.enumerate() {
        for trouble in ["none", "refused", "no answer", "silent", "found by no name"] {
            let world = World::of(3);
            sleep(MS).await;
            let before = tasks();
            let networks = &world.networks;
            match trouble {
                "refused" => networks.iter().for_each(|network| network.refuse(true)),
                "no answer" => networks.iter().for_each(|network| network.blackhole(true)),
                _ => {}
            }
            let (nowhere, found) = watch::channel(world.targets());
            if trouble == "found by no name" {
                nowhere.send_replace(Vec::new());
            }
            let balance = world.balance_over(found, options.clone());
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    let balance = balance.clone();
                    tokio::spawn(async move { call(&balance).await })
                })
                .collect();
            sleep(20 * MS).await;
            if trouble == "silent" {
                networks.iter().for_each(|network| network.freeze());
                drop(tokio::time::timeout(SECOND, call(&balance)).await);
            }
            drop(balance);
            waiting.iter().for_each(tokio::task::JoinHandle::abort);
            sleep(SECOND).await;
            if trouble == "silent" {
                // Servers do not see that their clients have vanished.
                networks.iter().for_each(Network::reset);
            }
            sleep(SECOND).await;
            assert_eq!(tasks(), before, "{n}, {trouble}");
            assert!(networks.iter().all(|network| network.live() == 0), "{n}, {trouble}");
        }
    }
}
