//! The seal of each datagram: HMAC-SHA256 over the whole, of which half is sent (RFC 2104, §5).

use cinchona_core::{Invalid, Secret};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The bytes of a seal.
pub(crate) const SIZE: usize = 16;
/// The least bytes of a secret: a shorter one can be guessed from one datagram.
const SHORTEST: usize = 16;
/// The key without a secret: it detects accidental changes; any sender can use it.
const NO_SECRET: &[u8] = b"cinchona gossip";

/// Seals with the first secret, and accepts the seals of all: so a secret is changed without a
/// pause.
#[derive(Clone)]
pub(crate) struct Seal {
    keys: Vec<Hmac<Sha256>>,
    is_secret: bool,
}

/// For the fuzzer: whether a sealed text opens unchanged, with a secret and without one, and does
/// not open after one bit was flipped.
pub fn is_opened_unchanged(text: &[u8]) -> bool {
    let secrets: Vec<_> = Secret::new("sixteen bytes at least").into_iter().collect();
    [&[][..], &secrets].map(Seal::new).into_iter().all(|seal| {
        let mut sealed = text.to_vec();
        seal.put(&mut sealed);
        let is_same = seal.open(&sealed) == Some(text);
        let bit = text.first().copied().unwrap_or_default();
        let changed = usize::from(bit) % sealed.len();
        sealed[changed] ^= 1 << (bit % 8);
        is_same && seal.open(&sealed).is_none()
    })
}

// === impl Seal ===

impl Seal {
    /// `secrets` must be [`checked`](Self::checked).
    pub(crate) fn new(secrets: &[Secret]) -> Self {
        let is_secret = !secrets.is_empty();
        let secrets = secrets.iter().map(|secret| secret.expose().as_bytes());
        let keys = secrets.chain((!is_secret).then_some(NO_SECRET));
        // HMAC takes a key of any length.
        let keys = keys.filter_map(|key| Hmac::new_from_slice(key).ok()).collect();
        Self { keys, is_secret }
    }

    /// Whether sealing needs a secret.
    pub(crate) const fn is_secret(&self) -> bool {
        self.is_secret
    }

    pub(crate) fn checked(secrets: &[Secret]) -> Result<(), Invalid> {
        let short = secrets.iter().find(|secret| secret.expose().len() < SHORTEST);
        let Some(short) = short else { return Ok(()) };
        let size = format!("one of {} bytes", short.expose().len());
        Err(Invalid::new("secrets", size, "at least 16 bytes each"))
    }

    pub(crate) fn put(&self, datagram: &mut Vec<u8>) {
        if let Some(key) = self.keys.first() {
            let seal = key.clone().chain_update(&*datagram).finalize().into_bytes();
            datagram.extend_from_slice(&seal[..SIZE]);
        }
    }

    /// The sealed text; `None` if the seal is of none of the secrets.
    pub(crate) fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (text, seal) = datagram.split_at_checked(datagram.len().checked_sub(SIZE)?)?;
        let is_of =
            |key: &Hmac<Sha256>| key.clone().chain_update(text).verify_truncated_left(seal).is_ok();
        self.keys.iter().any(is_of).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "an old secret of 16 or more";
    const NEW: &str = "a new secret of 16 or more";

    fn seal(secrets: &[&str]) -> Seal {
        Seal::new(&secrets.iter().map(|secret| Secret::new(*secret).unwrap()).collect::<Vec<_>>())
    }

    fn sealed(seal: &Seal, text: &[u8]) -> Vec<u8> {
        let mut datagram = text.to_vec();
        seal.put(&mut datagram);
        datagram
    }

    #[test]
    fn no_bit_of_a_sealed_datagram_can_be_changed() {
        for seal in [seal(&[NEW]), seal(&[])] {
            let datagram = sealed(&seal, b"n1 lives");
            assert_eq!(seal.open(&datagram), Some(&b"n1 lives"[..]));
            for bit in 0..8 * datagram.len() {
                let mut forged = datagram.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(seal.open(&forged), None, "{bit}");
            }
            assert_eq!((seal.open(b"n1 lives, and so do others"), seal.open(b"")), (None, None));
        }
    }

    #[test]
    fn a_secret_is_changed_in_two_steps_without_a_pause() {
        let (before, between, after) = (seal(&[OLD]), seal(&[OLD, NEW]), seal(&[NEW, OLD]));
        for (from, to) in [(&before, &between), (&between, &before), (&between, &after)] {
            assert!(to.open(&sealed(from, b"x")).is_some() && from.is_secret());
        }
        assert!(between.open(&sealed(&after, b"x")).is_some());
        assert!(before.open(&sealed(&after, b"x")).is_none());
    }

    #[test]
    fn nodes_with_a_secret_and_nodes_without_reject_each_other() {
        let (none, secret) = (seal(&[]), seal(&[NEW]));
        assert!(none.open(&sealed(&secret, b"x")).is_none());
        assert!(secret.open(&sealed(&none, b"x")).is_none() && !none.is_secret());
    }

    #[test]
    fn a_short_secret_is_refused_without_being_shown() {
        let secrets = [NEW, "hunter2"].map(|secret| Secret::new(secret).unwrap());
        let refused = Seal::checked(&secrets).unwrap_err().to_string();
        assert!(refused.contains("secrets: one of 7 bytes") && !refused.contains("hunter"));
        assert!(Seal::checked(&secrets[..1]).is_ok());
    }
}
