//! The elements of the grammar: durations, codes, bytes.

use std::time::Duration;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

/// The units of a duration and their nanoseconds, largest first.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const LONGEST: Duration = Duration::from_secs(8760 * 3600);

/// The error codes of HTTP/2 (RFC 9113, section 7), by number.
pub(super) const RESETS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

pub(super) fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(end);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if part.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let whole = whole.parse::<u64>().ok().map(u128::from)?;
    let part = part.parse::<u64>().ok().map(u128::from)?;
    let nanos = whole.checked_mul(*unit)? + part * unit / scale;
    let duration = Duration::new(
        u64::try_from(nanos / 1_000_000_000).ok()?,
        u32::try_from(nanos % 1_000_000_000).ok()?,
    );
    (duration <= LONGEST).then_some(duration)
}

/// In the largest unit that gives a whole number.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fits = |(_, unit): &&(&str, u128)| nanos.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((name, unit)) if nanos > 0 => format!("{}{name}", nanos / unit),
        _ => "0s".to_owned(),
    }
}

/// The number of an HTTP/2 error code.
pub(super) fn reset(text: &str) -> Option<u32> {
    let name = text.replace('-', "_").to_ascii_uppercase();
    let at = RESETS.iter().position(|known| *known == name);
    at.or_else(|| text.parse().ok().filter(|number| *number < RESETS.len()))
        .and_then(|at| u32::try_from(at).ok())
}

/// The name of an HTTP/2 error code.
pub(super) fn code_of_reset(code: u32) -> &'static str {
    let named = usize::try_from(code).ok().and_then(|at| RESETS.get(at));
    named.copied().unwrap_or("UNKNOWN")
}

/// Base64, as gRPC writes it in `-bin` metadata.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    const KEY: &str = "x-bin";
    let value = http::HeaderValue::from_str(text).ok()?;
    let headers = http::HeaderMap::from_iter([(http::HeaderName::from_static(KEY), value)]);
    let metadata = MetadataMap::from_headers(headers);
    metadata.get_bin(KEY)?.to_bytes().ok().map(|bytes| bytes.to_vec())
}

pub(super) fn show_base64(bytes: &[u8]) -> String {
    let value = BinaryMetadataValue::from_bytes(bytes);
    String::from_utf8_lossy(value.as_encoded_bytes()).into_owned()
}
