//! The parts of a circuit, each by itself.

mod machine;
mod places;
mod suspects;
mod usual;
mod word;
