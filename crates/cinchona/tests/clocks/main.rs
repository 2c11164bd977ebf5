//! Every public constructor, setter and setting that takes a `Duration` or an `f64`, with every
//! kind of value: it is refused by field and range, or the calls that it is for go on and end.
//!
//! `rows.rs` is the table, `exempt.rs` what need not be in it, and why.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod api;
mod exempt;
mod for_ever;
mod rows;
mod trials;
mod world;

use cinchona::core::{BoxError, Invalid};
use cinchona_plumbing::cause;
use rows::{Row, Trial, Value};
use std::{
    collections::BTreeSet,
    panic::{PanicHookInfo, set_hook, take_hook},
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

const DURATIONS: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::from_secs(1),
    Duration::from_secs(30 * 24 * 3600),
    Duration::from_secs(u32::MAX as u64),
    Duration::from_secs(u64::MAX),
    Duration::MAX,
];

const NUMBERS: [f64; 11] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    -1.0,
    0.0,
    f64::MIN_POSITIVE,
    0.5,
    1.0,
    1e308,
    f64::MAX,
    f64::MIN,
];

/// In virtual time; a trial makes a few calls of seconds each.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// In real time, of which a loop that never waits has no end.
const SPINNING: Duration = Duration::from_secs(60);

/// What has panicked, in whichever task or thread.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn panics() -> Vec<String> {
    std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}

fn note_panics() {
    let before = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        before(info);
        // Those of the other tests are their own.
        if thread::current().name().is_some_and(|name| name.starts_with("for_ever::")) {
            return;
        }
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
    }));
}

/// The fault of a row at a value, if any.
fn fault(row: Row, value: Value) -> Option<String> {
    let (done, ended) = channel();
    let name = row.name;
    thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        let ended = runtime.block_on(async {
            let trial: Trial = row.trial(value);
            tokio::time::timeout(LONGEST, trial).await
        });
        drop(runtime);
        drop(done.send(ended.map_err(|_| "it does not end in virtual time".to_owned())));
    });
    let what = match ended.recv_timeout(SPINNING) {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => unclear(&error),
        Ok(Err(late)) => Some(late),
        Err(RecvTimeoutError::Timeout) => Some("it spins".to_owned()),
        Err(RecvTimeoutError::Disconnected) => Some("it panics".to_owned()),
    };
    let panics = panics();
    let what = if panics.is_empty() { what } else { Some(panics.join("; ")) };
    what.map(|what| format!("{name} = {value:?}: {what}"))
}

/// The fault of a refusal, if any.
fn unclear(refused: &BoxError) -> Option<String> {
    match cause::find_cause::<Invalid>(&**refused) {
        Some(invalid) if invalid.field().is_empty() || invalid.allowed().is_empty() => {
            Some(format!("refused without field or range: {invalid}"))
        }
        Some(_) => None,
        None => Some(refused.to_string()),
    }
}

// catalogue: S-D7, S-F8
#[test]
fn every_value_is_refused_by_field_and_range_or_calls_go_on_to_end() {
    note_panics();
    let (mut faults, mut awaited) = (Vec::new(), BTreeSet::from_iter(exempt::NOT_YET));
    for row in rows::all() {
        let values: Vec<Value> = match row.law {
            rows::Law::Time(_) => DURATIONS.map(Value::Time).into(),
            rows::Law::Number(_) => NUMBERS.map(Value::Number).into(),
        };
        let found: Vec<_> = values.into_iter().filter_map(|value| fault(row, value)).collect();
        if !exempt::NOT_YET.contains(&row.name) {
            faults.extend(found);
        } else if !found.is_empty() {
            awaited.remove(&row.name);
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(awaited.is_empty(), "these hold now, so they need no exemption: {awaited:?}");
}

/// Those of `Settings` that mean nothing where they are 0, or no number.
#[test]
fn a_setting_of_a_client_or_a_server_that_would_fail_every_call_is_refused_by_its_name() {
    let rows = rows::all().into_iter().filter(|row| row.name.starts_with("cinchona::Settings::"));
    // A server may end immediately.
    for row in rows.filter(|row| !row.name.ends_with("grace")) {
        let values: Vec<Value> = match row.law {
            rows::Law::Time(_) => vec![Value::Time(Duration::ZERO)],
            rows::Law::Number(_) => [f64::NAN, f64::INFINITY, -1.0, 0.0].map(Value::Number).into(),
        };
        for value in values {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().unwrap();
            let refused = runtime.block_on(row.trial(value)).unwrap_err();
            let invalid = cause::find_cause::<Invalid>(&*refused).unwrap();
            let is_named = row.name.rsplit("::").next().unwrap().contains(invalid.field());
            assert!(is_named && !invalid.allowed().is_empty(), "{}: {invalid}", row.name);
        }
    }
}

#[test]
fn every_name_that_takes_a_duration_or_a_number_is_in_the_table_or_exempt_for_a_reason() {
    let api = api::names();
    let rows: BTreeSet<String> = rows::all().iter().map(|row| row.name.to_owned()).collect();
    let exempt: BTreeSet<String> =
        exempt::ALL.iter().flat_map(|(_, names)| *names).map(|name| (*name).to_owned()).collect();
    let known: BTreeSet<String> = rows.union(&exempt).cloned().collect();
    let missing: Vec<_> = api.difference(&known).collect();
    let gone: Vec<_> = known.difference(&api).collect();
    let twice: Vec<_> = rows.intersection(&exempt).collect();
    assert!(missing.is_empty(), "neither in rows.rs nor in exempt.rs: {missing:#?}");
    assert!(gone.is_empty(), "not in the API any more: {gone:#?}");
    assert!(twice.is_empty(), "in rows.rs and in exempt.rs: {twice:#?}");
}
