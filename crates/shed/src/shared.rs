//! The state shared by a layer and its services.

use crate::{
    Criticality,
    arrival::{self, Arrival},
    places::{Place, Places, Until},
};
use cinchona_core::{MethodKind, Methods, Mode, Rng, ServerContext, Switch};
use cinchona_plumbing::{
    Count, ResponseBody,
    clock::times,
    is_of_the_server,
    status::{Pushback, push_back},
};
use http::{Request, Response};
use rand::RngExt;
use std::time::Duration;
use tonic::Status;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) places: Places,
    pub(crate) pushback: Duration,
    pub(crate) arrival: Duration,
    pub(crate) methods: Option<Methods>,
    pub(crate) switch: Switch,
    pub(crate) rng: Rng,
    pub(crate) late: Count,
}

// === impl Shared ===

impl Shared {
    /// Where a call counts; `None` for an exempt one.
    pub(crate) fn place(&self, path: &str, kind: Option<MethodKind>) -> Option<Place<'_>> {
        if is_of_the_server(path) {
            return None;
        }
        self.places.of(path, kind, Until::Head)
    }

    pub(crate) fn look<B: 'static>(
        &self,
        request: &mut Request<B>,
        (kind, known): (Option<MethodKind>, ServerContext),
        place: &Place<'_>,
        mode: Mode,
    ) -> Arrival {
        if kind.is_some_and(MethodKind::streams_requests) {
            return Arrival::Whole;
        }
        let shadow = || self.shadow(mode);
        arrival::look(request, (known, kind.is_none()), place, shadow)
    }

    /// The switch that counts would-be refusals instead, if any.
    pub(crate) fn shadow(&self, mode: Mode) -> Option<Switch> {
        (mode == Mode::Shadow).then(|| self.switch.clone())
    }

    /// How long a request may take to arrive: without limit if it may be a stream.
    pub(crate) fn patience(&self, kind: Option<MethodKind>, mode: Mode) -> Option<Duration> {
        let is_limited = kind.is_some() && mode == Mode::Enforce && self.arrival < Duration::MAX;
        is_limited.then_some(self.arrival)
    }

    /// The answer to a refused call.
    pub(crate) fn refusal(&self, criticality: Criticality) -> Response<ResponseBody> {
        let limiter = &self.places.common;
        limiter.count_shed(criticality);
        tracing::debug!(criticality = criticality.name(), limit = limiter.limit(), "shed");
        let wait = times(self.pushback, self.rng.draw().random_range(0.5..1.5));
        let status = Status::unavailable("overloaded; not processed, another server may have room");
        let mut response = status.into_http::<()>();
        push_back(response.headers_mut(), Pushback::After(wait));
        response.map(|()| ResponseBody::default())
    }

    /// The answer to a request that has not arrived in time.
    pub(crate) fn lateness(&self) -> Response<ResponseBody> {
        self.late.count();
        let message = format!("the request has not arrived within {:?}", self.arrival);
        Status::deadline_exceeded(message).into_http::<()>().map(|()| ResponseBody::default())
    }
}
