//! What a Redis is asked, and whether it is one to be asked.

use crate::scripts::Source;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection};

/// A question to Redis.
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

/// Whether a change can be made here. A server that does not know how to say so is taken to be one.
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

/// The slot is being moved from here, and the key is not here any more: this server is to be asked
/// first.
pub(crate) fn is_moving(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::Ask)
}

/// `ERR` and nothing else: a server before Redis 7 does not know scripts with a first line.
fn is_said_of_the_script(error: &RedisError) -> bool {
    error.code() == Some("ERR")
}
