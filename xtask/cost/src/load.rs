//! Calls.

use crate::pb::{BinaryOperation, calculator_client::CalculatorClient};
use bytes::Bytes;
use cinchona::core::BoxError;
use http_body::Body as HttpBody;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::{
    Request, Status,
    body::Body,
    client::GrpcService,
    transport::{Channel, Endpoint},
};

/// So many calls, by so many callers at once.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub calls: u32,
    pub callers: u32,
}

/// What a client is over. It is connected when it is first called.
///
/// # Errors
/// When the address is none.
pub fn endpoint(address: &str) -> Result<Endpoint, BoxError> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true))
}

/// tonic's own client.
///
/// # Errors
/// When the address is none.
pub fn plain(address: &str) -> Result<CalculatorClient<Channel>, BoxError> {
    Ok(CalculatorClient::new(endpoint(address)?.connect_lazy()))
}

// === impl Load ===

impl Load {
    /// One call after another: how many of them are read at once does not depend on what else the
    /// machine does, so the work for each is the same in every run.
    pub fn one_by_one(calls: u32) -> Self {
        Self { calls, callers: 1 }
    }

    /// As many callers as keep a server busy.
    pub fn many(calls: u32) -> Self {
        Self { calls, callers: 64 }
    }

    /// Makes the calls, each with a timeout.
    ///
    /// # Errors
    /// The first failure.
    pub async fn run<C>(self, client: &CalculatorClient<C>) -> Result<(), BoxError>
    where
        C: GrpcService<Body> + Clone + Send + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
        C::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <C::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
    {
        let mut callers = JoinSet::new();
        for _ in 0..self.callers {
            let mut client = client.clone();
            callers.spawn(async move {
                for n in 0..self.calls / self.callers {
                    let operation = BinaryOperation { a: f64::from(n), b: 1.0 };
                    let mut request = Request::new(operation);
                    request.set_timeout(Duration::from_secs(600));
                    client.add(request).await?;
                }
                Ok::<_, Status>(())
            });
        }
        while let Some(done) = callers.join_next().await {
            done??;
        }
        Ok(())
    }
}
