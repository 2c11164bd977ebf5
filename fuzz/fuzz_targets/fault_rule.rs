//! Whatever the text: a rule that can be read is shown so that it is read again as the same.
#![no_main]

use cinchona_fault::Rule;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(rule) = text.parse::<Rule>() else { return };
    let shown = rule.to_string();
    let again: Rule = shown.parse().expect("what is shown can be read");
    assert_eq!(again, rule, "{shown}");
    assert_eq!(again.to_string(), shown);
});
