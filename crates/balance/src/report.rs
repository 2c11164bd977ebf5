//! The load report (ORCA) in the trailers of a call.

use cinchona_plumbing::headers;
use cinchona_policy::utilization::{Report as Said, Reported};
use http::{HeaderMap, HeaderName};
use prost::Message;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The fields of `xds.data.orca.v3.OrcaLoadReport` for the weight.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Report {
    #[prost(double, tag = "1")]
    pub(crate) cpu_utilization: f64,
    /// Queries per second.
    #[prost(double, tag = "6")]
    pub(crate) rps_fractional: f64,
    /// Errors per second.
    #[prost(double, tag = "7")]
    pub(crate) eps: f64,
    #[prost(double, tag = "9")]
    pub(crate) application_utilization: f64,
}

/// The trailer that holds a report.
const LOAD_METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// The last headers of a call; invalid reports are ignored.
pub(crate) fn hear(reported: &Reported, trailers: &HeaderMap, now: Instant) {
    if let Some(report) = Report::read(trailers) {
        reported.hear(&report.into(), now);
    }
}

// === impl Report ===

impl Report {
    /// By tonic's own decoder of base64.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let value = headers::get(headers, &LOAD_METRICS)?.clone();
        let metadata = MetadataMap::from_headers(HeaderMap::from_iter([(LOAD_METRICS, value)]));
        let bytes = metadata.get_bin(LOAD_METRICS.as_str())?.to_bytes().ok()?;
        Self::decode(bytes).ok()
    }
}

impl From<Report> for Said {
    fn from(report: Report) -> Self {
        let Report { cpu_utilization, rps_fractional, eps, application_utilization } = report;
        Self { cpu_utilization, rps_fractional, eps, application_utilization }
    }
}

#[cfg(test)]
mod tests;
