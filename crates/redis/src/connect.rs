//! A connection to one server, or to one sentinel.

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, RedisResult, aio::MultiplexedConnection,
};

pub(crate) async fn connected(info: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    // The caller has its own limits.
    let unlimited =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&unlimited).await
}
