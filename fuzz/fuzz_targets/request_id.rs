//! Whatever the message: no panic, and what is found is a part of it.
#![no_main]

use cinchona_core::Methods;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static METHODS: LazyLock<(Methods, Vec<String>)> = LazyLock::new(|| {
    let methods = calculator::methods();
    let paths = methods.kinds().map(|(path, _)| path.to_owned()).collect();
    (methods, paths)
});

fuzz_target!(|message: &[u8]| {
    let (methods, paths) = &*METHODS;
    for path in paths {
        if let Ok(Some(id)) = methods.request_id(path, message) {
            assert!(!id.is_empty());
            assert!(message.windows(id.len()).any(|part| part == id));
        }
    }
});
