//! TLS with custom certificates.

#![cfg(feature = "tls")]

use crate::{Servers, servers::Route};
use cinchona_core::Invalid;
use redis::ConnectionAddr;

impl Servers {
    /// Trusts the certificates in `pem` instead of the system's. For `rediss://` (feature `tls`).
    ///
    /// # Errors
    /// When there is no certificate in `pem`, or no URL is a `rediss://`.
    pub fn with_roots(mut self, pem: &[u8]) -> Result<Self, Invalid> {
        self.certificates.roots = Some(pem.to_vec());
        self.certified("roots")
    }

    /// Presents the certificate chain in `chain`, whose key is `key`, both in PEM. For `rediss://`
    /// (feature `tls`).
    ///
    /// # Errors
    /// When either is missing, or no URL is a `rediss://`.
    pub fn with_identity(mut self, chain: &[u8], key: &[u8]) -> Result<Self, Invalid> {
        self.certificates.identity = Some((chain.to_vec(), key.to_vec()));
        self.certified("identity")
    }

    fn certified(mut self, field: &'static str) -> Result<Self, Invalid> {
        let mut secured = 0;
        let server = match &mut self.route {
            Route::Sentinel { server, .. } => Some(&mut **server),
            _ => None,
        };
        for info in self.known.iter_mut().chain(server) {
            if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
                *info = self.certificates.put_into(info.clone(), field)?;
                secured += 1;
            }
        }
        if secured == 0 {
            return Err(Invalid::new(field, "certificates without TLS", "a rediss:// URL"));
        }
        Ok(self)
    }
}
