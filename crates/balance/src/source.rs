//! The task that drives a source of endpoints.

use crate::callback::words;
use cinchona_core::{Discover, Target};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

/// A running source of endpoints; dropping it ends its task.
pub(crate) struct Driven {
    found: mpsc::Receiver<Vec<Target>>,
    task: JoinHandle<()>,
}

/// An event of a source.
pub(crate) enum News {
    Found(Vec<Target>),
    /// It has ended; with its panic, if so.
    Ended(Option<String>),
}

// === impl Driven ===

impl Driven {
    /// In its own task, so that its futures are never dropped half-way.
    pub(crate) fn new(mut source: impl Discover) -> Self {
        let (sender, found) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while let Some(found) = source.next().await {
                if sender.send(found).await.is_err() {
                    return;
                }
            }
        });
        Self { found, task }
    }

    /// Cancel safe; do not call it after the source has ended.
    pub(crate) async fn next(&mut self) -> News {
        match self.found.recv().await {
            Some(found) => News::Found(found),
            None => News::Ended((&mut self.task).await.err().map(why)),
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn why(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("it panicked: {}", words(&*panic)),
        Err(_) => "it was stopped".to_owned(),
    }
}
