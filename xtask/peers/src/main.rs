//! What the breaker costs beside its peers, in one run: `cargo xtask bench peers`.
//!
//! # What is measured
//!
//! * A call through a closed breaker on one thread, and on two at once that share it: what each
//!   thread sees, so wall time by the calls of one thread. A call that an open breaker rejects.
//! * *net* is less what the same call costs with no breaker. A rejection is compared with a
//!   service that fails at once.
//! * *allocs* are allocations of one call: closed, and rejected.
//! * *ratio* is ours by the fastest tower service among the peers that has the same window, net.
//! * A pick of our balancer, with 3, 100 and 1,000 endpoints.
//! * A call that a limit on calls in progress lets in.
//!
//! Each number is the median of rounds in which all take turns, so that all see the same machine.
//! With less than two cores free, the column of two threads means little.
//!
//! # How it is kept fair
//!
//! * The services answer at once, and their futures are polled until they are ready, without a
//!   runtime. Who waits for a lock is polled again at once: no waking is paid for.
//! * A request brings the `grpc-status` header that its response takes over, so that the service
//!   itself allocates nothing.
//! * Our breaker reads that header. Peers do not by themselves; they are measured with a
//!   classifier that does, and (*Err only*) without.
//! * The time window of tower-resilience is a list that each call reads from end to end. It is
//!   measured with about 1,000 calls in it.
//! * The success rate of failsafe does not open it in the first 10 s, so that three failures in a
//!   row do it there too.
//! * failsafe and recloser take closures, which have a row without a breaker of their own.
//! * Allocations are counted apart. What is left of the counter in the timed passes is about 2 ns
//!   for each allocation that is made and freed.

mod breakers;
mod harness;
mod limiters;
mod picks;

use tokio::runtime::Builder;

fn main() {
    // One that is never driven while something is timed: clocks ask for it.
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    if std::env::args().nth(1).as_deref() == Some("picks") {
        println!("{}", picks::table(&runtime));
        return;
    }
    {
        let _entered = runtime.enter();
        println!("{}", breakers::table());
    }
    println!("{}", picks::table(&runtime));
    let _entered = runtime.enter();
    println!("{}", limiters::table());
}
