//! The metrics and spans of the layers, around scripted servers and in virtual time.

mod cost;
mod counted;
mod exposition;
mod laws;
mod owned;
mod recorded;
mod registered;

use crate::Metrics;
use bytes::Bytes;
use cinchona_core::{BoxError, Methods};
use http_body_util::{BodyExt as _, Full};
use std::collections::BTreeMap;
use tonic::{GrpcMethod, body::Body};
use tower::{Service, ServiceExt as _};

const PATH: &str = "/calculator.Calculator/Add";
const TARGET: &str = "dns:///calculator:50051";

/// A unary request as a generated client makes it, with a message of 7 bytes.
fn request() -> http::Request<Body> {
    let framed = Bytes::from_static(&[0, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7]);
    let mut request = request_to(PATH, Body::new(Full::new(framed)));
    request.extensions_mut().insert(GrpcMethod::new("calculator.Calculator", "Add"));
    request
}

fn request_to(path: &str, body: Body) -> http::Request<Body> {
    http::Request::post(format!("http://server{path}")).body(body).unwrap()
}

/// Calls, and reads the response to its end.
async fn call<S, B>(service: S, request: http::Request<Body>) -> Result<(), BoxError>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
{
    let response = service.oneshot(request).await.map_err(Into::into)?;
    _ = response.into_body().collect().await;
    Ok(())
}

fn metrics() -> Metrics {
    Metrics::new(Methods::unknown())
}

/// The samples of Prometheus's text by their lines without values, read by hand.
fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// `name{grpc_method=..,grpc_target=..}` of a client, with a status unless it is empty.
fn client(name: &str, status: &str) -> String {
    let status = match status {
        "" => String::new(),
        status => format!(",grpc_status=\"{status}\""),
    };
    format!("{name}{{grpc_method=\"{}\",grpc_target=\"{TARGET}\"{status}}}", &PATH[1..])
}

#[track_caller]
fn assert_samples(metrics: &Metrics, expected: &[(String, f64)]) {
    let found = samples(metrics);
    for (name, value) in expected {
        assert_eq!(found.get(name), Some(value), "{name} among {found:#?}");
    }
}
