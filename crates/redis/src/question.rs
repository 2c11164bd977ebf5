//! Requests to Redis, and checks of whether a server can serve them.

use crate::scripts::Source;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection};

/// A request to Redis.
#[derive(Debug)]
pub(crate) enum Question<'a> {
    Command(Cmd),
    Script { source: &'a Source, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>> },
}

// === impl Question ===

impl Question<'_> {
    pub(crate) fn command(&self, by_text: bool) -> Cmd {
        let (source, keys, args) = match self {
            Self::Command(command) => return command.clone(),
            Self::Script { source, keys, args } => (source, keys, args),
        };
        let mut command = redis::cmd(if by_text { "EVAL" } else { "EVALSHA" });
        command.arg(if by_text { source.text } else { &source.hash });
        command.arg(keys.len()).arg(keys).arg(args);
        command
    }
}

/// Whether this server accepts changes. One that does not know how to answer is assumed to.
pub(crate) async fn probe(
    connection: &mut MultiplexedConnection,
    probe: &Source,
    key: &[u8],
) -> RedisResult<()> {
    let mut eval = redis::cmd("EVAL");
    match eval.arg(probe.text).arg(1).arg(key).query_async(connection).await {
        Err(error) if is_said_of_the_script(&error) || is_moving(&error) => Ok(()),
        answered => answered,
    }
}

/// The slot is being moved and the key has left this server: ask the named server first.
pub(crate) fn is_moving(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::Ask)
}

/// A bare `ERR`: a server before Redis 7 does not know scripts with a first line.
fn is_said_of_the_script(error: &RedisError) -> bool {
    error.code() == Some("ERR")
}
