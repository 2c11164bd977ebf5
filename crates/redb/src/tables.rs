//! The tables of the file, and what is done to them in one transaction.

use crate::Options;
use bytes::Bytes;
use cinchona_core::clock::millis;
use redb::{
    Database, Error, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};
use std::ops::Bound;

/// Fingerprint, time of expiry, and the record; no record where it was evicted.
type Row = (u128, u64, Option<&'static [u8]>);
const RECORDS: TableDefinition<'_, &[u8], Row> = TableDefinition::new("records");
/// The records that were not evicted, the oldest first.
const EXPIRY: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("expiry");
/// Fingerprint and time of expiry of the calls that have begun.
const BEGUN: TableDefinition<'_, &[u8], (u128, u64)> = TableDefinition::new("begun");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
/// The bytes of all records, under an empty name.
const BYTES: TableDefinition<'_, &str, u64> = TableDefinition::new("bytes");
/// What names the file, under an empty name; it was drawn when the file was made.
const NAME: TableDefinition<'_, &str, u128> = TableDefinition::new("name");

/// What a store keeps, in the units of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    ttl: u64,
    entries: u64,
    bytes: u64,
    remembers_evicted: bool,
}

/// What the file says of a key.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// It was claimed by a process that has crashed, or by this one in a lease that has ended.
    Begun,
    Answered(Bytes),
    /// Another request has it.
    Other,
    Evicted,
}

/// The file as of one commit.
#[derive(Debug)]
pub(crate) struct Reading {
    records: ReadOnlyTable<&'static [u8], Row>,
    begun: ReadOnlyTable<&'static [u8], (u128, u64)>,
    state: ReadOnlyTable<&'static str, &'static [u8]>,
}

/// The file within a transaction.
#[derive(Debug)]
pub(crate) struct Tables<'txn> {
    records: Table<'txn, &'static [u8], Row>,
    expiry: Table<'txn, (u64, &'static [u8]), ()>,
    begun: Table<'txn, &'static [u8], (u128, u64)>,
    state: Table<'txn, &'static str, &'static [u8]>,
    bytes: Table<'txn, &'static str, u64>,
    limits: Limits,
    now: u64,
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_types, reason = "what is in a file outlives every other clock")]
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, millis)
}

/// Makes the tables that are not there, and forgets what expired while the file was closed; the
/// name of the file, which is `fresh` if it had none.
pub(crate) fn prepare(database: &Database, limits: &Limits, fresh: u128) -> Result<u128, Error> {
    let transaction = database.begin_write()?;
    let name = {
        let mut tables = Tables::new(&transaction, *limits)?;
        let now = tables.now;
        tables.begun.retain(|_, (_, expires)| expires > now)?;
        tables.sweep(usize::MAX)?;
        let mut names = transaction.open_table(NAME)?;
        let known = names.get("")?.map(|name| name.value());
        if known.is_none() {
            names.insert("", fresh)?;
        }
        known.unwrap_or(fresh)
    };
    transaction.commit()?;
    Ok(name)
}

// === impl Limits ===

impl From<Options> for Limits {
    fn from(options: Options) -> Self {
        let Options { ttl, entries, bytes, refusing_evicted, .. } = options;
        Self { ttl: millis(ttl), entries, bytes, remembers_evicted: refusing_evicted }
    }
}

// === impl Reading ===

impl Reading {
    pub(crate) fn new(transaction: &ReadTransaction) -> Result<Self, Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            begun: transaction.open_table(BEGUN)?,
            state: transaction.open_table(STATE)?,
        })
    }

    pub(crate) fn find(&self, key: &[u8], fingerprint: u128) -> Result<Found, Error> {
        let now = now();
        if let Some(row) = self.records.get(key)? {
            let (own, expires, record) = row.value();
            if expires > now {
                return Ok(match record {
                    _ if own != fingerprint => Found::Other,
                    Some(record) => Found::Answered(Bytes::copy_from_slice(record)),
                    None => Found::Evicted,
                });
            }
        }
        Ok(match self.begun.get(key)?.map(|row| row.value()) {
            Some((_, expires)) if expires <= now => Found::Nothing,
            Some((own, _)) if own != fingerprint => Found::Other,
            Some(_) => Found::Begun,
            None => Found::Nothing,
        })
    }

    pub(crate) fn value(&self, key: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.state.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
    }

    pub(crate) fn entries(&self) -> Result<u64, Error> {
        Ok(self.records.len()?)
    }
}

// === impl Tables ===

impl<'txn> Tables<'txn> {
    pub(crate) fn new(transaction: &'txn WriteTransaction, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            expiry: transaction.open_table(EXPIRY)?,
            begun: transaction.open_table(BEGUN)?,
            state: transaction.open_table(STATE)?,
            bytes: transaction.open_table(BYTES)?,
            limits,
            now: now(),
        })
    }

    /// Writes that a call has begun.
    pub(crate) fn begin(&mut self, key: &[u8], fingerprint: u128) -> Result<(), Error> {
        self.begun.insert(key, (fingerprint, self.now.saturating_add(self.limits.ttl)))?;
        Ok(())
    }

    /// Writes that a call has not begun after all.
    pub(crate) fn give_up(&mut self, key: &[u8]) -> Result<(), Error> {
        self.begun.remove(key)?;
        Ok(())
    }

    /// Keeps a record, if there is none yet.
    pub(crate) fn answer(
        &mut self,
        key: &[u8],
        fingerprint: u128,
        record: &[u8],
    ) -> Result<bool, Error> {
        let old = self.records.get(key)?.map(|row| {
            let (_, expires, record) = row.value();
            (expires, record.map(<[u8]>::len))
        });
        match old {
            Some((expires, Some(_))) if expires > self.now => return Ok(false),
            Some((expires, Some(length))) => self.forget(key, expires, length)?,
            _ => {}
        }
        let expires = self.now.saturating_add(self.limits.ttl);
        self.records.insert(key, (fingerprint, expires, Some(record)))?;
        self.expiry.insert((expires, key), ())?;
        self.begun.remove(key)?;
        self.add_bytes(key.len() + record.len())?;
        Ok(true)
    }

    pub(crate) fn values(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, Error> {
        let value = |key: &String| {
            let found = self.state.get(key.as_str())?;
            Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
        };
        keys.iter().map(value).collect()
    }

    pub(crate) fn set_values(
        &mut self,
        keys: &[String],
        values: &[Option<Bytes>],
    ) -> Result<(), Error> {
        for (key, value) in keys.iter().zip(values) {
            match value {
                Some(value) => drop(self.state.insert(key.as_str(), &value[..])?),
                None => drop(self.state.remove(key.as_str())?),
            }
        }
        Ok(())
    }

    /// Forgets at most so many expired records, and evicts the oldest that are too many; how many
    /// those are.
    pub(crate) fn sweep(&mut self, most: usize) -> Result<u64, Error> {
        let expired = self.oldest(most, Bound::Included(self.now))?;
        for (expires, key) in expired {
            let length =
                self.records.remove(&key[..])?.and_then(|row| row.value().2.map(<[u8]>::len));
            self.forget(&key, expires, length.unwrap_or(0))?;
        }
        let mut evicted = 0;
        while self.expiry.len()? > self.limits.entries || self.total()? > self.limits.bytes {
            let Some((expires, key)) = self.oldest(1, Bound::Unbounded)?.pop() else { break };
            let old = self.records.remove(&key[..])?;
            let old = old.map(|row| (row.value().0, row.value().2.map_or(0, <[u8]>::len)));
            let (fingerprint, length) = old.unwrap_or((0, 0));
            self.forget(&key, expires, length)?;
            if self.limits.remembers_evicted {
                self.records.insert(&key[..], (fingerprint, expires, None))?;
            }
            evicted += 1;
        }
        Ok(evicted)
    }

    /// The oldest records, up to those that expire at `last`.
    fn oldest(&self, most: usize, last: Bound<u64>) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let mut oldest = Vec::new();
        for entry in self.expiry.iter()?.take(most) {
            let (entry, _) = entry?;
            let (expires, key) = entry.value();
            if matches!(last, Bound::Included(last) if expires > last) {
                break;
            }
            oldest.push((expires, key.to_vec()));
        }
        Ok(oldest)
    }

    fn forget(&mut self, key: &[u8], expires: u64, length: usize) -> Result<(), Error> {
        self.expiry.remove((expires, key))?;
        let left = self.total()?.saturating_sub((key.len() + length) as u64);
        self.bytes.insert("", left)?;
        Ok(())
    }

    fn add_bytes(&mut self, more: usize) -> Result<(), Error> {
        let total = self.total()?.saturating_add(more as u64);
        self.bytes.insert("", total)?;
        Ok(())
    }

    fn total(&self) -> Result<u64, Error> {
        Ok(self.bytes.get("")?.map_or(0, |bytes| bytes.value()))
    }
}
