//! The meaning of an error: a fault of the request, of the server, or unknown.

use cinchona_core::BoxError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The meaning of an error, which decides how to proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The request was not executed, and would fail on any server.
    Request,
    /// The request was not executed: this server cannot serve it, at least for now.
    NotHere,
    /// The connection broke, or the answer is malformed. The request may have been executed.
    Open,
}

/// Why a request failed, and whether it may have been executed all the same.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) why: BoxError,
    pub(crate) meaning: Meaning,
}

/// The codes by which Redis rejects the request or the data. All others concern the server
/// (`READONLY`, `LOADING`, `MASTERDOWN`, `MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`, `NOAUTH`,
/// `NOPERM`, `NOREPLICAS`, `MISCONF`, `OOM`, `BUSY`, and those of later versions): another server,
/// or the same one later, may answer.
const OF_THE_REQUEST: [&str; 2] = ["WRONGTYPE", "CROSSSLOT"];

// === impl Meaning ===

impl Meaning {
    pub(crate) fn of(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::UnexpectedReturnType | ErrorKind::Client, _) => Self::Request,
            (_, Some(code)) if OF_THE_REQUEST.contains(&code) => Self::Request,
            // After a server's error our scripts have changed nothing: Redis checks before a
            // script's first write whether writes are possible, and not again later.
            (_, Some(_)) | (ErrorKind::AuthenticationFailed, _) => Self::NotHere,
            _ => Self::Open,
        }
    }
}

// === impl Failed ===

impl Failed {
    pub(crate) fn of(error: &RedisError) -> Self {
        Self { why: said(error).into(), meaning: Meaning::of(error) }
    }

    pub(crate) fn not_sent(why: &str) -> Self {
        Self { why: format!("Redis cannot be reached: {why}").into(), meaning: Meaning::NotHere }
    }

    pub(crate) fn late() -> Self {
        Self { why: "Redis did not answer within its time".into(), meaning: Meaning::Open }
    }
}

/// Whether the server does not know the script.
pub(crate) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The error, without the server's text: Redis repeats unknown input, which may be a password (`ERR
/// unknown command 'HELLO', with args beginning with: …`); and without the host names in a
/// certificate error.
pub(crate) fn said(error: &RedisError) -> String {
    match error.code() {
        _ if error.is_io_error() => {
            let why = error.to_string();
            format!("no connection to Redis: {}", why.split(" for name ").next().unwrap_or(&why))
        }
        Some(code) => format!("Redis answered {}", named(code)),
        None => format!("Redis: {}", error.category()),
    }
}

/// `code`, if it looks like one.
fn named(code: &str) -> &str {
    let is_code = code.len() <= 24 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_code { code } else { "an error" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::make_extension_error;

    // catalogue: S-C2
    #[test]
    fn every_error_that_is_not_about_the_request_means_not_here() {
        for code in ["READONLY", "NOAUTH", "NOREPLICAS", "MISCONF", "OOM", "BUSY", "NEWCODE"] {
            let error = make_extension_error(code.into(), None);
            assert_eq!(Meaning::of(&error), Meaning::NotHere, "{code}");
            assert_eq!(said(&error), format!("Redis answered {code}"));
        }
        let wrong = make_extension_error("WRONGTYPE".into(), None);
        assert_eq!(Meaning::of(&wrong), Meaning::Request);
    }

    // catalogue: S-E1
    #[test]
    fn a_certificate_for_another_name_names_neither() {
        let why = "invalid peer certificate: certificate not valid for name \"db.example\"; \
                   certificate is only valid for DnsName(\"inner.example\")";
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        let said = said(&error.into());
        assert!(said.ends_with("certificate not valid") && !said.contains("example"), "{said}");
    }

    #[test]
    fn an_error_without_a_code_is_not_repeated() {
        let error = make_extension_error("hunter2".into(), Some("hunter2".into()));
        assert_eq!(said(&error), "Redis answered an error");
    }
}
