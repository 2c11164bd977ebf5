//! The ledger as of `proto/ledger.proto`, in the details of a status. The messages are written by
//! hand: a test compares them with the file.

use crate::ledger::{Attempt, Ledger};
use cinchona_core::{AttemptKind, Stage, Verdict};
use cinchona_policy::retry::Stop;
use prost::Message;
use std::{sync::Arc, time::Duration};
use tonic::{Code, Status};

const TYPE_URL: &str = "type.googleapis.com/cinchona.retry.v1.Ledger";

/// By their numbers in the file, from 1.
const KINDS: [AttemptKind; 4] =
    [AttemptKind::First, AttemptKind::Retry, AttemptKind::Transparent, AttemptKind::Hedge];

/// By their numbers in the file, from 1.
const STOPS: [Stop; 11] = [
    Stop::Succeeded,
    Stop::Exhausted,
    Stop::NotRetryable,
    Stop::Deadline,
    Stop::BodyTooLarge,
    Stop::NotIdempotent,
    Stop::Pushback,
    Stop::Throttled,
    Stop::Budget,
    Stop::Chained,
    Stop::Local,
];

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LedgerMessage {
    #[prost(message, repeated, tag = "1")]
    pub(super) attempts: Vec<AttemptMessage>,
    #[prost(int32, tag = "2")]
    pub(super) stopped: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttemptMessage {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(int32, tag = "2")]
    pub(super) verdict: i32,
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
    #[prost(message, optional, tag = "4")]
    pub(super) began: Option<Span>,
    #[prost(message, optional, tag = "5")]
    pub(super) duration: Option<Span>,
    #[prost(message, optional, tag = "6")]
    pub(super) wait: Option<Span>,
    #[prost(string, tag = "7")]
    pub(super) endpoint: String,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Span {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// The details of `status` with `ledger` appended. Details that are not a `google.rpc.Status` are
/// unchanged.
pub(super) fn with(ledger: &Ledger, status: &Status) -> Vec<u8> {
    let mut details = status.details().to_vec();
    let own = Any { type_url: TYPE_URL.to_owned(), value: message(ledger).encode_to_vec() };
    let mut behind = RpcStatus { details: vec![own], ..RpcStatus::default() };
    if details.is_empty() {
        (behind.code, behind.message) = (status.code() as i32, status.message().to_owned());
    } else if RpcStatus::decode(&*details).is_err() {
        return details;
    }
    // Two concatenated messages are one, with the lists of both.
    details.extend(behind.encode_to_vec());
    details
}

/// The ledger among the details, if there is one that is well formed.
pub(super) fn of(details: &[u8]) -> Option<Ledger> {
    let RpcStatus { details, .. } = RpcStatus::decode(details).ok()?;
    let own = details.into_iter().rev().find(|detail| detail.type_url == TYPE_URL)?;
    ledger(LedgerMessage::decode(&*own.value).ok()?)
}

fn message(ledger: &Ledger) -> LedgerMessage {
    let attempts = ledger.attempts.iter().map(|attempt| AttemptMessage {
        kind: number(&KINDS, attempt.kind),
        verdict: match attempt.verdict {
            Verdict::Ok => 1,
            Verdict::Refused(_) => 2,
            Verdict::NotProcessed(Stage::NoConnection) => 3,
            Verdict::NotProcessed(Stage::NotWritten) => 4,
            Verdict::NotProcessed(Stage::RefusedStream) => 5,
            Verdict::MaybeProcessed(_) => 6,
            Verdict::Deadline => 7,
            Verdict::Local(_) => 8,
            // A reason without a number in `ledger.proto`.
            _ => 0,
        },
        code: attempt.verdict.code() as i32,
        began: Some(attempt.began.into()),
        duration: Some(attempt.duration.into()),
        wait: Some(attempt.wait.into()),
        endpoint: attempt.endpoint.as_deref().unwrap_or_default().to_owned(),
    });
    LedgerMessage { attempts: attempts.collect(), stopped: number(&STOPS, ledger.stopped) }
}

fn ledger(message: LedgerMessage) -> Option<Ledger> {
    let attempt = |message: AttemptMessage| {
        let code = Code::from(message.code);
        Some(Attempt {
            kind: *KINDS.get(index(message.kind)?)?,
            verdict: match message.verdict {
                1 => Verdict::Ok,
                2 => Verdict::Refused(code),
                3 => Verdict::NotProcessed(Stage::NoConnection),
                4 => Verdict::NotProcessed(Stage::NotWritten),
                5 => Verdict::NotProcessed(Stage::RefusedStream),
                6 => Verdict::MaybeProcessed(code),
                7 => Verdict::Deadline,
                8 => Verdict::Local(code),
                _ => return None,
            },
            began: message.began?.into(),
            duration: message.duration?.into(),
            wait: message.wait?.into(),
            endpoint: Some(message.endpoint).filter(|name| !name.is_empty()).map(Into::into),
        })
    };
    let stopped = *STOPS.get(index(message.stopped)?)?;
    let attempts = message.attempts.into_iter().map(attempt).collect::<Option<_>>()?;
    Some(Ledger { attempts, stopped, cause: None })
}

fn number<T: PartialEq>(all: &[T], one: T) -> i32 {
    all.iter().zip(1..).find(|(other, _)| **other == one).map_or(0, |(_, number)| number)
}

fn index(number: i32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

// === impl Ledger ===

impl Ledger {
    /// `cause`, with the ledger of the call as its source, and in its details if the call is
    /// `explained`.
    pub(crate) fn close(mut self, cause: Status, explained: bool) -> Status {
        let details = if explained { with(&self, &cause) } else { cause.details().to_vec() };
        let mut status = Status::with_details_and_metadata(
            cause.code(),
            cause.message(),
            details.into(),
            cause.metadata().clone(),
        );
        self.cause = Some(Arc::new(cause));
        status.set_source(Arc::new(self));
        status
    }

    /// The ledger in the details of a status: for example of a client further downstream, whose
    /// failure a server has passed on.
    ///
    /// `None` if there is none, or it is malformed.
    ///
    /// ```
    /// assert!(cinchona_retry::Ledger::from_details(b"no message").is_none());
    /// ```
    pub fn from_details(details: &[u8]) -> Option<Self> {
        of(details)
    }
}

// === impl Span ===

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { seconds, nanos: duration.subsec_nanos() as i32 }
    }
}

impl From<Span> for Duration {
    /// Negative durations are zero: ours are none.
    fn from(Span { seconds, nanos }: Span) -> Self {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
        Self::new(seconds, nanos)
    }
}
