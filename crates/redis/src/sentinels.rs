//! What sentinels say: which server is the primary now.

use crate::connect::connected;
use futures_util::future::join_all;
use redis::{ConnectionInfo, ErrorKind, RedisError, RedisResult, aio::MultiplexedConnection};
use std::time::Duration;
use tokio::time::timeout;

/// The host and port of a server, as sentinels spell them.
pub(crate) type Named = (String, u16);

/// The sentinels of a service, with a connection to each that has answered.
pub(crate) struct Sentinels<'a> {
    service: &'a str,
    all: Vec<(&'a ConnectionInfo, Option<MultiplexedConnection>)>,
}

/// How long they may take to answer.
const PATIENCE: Duration = Duration::from_millis(250);

// === impl Sentinels ===

impl<'a> Sentinels<'a> {
    pub(crate) fn new(service: &'a str, known: &'a [ConnectionInfo]) -> Self {
        Self { service, all: known.iter().map(|known| (known, None)).collect() }
    }

    /// Whether more than half of them name another server: the primary was replaced, and may not
    /// know. What it would still acknowledge is lost when it becomes a replica.
    pub(crate) async fn name_another(&mut self, primary: Option<&Named>) -> bool {
        let (Some(primary), service) = (primary, self.service) else { return false };
        let asked = self.all.iter_mut().map(async |(sentinel, known)| {
            let named = timeout(PATIENCE, ask(sentinel, known, service)).await;
            matches!(named, Ok(Ok(named)) if named != *primary)
        });
        let others = join_all(asked).await.into_iter().filter(|names_another| *names_another);
        2 * others.count() > self.all.len()
    }
}

/// The server that a sentinel names.
pub(crate) async fn named(sentinel: &ConnectionInfo, service: &str) -> RedisResult<Named> {
    ask(sentinel, &mut None, service).await
}

/// A connection that fails, or is given up, is not used again.
async fn ask(
    sentinel: &ConnectionInfo,
    known: &mut Option<MultiplexedConnection>,
    service: &str,
) -> RedisResult<Named> {
    let mut connection = match known.take() {
        Some(connection) => connection,
        None => connected(sentinel).await?,
    };
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(service);
    let named: Option<Named> = ask.query_async(&mut connection).await?;
    *known = Some(connection);
    named.ok_or_else(|| {
        RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "no such service"))
    })
}
