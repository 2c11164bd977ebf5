//! Clusters in a model of a network, from seeds; and real ones, in virtual time or by UDP.

mod churn;
mod gossip;
mod memory;
mod model;
mod partitions;
mod pods;
mod rows;
mod silence;
mod street;
mod view;
