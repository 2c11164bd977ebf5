//! Claims that were abandoned without an answer, so that it is unknown whether they exist or will.
//!
//! A claim that Redis did not answer in time may still be in transit: over an abandoned connection,
//! Redis executes it whenever it arrives. No call holds it then, and all calls with the same key
//! would wait for its lease to end. So it is released repeatedly, and a call of this process that
//! meets it takes it over.

use crate::{answer::Failed, link::Link, question::Question, scripts::claimed};
use cinchona_plumbing::clock::later;
use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// The abandoned claims of one store.
#[derive(Debug)]
pub(crate) struct Doubts {
    link: Arc<Link>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    claims: HashMap<u128, Claimed>,
    /// Claims that were certainly not made, until they are released.
    unmade: HashSet<u128>,
    /// The task that releases them, until none is left.
    task: Option<JoinHandle<()>>,
    is_full: bool,
}

#[derive(Clone, Debug)]
struct Claimed {
    key: Vec<u8>,
    /// When its lease has ended, whenever it began.
    until: Instant,
    /// Whether Redis has answered that it does not exist.
    is_absent: bool,
}

/// A claim in the making; dropping it before its answer abandons it.
pub(crate) struct Doubt<'a> {
    doubts: &'a Arc<Doubts>,
    pub(crate) key: &'a [u8],
    /// The value at its key once it is made.
    pub(crate) fresh: Vec<u8>,
    token: u128,
    lease: Duration,
    /// It may have been made; no answer has confirmed it.
    pub(crate) is_open: AtomicBool,
}

/// How long a command on an abandoned connection may still arrive: TCP retransmits unacknowledged
/// data for about so long.
const LATE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(25);
const SLOWEST: Duration = Duration::from_secs(1);
/// The most abandoned claims: 200 ms of 50,000 calls a second.
const MOST: usize = 10_000;
/// How many are released together.
const AT_ONCE: usize = 128;
const PATIENCE: Duration = Duration::from_millis(250);

// === impl Doubts ===

impl Doubts {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link, known: Mutex::default() }
    }

    /// Ends claims; for each, whether it existed.
    pub(crate) async fn release(
        &self,
        keys: Vec<Vec<u8>>,
        args: Vec<Vec<u8>>,
        until: Instant,
    ) -> Result<Vec<i64>, Failed> {
        let release = Question::Script { source: &self.link.scripts().release, keys, args };
        self.link.ask(&release, until, &AtomicBool::new(false)).await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this store abandoned the claim.
    pub(crate) fn has(&self, token: u128) -> bool {
        self.known().claims.contains_key(&token)
    }

    /// The claim was not made. This is remembered for a limited time.
    pub(crate) fn set_unmade(&self, token: u128) {
        let mut known = self.known();
        if known.unmade.len() >= MOST {
            known.unmade.clear();
        }
        known.unmade.insert(token);
    }

    /// Whether the claim is known not to have been made; true only once.
    pub(crate) fn take_unmade(&self, token: u128) -> bool {
        self.known().unmade.remove(&token)
    }

    /// The claim has ended.
    pub(crate) fn settle(&self, token: u128) {
        self.known().claims.remove(&token);
    }

    /// Releases the claim in the background, for as long as it may be made or exist.
    fn add(self: &Arc<Self>, key: &[u8], token: u128, lease: Duration) {
        let now = Instant::now();
        let claimed = Claimed { key: key.to_vec(), until: later(now, lease), is_absent: false };
        let mut known = self.known();
        if known.claims.len() >= MOST && !known.claims.contains_key(&token) {
            if !mem::replace(&mut known.is_full, true) {
                tracing::warn!(
                    "claims are left to expire with their leases: {MOST} are already pending"
                );
            }
            return;
        }
        known.is_full = false;
        known.claims.insert(token, claimed);
        known.run(self);
    }

    /// The claims still to be released, without those that have expired; if there are none, the
    /// task ends.
    fn open(&self) -> Option<Vec<(u128, Vec<u8>)>> {
        let now = Instant::now();
        let mut known = self.known();
        known.claims.retain(|_, claimed| claimed.until > now);
        if known.claims.is_empty() {
            known.task = None;
            return None;
        }
        let claims = known.claims.iter();
        Some(claims.map(|(token, claimed)| (*token, claimed.key.clone())).collect())
    }

    fn note(&self, claims: &[(u128, Vec<u8>)], ended: &[i64]) {
        let latest = later(Instant::now(), LATE);
        let mut known = self.known();
        for ((token, _), ended) in claims.iter().zip(ended) {
            if *ended > 0 {
                known.claims.remove(token);
            } else if let Some(claimed) = known.claims.get_mut(token)
                && !claimed.is_absent
            {
                claimed.is_absent = true;
                claimed.until = claimed.until.min(latest);
            }
        }
    }
}

// === impl Known ===

impl Known {
    /// Starts the task if it is not running. Without a runtime the claims end with their leases.
    fn run(&mut self, doubts: &Arc<Doubts>) {
        // A runtime that shuts down drops the task immediately, here: that must need no lock.
        if self.task.as_ref().is_none_or(JoinHandle::is_finished)
            && let Ok(runtime) = Handle::try_current()
        {
            self.task = Some(runtime.spawn(end(Arc::downgrade(doubts))));
        }
    }
}

async fn end(doubts: Weak<Doubts>) {
    let mut pause = SOON;
    let mut before = 0;
    loop {
        sleep(pause).await;
        let Some(doubts) = doubts.upgrade() else { return };
        let Some(open) = doubts.open() else { return };
        pause = if open.len() > before { SOON } else { (pause * 2).min(SLOWEST) };
        before = open.len();
        for claims in open.chunks(AT_ONCE) {
            let keys = claims.iter().map(|(_, key)| key.clone()).collect();
            let tokens = claims.iter().map(|(token, _)| claimed(*token).to_vec()).collect();
            let until = later(Instant::now(), PATIENCE);
            match doubts.release(keys, tokens, until).await {
                Ok(ended) => doubts.note(claims, &ended),
                Err(_) => break,
            }
        }
    }
}

// === impl Doubt ===

impl<'a> Doubt<'a> {
    pub(crate) fn new(
        doubts: &'a Arc<Doubts>,
        key: &'a [u8],
        fingerprint: u128,
        token: u128,
        lease: Duration,
    ) -> Self {
        let fresh = [&fingerprint.to_be_bytes()[..], &claimed(token)].concat();
        Self { doubts, key, fresh, token, lease, is_open: AtomicBool::new(false) }
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if *self.is_open.get_mut() {
            self.doubts.add(self.key, self.token, self.lease);
        }
    }
}
