//! Timed loops over anything that can be called, and tables of what they found.

use http::{HeaderMap, HeaderValue, Request, Response};
use std::{
    error::Error,
    fmt,
    future::{Future, Ready, ready},
    hint::{black_box, spin_loop},
    iter::zip,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::Service;

/// How often everything is measured.
pub(crate) const ROUNDS: usize = 41;
/// How long one measurement takes, about.
const CHUNK: Duration = Duration::from_millis(5);
/// How many calls are made before those that are timed.
const WARM: u64 = 900;

/// Something that is called in a loop.
pub(crate) trait Subject: Send {
    /// So many calls, that go well or fail; how many were answered.
    fn call(&mut self, calls: u64, goes: Goes) -> u64;

    /// The same again, for another thread.
    fn share(&self) -> Box<dyn Subject>;
}

/// How a call goes that is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goes {
    Well,
    Wrong,
}

/// The failure of a call that was to go wrong.
#[derive(Debug)]
pub(crate) struct Down;

/// A tower service.
#[derive(Debug)]
pub(crate) struct Tower<S>(pub(crate) S);

/// A service of seatbelt's own kind.
#[derive(Debug)]
pub(crate) struct Layered<S>(pub(crate) Arc<S>);

/// A closure that receives the outcome of its call, and returns whether it was answered.
#[derive(Debug)]
pub(crate) struct Closure<F>(pub(crate) F);

/// Numbers in aligned columns; the first is of names.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// The service below: it takes the headers over, and fails where there are none.
pub(crate) fn answer(request: Request<Body>) -> Ready<Result<Response<Body>, Down>> {
    let (head, _body) = request.into_parts();
    if head.headers.is_empty() {
        return ready(Err(Down));
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = head.headers;
    ready(Ok(response))
}

/// Nanoseconds for each call of a loop on this thread.
pub(crate) fn one_thread(subject: &mut dyn Subject, goes: Goes, most: u64) -> f64 {
    let mut nanos = f64::NAN;
    allocation_counter::opt_out(|| {
        subject.call(WARM, goes);
        let calls = calls_in_chunk(subject, goes, most);
        let began = Instant::now();
        black_box(subject.call(calls, goes));
        nanos = per_call(Instant::now() - began, calls);
    });
    nanos
}

/// The same on two threads at once, as each of them sees it.
pub(crate) fn two_threads(subject: &mut dyn Subject, goes: Goes, most: u64) -> f64 {
    let mut calls = 0;
    allocation_counter::opt_out(|| {
        subject.call(WARM, goes);
        calls = calls_in_chunk(subject, goes, most / 2);
    });
    let missing = AtomicU32::new(2);
    let timed = |subject: &mut dyn Subject| {
        let mut times = None;
        allocation_counter::opt_out(|| {
            // Whatever the thread itself needs once.
            subject.call(1, goes);
            missing.fetch_sub(1, Ordering::AcqRel);
            while missing.load(Ordering::Acquire) > 0 {
                spin_loop();
            }
            let began = Instant::now();
            black_box(subject.call(calls, goes));
            times = Some((began, Instant::now()));
        });
        times.expect("it has run")
    };
    let mut shared = subject.share();
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(|| timed(&mut *shared));
        (timed(subject), other.join().expect("it does not panic"))
    });
    per_call(one.1.max(other.1) - one.0.min(other.0), calls)
}

/// Allocations of one call.
pub(crate) fn allocations(subject: &mut dyn Subject, goes: Goes) -> f64 {
    const CALLS: u64 = 1000;
    subject.call(WARM, goes);
    let counted = allocation_counter::measure(|| {
        black_box(subject.call(CALLS, goes));
    });
    counted.count_total as f64 / CALLS as f64
}

/// How many calls take about as long as a measurement should, at most so many.
fn calls_in_chunk(subject: &mut dyn Subject, goes: Goes, most: u64) -> u64 {
    const TRIED: u64 = 1000;
    if most <= TRIED {
        return most;
    }
    let began = Instant::now();
    black_box(subject.call(TRIED, goes));
    let each = per_call(Instant::now() - began, TRIED).max(0.1);
    ((CHUNK.as_nanos() as f64 / each) as u64).clamp(TRIED, most)
}

pub(crate) fn per_call(took: Duration, calls: u64) -> f64 {
    took.as_nanos() as f64 / calls as f64
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn polled_to_the_end<F: Future>(future: F, cx: &mut Context<'_>) -> F::Output {
    let mut future = pin!(future);
    for polled in 1_u32.. {
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => return output,
            // The thread that it waits for may have no core: then the machine is not quiet.
            Poll::Pending if polled.is_multiple_of(1000) => thread::yield_now(),
            Poll::Pending => spin_loop(),
        }
    }
    unreachable!("it is ready some time")
}

/// Calls `service` with the headers that the last response brought back.
fn call_in_turn<B, E>(
    calls: u64,
    goes: Goes,
    mut service: impl FnMut(Request<Body>, &mut Context<'_>) -> Result<Response<B>, E>,
) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut headers = HeaderMap::new();
    if goes == Goes::Well {
        headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    }
    let mut answered = 0;
    for _ in 0..calls {
        let mut request = Request::new(Body::empty());
        std::mem::swap(request.headers_mut(), &mut headers);
        if let Ok(response) = black_box(service(black_box(request), &mut cx)) {
            headers = response.into_parts().0.headers;
            answered += 1;
        }
    }
    answered
}

// === impl Tower ===

impl<S, B> Subject for Tower<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
{
    fn call(&mut self, calls: u64, goes: Goes) -> u64 {
        call_in_turn(calls, goes, |request, cx| {
            while self.0.poll_ready(cx)?.is_pending() {
                spin_loop();
            }
            polled_to_the_end(self.0.call(request), cx)
        })
    }

    fn share(&self) -> Box<dyn Subject> {
        Box::new(Self(self.0.clone()))
    }
}

// === impl Layered ===

impl<S, B, E> Subject for Layered<S>
where
    S: layered::Service<Request<Body>, Out = Result<Response<B>, E>> + 'static,
{
    fn call(&mut self, calls: u64, goes: Goes) -> u64 {
        call_in_turn(calls, goes, |request, cx| polled_to_the_end(self.0.execute(request), cx))
    }

    fn share(&self) -> Box<dyn Subject> {
        Box::new(Self(self.0.clone()))
    }
}

// === impl Closure ===

impl<F: Fn(Goes) -> bool + Clone + Send + 'static> Subject for Closure<F> {
    fn call(&mut self, calls: u64, goes: Goes) -> u64 {
        (0..calls).map(|_| u64::from(black_box((self.0)(black_box(goes))))).sum()
    }

    fn share(&self) -> Box<dyn Subject> {
        Box::new(Self(self.0.clone()))
    }
}

// === impl Down ===

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("down")
    }
}

impl Error for Down {}

// === impl Table ===

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).filter_map(width).collect();
        writeln!(f, "{}\n", self.title)?;
        for (number, row) in all().enumerate() {
            for (column, (cell, &width)) in zip(row, &widths).enumerate() {
                match column {
                    0 => write!(f, "| {cell:<width$} |")?,
                    _ => write!(f, " {cell:>width$} |")?,
                }
            }
            writeln!(f)?;
            if number == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let (left, right) = if column == 0 { ("|", "") } else { ("", ":") };
                    let dashes = "-".repeat(width + 2 - right.len());
                    write!(f, "{left}{dashes}{right}|")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
