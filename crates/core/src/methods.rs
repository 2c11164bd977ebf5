//! Which methods may be executed twice, read from the .proto.

use crate::BoxError;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet, method_options::IdempotencyLevel};
use std::{collections::HashMap, sync::Arc};

/// What a set of .proto files says of its methods; cheap to clone.
///
/// *Why:* a failure that leaves open whether the service executed the request may be retried only
/// where executing twice is harmless, and the author of the service knows where that is:
/// `option idempotency_level = NO_SIDE_EFFECTS;` or `IDEMPOTENT` says so.
#[derive(Clone, Debug)]
pub struct Methods {
    levels: Arc<HashMap<String, Safety>>,
    unlisted: Safety,
}

/// Whether a method may be executed more than once for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// It changes nothing.
    NoSideEffects,
    /// Executing it twice leaves what executing it once does.
    Idempotent,
    /// Nothing says that it may.
    Unknown,
}

// === impl Methods ===

impl Methods {
    /// Reads an encoded `FileDescriptorSet`, as `tonic_prost_build` writes it to
    /// `file_descriptor_set_path` and `tonic::include_file_descriptor_set!` includes it.
    ///
    /// # Errors
    /// When `encoded` is not a `FileDescriptorSet`.
    pub fn from_file_descriptor_set(encoded: &[u8]) -> Result<Self, BoxError> {
        let files = FileDescriptorSet::decode(encoded)?.file;
        let levels = Arc::new(files.iter().flat_map(levels_of).collect());
        Ok(Self { levels, unlisted: Safety::Unknown })
    }

    /// Knows nothing: only requests that were provably not processed may be repeated.
    pub fn unknown() -> Self {
        Self { levels: Arc::default(), unlisted: Safety::Unknown }
    }

    /// Takes your word for it that every method may be executed twice.
    pub fn all_idempotent() -> Self {
        Self { levels: Arc::default(), unlisted: Safety::Idempotent }
    }

    /// What is known of `request`: the safety of its method, or `Idempotent` where it carries an
    /// `idempotency-key`, by which the server recognises a repetition.
    pub fn safety_of<B>(&self, request: &http::Request<B>) -> Safety {
        if request.headers().contains_key("idempotency-key") {
            return Safety::Idempotent;
        }
        self.safety(request.uri().path())
    }

    /// The paths of the methods that are listed and may not be executed twice.
    pub fn unsafe_paths(&self) -> impl Iterator<Item = &str> {
        let listed = self.levels.iter().filter(|(_, safety)| !safety.allows_repeating());
        listed.map(|(path, _)| path.as_str())
    }

    /// What is known of the method at `path`, such as `/calculator.Calculator/Add`.
    pub fn safety(&self, path: &str) -> Safety {
        self.levels.get(path).copied().unwrap_or(self.unlisted)
    }
}

fn levels_of(file: &FileDescriptorProto) -> Vec<(String, Safety)> {
    let package = match file.package() {
        "" => String::new(),
        package => format!("{package}."),
    };
    let methods = |service: &prost_types::ServiceDescriptorProto| {
        let prefix = format!("/{package}{}/", service.name());
        let level = |method: &prost_types::MethodDescriptorProto| {
            let safety = match method.options.as_ref().map(|options| options.idempotency_level()) {
                Some(IdempotencyLevel::NoSideEffects) => Safety::NoSideEffects,
                Some(IdempotencyLevel::Idempotent) => Safety::Idempotent,
                _ => Safety::Unknown,
            };
            (format!("{prefix}{}", method.name()), safety)
        };
        service.method.iter().map(level).collect::<Vec<_>>()
    };
    file.service.iter().flat_map(methods).collect()
}

// === impl Safety ===

impl Safety {
    /// Whether executing the method twice does no harm.
    pub const fn allows_repeating(self) -> bool {
        matches!(self, Self::NoSideEffects | Self::Idempotent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{MethodDescriptorProto, MethodOptions, ServiceDescriptorProto};

    fn method(name: &str, level: Option<IdempotencyLevel>) -> MethodDescriptorProto {
        let options = level.map(|level| MethodOptions {
            idempotency_level: Some(level.into()),
            ..Default::default()
        });
        MethodDescriptorProto { name: Some(name.into()), options, ..Default::default() }
    }

    #[test]
    fn the_proto_says_which_methods_may_be_repeated() {
        let service = ServiceDescriptorProto {
            name: Some("Bank".into()),
            method: vec![
                method("Balance", Some(IdempotencyLevel::NoSideEffects)),
                method("Set", Some(IdempotencyLevel::Idempotent)),
                method("Withdraw", None),
            ],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            package: Some("money.v1".into()),
            service: vec![service],
            ..Default::default()
        };
        let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        let methods = Methods::from_file_descriptor_set(&encoded).unwrap();
        assert_eq!(methods.safety("/money.v1.Bank/Balance"), Safety::NoSideEffects);
        assert_eq!(methods.safety("/money.v1.Bank/Set"), Safety::Idempotent);
        assert_eq!(methods.safety("/money.v1.Bank/Withdraw"), Safety::Unknown);
        assert_eq!(methods.safety("/money.v1.Bank/Missing"), Safety::Unknown);
    }

    #[test]
    fn a_broken_descriptor_set_is_refused() {
        assert!(Methods::from_file_descriptor_set(b"\xff\xff\xff").is_err());
    }
}
