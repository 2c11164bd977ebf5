//! State in the file, changed by the writer thread.

use crate::{DAMAGED, RedbStore, seal::Damaged, tables::Tables};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_idempotency::{Execution, MemoryStore, State, Store, fenced, record};
use futures_util::FutureExt;
use prost::Message;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tonic::Status;

impl State for RedbStore {
    async fn read(&self, key: &str) -> Result<Option<Bytes>, Status> {
        let found = self.look_up(|reading| reading.value(key));
        found.map_err(|error| unavailable(&error))?.map_err(damaged)
    }

    async fn update<T, F>(&self, keys: &[&str], change: F) -> Result<T, Status>
    where
        T: Message + 'static,
        F: Fn(&mut [Option<Bytes>]) -> Result<T, Status> + Send + Sync + 'static,
    {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let execution = Execution::current(self.instance());
        let memory = self.shared.memory.clone();
        let write = move |tables: &mut Tables<'_>| {
            let mut values = match tables.values(&keys)? {
                Ok(values) => values,
                Err(what) => return Ok((Err(damaged(what)), None)),
            };
            let (answer, record) = match changed(&mut values, &change) {
                Ok(changed) => changed,
                Err(refused) => return Ok((Err(refused), None)),
            };
            let Some(execution) = execution else {
                tables.set_values(&keys, &values)?;
                return Ok((Ok(answer), None));
            };
            let held = memory.fingerprint(execution.key(), execution.token());
            let kept = match held {
                Some(fingerprint) => tables.answer(execution.key(), fingerprint, &record)?,
                None => false,
            };
            if !kept {
                return Ok((Err(fenced()), None));
            }
            tables.set_values(&keys, &values)?;
            Ok((Ok(answer), Some((memory, execution, record))))
        };
        let committed = |(answer, answered): (_, Option<(MemoryStore, Arc<Execution>, Bytes)>)| {
            if let Some((memory, execution, record)) = answered {
                let (key, token) = (execution.key(), execution.token());
                drop(memory.finish(key, token, &record).now_or_never());
                execution.set_answered();
            }
            answer
        };
        let written = self.shared.writer.run(write, committed).await;
        written.map_err(|error| unavailable(&error))?
    }
}

fn unavailable(error: &BoxError) -> Status {
    Status::unavailable(format!("the state does not answer: {error}"))
}

fn damaged(_: Damaged) -> Status {
    Status::data_loss(DAMAGED)
}

/// Runs the user's change on the values; a panic is a failure of this call.
fn changed<T: Message>(
    values: &mut [Option<Bytes>],
    change: &impl Fn(&mut [Option<Bytes>]) -> Result<T, Status>,
) -> Result<(T, Bytes), Status> {
    let run = AssertUnwindSafe(|| {
        let answer = change(values)?;
        let record = record::of_message(&answer);
        Ok((answer, record))
    });
    catch_unwind(run).unwrap_or_else(|_| Err(Status::internal("the change panicked")))
}
