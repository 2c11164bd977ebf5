//! Clusters in a model of a network, from seeds; and few of chitchat, in virtual time or by UDP.

mod gossip;
mod model;
mod partitions;
mod silence;
