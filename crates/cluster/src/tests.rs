//! Real clusters, in virtual time or by UDP.

mod churn;
mod gossip;
mod memory;
mod pods;
mod rows;
mod street;
