//! By which certificates Redis and its clients know each other.

#[cfg(feature = "tls")]
use crate::{Servers, servers::Route};
#[cfg(feature = "tls")]
use cinchona_core::Invalid;
#[cfg(feature = "tls")]
use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};
use std::fmt;

/// What TLS is told beside a URL.
#[derive(Clone, Default)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "it stays empty"))]
pub(crate) struct Certificates {
    roots: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(feature = "tls")]
impl Servers {
    /// Trusts the certificates in `pem` in place of the system's. For `rediss://` (feature `tls`).
    ///
    /// # Errors
    /// When there is no certificate in `pem`, or no URL is a `rediss://`.
    pub fn with_roots(mut self, pem: &[u8]) -> Result<Self, Invalid> {
        self.certificates.roots = Some(pem.to_vec());
        self.certified("roots")
    }

    /// Shows the server the chain of certificates in `chain`, whose key is `key`, both in PEM. For
    /// `rediss://` (feature `tls`).
    ///
    /// # Errors
    /// When either is none, or no URL is a `rediss://`.
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

#[cfg(feature = "tls")]
impl Certificates {
    fn put_into(
        &self,
        info: ConnectionInfo,
        field: &'static str,
    ) -> Result<ConnectionInfo, Invalid> {
        // rustls takes a file without a certificate for one that trusts nobody.
        let is_pem = |pem: &[u8]| pem.windows(11).any(|window| window == b"-----BEGIN ");
        let (roots, identity) = (self.roots.clone(), self.identity.clone());
        let given = roots.iter().chain(identity.iter().flat_map(|(chain, key)| [chain, key]));
        let wrong = || Invalid::new(field, "what cannot be read", "certificates in PEM");
        if !given.into_iter().all(|pem| is_pem(pem)) {
            return Err(wrong());
        }
        let client_tls =
            identity.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert: roots };
        // What it says of them may repeat them.
        let client = Client::build_with_tls(info, certificates).map_err(|_| wrong())?;
        Ok(client.get_connection_info().clone())
    }
}

/// So that rustls need not guess, and panic where it cannot.
pub(crate) fn prepare() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may be faster, which is as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}
