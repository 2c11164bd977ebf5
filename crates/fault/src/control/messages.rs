//! The messages of `proto/fault_control.proto`, by hand: a test compares them with it.

/// `ListRequest`, `ClearRequest` and the empty responses.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}

pub(super) use Nothing as ListRequest;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) rules: Vec<Listed>,
    #[prost(enumeration = "Mode", tag = "2")]
    pub(super) mode: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Listed {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) rule: String,
    #[prost(string, tag = "3")]
    pub(super) kind: String,
    #[prost(uint64, tag = "4")]
    pub(super) matched: u64,
    #[prost(uint64, tag = "5")]
    pub(super) injected: u64,
    #[prost(uint64, tag = "6")]
    pub(super) age_ms: u64,
    #[prost(uint64, optional, tag = "7")]
    pub(super) ttl_ms: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SetRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) rule: String,
}

/// `RemoveRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NamedRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RemoveResponse {
    #[prost(bool, tag = "1")]
    pub(super) found: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SwitchRequest {
    #[prost(enumeration = "Mode", tag = "1")]
    pub(super) mode: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Mode {
    Unspecified = 0,
    Enforce = 1,
    Shadow = 2,
    Off = 3,
}
