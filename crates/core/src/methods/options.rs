//! The custom option of a .proto: `option (cinchona.safety)`.

use cinchona_policy::Safety;
use prost::Message;

/// The .proto file of the option, to be copied to `cinchona/options.proto` beside your own.
///
/// | `option (cinchona.safety) =` | a call may be repeated |
/// |---|---|
/// | `NO_SIDE_EFFECTS`, `IDEMPOTENT` | always; as with `idempotency_level` |
/// | `KEYED` | if it carries an `idempotency-key`, as the server recognises it |
/// | `ONCE` | if it was provably not executed, whatever `idempotency_level` is |
pub const OPTIONS_PROTO: &str = include_str!("../../proto/cinchona/options.proto");

/// The part of a descriptor set with the option: prost's own types drop extensions.
#[derive(Clone, PartialEq, Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(int32, tag = "50611")]
    safety: i32,
}

/// The methods with the option, by path, and its value.
pub(super) fn read(encoded: &[u8]) -> Vec<(String, (Safety, bool))> {
    // An invalid descriptor set has been refused before.
    let files = Set::decode(encoded).unwrap_or_default().file;
    let mut all = Vec::new();
    for file in files {
        let package = if file.package.is_empty() { "" } else { "." };
        for service in file.service {
            for Method { name, options } in service.method {
                if let Some(said) = options.and_then(|options| said(options.safety)) {
                    let path = format!("/{}{package}{}/{name}", file.package, service.name);
                    all.push((path, said));
                }
            }
        }
    }
    all
}

/// The meaning of a value of `option (cinchona.safety)`: whether a call may be repeated, and
/// whether it is recognised by its key.
const fn said(number: i32) -> Option<(Safety, bool)> {
    Some(match number {
        1 => (Safety::NoSideEffects, false),
        2 => (Safety::Idempotent, false),
        3 => (Safety::Unknown, true),
        4 => (Safety::Unknown, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Methods;

    fn set(methods: &[(&str, i32)]) -> Vec<u8> {
        let method = |(name, safety): &(&str, i32)| Method {
            name: (*name).to_owned(),
            options: Some(Options { safety: *safety }),
        };
        let service =
            Service { name: "Order".to_owned(), method: methods.iter().map(method).collect() };
        let file = File { package: "shop".to_owned(), service: vec![service] };
        Set { file: vec![file] }.encode_to_vec()
    }

    #[test]
    fn the_option_expresses_what_the_level_cannot() {
        let all = [("Default", 0), ("Read", 1), ("Set", 2), ("Place", 3), ("Once", 4)];
        let methods = Methods::from_file_descriptor_set(&set(&all)).unwrap();
        for (method, plain, keyed) in [
            ("Default", Safety::Unknown, Safety::Idempotent),
            ("Read", Safety::NoSideEffects, Safety::Idempotent),
            ("Set", Safety::Idempotent, Safety::Idempotent),
            ("Place", Safety::Unknown, Safety::Idempotent),
            ("Once", Safety::Unknown, Safety::Idempotent),
        ] {
            let request = || http::Request::post(format!("http://any/shop.Order/{method}"));
            assert_eq!(methods.safety_of(&request().body(()).unwrap()), plain, "{method}");
            let with_key = request().header("idempotency-key", "one").body(()).unwrap();
            assert_eq!(methods.safety_of(&with_key), keyed, "{method}");
        }
        assert_eq!(methods.safety("/shop.Order/Place"), Safety::Idempotent);
        assert_eq!(methods.safety("/shop.Order/Once"), Safety::Unknown);
    }

    #[test]
    fn the_file_has_the_numbers_that_are_read() {
        for line in ["safety = 50611;", "NO_SIDE_EFFECTS = 1;", "IDEMPOTENT = 2;", "KEYED = 3;"] {
            assert!(OPTIONS_PROTO.contains(line), "{line}");
        }
        assert!(OPTIONS_PROTO.contains("ONCE = 4;"));
    }

    #[test]
    fn each_number_of_the_option_has_its_meaning_and_no_other_has_one() {
        let meanings = [
            None,
            Some((Safety::NoSideEffects, false)),
            Some((Safety::Idempotent, false)),
            Some((Safety::Unknown, true)),
            Some((Safety::Unknown, false)),
            None,
        ];
        assert_eq!([0, 1, 2, 3, 4, 5].map(super::said), meanings);
    }
}
