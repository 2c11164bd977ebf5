//! Look-ups in the few headers of a gRPC message: comparing with all of them is faster than
//! hashing.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The request header that matches the logs of clients and servers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// With more headers than these hashing is faster.
const FEW: usize = 8;

/// The first value of a header.
#[inline]
pub fn get<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    if headers.len() > FEW {
        return headers.get(name);
    }
    headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// The first value of each of these headers, in one walk.
#[inline]
pub fn get_each<'a, const N: usize>(
    headers: &'a HeaderMap,
    names: [&HeaderName; N],
) -> [Option<&'a HeaderValue>; N] {
    if headers.len() > FEW {
        return names.map(|name| headers.get(name));
    }
    let mut found = [None; N];
    for (own, value) in headers {
        for (name, found) in names.iter().zip(&mut found) {
            if found.is_none() && own == *name {
                *found = Some(value);
            }
        }
    }
    found
}

/// Sets a header to one value.
pub fn set(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    if headers.len() <= FEW
        && headers.len() == headers.keys_len()
        && let Some((_, own)) = headers.iter_mut().find(|(own, _)| *own == name)
    {
        *own = value;
        return;
    }
    headers.insert(name, value);
}

/// Removes a header, which is usually absent.
#[inline]
pub fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    if has(headers, name) {
        headers.remove(name);
    }
}

/// Whether a header is there.
#[inline]
pub fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    get(headers, name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_map_finds(
            names in prop::collection::vec("[a-c]{1,2}|te|age", 0..14),
            wanted in "[a-c]{1,2}|te|age",
        ) {
            let mut headers = HeaderMap::new();
            for (n, name) in names.iter().enumerate() {
                headers.append(name.parse::<HeaderName>().unwrap(), n.into());
            }
            let wanted: HeaderName = wanted.parse().unwrap();
            prop_assert_eq!(get(&headers, &wanted), headers.get(&wanted));
            let both = [&wanted, &HeaderName::from_static("te")];
            prop_assert_eq!(get_each(&headers, both), both.map(|name| headers.get(name)));
            prop_assert_eq!(has(&headers, &wanted), headers.contains_key(&wanted));
        }
    }
}
