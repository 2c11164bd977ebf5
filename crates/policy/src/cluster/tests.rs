//! One node, and clusters in a model of a network.

mod model;
mod numbered;
mod partitions;
mod silence;
mod view;
