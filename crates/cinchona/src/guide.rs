//! What to retry, when, and at what price.
#![doc = include_str!("guide.md")]

#[doc = include_str!("guide/rest.md")]
pub mod rest {}
