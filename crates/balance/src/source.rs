//! The task that drives a source of endpoints.

use crate::callback::words;
use cinchona_core::{Discover, Target};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

/// A source of endpoints under way; dropping it ends its task.
pub(crate) struct Driven {
    found: mpsc::Receiver<Vec<Target>>,
    task: JoinHandle<()>,
}

/// What a source has to say.
pub(crate) enum News {
    Found(Vec<Target>),
    /// There will be no more; by its panic, if it was that.
    Ended(Option<String>),
}

// === impl Driven ===

impl Driven {
    /// In a task of its own, so that its futures are never dropped half way.
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

    /// May be dropped and called again; not after it has ended.
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
