//! State in Redis, changed by compare-and-set.

use crate::{
    RedisStore,
    question::Question,
    scripts::{CHANGED, FENCED, answered, claimed, present},
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_idempotency::{Execution, State, Store, fenced, record};
use prost::Message;
use redis::Cmd;
use std::{
    hash::BuildHasher,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;

/// Values before and after a change, and the record of it.
struct Changed<T> {
    values: Vec<Option<Bytes>>,
    answer: T,
    record: Bytes,
}

impl State for RedisStore {
    async fn read(&self, key: &str) -> Result<Option<Bytes>, Status> {
        let get = Question::Command(Cmd::get(self.state_key(key)));
        let value = self.ask::<Option<Vec<u8>>>(&get, self.until()).await;
        Ok(value.map_err(|error| unavailable(&error))?.map(Bytes::from))
    }

    async fn update<T, F>(&self, keys: &[&str], change: F) -> Result<T, Status>
    where
        T: Message + 'static,
        F: Fn(&mut [Option<Bytes>]) -> Result<T, Status> + Send + Sync + 'static,
    {
        let until = self.until();
        let turn = self.shared.hasher.hash_one(keys) as usize % self.shared.changing.len();
        let turn = timeout_at(until, self.shared.changing[turn].lock()).await;
        let _turn = turn.map_err(|_| unavailable(&"too many changes of it are waiting".into()))?;
        let execution = Execution::current(self.instance());
        let names: Vec<_> = keys.iter().map(|key| self.state_key(key)).collect();
        let get = Question::Command(Cmd::mget(&names));
        loop {
            // Redis refuses an `MGET` of no keys.
            let before = match names.is_empty() {
                true => Ok(Vec::new()),
                false => self.ask::<Vec<Option<Vec<u8>>>>(&get, until).await,
            };
            let before = before.map_err(|error| unavailable(&error))?;
            let changed = changed(&before, &change)?;
            let write = self.write(execution.as_ref(), &names, &before, &changed);
            match self.ask(&write, until).await.map_err(|error| unavailable(&error))? {
                CHANGED => {
                    execution.iter().for_each(|execution| execution.set_answered());
                    return Ok(changed.answer);
                }
                FENCED => return Err(fenced()),
                // Another process was faster.
                _ => sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

impl RedisStore {
    fn write<T>(
        &self,
        execution: Option<&Arc<Execution>>,
        names: &[Vec<u8>],
        before: &[Option<Vec<u8>>],
        changed: &Changed<T>,
    ) -> Question<'_> {
        let (mut keys, mut args) = (Vec::new(), vec![Vec::new()]);
        if let Some(execution) = execution {
            keys.push(self.call_key(execution.key()));
            args[0] = claimed(execution.token()).to_vec();
        }
        args.push(answered(&changed.record));
        args.push(self.kept_for().to_string().into());
        for ((name, old), new) in names.iter().zip(before).zip(&changed.values) {
            keys.push(name.clone());
            args.push(present(old.as_deref()));
            args.push(present(new.as_deref()));
        }
        Question::Script { source: &self.shared.link.scripts().change, keys, args }
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        question: &Question<'_>,
        until: Instant,
    ) -> Result<T, BoxError> {
        let is_open = AtomicBool::new(false);
        self.shared.link.ask(question, until, &is_open).await.map_err(|failed| failed.why)
    }
}

/// Runs the user's change on the values; a panic is a failure of this call.
fn changed<T: Message>(
    before: &[Option<Vec<u8>>],
    change: &(impl Fn(&mut [Option<Bytes>]) -> Result<T, Status> + ?Sized),
) -> Result<Changed<T>, Status> {
    let mut values: Vec<_> = before.iter().cloned().map(|old| old.map(Bytes::from)).collect();
    let run = AssertUnwindSafe(|| {
        let answer = change(&mut values)?;
        Ok((record::of_message(&answer), answer))
    });
    let ran = catch_unwind(run);
    let (record, answer) = ran.unwrap_or_else(|_| Err(Status::internal("the change panicked")))?;
    Ok(Changed { values, answer, record })
}

fn unavailable(error: &BoxError) -> Status {
    Status::unavailable(format!("the state does not answer: {error}"))
}
