//! What changes of the list cost, and what is left of a balancer.

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
async fn of_thousands_of_endpoints_the_one_that_is_up_is_found_at_once() {
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
