//! Off is off: a layer that is off is not there.

use crate::{
    bare::{Bare, Log, Marker, Plan},
    layers::{self, Boxed, Case, boxed},
    virtually,
};
use cinchona::core::{Mode, Rng, Switch};
use http_body::Body as _;
use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use tower::Service;

const CALLS: u64 = 1000;

fn off() -> Switch {
    Switch::new(Mode::Off)
}

/// The steps of a caller, until its patience or the call is at its end.
struct Caller<'a> {
    log: &'a Log,
    left: u32,
    /// Reads all that must not change.
    looks: &'a dyn Fn(),
}

impl Caller<'_> {
    /// What a step comes to; nothing where it is the last.
    fn step<T>(&mut self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Option<Poll<T>> {
        self.left = self.left.checked_sub(1)?;
        let mut cx = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| poll(&mut cx)));
        (self.looks)();
        polled.inspect_err(|_| self.log.note("the caller sees a panic")).ok()
    }

    fn wait<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        loop {
            match self.step(&mut poll)? {
                Poll::Ready(done) => return Some(done),
                Poll::Pending => self.log.note("the caller waits"),
            }
        }
    }

    fn call(&mut self, service: &mut Boxed, plan: &Plan) -> Option<()> {
        let ready = self.wait(|cx| service.poll_ready(cx))?;
        self.log.note(format_args!("the caller sees: {ready:?}"));
        ready.ok()?;
        let mut future = None;
        let mut call = || Poll::Ready(service.call(plan.request(false)));
        _ = self.step(|_| call().map(|called| future = Some(called)))?;
        let mut future = future?;
        let answer = self.wait(|cx| future.as_mut().poll(cx))?;
        let answer = answer.inspect_err(|error| self.log.note(format_args!("it fails: {error:?}")));
        let (head, body) = answer.ok()?.into_parts();
        let (extensions, own) = (head.extensions.len(), head.extensions.get::<Marker>());
        self.log.note(format_args!("{head:?}, {extensions} extensions, {own:?}"));
        let mut body = pin!(body);
        loop {
            let (hint, is_end) = (body.size_hint(), body.is_end_stream());
            self.log.note(format_args!("{hint:?}, {is_end}"));
            let frame = self.wait(|cx| body.as_mut().poll_frame(cx))?;
            self.log.note(format_args!("the caller reads {frame:?}"));
            frame?.ok()?;
        }
    }
}

/// All that happens in a call through `service`.
fn transcript(service: &mut Boxed, log: &Log, plan: &Plan, looks: &dyn Fn()) -> Vec<String> {
    log.take();
    _ = Caller { log, left: plan.patience, looks }.call(service, plan);
    log.take()
}

pub(crate) fn quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let is_planned = panic
            .payload()
            .downcast_ref::<String>()
            .is_some_and(|why| ["in sent", "in the response"].contains(&&**why));
        let planned = panic.payload().downcast_ref::<&str>();
        if !is_planned && !planned.is_some_and(|why| why.starts_with("in ")) {
            eprintln!("{panic}");
        }
    }));
}

// catalogue: S-C10
#[test]
fn a_layer_that_is_off_is_not_there() {
    quiet();
    virtually(async {
        let (cases, rng) = (layers::all(off), Rng::seeded(1));
        for _ in 0..CALLS {
            let plan = Plan::drawn(&rng);
            let (bare, log) = Bare::new(&plan, false);
            let expected = transcript(&mut boxed(bare), &log, &plan, &|| {});
            for case in &cases {
                let (bare, log) = Bare::new(&plan, false);
                let mut service = (case.layer)(bare);
                let before = (case.state)();
                let looks = || assert_eq!((case.state)(), before, "{}", case.file);
                let seen = transcript(&mut service, &log, &plan, &looks);
                assert_eq!(seen, expected, "{}, {plan:?}", case.file);
                assert_eq!(case.switch.shadowed(), 0, "{}", case.file);
            }
        }
    });
}

/// How much is freed with a layer and its service, with a call in flight after so many steps, or
/// without.
fn freed(number: usize, steps: u32, is_under_way: bool) -> i64 {
    let Case { layer, state, switch, gauges, .. } = layers::all(off).swap_remove(number);
    // What the service itself holds is not freed.
    let (bare, _log) = Bare::new(&Plan::plain(), false);
    let mut service = layer(bare.clone());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut call = Some(service.call(Plan::plain().request(false)));
    let mut body = None;
    for _ in 0..steps {
        match (&mut call, &mut body) {
            (Some(future), _) => {
                if let Poll::Ready(answer) = future.as_mut().poll(&mut cx) {
                    body = Some(Box::pin(answer.unwrap().into_body()));
                    call = None;
                }
            }
            (None, Some(body)) => _ = body.as_mut().poll_frame(&mut cx),
            (None, None) => {}
        }
    }
    let held = is_under_way.then(|| (call.take(), body.take()));
    drop((call, body));
    let counts = allocation_counter::measure(|| drop((layer, service, state, gauges)));
    drop((held, switch, bare));
    counts.count_current
}

// catalogue: S-C10
#[test]
fn a_call_through_a_layer_that_is_off_holds_nothing_of_it() {
    virtually(async {
        for number in 0..layers::all(off).len() {
            for steps in 0..6 {
                let [with, without] = [true, false].map(|under| freed(number, steps, under));
                let file = layers::all(off)[number].file;
                assert_eq!(with, without, "{file}: after {steps} steps");
            }
        }
    });
}

/// How often a plain call allocates.
fn allocations(service: &mut Boxed) -> u64 {
    let request = Plan::plain().request(false);
    let mut cx = Context::from_waker(Waker::noop());
    let counts = allocation_counter::measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = service.call(request);
        let answer = loop {
            if let Poll::Ready(answer) = future.as_mut().poll(&mut cx) {
                break answer.unwrap();
            }
        };
        let mut body = answer.into_body();
        loop {
            if let Poll::Ready(None) = Pin::new(&mut body).poll_frame(&mut cx) {
                break;
            }
        }
    });
    counts.count_total
}

// catalogue: S-C10
#[test]
fn a_layer_that_is_off_allocates_nothing() {
    virtually(async {
        let bare = || Bare::new(&Plan::plain(), false).0;
        let expected = allocations(&mut boxed(bare()));
        for case in layers::all(off) {
            // A thread keeps the memory of its first body.
            allocations(&mut (case.layer)(bare()));
            assert_eq!(allocations(&mut (case.layer)(bare())), expected, "{}", case.file);
        }
    });
}

/// The sources below `directory` that have a switch.
fn switched(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            switched(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && fs::read_to_string(&path).unwrap().contains("pub fn with_switch(")
        {
            found.insert(path.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn no_layer_that_has_a_switch_is_left_out() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(crates).unwrap().map(Result::unwrap) {
        let source = entry.path().join("src");
        if source.is_dir() {
            switched(&source, &mut found);
        }
    }
    let known = virtually(async {
        let all = layers::all(off).into_iter();
        all.map(|case| crates.join(case.file).to_str().unwrap().to_owned()).collect()
    });
    assert_eq!(found, known);
}
