//! Reports as they arrive.

use super::*;
use bytes::Bytes;
use cinchona_policy::utilization::Utilization;
use http::HeaderValue;
use proptest::{collection::vec, prelude::*};
use std::time::Duration;
use tonic::metadata::BinaryMetadataValue;

const SECOND: Duration = Duration::from_secs(1);

fn report(cpu: f64, application: f64, qps: f64, eps: f64) -> Report {
    Report { cpu_utilization: cpu, rps_fractional: qps, eps, application_utilization: application }
}

fn trailers(bytes: &[u8]) -> HeaderMap {
    let mut metadata = MetadataMap::new();
    let value = BinaryMetadataValue::from_bytes(bytes);
    metadata.insert_bin("endpoint-load-metrics-bin", value);
    metadata.into_headers()
}

#[test]
fn a_report_is_read_from_the_bytes_of_xds_data_orca_v3() {
    // cpu 0.5; memory 0.75; request_cost, utilization, named_metrics {"a": 0.5}; rps 100; eps 25;
    // application 0.25.
    let half = 0.5_f64.to_le_bytes();
    let entry = |tag| [&[tag, 12, 10, 1, b'a', 17][..], &half].concat();
    let double = |tag: u8, value: f64| [&[tag][..], &value.to_le_bytes()].concat();
    let bytes = [
        double(9, 0.5),
        double(17, 0.75),
        entry(34),
        entry(42),
        double(49, 100.0),
        double(57, 25.0),
        entry(66),
        double(73, 0.25),
    ];
    let read = Report::read(&trailers(&bytes.concat()));
    assert_eq!(read, Some(report(0.5, 0.25, 100.0, 25.0)));
}

#[test]
fn base64_is_read_with_padding_and_without() {
    // cpu 0.5, and a field that is not known: 16 bytes, which need padding.
    let text = "CQAAAAAAAOA/egUxMjM0NQ";
    for text in [text.to_owned(), format!("{text}==")] {
        let headers = HeaderMap::from_iter([(LOAD_METRICS, text.parse().unwrap())]);
        assert_eq!(Report::read(&headers), Some(report(0.5, 0.0, 0.0, 0.0)), "{text}");
    }
}

#[test]
fn an_invalid_report_gives_none() {
    assert_eq!(Report::read(&HeaderMap::new()), None);
    for text in ["*no base64*", "A", "//////////8=", "\u{e9}"] {
        let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(Report::read(&HeaderMap::from_iter([(LOAD_METRICS, value)])), None, "{text}");
    }
    let whole = report(0.5, 0.0, 100.0, 0.0).encode_to_vec();
    assert_eq!(Report::read(&trailers(&whole[..17])), None, "it is cut short");
}

proptest! {
    #[test]
    fn no_header_makes_a_weight_that_is_no_number_above_0(bytes in vec(any::<u8>(), 0..80)) {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(bytes.clone())) {
            sound(&HeaderMap::from_iter([(LOAD_METRICS, value)]))?;
        }
        sound(&trailers(&bytes))?;
    }

    #[test]
    fn no_numbers_make_a_weight_that_is_no_number_above_0(bits in any::<[u64; 4]>()) {
        let [cpu, application, qps, eps] = bits.map(f64::from_bits);
        sound(&trailers(&report(cpu, application, qps, eps).encode_to_vec()))?;
    }
}

fn sound(trailers: &HeaderMap) -> Result<(), TestCaseError> {
    let now = Instant::now();
    let settings = Utilization { blackout_period: Duration::ZERO, ..Utilization::default() };
    let reported = Reported::new(settings, now);
    hear(&reported, trailers, now + SECOND);
    if let Some(weight) = reported.weight(now + SECOND) {
        prop_assert!(weight.is_finite() && weight > 0.0, "{weight}");
    }
    Ok(())
}

#[test]
fn each_number_of_a_report_is_the_one_that_the_weight_is_of() {
    let heard = |report: Report| {
        let now = Instant::now();
        let settings = Utilization { blackout_period: Duration::ZERO, ..Utilization::default() };
        let reported = Reported::new(settings, now);
        hear(&reported, &trailers(&report.encode_to_vec()), now);
        reported.weight(now)
    };
    assert_eq!(heard(report(0.5, 0.0, 100.0, 50.0)), Some(100.0));
    assert_eq!(heard(report(0.25, 0.5, 100.0, 0.0)), Some(200.0));
}
