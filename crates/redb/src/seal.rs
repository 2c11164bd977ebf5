//! Values with their own checksums: only intact ones are served.

use xxhash_rust::xxh3::Xxh3;

/// A row that does not fit its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The entry of a call: fingerprint, time of expiry and kind, and the record, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) fingerprint: u128,
    /// In ms since 1970.
    pub(crate) expires: u64,
    /// `None` if it was evicted, or the call has only begun.
    pub(crate) record: Option<&'a [u8]>,
}

const CHECK: usize = 8;
/// The bytes before a record: fingerprint, expiry, and whether there is one.
const HEAD: usize = 16 + 8 + 1;

// === impl Row ===

impl<'a> Row<'a> {
    pub(crate) fn sealed(&self, key: &[u8]) -> Vec<u8> {
        let head = [
            &self.fingerprint.to_be_bytes()[..],
            &self.expires.to_be_bytes(),
            &[u8::from(self.record.is_some())],
        ];
        seal(key, &[&head.concat(), self.record.unwrap_or_default()])
    }

    pub(crate) fn unsealed(key: &[u8], sealed: &'a [u8]) -> Result<Self, Damaged> {
        let (head, record) = unseal(key, sealed)?.split_at_checked(HEAD).ok_or(Damaged)?;
        let (fingerprint, rest) = head.split_first_chunk().ok_or(Damaged)?;
        let (expires, kind) = rest.split_first_chunk().ok_or(Damaged)?;
        Ok(Self {
            fingerprint: u128::from_be_bytes(*fingerprint),
            expires: u64::from_be_bytes(*expires),
            record: (kind == [1]).then_some(record),
        })
    }
}

/// The length of the record in a sealed row, whatever its content.
pub(crate) fn record_length(sealed: &[u8]) -> usize {
    sealed.len().saturating_sub(HEAD + CHECK)
}

/// `parts`, and a checksum of them and of their key.
pub(crate) fn seal(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut sealed = parts.concat();
    let check = check(key, &sealed);
    sealed.extend_from_slice(&check);
    sealed
}

/// The value; an error if it is damaged.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let (value, found) = sealed.split_last_chunk::<CHECK>().ok_or(Damaged)?;
    if *found == check(key, value) { Ok(value) } else { Err(Damaged) }
}

fn check(key: &[u8], value: &[u8]) -> [u8; CHECK] {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(value);
    hash.digest().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written_and_not_with_any_bit_flipped_or_at_another_key(
            fingerprint: u128, expires: u64, record: Option<Vec<u8>>, key: Vec<u8>, flip: usize,
        ) {
            let row = Row { fingerprint, expires, record: record.as_deref() };
            let mut sealed = row.sealed(&key);
            prop_assert_eq!(Row::unsealed(&key, &sealed), Ok(row));
            prop_assert_eq!(record_length(&sealed), record.as_deref().map_or(0, <[u8]>::len));
            let other = [&key[..], b"x"].concat();
            prop_assert_eq!(Row::unsealed(&other, &sealed), Err(Damaged));
            let bit = flip % (sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Row::unsealed(&key, &sealed), Err(Damaged));
            prop_assert_eq!(Row::unsealed(&key, &sealed[..flip % sealed.len()]), Err(Damaged));
        }
    }
}
