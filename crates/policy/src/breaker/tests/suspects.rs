//! The methods that have failed since the last success.

use crate::breaker::suspects::*;
use std::collections::HashSet;

#[test]
fn a_method_that_has_failed_is_a_suspect_until_all_are_cleared() {
    let suspects = Suspects::default();
    let methods: Vec<u32> = (0..20).map(|n| hash(&format!("/package.Service/M{n}"))).collect();
    for (n, method) in methods.iter().enumerate() {
        suspects.add(*method);
        suspects.add(*method);
        let known = |method: &&u32| suspects.contains(**method);
        let expected = if n + 1 < MOST { n + 1 } else { methods.len() };
        assert_eq!(methods.iter().filter(known).count(), expected, "after {n}");
    }
    suspects.clear();
    suspects.add_all();
    assert!(methods.iter().all(|method| suspects.contains(*method)));
    suspects.clear();
    assert!(!methods.iter().any(|method| suspects.contains(*method)));
}

#[test]
fn ten_thousand_methods_have_nearly_as_many_numbers() {
    let hashes: HashSet<u32> = (0..10_000).map(|n| hash(&format!("/a.B/{n}"))).collect();
    assert!(hashes.len() >= 9_950, "{}", hashes.len());
    // An odd number is neither that of a free place nor that of all.
    assert!(hashes.iter().all(|hash| hash % 2 == 1));
}
