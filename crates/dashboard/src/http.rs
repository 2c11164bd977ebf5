//! The paths and their answers.

use crate::{
    dashboard::{Served, State as Shown},
    guard::{self, Peer},
    places::Place,
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::from_fn_with_state,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::{get, post},
};
use cinchona_core::Mode;
use cinchona_plumbing::Seldom;
use futures_util::stream;
use serde::Deserialize;
use std::{convert::Infallible, sync::LazyLock, time::Duration};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

/// The interval at which a watcher receives the state.
const PERIOD: Duration = Duration::from_millis(500);

/// The longest body of a change, in bytes.
const LONGEST: usize = 64 * 1024;

/// How long the body of a change may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

const PAGE: &str = include_str!("../page/index.html");
const SCRIPT: &str = include_str!("../page/app.js");
const STYLE: &str = include_str!("../page/app.css");

/// A change of the faults; each path reads its own fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Change {
    id: Option<String>,
    rule: Option<String>,
    mode: Option<String>,
}

/// The kinds of change.
#[derive(Clone, Copy, Debug)]
enum Act {
    Set,
    Remove,
    Clear,
    Switch,
}

/// A watcher, and the last line that it received.
struct Watcher {
    served: Served,
    period: Interval,
    last: Option<u64>,
    place: Place,
}

/// A refusal, and its reason.
type Refused = guard::Refused;

static REFUSED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::info!(more, "refusing changes of the faults")));

pub(crate) fn routes(served: Served) -> Router {
    let change = |act: Act| {
        let by = move |state, peer, request| change(act, state, peer, request);
        post(by)
    };
    Router::new()
        .route("/", get(|| text("text/html; charset=utf-8", PAGE)))
        .route("/app.js", get(|| text("text/javascript; charset=utf-8", SCRIPT)))
        .route("/app.css", get(|| text("text/css; charset=utf-8", STYLE)))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/api/state", get(state))
        .route("/api/faults", change(Act::Set))
        .route("/api/faults/remove", change(Act::Remove))
        .route("/api/faults/clear", change(Act::Clear))
        .route("/api/faults/switch", change(Act::Switch))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(from_fn_with_state(served.clone(), guard::guard))
        .with_state(served)
}

async fn text(kind: &'static str, text: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, kind)], text.into()).into_response()
}

async fn metrics(State(served): State<Served>) -> Response {
    match served.metrics_text() {
        Some(metrics) => text("text/plain; version=0.0.4; charset=utf-8", metrics).await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn state(State(served): State<Served>) -> Response {
    match json(&served.state(None).0) {
        Some(state) => text("application/json", state).await,
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// JSON that is safe inside HTML as well.
fn json(state: &Shown) -> Option<String> {
    let json = serde_json::to_string(state).ok()?;
    // Outside of strings, JSON has neither.
    Some(json.replace('<', "\\u003c").replace('>', "\\u003e"))
}

async fn events(State(served): State<Served>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    let place = served.watchers.take(peer.remote.ip());
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher { served, period, last: None, place };
    Sse::new(stream::unfold(watcher, Watcher::next)).into_response()
}

async fn change(
    act: Act,
    State(served): State<Served>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    match read(&served, peer, request).await.and_then(|change| act.run(&served, change)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err((status, why)) => {
            if REFUSED.is_due(Instant::now()) {
                let peer = peer.remote;
                tracing::info!(?act, %status, %peer, "refusing a change of the faults");
            }
            (status, why).into_response()
        }
    }
}

/// The change that a request asks for, if it is allowed.
async fn read(served: &Served, peer: Peer, request: Request) -> Result<Change, Refused> {
    let (parts, body) = request.into_parts();
    guard::may_change(&parts, peer, served.trust())?;
    let body = timeout(PATIENCE, to_bytes(body, LONGEST)).await.map_err(|_| {
        (StatusCode::REQUEST_TIMEOUT, format!("the body took longer than {PATIENCE:?}"))
    })?;
    let body = body.map_err(|_| {
        (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {LONGEST} bytes"))
    })?;
    serde_json::from_slice(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

// === impl Act ===

impl Act {
    fn run(self, served: &Served, change: Change) -> Result<(), Refused> {
        let Some(console) = served.console() else {
            return Err((StatusCode::NOT_FOUND, "there is no fault console".into()));
        };
        let refused = |why| (StatusCode::UNPROCESSABLE_ENTITY, why);
        match self {
            Self::Set => {
                let (id, rule) = (said(change.id, "id")?, said(change.rule, "rule")?);
                console.set(&id, &rule).map_err(refused)
            }
            Self::Remove => console.remove(&said(change.id, "id")?).map_err(refused),
            Self::Clear => console.clear().map_err(refused),
            Self::Switch => {
                let mode = match said(change.mode, "mode")?.as_str() {
                    "enforce" => Mode::Enforce,
                    "shadow" => Mode::Shadow,
                    "off" => Mode::Off,
                    _ => return Err(refused("the mode is enforce, shadow or off".into())),
                };
                let switch = console.switch().ok_or("there is no master switch");
                switch.map(|switch| switch.set(mode)).map_err(|why| refused(why.into()))
            }
        }
    }
}

fn said(value: Option<String>, field: &str) -> Result<String, Refused> {
    let value = value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    value.ok_or_else(|| (StatusCode::BAD_REQUEST, format!("the field `{field}` is missing")))
}

// === impl Watcher ===

impl Watcher {
    /// The next state; `None` when the server stops, or another watcher takes the place.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        tokio::select! {
            biased;
            _ = self.served.is_over.wait_for(|is_over| *is_over) => return None,
            () = self.place.displaced() => return None,
            _ = self.period.tick() => {}
        }
        let (state, last) = self.served.state(self.last);
        let event = Event::default().data(json(&state)?);
        self.last = Some(last);
        Some((Ok(event), self))
    }
}
