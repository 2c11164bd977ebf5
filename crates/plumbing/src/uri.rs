//! URIs and paths.

use http::Uri;

/// `uri` without its user and its password, which must not be in any `:authority` ([RFC 9113,
/// 8.3.1]), nor in any log, name or metric of an endpoint.
///
/// [RFC 9113, 8.3.1]: https://www.rfc-editor.org/rfc/rfc9113#section-8.3.1
pub fn without_userinfo(uri: Uri) -> Uri {
    let Some((_, host)) = uri.authority().and_then(|whole| whole.as_str().rsplit_once('@')) else {
        return uri;
    };
    let Ok(host) = host.parse() else { return uri };
    let mut parts = uri.into_parts();
    parts.authority = Some(host);
    // It was sound with a longer authority.
    Uri::from_parts(parts).unwrap_or_default()
}

/// Whether the method at `path` is the server's own: health checks and reflection, which must
/// answer during any overload.
pub fn is_of_the_server(path: &str) -> bool {
    ["/grpc.health.", "/grpc.reflection."].iter().any(|prefix| path.starts_with(prefix))
}
