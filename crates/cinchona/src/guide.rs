//! What to retry, when, and at what price.
#![doc = include_str!("guide.md")]
