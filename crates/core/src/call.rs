//! The record of one call of a client: each fact is written once, and read by all layers.

mod record;

use crate::{Attempt, AttemptKind, Deadline, MethodKind, Verdict};
use cinchona_plumbing::status::Pushback;
use http::{HeaderValue, Request};
use record::{Lines, Record, Timed};
use std::{
    fmt,
    num::NonZeroU64,
    sync::{Arc, MutexGuard, atomic::Ordering},
    time::Duration,
};
use tokio::{task, time::Instant};

/// The record of one call, in the extensions of its request.
///
/// The first layer of ours that sees a call creates the record; the others find it, in whatever
/// order they are composed. It holds the facts of the call: when it began, its deadline, what its
/// method streams. Each attempt adds a line ([`Attempt`]): the layer that makes attempts records
/// its kind and verdict, a balancer its endpoint. Ledger, metrics and spans read these lines.
///
/// Clones are handles of the same record; each belongs to one attempt.
///
/// ```
/// use cinchona_core::{AttemptKind, Call};
/// use tokio::time::Instant;
///
/// let (mut request, now) = (http::Request::new(()), Instant::now());
/// let call = Call::of(&mut request, || now).clone();
/// call.begins(AttemptKind::First, now);
/// let second = call.begins(AttemptKind::Retry, now);
/// second.sent_to(7.try_into().unwrap(), &"server:7".into(), None);
/// // Any layer below finds the same.
/// let attempts = Call::find(&request).unwrap().attempts();
/// assert_eq!(attempts[1].endpoint.as_deref(), Some("server:7"));
/// ```
#[derive(Clone)]
pub struct Call {
    record: Arc<Record>,
    /// The line of the attempt that this handle belongs to.
    line: u32,
    /// When the answer must have begun, or ended; and when the stream must have ended, if that
    /// differs.
    deadline: Option<Deadline>,
    whole: Option<Option<Deadline>>,
    /// The deadline that the caller has set itself.
    wanted: Option<Deadline>,
    kind: Option<MethodKind>,
    size: Option<u64>,
}

// === impl Call ===

impl Call {
    /// The record of the call that `request` belongs to: created here, at the time `now`, if no
    /// layer further out has created it.
    pub fn of<B>(request: &mut Request<B>, now: impl FnOnce() -> Instant) -> &mut Self {
        request.extensions_mut().get_or_insert_with(|| Self::new(now()))
    }

    /// The same; a new record takes the memory of the `ended` call's if no other handle of that is
    /// left.
    pub fn of_reusing<B>(
        request: &mut Request<B>,
        ended: Option<Self>,
        now: impl FnOnce() -> Instant,
    ) -> &mut Self {
        request.extensions_mut().get_or_insert_with(|| Self::again(ended, now()))
    }

    /// The record of the call, if a layer has created it.
    pub fn find<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    fn new(began: Instant) -> Self {
        Self::with(Arc::new(Record::new(began)))
    }

    fn again(ended: Option<Self>, began: Instant) -> Self {
        if let Some(mut ended) = ended
            && let Some(record) = Arc::get_mut(&mut ended.record)
        {
            record.renew(began);
            return Self::with(ended.record);
        }
        Self::new(began)
    }

    const fn with(record: Arc<Record>) -> Self {
        Self { record, line: 0, deadline: None, whole: None, wanted: None, kind: None, size: None }
    }

    /// Another handle of the same attempt, without what is for the layers below: for those that
    /// only read and write the record.
    #[must_use]
    pub fn to_record(&self) -> Self {
        Self { line: self.line, ..Self::with(self.record.clone()) }
    }

    /// When it began, at the outermost layer.
    pub fn began(&self) -> Instant {
        self.record.began
    }

    /// When it must have been answered; for a known stream, when the answer must have begun.
    pub const fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// When all of a stream must have ended, if that differs from its [`deadline`](Self::deadline).
    pub const fn whole(&self) -> Option<Option<Deadline>> {
        self.whole
    }

    /// What its method streams, if a layer knows it.
    pub const fn kind(&self) -> Option<MethodKind> {
        self.kind
    }

    /// The length of the request's body with the prefixes of its messages, in bytes, if a layer has
    /// all of it.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Records the length of the request's body.
    pub const fn set_size(&mut self, size: Option<u64>) {
        self.size = size;
    }

    /// Records a deadline for the layers below.
    pub const fn set_deadline(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
    }

    /// The deadline that the caller has set itself (`Request::set_timeout`), if any.
    pub const fn wanted(&self) -> Option<Deadline> {
        self.wanted
    }

    /// Hands on the deadline that the caller has set itself.
    pub const fn set_wanted(&mut self, wanted: Option<Deadline>) {
        self.wanted = wanted;
    }

    /// Records when all of a stream must have ended.
    pub const fn set_whole(&mut self, whole: Option<Deadline>) {
        self.whole = Some(whole);
    }

    /// Records what the method streams.
    pub const fn set_kind(&mut self, kind: Option<MethodKind>) {
        self.kind = kind;
    }

    /// An attempt in this task has its own timer, which ends it at `end`, no later than the
    /// deadline of the call, until [`stops_timer`](Self::stops_timer): the layers further out need
    /// none meanwhile.
    pub fn starts_timer(&self, end: Instant) {
        let mut lines = self.lines();
        let Timed { many, until, .. } = lines.timed;
        let until = until.filter(|until| many > 0 && *until < end).unwrap_or(end);
        lines.timed = Timed { many: many + 1, until: Some(until), task: task::try_id() };
    }

    /// The timer of an attempt was polled, and wakes the task that polls the call.
    pub fn asks_timer(&self) {
        self.record.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// How often timers of attempts were polled.
    pub fn asked_timers(&self) -> u32 {
        self.record.asked.load(Ordering::Relaxed)
    }

    /// That attempt, or the owner of its timer, is finished.
    pub fn stops_timer(&self) {
        let timed = &mut self.lines().timed;
        timed.many = timed.many.saturating_sub(1);
    }

    /// Until when an attempt of this task enforces the deadline of the call, if one does. Later its
    /// timer has fired, and the holder of the attempt has not polled it.
    pub fn timed_until(&self) -> Option<Instant> {
        let Timed { many, until, task } = self.lines().timed;
        until.filter(|_| many > 0 && task == task::try_id())
    }

    /// Whether this is the handle of an attempt made by a layer further out: by this a layer that
    /// belongs around the attempts detects that it is within them.
    pub fn is_of_attempt(&self) -> bool {
        // Usually there is none yet.
        self.record.count.load(Ordering::Relaxed) > 0
            && self.with_attempt(|own, _| own.is_made).unwrap_or(false)
    }

    /// An attempt begins at `began`: returns the handle for its request. That of the first attempt
    /// replaces the one that a layer below may have recorded.
    #[must_use = "the attempt's request carries it"]
    pub fn begins(&self, kind: AttemptKind, began: Instant) -> Self {
        let mut lines = self.lines();
        let line = self.line as usize;
        let made = || Attempt { is_made: true, ..Attempt::new(kind, began) };
        let line = match lines.attempts.get_mut(line) {
            None => self.record.add(&mut lines, made()),
            Some(own) if !own.is_made => {
                (own.kind, own.is_made) = (kind, true);
                self.line
            }
            Some(_) => self.record.add(&mut lines, made()),
        };
        Self { line, ..self.clone() }
    }

    /// An attempt of this kind is to begin at `at`: returns the handle for its request. It counts
    /// once it [starts](Self::starts).
    #[must_use = "the attempt's request carries it"]
    pub fn schedules(&self, kind: AttemptKind, at: Instant) -> Self {
        let scheduled = Attempt { is_made: true, is_void: true, ..Attempt::new(kind, at) };
        let line = self.record.add(&mut self.lines(), scheduled);
        Self { line, ..self.clone() }
    }

    /// The attempt of this handle passes a layer that counts attempts: returns when it began. If it
    /// has passed already, a layer without records repeats it, and the handle becomes that of a new
    /// line.
    pub fn passes(&mut self, now: impl FnOnce() -> Instant) -> Instant {
        let mut lines = self.record.lines();
        let kind = match lines.attempts.get_mut(self.line as usize) {
            Some(own) if !own.has_passed => {
                own.has_passed = true;
                return own.began;
            }
            None => AttemptKind::First,
            Some(before) if before.ended.is_none() => AttemptKind::Hedge,
            Some(_) => AttemptKind::Retry,
        };
        let now = now();
        let passed = Attempt { has_passed: true, ..Attempt::new(kind, now) };
        self.line = self.record.add(&mut lines, passed);
        now
    }

    /// The attempt of this handle has ended, if its end is not recorded yet.
    pub fn ends(&self, at: Instant) {
        self.change(|attempt| _ = attempt.ended.get_or_insert(at));
    }

    /// The attempt of this handle, which was [scheduled](Self::schedules), begins.
    pub fn starts(&self, now: Instant) {
        self.change(|attempt| (attempt.began, attempt.is_void) = (now, false));
    }

    /// The attempt of this handle has ended, or its response has begun.
    pub fn ended(&self, verdict: Verdict, at: Instant) {
        let mut lines = self.lines();
        let order = lines.attempts.iter().filter(|attempt| attempt.verdict.is_some()).count();
        if let Some(own) = lines.attempts.get_mut(self.line as usize) {
            (own.verdict, own.ended, own.order) = (Some(verdict), Some(at), order as u32);
        }
    }

    /// Records the server's pushback at the end of this attempt.
    pub fn pushed_back(&self, pushback: Pushback) {
        self.change(|attempt| attempt.pushback = Some(pushback));
    }

    /// Records how long the call waits after this attempt.
    pub fn waits(&self, wait: Duration) {
        self.change(|attempt| attempt.wait = wait);
    }

    /// The attempt has found no connection, and the call waits for one: it does not count.
    pub fn withdraw(&self) {
        self.change(|attempt| attempt.is_void = true);
    }

    /// A balancer sends the attempt to an endpoint: records its number, its name, and its dedup
    /// domain, if known.
    pub fn sent_to(&self, host: NonZeroU64, name: &Arc<str>, domain: Option<&HeaderValue>) {
        let mut lines = self.lines();
        lines.domain.get_or_insert_with(|| domain.cloned());
        let line = self.line as usize;
        // A layer that repeats requests without a record sends the same handle again.
        let is_again = lines.attempts.get(line).is_some_and(|own| own.host.is_some());
        if is_again || line >= lines.attempts.len() {
            let kind = if is_again { AttemptKind::Retry } else { AttemptKind::First };
            self.record.add(&mut lines, Attempt::new(kind, Instant::now()));
        }
        let attempt =
            if is_again { lines.attempts.last_mut() } else { lines.attempts.get_mut(line) };
        if let Some(attempt) = attempt {
            (attempt.host, attempt.endpoint) = (Some(host), Some(name.clone()));
        }
    }

    /// Whether an attempt was sent to an endpoint.
    pub fn has_been_sent(&self) -> bool {
        self.lines().hosts().next().is_some()
    }

    /// Whether an attempt was sent to this endpoint.
    pub fn was_sent_to(&self, host: NonZeroU64) -> bool {
        self.lines().hosts().any(|own| own == host)
    }

    /// The dedup domain of the first attempt, if known. A later attempt carries it in
    /// [`DOMAIN`](crate::DOMAIN), and a server of another domain refuses it.
    pub fn domain(&self) -> Option<HeaderValue> {
        self.lines().domain.clone().flatten()
    }

    /// Whether a call that is safe to repeat only by deduplication may be sent to this endpoint:
    /// its last known domain is that of the first attempt, or it is the first attempt's endpoint if
    /// that domain is unknown.
    pub fn would_recognise(&self, host: NonZeroU64, domain: Option<&HeaderValue>) -> bool {
        let lines = self.lines();
        match &lines.domain {
            Some(Some(first)) => domain == Some(first),
            _ => lines.hosts().next().is_none() || lines.hosts().any(|own| own == host),
        }
    }

    /// The attempts so far, in the order in which they began, without those that only waited for a
    /// connection.
    pub fn attempts(&self) -> Vec<Attempt> {
        let all = |attempts: &[Attempt]| -> Vec<Attempt> {
            attempts.iter().filter(|attempt| !attempt.is_void).cloned().collect()
        };
        let mut attempts = self.read(all);
        attempts.sort_by_key(|attempt| attempt.began);
        attempts
    }

    /// The attempts with a known outcome, in the order in which they ended.
    pub fn ended_attempts(&self) -> Vec<Attempt> {
        let mut ended = self.attempts();
        ended.retain(|attempt| attempt.verdict.is_some());
        ended.sort_by_key(|attempt| attempt.order);
        ended
    }

    /// Calls `read` with the attempt of this handle and its number, from 1.
    #[must_use]
    pub fn with_attempt<T>(&self, read: impl FnOnce(&Attempt, u32) -> T) -> Option<T> {
        self.read(|attempts| {
            let own = attempts.get(self.line as usize)?;
            let is_before = |(line, other): &(usize, &Attempt)| {
                !other.is_void && (other.began, *line) < (own.began, self.line as usize)
            };
            let before = attempts.iter().enumerate().filter(is_before).count();
            Some(read(own, before as u32 + 1))
        })
    }

    /// How many attempts were made so far.
    pub fn attempt_count(&self) -> usize {
        self.read(|attempts| attempts.iter().filter(|attempt| !attempt.is_void).count())
    }

    /// Whether more than one attempt began, those included that only waited for a connection.
    pub fn has_repeated(&self) -> bool {
        self.record.count.load(Ordering::Relaxed) > 1
    }

    fn read<T>(&self, read: impl FnOnce(&[Attempt]) -> T) -> T {
        read(&self.lines().attempts)
    }

    fn change(&self, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.lines().attempts.get_mut(self.line as usize) {
            change(attempt);
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.record.lines()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("deadline", &self.deadline)
            .field("attempts", &self.lines().attempts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NonZeroU64 {
        NonZeroU64::new(id).unwrap()
    }

    fn call() -> Call {
        Call::of(&mut Request::new(()), Instant::now).clone()
    }

    fn sent(call: &Call, host: u64, domain: Option<&HeaderValue>) {
        let handle = call.begins(AttemptKind::Retry, Instant::now());
        handle.sent_to(id(host), &format!("server-{host}").into(), domain);
    }

    #[test]
    fn all_layers_find_the_record_that_the_first_has_made() {
        let mut request = Request::new(());
        assert!(Call::find(&request).is_none());
        let now = Instant::now();
        Call::of(&mut request, || now).begins(AttemptKind::First, now).waits(Duration::MAX);
        let found = Call::of(&mut request, || unreachable!("it is there"));
        assert_eq!((found.began(), found.attempts()[0].wait), (now, Duration::MAX));
    }

    #[test]
    fn a_record_in_the_memory_of_another_call_is_a_new_one() {
        let ended = call();
        sent(&ended, 1, Some(&HeaderValue::from_static("domain")));
        sent(&ended, 2, None);
        ended.starts_timer(ended.began());
        ended.asks_timer();
        assert!(ended.has_repeated());
        let now = ended.began() + Duration::from_secs(1);
        let other = ended.clone();
        let in_use = Call::of_reusing(&mut Request::new(()), Some(ended), || now).clone();
        assert_eq!((in_use.attempt_count(), other.attempt_count()), (0, 2), "it is in use");
        let again = Call::of_reusing(&mut Request::new(()), Some(other), || now).clone();
        for new in [in_use, again] {
            assert_eq!(format!("{new:?}"), format!("{:?}", call()));
            assert_eq!((new.began(), new.attempt_count(), new.has_repeated()), (now, 0, false));
            assert_eq!((new.timed_until(), new.asked_timers(), new.domain()), (None, 0, None));
            assert!(!new.has_been_sent());
        }
    }

    #[test]
    fn a_handle_belongs_to_an_attempt_once_that_is_made() {
        let call = call();
        assert!(!call.is_of_attempt());
        assert!(call.begins(AttemptKind::First, call.began()).is_of_attempt());
        assert!(call.begins(AttemptKind::Retry, call.began()).is_of_attempt());
    }

    #[test]
    fn a_first_attempt_is_one_whichever_layer_records_it() {
        let call = call();
        call.sent_to(id(7), &"server-7".into(), None);
        sent(&call, 8, None);
        sent(&call, 9, None);
        let hosts: Vec<_> = call.attempts().into_iter().filter_map(|one| one.endpoint).collect();
        assert_eq!(
            hosts.iter().map(|host| &**host).collect::<Vec<_>>(),
            ["server-7", "server-8", "server-9"]
        );
    }

    #[test]
    fn an_attempt_is_written_by_its_own_handle() {
        let call = call();
        let [first, second] =
            [AttemptKind::First, AttemptKind::Hedge].map(|kind| call.begins(kind, call.began()));
        second.ended(Verdict::Ok, call.began());
        first.pushed_back(Pushback::Stop);
        let [one, two] = &call.attempts()[..] else { panic!("two attempts") };
        assert_eq!((one.kind, one.verdict), (AttemptKind::First, None));
        assert_eq!((two.kind, two.verdict), (AttemptKind::Hedge, Some(Verdict::Ok)));
        assert_eq!((one.pushback, two.pushback), (Some(Pushback::Stop), None));
        assert_eq!(second.with_attempt(|_, number| number), Some(2));
    }

    #[test]
    fn an_attempt_counts_once_it_starts() {
        let call = call();
        let first = call.begins(AttemptKind::First, call.began());
        let at = call.began() + Duration::from_secs(1);
        let second = first.schedules(AttemptKind::Retry, at);
        assert_eq!(second.with_attempt(|own, _| own.began), Some(at));
        assert_eq!((call.attempt_count(), call.attempts().len()), (1, 1));
        let late = at + Duration::from_secs(1);
        second.starts(late);
        assert_eq!((call.attempt_count(), call.attempts()[1].began), (2, late));
    }

    #[test]
    fn attempts_are_numbered_and_listed_in_the_order_in_which_they_began() {
        let (call, second) = (call(), Duration::from_secs(1));
        let again = call.schedules(AttemptKind::First, call.began());
        let hedge = call.begins(AttemptKind::Hedge, call.began() + second);
        assert_eq!(hedge.with_attempt(|_, number| number), Some(1));
        again.starts(call.began() + 2 * second);
        assert_eq!(again.with_attempt(|_, number| number), Some(2));
        let kinds: Vec<_> = call.attempts().iter().map(|attempt| attempt.kind).collect();
        assert_eq!(kinds, [AttemptKind::Hedge, AttemptKind::First]);
    }

    #[test]
    fn an_attempt_that_found_no_connection_does_not_count() {
        let call = call();
        call.begins(AttemptKind::First, call.began()).withdraw();
        let second = call.begins(AttemptKind::First, call.began());
        assert_eq!((call.attempt_count(), call.attempts().len()), (1, 1));
        assert_eq!(second.with_attempt(|_, number| number), Some(1));
    }

    #[test]
    fn a_call_that_must_be_recognised_stays_in_the_domain_of_its_first_attempt() {
        let [ours, other] = ["ours", "other"].map(HeaderValue::from_static);
        let known = call();
        assert!(known.would_recognise(id(1), None), "it was not sent yet");
        sent(&known, 1, Some(&ours));
        sent(&known, 2, Some(&other));
        assert_eq!(known.domain().as_ref(), Some(&ours));
        assert!(known.would_recognise(id(3), Some(&ours)));
        assert!(!known.would_recognise(id(3), None));
        assert!(!known.would_recognise(id(1), Some(&other)), "it has forgotten since");
        let unknown = call();
        sent(&unknown, 1, None);
        assert!(unknown.would_recognise(id(1), Some(&ours)));
        assert!(!unknown.would_recognise(id(2), Some(&ours)));
    }
}
