//! The tables of the file, and the operations on them in one transaction.

use crate::{
    Options,
    seal::{Damaged, Row, record_length, seal, unseal},
};
use bytes::Bytes;
use cinchona_plumbing::clock::millis;
use redb::{
    AccessGuard, Database, Error, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, Table, TableDefinition, TableError, WriteTransaction,
};
use std::ops::Bound;

/// By key, a sealed [`Row`]; without a record if that was evicted.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// The records that were not evicted, the oldest first.
const EXPIRY: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("expiry");
/// The evicted calls, whose rows have no record, ordered by expiry.
const EVICTED: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("evicted");
/// By key, a sealed [`Row`] of a call that has begun.
const BEGUN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("begun");
/// By name, a sealed value.
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
/// The bytes of all records, under an empty name; and the number of commits.
const BYTES: TableDefinition<'_, &str, u64> = TableDefinition::new("bytes");
const COMMITS: &str = "commits";
/// The domain of the file, under an empty name; drawn when the file was created.
const NAME: TableDefinition<'_, &str, u128> = TableDefinition::new("name");
/// The bytes of a probe.
const ROOM: TableDefinition<'_, (), &[u8]> = TableDefinition::new("room");

/// The limits of a store, in the units of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    ttl: u64,
    entries: u64,
    bytes: u64,
    remembers_evicted: bool,
}

/// How many evicted calls are remembered per allowed record.
const REMEMBERED: u64 = 4;

/// What the file has for a key.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// It was claimed by a process that has crashed, or by this one under a lease that has ended.
    Begun,
    Answered(Bytes),
    /// It is used for another request.
    Other,
    Evicted,
    /// It is new, and no more evicted calls can be remembered.
    Full,
    /// Its row is damaged.
    Damaged,
}

/// The file as of one commit.
#[derive(Debug)]
pub(crate) struct Reading {
    records: ReadOnlyTable<&'static [u8], &'static [u8]>,
    evicted: ReadOnlyTable<(u64, &'static [u8]), ()>,
    begun: ReadOnlyTable<&'static [u8], &'static [u8]>,
    state: ReadOnlyTable<&'static str, &'static [u8]>,
    limits: Limits,
}

/// The file within a transaction.
pub(crate) struct Tables<'txn> {
    transaction: &'txn WriteTransaction,
    records: Table<'txn, &'static [u8], &'static [u8]>,
    oldest: Table<'txn, (u64, &'static [u8]), ()>,
    evicted: Table<'txn, (u64, &'static [u8]), ()>,
    begun: Table<'txn, &'static [u8], &'static [u8]>,
    state: Table<'txn, &'static str, &'static [u8]>,
    bytes: Table<'txn, &'static str, u64>,
    name: Table<'txn, &'static str, u128>,
    limits: Limits,
    now: u64,
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_types, reason = "what is in a file outlives every other clock")]
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, millis)
}

/// The number of commits.
pub(crate) fn commits(database: &Database) -> Result<u64, Error> {
    match database.begin_read()?.open_table(BYTES) {
        Ok(table) => Ok(table.get(COMMITS)?.map_or(0, |number| number.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// A value of state.
pub(crate) type Value = Result<Option<Bytes>, Damaged>;

fn unsealed(key: &str, found: Option<AccessGuard<'_, &'static [u8]>>) -> Value {
    let value = |sealed: AccessGuard<'_, &'static [u8]>| {
        unseal(key.as_bytes(), sealed.value()).map(Bytes::copy_from_slice)
    };
    found.map(value).transpose()
}

/// The first entry, if it expires at `last` or before.
fn first(
    of: &Table<'_, (u64, &'static [u8]), ()>,
    most: usize,
    last: Bound<u64>,
) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let mut first = Vec::new();
    for entry in of.iter()?.take(most) {
        let (entry, _) = entry?;
        let (expires, key) = entry.value();
        if matches!(last, Bound::Included(last) if expires > last) {
            break;
        }
        first.push((expires, key.to_vec()));
    }
    Ok(first)
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
    pub(crate) fn new(transaction: &ReadTransaction, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            limits,
            records: transaction.open_table(RECORDS)?,
            evicted: transaction.open_table(EVICTED)?,
            begun: transaction.open_table(BEGUN)?,
            state: transaction.open_table(STATE)?,
        })
    }

    pub(crate) fn find(&self, key: &[u8], fingerprint: u128) -> Result<Found, Error> {
        let now = now();
        if let Some(row) = self.records.get(key)? {
            let found = match Row::unsealed(key, row.value()) {
                Err(Damaged) => Found::Damaged,
                Ok(row) if row.expires <= now => Found::Nothing,
                Ok(row) if row.fingerprint != fingerprint => Found::Other,
                Ok(Row { record: Some(record), .. }) => {
                    Found::Answered(Bytes::copy_from_slice(record))
                }
                Ok(_) => Found::Evicted,
            };
            if !matches!(found, Found::Nothing) {
                return Ok(found);
            }
        }
        let Some(row) = self.begun.get(key)? else {
            return Ok(if self.is_full(now)? { Found::Full } else { Found::Nothing });
        };
        Ok(match Row::unsealed(key, row.value()) {
            Err(Damaged) => Found::Damaged,
            Ok(row) if row.expires <= now => Found::Nothing,
            Ok(row) if row.fingerprint != fingerprint => Found::Other,
            Ok(_) => Found::Begun,
        })
    }

    /// Whether so many are evicted that one more could not be remembered.
    fn is_full(&self, now: u64) -> Result<bool, Error> {
        let most = self.limits.entries.saturating_mul(REMEMBERED);
        if !self.limits.remembers_evicted || self.evicted.len()? < most {
            return Ok(false);
        }
        // Expired entries are removed with the next commits.
        let first = self.evicted.first()?;
        Ok(first.is_some_and(|(first, _)| first.value().0 > now))
    }

    pub(crate) fn value(&self, key: &str) -> Result<Value, Error> {
        Ok(unsealed(key, self.state.get(key)?))
    }

    pub(crate) fn entries(&self) -> Result<u64, Error> {
        Ok(self.records.len()?)
    }
}

// === impl Tables ===

impl<'txn> Tables<'txn> {
    pub(crate) fn new(transaction: &'txn WriteTransaction, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            transaction,
            records: transaction.open_table(RECORDS)?,
            oldest: transaction.open_table(EXPIRY)?,
            evicted: transaction.open_table(EVICTED)?,
            begun: transaction.open_table(BEGUN)?,
            state: transaction.open_table(STATE)?,
            bytes: transaction.open_table(BYTES)?,
            name: transaction.open_table(NAME)?,
            limits,
            now: now(),
        })
    }

    /// Allocates so many bytes on disk, which are not freed.
    pub(crate) fn takes_room(&mut self, bytes: usize) -> Result<(), Error> {
        let mut room = self.transaction.open_table(ROOM)?;
        match bytes {
            0 => drop(room.remove(())?),
            bytes => drop(room.insert((), &*vec![0; bytes])?),
        }
        Ok(())
    }

    /// Removes expired entries; returns the domain of the file, which is `fresh` if it had none.
    pub(crate) fn prepare(&mut self, fresh: u128) -> Result<u128, Error> {
        let now = self.now;
        // Damaged rows are kept, so that calls with their keys fail.
        self.begun
            .retain(|key, row| Row::unsealed(key, row).map_or(true, |row| row.expires > now))?;
        self.sweep(usize::MAX)?;
        let known = self.name.get("")?.map(|name| name.value());
        if known.is_none() {
            self.name.insert("", fresh)?;
        }
        Ok(known.unwrap_or(fresh))
    }

    /// Records that a call has begun.
    pub(crate) fn begin(&mut self, key: &[u8], fingerprint: u128) -> Result<(), Error> {
        let row = Row { fingerprint, expires: self.expiry(), record: None };
        self.begun.insert(key, &row.sealed(key)[..])?;
        Ok(())
    }

    /// Records that a call has not begun after all.
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
            let row = Row::unsealed(key, row.value())?;
            Ok((row.expires, row.record.map(<[u8]>::len)))
        });
        match old {
            Some(Err(Damaged)) => return Ok(false),
            Some(Ok((expires, Some(_)))) if expires > self.now => return Ok(false),
            Some(Ok((expires, Some(length)))) => self.forget(key, expires, length)?,
            Some(Ok((expires, None))) => drop(self.evicted.remove((expires, key))?),
            None => {}
        }
        let row = Row { fingerprint, expires: self.expiry(), record: Some(record) };
        self.records.insert(key, &row.sealed(key)[..])?;
        self.oldest.insert((row.expires, key), ())?;
        self.begun.remove(key)?;
        self.add_bytes(key.len() + record.len())?;
        Ok(true)
    }

    /// The expiry of an entry written now.
    fn expiry(&self) -> u64 {
        self.now.saturating_add(self.limits.ttl)
    }

    pub(crate) fn values(
        &self,
        keys: &[String],
    ) -> Result<Result<Vec<Option<Bytes>>, Damaged>, Error> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            match unsealed(key, self.state.get(key.as_str())?) {
                Ok(value) => values.push(value),
                Err(Damaged) => return Ok(Err(Damaged)),
            }
        }
        Ok(Ok(values))
    }

    pub(crate) fn set_values(
        &mut self,
        keys: &[String],
        values: &[Option<Bytes>],
    ) -> Result<(), Error> {
        for (key, value) in keys.iter().zip(values) {
            match value {
                Some(value) => {
                    let sealed = seal(key.as_bytes(), &[value]);
                    drop(self.state.insert(key.as_str(), &sealed[..])?);
                }
                None => drop(self.state.remove(key.as_str())?),
            }
        }
        Ok(())
    }

    /// Removes at most so many expired records, and evicts the oldest beyond the limits; returns
    /// how many were evicted.
    pub(crate) fn sweep(&mut self, most: usize) -> Result<u64, Error> {
        let now = Bound::Included(self.now);
        for (expires, key) in first(&self.evicted, most, now)? {
            self.evicted.remove((expires, &key[..]))?;
            self.records.remove(&key[..])?;
        }
        for (expires, key) in first(&self.oldest, most, now)? {
            let length = self.records.remove(&key[..])?.map(|row| record_length(row.value()));
            self.forget(&key, expires, length.unwrap_or(0))?;
        }
        let mut evicted = 0;
        while self.oldest.len()? > self.limits.entries || self.total()? > self.limits.bytes {
            let oldest = first(&self.oldest, 1, Bound::Unbounded)?.pop();
            let Some((expires, key)) = oldest else { break };
            let old = self.records.remove(&key[..])?.map(|row| row.value().to_vec());
            let old = old.unwrap_or_default();
            self.forget(&key, expires, record_length(&old))?;
            let row = Row::unsealed(&key, &old).ok().filter(|_| self.limits.remembers_evicted);
            if let Some(row) = row {
                let evicted = Row { record: None, ..row }.sealed(&key);
                self.records.insert(&key[..], &evicted[..])?;
                self.evicted.insert((expires, &key[..]), ())?;
            }
            evicted += 1;
        }
        Ok(evicted)
    }

    fn forget(&mut self, key: &[u8], expires: u64, length: usize) -> Result<(), Error> {
        self.oldest.remove((expires, key))?;
        let left = self.total()?.saturating_sub((key.len() + length) as u64);
        self.bytes.insert("", left)?;
        Ok(())
    }

    /// Counts this commit; its number.
    pub(crate) fn count(&mut self) -> Result<u64, Error> {
        let number = self.bytes.get(COMMITS)?.map_or(0, |number| number.value()) + 1;
        self.bytes.insert(COMMITS, number)?;
        Ok(number)
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
