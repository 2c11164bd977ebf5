//! A real resolver, whose zone changes, and which goes away.

use super::*;
use crate::world::{Resolver, Server, is_alone};
use calculator::client::{Settings, Stack, stack};
use cinchona::{balance::Dns, retry::RetryPolicy};
use http::Uri;
use tokio::time::sleep;

const NAME: &str = "orders.test";
const LIMIT: Duration = Duration::from_secs(10);

fn dns() -> Dns {
    Dns::new(Uri::from_static("http://orders.test:50051"))
}

/// Servers at these addresses, on the one port that the name stands for.
fn servers(addresses: &[&str]) -> Vec<Server> {
    addresses.iter().map(|address| Server::on(&format!("{address}:50051"), &[])).collect()
}

/// The stack with retries, at its defaults.
fn retrying(dns: Dns) -> Stack<Balance> {
    let retry = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
    let layers = Settings { retry, ..Settings::default() }.layers().unwrap();
    stack(Balance::new(dns, Options::default()).unwrap(), &layers)
}

// catalogue: S-B1
// real clock: resolver and servers are processes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs dnsmasq and network namespaces"]
async fn calls_go_to_the_servers_that_replaced_others_a_second_after_the_first_failure() {
    let name = "calls_go_to_the_servers_that_replaced_others_a_second_after_the_first_failure";
    if !is_alone(name) {
        return;
    }
    let sets = [["127.0.0.2", "127.0.0.3"], ["127.0.0.4", "127.0.0.5"], ["127.0.0.5", "127.0.0.6"]];
    let resolver = Resolver::start(NAME, &sets[0]).await;
    let mut old = servers(&sets[0]);
    // Its interval is that of the default, which is longer than the test.
    let (retrying, bare) = (retrying(dns()), Balance::new(dns(), Options::default()).unwrap());
    for set in &sets[1..] {
        let time = 14 * SECOND;
        let (retried, seen, replaced) = tokio::join!(
            load(&retrying, time, 20 * MS, LIMIT),
            load(&bare, time, 20 * MS, LIMIT),
            async {
                // A look that is asked for comes 5 s after the one before at the soonest.
                sleep(7 * SECOND).await;
                let stay = old.iter().any(|server| server.addr.ip().to_string() == set[0]);
                let new = servers(if stay { &set[1..] } else { &set[..] });
                resolver.is_told(NAME, set);
                sleep(SECOND / 2).await;
                let now = Instant::now();
                let gone = old.len() - usize::from(stay);
                let left = old.split_off(gone);
                drop(std::mem::replace(&mut old, left));
                old.extend(new);
                now
            }
        );
        let first = failed(&seen).first().map(|call| call.at + call.took);
        let late = last_failed(&seen, first.unwrap_or(replaced));
        println!(
            "to {set:?}: bare {} of {} failed, the last that did began {late:?} after the first \
             failure, the longest call took {:?}; with retries {} of {} lost, the longest {:?}",
            failed(&seen).len(),
            seen.len(),
            longest(&seen),
            failed(&retried).len(),
            retried.len(),
            longest(&retried),
        );
        assert!(failed(&retried).is_empty(), "{:?}", failed(&retried).first());
        // What waits for the new servers is on its way to them a second later.
        assert!(longest(&retried) <= 2 * SECOND, "{:?}", longest(&retried));
        assert!(late.unwrap_or_default() <= SECOND, "{:?}", failed(&seen).last());
        assert_eq!(states(&bare), set.map(|address| format!("http://{address}:50051/")));
    }
}

fn states(balance: &Balance) -> Vec<String> {
    balance.states().iter().map(|endpoint| endpoint.target.to_string()).collect()
}

// catalogue: S-B1
// real clock: resolver and servers are processes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs dnsmasq and network namespaces"]
async fn a_resolver_that_is_gone_costs_no_call() {
    if !is_alone("a_resolver_that_is_gone_costs_no_call") {
        return;
    }
    let old = ["127.0.0.2", "127.0.0.3"];
    let mut resolver = Resolver::start(NAME, &old).await;
    let mut servers = servers(&old);
    // Ten minutes of 30 s each are twenty lookups; here as many in a minute or so.
    let dns = dns().with_interval(SECOND);
    let bare = Balance::new(dns.clone(), Options::default()).unwrap();
    let retrying = retrying(dns);
    let time = 80 * SECOND;
    let (retried, seen, ()) = tokio::join!(
        load(&retrying, time, 20 * MS, LIMIT),
        load(&bare, time, 20 * MS, LIMIT),
        async {
            sleep(2 * SECOND).await;
            // It refuses, says nothing, and says that there is no such name.
            resolver.ends();
            sleep(10 * SECOND).await;
            // A server that is started again meanwhile is found where it was.
            drop(servers.pop());
            sleep(2 * SECOND).await;
            servers.push(Server::on("127.0.0.3:50051", &[]));
            sleep(10 * SECOND).await;
            resolver.begins().await;
            sleep(3 * SECOND).await;
            resolver.signal("STOP");
            sleep(30 * SECOND).await;
            resolver.signal("CONT");
            resolver.is_told(NAME, &[]);
            sleep(10 * SECOND).await;
            resolver.is_told(NAME, &["127.0.0.2"]);
        }
    );
    println!(
        "bare {} of {} failed, with retries {} of {} lost, the longest call took {:?}",
        failed(&seen).len(),
        seen.len(),
        failed(&retried).len(),
        retried.len(),
        longest(&retried),
    );
    assert!(failed(&retried).is_empty(), "{:?}", failed(&retried).first());
    let few = failed(&seen).len();
    assert!(few <= 3, "those in flight to the server that was started again: {few}");
    assert_eq!(states(&bare), ["http://127.0.0.2:50051/"], "what it says then is followed");
}
