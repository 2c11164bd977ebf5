//! The number of acknowledged commits, beside the file, by which a lost commit is noticed.
//!
//! redb rolls back a last commit of which only a part is on disk. If it was torn by a crash before
//! it was acknowledged, that is right; if it was damaged afterwards, acknowledged records are gone.
//! The number here is written after each commit and before it is acknowledged. It is not synced, as
//! the file is: it survives the process, but maybe not a loss of power.

use crate::seal::{seal, unseal};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// The file beside the file; `None` where it cannot be created, which is no worse than losing it.
#[derive(Debug, Default)]
pub(crate) struct Last(Option<File>);

// === impl Last ===

impl Last {
    pub(crate) fn beside(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".last");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(name);
        Self(file.inspect_err(|error| tracing::warn!(%error, "no file beside the file")).ok())
    }

    /// The number that was set last; 0 if none can be read.
    pub(crate) fn get(&self) -> u64 {
        let read = |mut file: &File| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = self.0.as_ref().and_then(|file| read(file).ok()).unwrap_or_default();
        let number = unseal(b"last", &bytes).ok().and_then(|number| number.try_into().ok());
        number.map_or(0, u64::from_be_bytes)
    }

    pub(crate) fn set(&self, number: u64) {
        let Some(mut file) = self.0.as_ref() else { return };
        let bytes = seal(b"last", &[&number.to_be_bytes()]);
        // Without it less is noticed, and nothing is lost.
        _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&bytes));
    }
}
