//! Comparison of secrets.

/// Constant time, wherever the first difference is; an empty text equals none.
pub fn is_same(own: &[u8], said: &[u8]) -> bool {
    let differing = own.iter().zip(said).fold(0, |all, (a, b)| all | (a ^ b));
    !own.is_empty() && own.len() == said.len() && std::hint::black_box(differing) == 0
}
