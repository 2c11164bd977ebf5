//! The certificates of Redis and its clients.

#[cfg(feature = "tls")]
use cinchona_core::Invalid;
#[cfg(feature = "tls")]
use redis::{Client, ClientTlsConfig, ConnectionInfo, TlsCertificates};
use std::fmt;

/// The TLS settings that a URL does not have.
#[derive(Clone, Default)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "it stays empty"))]
pub(crate) struct Certificates {
    pub(crate) roots: Option<Vec<u8>>,
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(feature = "tls")]
impl Certificates {
    pub(crate) fn put_into(
        &self,
        info: ConnectionInfo,
        field: &'static str,
    ) -> Result<ConnectionInfo, Invalid> {
        // rustls takes a file without a certificate as an empty trust store.
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
        // The library's error may repeat them.
        let client = Client::build_with_tls(info, certificates).map_err(|_| wrong())?;
        Ok(client.get_connection_info().clone())
    }
}

/// So that rustls need not guess, and panic where it cannot.
pub(crate) fn prepare() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have installed it first, which is fine.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}
