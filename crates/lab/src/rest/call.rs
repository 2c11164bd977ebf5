//! One request by REST, as a call on the stack.

use super::{
    headers::{as_headers, as_metadata},
    problem::Problem,
};
use crate::pb::{
    AppendRequest, BinaryOperation, CounterRequest, DeleteRequest, Empty, IncrementRequest, Key,
    SetValueRequest, WithdrawRequest,
};
use axum::{
    Json, RequestPartsExt,
    body::Body as HttpBody,
    extract::{Path, Query, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use bytes::Bytes;
use calculator::around::Stack;
use cinchona::core::Deadline;
use http::{
    HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE},
    request::Parts,
    uri::PathAndQuery,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use std::{error::Error, time::Duration};
use tokio::time::timeout;
use tonic::{Status, client::Grpc};
use tonic_prost::ProstCodec;

/// A message, of which the path may have a field.
pub(crate) trait InPath {
    /// That field, if it is one of this message.
    fn key(&mut self) -> Option<&mut String> {
        None
    }
}

/// The most bytes of a body: more than the longest text is, however it is escaped.
const LIMIT: usize = 1 << 20;

/// How long a body may take to arrive; the limits of the stack begin after it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests by the methods of `filter`, each as a call of `rpc`.
pub(super) fn call<Q, A>(filter: MethodFilter, rpc: &'static str) -> MethodRouter<Stack>
where
    Q: Message + InPath + DeserializeOwned + 'static,
    A: Message + Serialize + Default + 'static,
{
    on(filter, async move |State(stack): State<Stack>, request: Request| {
        let is_read = request.method().is_safe();
        let call = message::<Q>(request).await?;
        let mut stack = Grpc::new(stack);
        stack.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let (rpc, codec) = (PathAndQuery::from_static(rpc), ProstCodec::<Q, A>::default());
        let (metadata, message, _) = stack.unary(call, rpc, codec).await?.into_parts();
        let mut response = Json(message).into_response();
        response.headers_mut().extend(as_headers(metadata));
        if is_read {
            // No header says how long the answer holds; without this a cache may guess.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        Ok::<Response, Problem>(response)
    })
}

/// The call that `request` stands for.
async fn message<Q>(request: Request) -> Result<tonic::Request<Q>, Problem>
where
    Q: InPath + DeserializeOwned,
{
    let (mut parts, body) = request.into_parts();
    let key: Result<Option<Path<String>>, PathRejection> = parts.extract().await;
    let key = key.map_err(|rejected| Problem::invalid(why(&rejected)))?;
    let mut message: Q = if matches!(parts.method, Method::POST | Method::PUT) {
        in_body(&parts, body).await?
    } else {
        let fields = Query::try_from_uri(&parts.uri);
        fields.map_err(|rejected| Problem::invalid(why(&rejected)))?.0
    };
    if let (Some(Path(key)), Some(field)) = (key, message.key()) {
        if !field.is_empty() {
            return Err(Problem::invalid("key: is in the path already"));
        }
        *field = key;
    }
    Deadline::parse_timeout(&parts.headers)
        .map_err(|invalid| Problem::invalid(invalid.to_string()))?;
    Ok(tonic::Request::from_parts(as_metadata(parts.headers), parts.extensions, message))
}

/// The message in the body.
async fn in_body<Q: DeserializeOwned>(parts: &Parts, body: HttpBody) -> Result<Q, Problem> {
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        let detail = format!("the query: the fields of a {} are in its body", parts.method);
        return Err(Problem::invalid(detail));
    }
    let kind = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !kind.eq_ignore_ascii_case(b"application/json") {
        let detail = "content-type: must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    if parts.headers.contains_key(CONTENT_ENCODING) {
        let detail = "content-encoding: none is understood";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let body = whole(body).await?;
    // serde would take the values of an array for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid("the body: must be a JSON object"));
    }
    let message = Json::from_bytes(&body);
    Ok(message.map_err(|rejected| Problem::invalid(why(&rejected)))?.0)
}

/// What is wrong, without axum's words before it.
fn why(rejected: &dyn Error) -> String {
    rejected.source().unwrap_or(rejected).to_string()
}

async fn whole(body: HttpBody) -> Result<Bytes, Problem> {
    let read = timeout(PATIENCE, Limited::new(body, LIMIT).collect()).await.map_err(|_| {
        let detail = format!("the body: has not arrived within {PATIENCE:?}");
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    })?;
    let body = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let detail = format!("the body: is longer than {LIMIT} bytes");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail);
        }
        Problem::invalid(format!("the body: {error}"))
    })?;
    Ok(body.to_bytes())
}

// === impl InPath ===

impl InPath for BinaryOperation {}
impl InPath for CounterRequest {}
impl InPath for Empty {}

macro_rules! by_key {
    ($($message:ty),*) => {
        $(impl InPath for $message {
            fn key(&mut self) -> Option<&mut String> {
                Some(&mut self.key)
            }
        })*
    };
}

by_key!(Key, SetValueRequest, DeleteRequest, IncrementRequest, AppendRequest, WithdrawRequest);
