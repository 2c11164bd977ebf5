//! What the headers of a further attempt say.

use cinchona_core::Deadline;
use cinchona_plumbing::{headers, status, timeout::GRPC_TIMEOUT};
use cinchona_policy::retry::Progress;
use http::HeaderMap;
use tokio::time::Instant;

/// Stamps the number of the attempt and the remaining time.
pub(crate) fn stamp(progress: &Progress, headers: &mut HeaderMap, now: Instant) {
    if progress.attempts > 0 {
        headers.insert(status::PREVIOUS_ATTEMPTS, progress.attempts.into());
    }
    // A stream's deadline may be that of its first message only: then the first attempt has not
    // sent it either.
    if let Some(deadline) = progress.deadline
        && headers::has(headers, &GRPC_TIMEOUT)
    {
        Deadline(deadline).stamp(headers, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona_policy::Safety;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_further_attempt_says_which_it_is_and_how_long_there_is_where_the_first_has_said_so() {
        let now = Instant::now();
        let stamped = |attempts, deadline, timeout: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            timeout.map(|it| headers.insert(GRPC_TIMEOUT, http::HeaderValue::from_static(it)));
            let mut progress = Progress::new(Safety::Idempotent, deadline);
            progress.attempts = attempts;
            stamp(&progress, &mut headers, now);
            let timeout = Deadline::parse_timeout(&headers).unwrap();
            (headers.get(status::PREVIOUS_ATTEMPTS).cloned(), timeout)
        };
        let deadline = Some(now + 7 * MS);
        assert_eq!(stamped(0, deadline, Some("1S")), (None, Some(7 * MS)));
        assert_eq!(stamped(2, deadline, None), (Some(2.into()), None));
        assert_eq!(stamped(1, None, Some("1S")), (Some(1.into()), Some(1000 * MS)));
    }
}
