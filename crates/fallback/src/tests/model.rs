//! The layer against a model of which caller may see which answer; calls overlap.

use super::manual::{Flight, Manual, proxy};
use super::*;
use http::HeaderMap;
use proptest::{prelude::*, sample::Index};
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Step {
    Begin {
        caller: usize,
        question: usize,
        noise: Vec<(&'static str, &'static str)>,
    },
    /// The head of an answer with a value arrives, and its rest later.
    Head {
        flight: Index,
    },
    Finish {
        flight: Index,
        how: How,
    },
    GiveUp {
        flight: Index,
    },
    Wait {
        seconds: u64,
    },
    Turn {
        mode: Mode,
    },
}

#[derive(Clone, Copy, Debug)]
enum How {
    Value,
    /// A message that is too large to keep.
    Large,
    Degraded,
    Refused(Code, Form),
    Failed(Code, Form),
    Lost,
    Proxy(u16),
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Head,
    Trailers,
    AfterMessage,
}

/// What distinguishes the callers.
const CALLERS: [&[(&str, &str)]; 7] = [
    &[],
    &[("x-api-key", "alice")],
    &[("x-api-key", "bob")],
    &[("x-api-key", "alice"), ("x-api-key", "bob")],
    &[("x-api-key", "bob"), ("x-api-key", "alice")],
    &[("x-api-key", "alice"), ("baggage", "tenant=1")],
    &[("x-api-key", "alice"), ("id-bin", "AAE")],
];

const QUESTIONS: [(&str, u32); 3] = [(BALANCE, 1), (BALANCE, 2), ("/bank.Bank/Limit", 1)];

const NOISE: [(&str, &str); 6] = [
    ("grpc-timeout", "90S"),
    ("traceparent", "1"),
    ("traceparent", "2"),
    ("x-request-id", "1"),
    ("user-agent", "other"),
    ("idempotency-key", "1"),
];

const AGE_LIMIT: Duration = Duration::from_secs(60);

/// A caller, and its question.
type Asked = (usize, usize);

struct Under {
    flight: Flight,
    asked: Asked,
    mode: Mode,
    turn: u64,
    /// The value whose head has arrived.
    value: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    value: u32,
    at: Instant,
}

/// Which answer each caller may get.
#[derive(Default)]
struct Model {
    kept: HashMap<Asked, Kept>,
    first: HashMap<Asked, u64>,
    floor: u64,
    begun: u64,
    values: u32,
}

impl Model {
    fn first(&self, asked: Asked) -> u64 {
        self.first.get(&asked).copied().unwrap_or(0).max(self.floor)
    }

    fn answered(&mut self, asked: Asked, turn: u64, value: Option<u32>) {
        if turn >= self.first(asked) {
            self.first.insert(asked, turn + 1);
            self.kept.remove(&asked);
            let at = Instant::now();
            self.kept.extend(value.map(|value| (asked, Kept { value, at })));
        }
    }

    fn refused(&mut self, asked: Asked) {
        self.first.insert(asked, self.begun);
        self.kept.remove(&asked);
    }

    fn forget_all(&mut self) {
        self.floor = self.begun;
        self.kept.clear();
    }

    fn failed(&self, asked: Asked, mode: Mode, code: Code) -> Got {
        let kept = self.kept.get(&asked).map(|kept| (kept.value, Instant::now() - kept.at));
        match kept {
            Some((value, age)) if mode == Mode::Enforce && age <= AGE_LIMIT => {
                cached(value, age.as_secs() as u32)
            }
            _ => failed(code),
        }
    }

    fn finished(&mut self, under: &Under, how: How, value: u32) -> Got {
        let Under { asked, mode, turn, .. } = *under;
        match how {
            How::Value | How::Large | How::Degraded if mode == Mode::Off => {}
            How::Value => self.answered(asked, turn, Some(value)),
            How::Large => self.answered(asked, turn, None),
            How::Refused(..) | How::Proxy(401 | 403) if mode != Mode::Off => self.refused(asked),
            _ => {}
        }
        match how {
            How::Value => live(value),
            How::Degraded => second("partial", value),
            How::Large => Got { value: None, ..live(0) },
            How::Refused(code, _) | How::Failed(code @ Code::Cancelled, _) => failed(code),
            How::Failed(code, _) => self.failed(asked, mode, code),
            How::Lost => self.failed(asked, mode, Code::Unavailable),
            // It has no status that the test would find.
            How::Proxy(_) => self.failed(asked, mode, Code::Unknown),
        }
    }
}

fn status(code: Code, form: Form) -> Reply {
    let status = Status::new(code, "simulated");
    match form {
        Form::Head => Reply::Status(status),
        Form::Trailers => Reply::HeadersThenStatus(status),
        Form::AfterMessage => Reply::MessageThenStatus(encode(&99_u32), status),
    }
}

fn large() -> Bytes {
    encode(&"x".repeat(500))
}

fn outcome(how: How, value: u32) -> Result<Response<Body>, BoxError> {
    use super::manual::respond;
    Ok(match how {
        How::Value => respond(ok(value)),
        How::Large => respond(Reply::Ok(large())),
        How::Degraded => {
            let mut response = respond(ok(value));
            response.headers_mut().insert(DEGRADED, http::HeaderValue::from_static("partial"));
            response
        }
        How::Refused(code, form) | How::Failed(code, form) => respond(status(code, form)),
        How::Lost => return Err(Status::unavailable("lost").into()),
        How::Proxy(status) => proxy(status),
    })
}

fn request_for(asked: Asked, noise: &[(&'static str, &'static str)]) -> Request<Body> {
    let (path, message) = QUESTIONS[asked.1];
    let mut request = request(path, message);
    let (before, after) = noise.split_at(noise.len() / 2);
    let all = [before, CALLERS[asked.0], after].concat();
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        headers.append(HeaderName::from_static(name), http::HeaderValue::from_static(value));
    }
    *request.headers_mut() = headers;
    request
}

/// The layer, its calls in flight, and the expected state.
struct Trial {
    client: Fallback<Manual>,
    switch: Switch,
    model: Model,
    under_way: Vec<Under>,
    /// Independent of the model: the owner of each value, and when its call began.
    made_for: HashMap<u32, (Asked, u64)>,
    /// How many calls had begun when a question was last refused.
    refused: HashMap<Asked, u64>,
}

impl Trial {
    fn new() -> Self {
        let switch = Switch::default();
        let cache = Cache { max_age: AGE_LIMIT, max_answer: 400, ..Cache::default() };
        let settings = FallbackSettings::new(methods()).with_cache(cache).unwrap();
        let layer = settings.with_switch(switch.clone()).layer();
        let client = layer.layer(Manual::default());
        let (made_for, refused) = Default::default();
        Self { client, switch, model: Model::default(), under_way: vec![], made_for, refused }
    }

    fn take(&mut self, flight: Index) -> Option<Under> {
        let many = self.under_way.len();
        (many > 0).then(|| self.under_way.swap_remove(flight.index(many)))
    }

    fn begin(&mut self, asked: Asked, noise: &[(&'static str, &'static str)]) {
        let (mode, turn) = (self.switch.mode(), self.model.begun);
        self.model.begun += u64::from(mode != Mode::Off);
        let flight = Flight::begin(&self.client, request_for(asked, noise));
        self.under_way.push(Under { flight, asked, mode, turn, value: None });
    }

    fn value(&mut self, under: &Under) -> u32 {
        self.model.values += 1;
        self.made_for.insert(self.model.values, (under.asked, under.turn));
        self.model.values
    }

    fn head(&mut self, flight: Index) {
        let Some(mut under) = self.take(flight) else { return };
        if !under.flight.has_head() && under.mode != Mode::Off {
            let value = self.value(&under);
            under.value = Some(value);
            under.flight.head(ok(value));
        }
        self.under_way.push(under);
    }

    fn finish(&mut self, flight: Index, how: How) {
        let Some(under) = self.take(flight) else { return };
        let how = if under.flight.has_head() { How::Value } else { how };
        let value = under.value.unwrap_or_else(|| self.value(&under));
        let expected = self.model.finished(&under, how, value);
        // While it is off, the layer sees no refusal.
        let is_seen = under.mode != Mode::Off;
        if is_seen && matches!(how, How::Refused(..) | How::Proxy(401 | 403)) {
            self.refused.insert(under.asked, self.model.begun);
        }
        let asked = under.asked;
        let got = match under.flight.has_head() {
            true => under.flight.rest(),
            false => under.flight.outcome(outcome(how, value)),
        };
        assert_eq!(got, expected, "{how:?}");
        if got.degraded.as_deref() == Some("cached") {
            self.may_see(asked, &got);
        }
    }

    /// An invariant of every second answer, whatever the model expects.
    fn may_see(&self, asked: Asked, got: &Got) {
        let (made_for, turn) = self.made_for[&got.value.unwrap()];
        assert_eq!(made_for, asked, "an answer is for its own caller");
        assert!(self.refused.get(&asked).is_none_or(|begun| turn >= *begun), "it was taken back");
        assert!(got.age.as_ref().unwrap().parse::<u64>().unwrap() <= AGE_LIMIT.as_secs());
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Begin { caller, question, noise } => self.begin((caller, question), &noise),
            Step::Head { flight } => self.head(flight),
            Step::Finish { flight, how } => self.finish(flight, how),
            Step::GiveUp { flight } => drop(self.take(flight)),
            Step::Wait { seconds } => advance(Duration::from_secs(seconds)).await,
            Step::Turn { mode } => {
                if mode == Mode::Off {
                    self.model.forget_all();
                }
                self.switch.set(mode);
            }
        }
    }
}

fn how() -> impl Strategy<Value = How> {
    use Code::*;
    let form = || prop::sample::select(vec![Form::Head, Form::Trailers, Form::AfterMessage]);
    let refusals = vec![NotFound, PermissionDenied, Unauthenticated, FailedPrecondition, DataLoss];
    let failures = vec![Unavailable, Internal, Aborted, DeadlineExceeded, Unknown, Cancelled];
    let refusals = (prop::sample::select(refusals), form());
    let failures = (prop::sample::select(failures), form());
    prop_oneof![
        6 => Just(How::Value),
        1 => Just(How::Large),
        1 => Just(How::Degraded),
        2 => refusals.prop_map(|(code, form)| How::Refused(code, form)),
        5 => failures.prop_map(|(code, form)| How::Failed(code, form)),
        1 => Just(How::Lost),
        1 => prop::sample::select(vec![401, 403, 404, 502]).prop_map(How::Proxy),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let noise = prop::sample::subsequence(NOISE.to_vec(), 0..3).prop_shuffle();
    let modes = vec![Mode::Enforce, Mode::Enforce, Mode::Shadow, Mode::Off];
    let step = prop_oneof![
        20 => (0..CALLERS.len(), 0..QUESTIONS.len(), noise)
            .prop_map(|(caller, question, noise)| Step::Begin { caller, question, noise }),
        3 => any::<Index>().prop_map(|flight| Step::Head { flight }),
        20 => (any::<Index>(), how()).prop_map(|(flight, how)| Step::Finish { flight, how }),
        1 => any::<Index>().prop_map(|flight| Step::GiveUp { flight }),
        2 => (1..40_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => prop::sample::select(modes).prop_map(|mode| Step::Turn { mode }),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    // catalogue: S-F2, S-F4
    #[test]
    fn each_caller_is_given_what_the_model_lets_it_see(steps in steps()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut trial = Trial::new();
            for step in steps {
                trial.step(step).await;
            }
        });
    }
}
