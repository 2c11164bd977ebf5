//! The ledgers of a test's calls.

use cinchona_retry::Ledger;
use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tonic::codegen::StdError;
use tower::{Layer, Service};

/// The [`Ledger`]s of the calls made over a channel, in the order in which they ended: each
/// attempt, and why there was not another. Clones share them.
///
/// Put it [around](Self::around) the channel of the generated client. It records the ledgers of the
/// retry layer below: of calls that were retried, or have failed. A call that succeeds with its
/// first attempt has a ledger only if the layer is configured so: `settings.explained = true`, or
/// `RetrySettings::explained`.
///
/// ```
/// use cinchona::{client::Settings, core::Methods};
/// use cinchona_testkit::{Answer, Ledgers, Network, ScriptedServer};
/// use example_proto::greeter::{HelloRequest, greeter_client::GreeterClient};
/// use tonic::Status;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (network, ledgers) = (Network::new(), Ledgers::new());
/// let _serving = network.serve_service(ScriptedServer::new([Status::not_found("nobody").into()]));
/// let channel = Settings::new(Methods::unknown()).layers()?.around(network.channel());
/// let mut client = GreeterClient::new(ledgers.around(channel));
///
/// client.say_hello(HelloRequest::default()).await.unwrap_err();
/// let [ledger] = &ledgers.all()[..] else { panic!("one call") };
/// assert_eq!(ledger.attempts().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledgers(Arc<Mutex<Vec<Ledger>>>);

/// A channel whose calls record their ledgers in [`Ledgers`].
#[derive(Clone, Debug)]
pub struct Captured<S> {
    inner: S,
    ledgers: Ledgers,
}

// === impl Ledgers ===

impl Ledgers {
    /// No ledgers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps `channel`, whose calls record their ledgers here.
    pub fn around<S>(&self, channel: S) -> Captured<S> {
        Captured { inner: channel, ledgers: self.clone() }
    }

    /// The ledgers so far.
    pub fn all(&self) -> Vec<Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ledger of the call that ended last, if any.
    pub fn last(&self) -> Option<Ledger> {
        self.all().pop()
    }

    fn add(&self, ledger: Option<&Ledger>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(ledger.cloned());
    }
}

impl<S> Layer<S> for Ledgers {
    type Service = Captured<S>;

    fn layer(&self, inner: S) -> Captured<S> {
        self.around(inner)
    }
}

// === impl Captured ===

impl<S, B, R> Service<http::Request<B>> for Captured<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error: Into<StdError>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<R>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (call, ledgers) = (self.inner.call(request), self.ledgers.clone());
        Box::pin(async move {
            let outcome = call.await.map_err(Into::into);
            match &outcome {
                Ok(response) => ledgers.add(response.extensions().get()),
                Err(error) => ledgers.add(among_causes(&**error)),
            }
            outcome
        })
    }
}

fn among_causes<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Ledger> {
    match error.downcast_ref() {
        Some(ledger) => Some(ledger),
        None => among_causes(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Network, ScriptedServer};
    use cinchona::{client::Settings, core::Methods};
    use example_proto::greeter::{HelloReply, HelloRequest, greeter_client::GreeterClient};
    use tonic::{Code, Status};

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_retried_or_have_failed_leave_a_ledger() {
        let down = || Answer::from(Status::unavailable("down"));
        let script = [down(), Answer::message(&HelloReply::default()), down()];
        let (network, ledgers) = (Network::new(), Ledgers::new());
        let _serving = network.serve_service(ScriptedServer::new(script));
        let settings = Settings::new(Methods::all_idempotent());
        let channel = settings.layers().unwrap().around(network.channel());
        let mut client = GreeterClient::new(ledgers.around(channel));
        client.say_hello(HelloRequest::default()).await.unwrap();
        client.say_hello(HelloRequest::default()).await.unwrap_err();
        let attempts = ledgers.all().iter().map(|it| it.attempts().len()).collect::<Vec<_>>();
        assert_eq!(attempts, [2, 4]);
        let last = ledgers.last().unwrap();
        assert!(last.attempts().iter().all(|it| it.verdict.code() == Code::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_first_attempt_succeeds_leaves_a_ledger_if_configured() {
        for explained in [false, true] {
            let (network, ledgers) = (Network::new(), Ledgers::new());
            let script = [Answer::message(&HelloReply::default())];
            let _serving = network.serve_service(ScriptedServer::new(script));
            let mut settings = Settings::new(Methods::unknown());
            settings.explained = explained;
            let channel = settings.layers().unwrap().around(network.channel());
            let mut client = GreeterClient::new(ledgers.around(channel));
            client.say_hello(HelloRequest::default()).await.unwrap();
            assert_eq!(ledgers.all().len(), usize::from(explained));
        }
    }
}
