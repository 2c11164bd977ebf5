//! Service configs for a running client.

use super::Layers;
use cinchona_config::ServiceConfig;
use std::{convert::Infallible, path::Path, time::Duration};
use tokio::time::sleep;

/// The least interval between two checks of a file.
const LEAST: Duration = Duration::from_millis(10);

// === impl Layers ===

impl Layers {
    /// Checks the service config in a file each `every`, which is at least 10 ms, and
    /// [applies](Self::apply) it at first and whenever it has changed. A file that cannot be read,
    /// or is invalid, changes nothing and is logged as a warning.
    ///
    /// It never completes: spawn it, or select on it. Dropping it leaves the last config in force.
    pub async fn follow(&self, path: impl AsRef<Path>, every: Duration) -> Infallible {
        let path = path.as_ref();
        let mut before = None;
        loop {
            let now = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string());
            if before.as_ref() != Some(&now) {
                if let Err(error) = now.as_ref().map_err(Clone::clone).and_then(|it| self.load(it))
                {
                    let path = path.display();
                    tracing::warn!(%path, error, "the service config has not changed");
                }
                before = Some(now);
            }
            sleep(every.max(LEAST)).await;
        }
    }

    fn load(&self, text: &str) -> Result<(), String> {
        let config = ServiceConfig::parse(text).map_err(|errors| errors.to_string())?;
        self.apply(&config).map(drop).map_err(|invalid| invalid.to_string())
    }
}
