//! A response's body that holds its call's place until it has ended.

use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::{Next, Polled, ResponseBody, Seen, Watcher};
use cinchona_policy::concurrency::Permit;
use http_body::Body;
use std::pin::Pin;

/// The place of a call that is kept until its response has ended.
struct Kept(Permit);

/// The response body of a call, which holds its place until it ends or is dropped.
pub(crate) fn holding<B>(body: B, permit: Option<Box<Permit>>) -> ResponseBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = ResponseBody::of(body);
    match permit {
        Some(mut permit) if body.is_end_stream() => permit.answered(true),
        // Until it is sent: a client that does not read must not make room for more answers.
        Some(permit) => body.watch_sent(Kept(*permit)),
        None => {}
    }
    body
}

// === impl Kept ===

impl Watcher for Kept {
    fn sees_data(&self) -> bool {
        false
    }

    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        let Self(permit) = self.get_mut();
        permit.answered(polled.as_ref().is_none_or(Result::is_ok));
        if permit.is_measured() {
            permit.ends(seen.now());
        }
        Next::Over
    }
}
