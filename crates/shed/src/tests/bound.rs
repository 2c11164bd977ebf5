//! Bounded statuses.

use super::*;
use cinchona_testkit::Network;
use http::HeaderMap;

fn sent(status: &Status) -> HeaderMap {
    status.clone().into_http::<()>().into_parts().0.headers
}

// catalogue: S-E12
#[tokio::test(start_paused = true)]
async fn a_status_of_any_size_arrives_with_its_code_over_http2() {
    for size in [900, 20_000, 200_000] {
        for trailers_only in [true, false] {
            let text = "ä".repeat(size / 2);
            let details = bytes::Bytes::from(vec![7; size]);
            let mut status = Status::with_details(Code::FailedPrecondition, text, details);
            let value = "x".repeat(size.min(20_000));
            status.metadata_mut().insert("x-value", value.parse().unwrap());
            let answer = if trailers_only { Answer::Status } else { Answer::HeadersThenStatus };
            let network = Network::new();
            let server = ScriptedServer::new([answer(status)]);
            let layer = StatusLimitLayer::new();
            let _serving = network.serve_service(layer.layer(server));
            assert_eq!(
                call(&network.channel(), request()).await,
                Code::FailedPrecondition,
                "{size}, {trailers_only}"
            );
            assert_eq!(layer.counters().cut, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn statuses_that_fit_are_unchanged_and_off_all_are() {
    for (mode, size, counted) in
        [(Mode::Enforce, 100, 0), (Mode::Shadow, 5000, 1), (Mode::Off, 5000, 0)]
    {
        let switch = Switch::new(mode);
        let layer = StatusLimitSettings::new().with_switch(switch.clone()).layer();
        let status = Status::with_details(Code::NotFound, "m".repeat(size), "d".into());
        let service = layer.layer(ScriptedServer::new([Answer::Status(status.clone())]));
        let answered = service.oneshot(request()).await.unwrap();
        for (name, value) in &sent(&status) {
            assert_eq!(answered.headers().get(name), Some(value), "{mode:?}");
        }
        assert_eq!((layer.counters().cut, switch.shadowed()), (0, counted), "{mode:?}");
    }
}

proptest! {
    // Each case has 30,000 characters.
    #![proptest_config(ProptestConfig::with_cases(64))]

    // catalogue: S-E12
    #[test]
    fn whatever_is_said_is_cut_between_characters(
        message in "\\PC{0,2000}",
        details in proptest::collection::vec(any::<u8>(), 0..6000),
        values in proptest::collection::vec("[ -~]{0,4000}", 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut status = Status::with_details(Code::Aborted, message.clone(), details.into());
        for (n, value) in values.into_iter().enumerate() {
            let name: tonic::metadata::AsciiMetadataKey = format!("x-{n}").parse().unwrap();
            status.metadata_mut().insert(name, value.parse().unwrap());
        }
        let service = StatusLimitLayer::new().layer(ScriptedServer::new([Answer::Status(status)]));
        let answered = runtime.block_on(service.oneshot(request())).unwrap();
        let entries = answered.headers().iter();
        let size: usize =
            entries.map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        prop_assert!(size <= 8000, "{}", size);
        let read = status::from_headers(answered.headers()).unwrap();
        prop_assert_eq!(read.code(), Code::Aborted);
        let kept = read.message().strip_suffix("...").unwrap_or(read.message());
        prop_assert!(message.starts_with(kept), "{}", kept);
        prop_assert!(kept.len() >= message.len().min(300));
    }
}
