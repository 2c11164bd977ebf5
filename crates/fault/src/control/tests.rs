//! Permissions over gRPC, and that the messages are those of the .proto.

use super::*;
use crate::{FaultSettings, Rule, plan::CONTROL};
use cinchona_testkit::Network;
use std::{net::SocketAddr, path::Path};
use tonic::{
    Code,
    transport::{Server, server::TcpConnectInfo},
};
use tower::ServiceExt;

/// Calls a method of the service directly, as a peer with that address and that token.
async fn call<M, R>(
    rules: &Rules,
    own_token: Option<&str>,
    method: &str,
    message: M,
    peer: Option<&str>,
    token: Option<&str>,
) -> Result<R, Status>
where
    M: Message + Clone + 'static,
    R: Message + Default + 'static,
{
    let own_token = own_token.map(|token| Secret::new(token).unwrap());
    let (service, peer) = (rules.control(own_token), peer.map(|peer| peer.parse::<SocketAddr>()));
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        if let Some(Ok(peer)) = peer {
            let info = TcpConnectInfo { local_addr: None, remote_addr: Some(peer) };
            request.extensions_mut().insert(info);
        }
        service.clone().oneshot(request)
    });
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token.parse().unwrap());
    }
    let mut client = tonic::client::Grpc::new(service);
    client.ready().await.unwrap();
    let path = format!("{CONTROL}{method}").parse().unwrap();
    let codec = ProstCodec::<M, R>::default();
    client.unary(request, path, codec).await.map(Response::into_inner)
}

fn set(rule: &str) -> SetRequest {
    SetRequest { id: "a".to_owned(), rule: rule.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_change_needs_loopback_or_the_token_if_there_is_one() {
    const SECRET: Option<&str> = Some("secret");
    for (own, peer, token, allowed) in [
        (None, Some("127.0.0.1:1"), None, true),
        (None, Some("[::1]:1"), None, true),
        (None, Some("[::ffff:127.0.0.1]:1"), None, true),
        (None, Some("10.0.0.7:1"), None, false),
        (None, Some("10.0.0.7:1"), Some("Bearer secret"), false),
        (None, None, None, false),
        (SECRET, Some("10.0.0.7:1"), Some("Bearer secret"), true),
        (SECRET, None, Some("Bearer secret"), true),
        (SECRET, Some("127.0.0.1:1"), None, false),
        (SECRET, Some("127.0.0.1:1"), Some("Bearer secrets"), false),
        (SECRET, Some("127.0.0.1:1"), Some("Bearer "), false),
        (SECRET, Some("127.0.0.1:1"), Some("Bearer"), false),
        (SECRET, Some("127.0.0.1:1"), Some("Bearer Secret"), false),
        (SECRET, Some("127.0.0.1:1"), Some("secret"), false),
    ] {
        let rules = Rules::new(7).with("kept", "panic".parse::<Rule>().unwrap());
        let code =
            |status: Result<_, Status>| status.map_or_else(|status| status.code(), |_| Code::Ok);
        let expected = if allowed { Code::Ok } else { Code::PermissionDenied };
        let message = set("hang ttl=1s");
        let done = call::<_, Nothing>(&rules, own, "Set", message, peer, token).await;
        assert_eq!(code(done.map(drop)), expected, "{own:?} {peer:?} {token:?}");
        assert_eq!(rules.list().len(), if allowed { 2 } else { 1 });
        let mode = SwitchRequest { mode: messages::Mode::Off.into() };
        let done = call::<_, Nothing>(&rules, own, "Switch", mode, peer, token).await;
        assert_eq!((code(done.map(drop)), rules.switch().mode() == Mode::Off), (expected, allowed));
        let listed = call::<_, ListResponse>(&rules, own, "List", Nothing {}, peer, token).await;
        let listed = listed.map(|listed| assert_eq!(listed.rules[0].id, "kept"));
        assert_eq!(code(listed), expected, "faults are shown to trusted callers only");
        let name = NamedRequest { id: "kept".to_owned() };
        let done = call::<_, RemoveResponse>(&rules, own, "Remove", name, peer, token).await;
        assert_eq!(done.map(|done| done.found).ok(), allowed.then_some(true));
        let done = call::<_, Nothing>(&rules, own, "Clear", Nothing {}, peer, token).await;
        assert_eq!((code(done.map(drop)), rules.list().is_empty()), (expected, allowed));
    }
}

// catalogue: S-C8
#[tokio::test]
async fn a_call_through_a_proxy_changes_nothing_without_the_token() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let rules = Rules::new(7).with("kept", "panic".parse::<Rule>().unwrap());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().add_service(rules.control(None));
    tokio::spawn(server.serve_with_incoming(incoming));
    let channel = tonic::transport::Endpoint::try_from(format!("http://{at}")).unwrap();
    let channel = channel.connect().await.unwrap();
    for name in
        ["forwarded", "x-forwarded-for", "x-real-ip", "via", "cf-connecting-ip", "origin", ""]
    {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let mut request = Request::new(Nothing {});
        if !name.is_empty() {
            request.metadata_mut().insert(name, "127.0.0.1".parse().unwrap());
        }
        let path = http::uri::PathAndQuery::from_static("/cinchona.fault.v1.FaultControl/Clear");
        let codec = ProstCodec::<Nothing, Nothing>::default();
        let cleared = client.unary(request, path, codec).await;
        let expected = if name.is_empty() { Code::Ok } else { Code::PermissionDenied };
        assert_eq!(cleared.map_or_else(|status| status.code(), |_| Code::Ok), expected, "{name}");
        assert_eq!(rules.list().is_empty(), name.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_rule_is_refused_with_the_place() {
    let rules = Rules::new(7);
    let peer = Some("127.0.0.1:1");
    for (rule, said) in [
        ("rate=2 hang ttl=1s", "not a share\n  rate=2 hang ttl=1s\n       ^\n  allowed: 0 to 1"),
        ("hang", "ttl=none to keep the rule"),
    ] {
        let refused = call::<_, Nothing>(&rules, None, "Set", set(rule), peer, None).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(said), "{}", refused.message());
    }
    let nameless = SetRequest { id: String::new(), rule: "hang ttl=1s".to_owned() };
    let refused = call::<_, Nothing>(&rules, None, "Set", nameless, peer, None).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let large = set(&"x".repeat(LARGEST));
    let refused = call::<_, Nothing>(&rules, None, "Set", large, peer, None).await;
    assert_eq!(refused.unwrap_err().code(), Code::OutOfRange);
    let refused = call::<_, Nothing>(&rules, None, "Sit", Nothing {}, peer, None).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    let mode = SwitchRequest::default();
    let refused = call::<_, Nothing>(&rules, None, "Switch", mode, peer, None).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_every_call_fails_can_still_be_controlled() {
    let net = Network::new();
    let rules = Rules::new(7).with("all", "health drop".parse().unwrap());
    let faults = crate::Faults { failure_rate: 1.0, health_too: true, ..Default::default() };
    let layer = FaultSettings::new(faults).unwrap().with_rules(rules.clone()).layer();
    let server =
        Server::builder().layer(layer).add_service(rules.control(Secret::new("secret").ok()));
    tokio::spawn(server.serve_with_incoming(net.incoming()));
    let mut client = tonic::client::Grpc::new(net.channel());
    client.ready().await.unwrap();
    let mut request = Request::new(Nothing {});
    request.metadata_mut().insert("authorization", "Bearer secret".parse().unwrap());
    let path = http::uri::PathAndQuery::from_static("/cinchona.fault.v1.FaultControl/Clear");
    let codec = ProstCodec::<Nothing, Nothing>::default();
    client.unary(request, path, codec).await.unwrap();
    assert!(rules.list().is_empty());
}

/// Each message of the .proto with its fields, as `name = number`.
fn described() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let set = protox::compile(["fault_control.proto"], [folder]).unwrap();
    let described = |message: &prost_types::DescriptorProto| {
        let field = |field: &prost_types::FieldDescriptorProto| {
            format!("{:?} {} = {}", field.r#type(), field.name(), field.number())
        };
        let fields = message.field.iter().map(field).collect::<Vec<_>>();
        (message.name().to_owned(), fields.join(", "))
    };
    set.file[0].message_type.iter().map(described).collect()
}

#[test]
fn the_messages_are_those_of_the_proto() {
    let listed = "String id = 1, String rule = 2, String kind = 3, Uint64 matched = 4, \
        Uint64 injected = 5, Uint64 age_ms = 6, Uint64 ttl_ms = 7";
    let expected = [
        ("ListRequest", ""),
        ("ListResponse", "Message rules = 1, Enum mode = 2"),
        ("Listed", listed),
        ("SetRequest", "String id = 1, String rule = 2"),
        ("SetResponse", ""),
        ("RemoveRequest", "String id = 1"),
        ("RemoveResponse", "Bool found = 1"),
        ("ClearRequest", ""),
        ("ClearResponse", ""),
        ("SwitchRequest", "Enum mode = 1"),
        ("SwitchResponse", ""),
    ];
    let expected = expected.map(|(name, fields)| (name.to_owned(), fields.to_owned()));
    assert_eq!(described(), expected);
    // By the numbers above, each with its wire type.
    let text = |text: &str| text.to_owned();
    let listed = messages::Listed {
        id: text("a"),
        rule: text("b"),
        kind: text("c"),
        matched: 4,
        injected: 5,
        age_ms: 6,
        ttl_ms: Some(0),
    };
    let encoded = b"\x0a\x01a\x12\x01b\x1a\x01c\x20\x04\x28\x05\x30\x06\x38\x00";
    assert_eq!(listed.encode_to_vec(), encoded);
    let all = ListResponse { rules: vec![listed], mode: 3 };
    assert_eq!(all.encode_to_vec(), [b"\x0a\x11", &encoded[..], b"\x10\x03"].concat());
    let set = SetRequest { id: text("a"), rule: text("b") };
    assert_eq!(set.encode_to_vec(), b"\x0a\x01a\x12\x01b");
    assert_eq!(NamedRequest { id: text("a") }.encode_to_vec(), b"\x0a\x01a");
    assert_eq!(RemoveResponse { found: true }.encode_to_vec(), b"\x08\x01");
    assert_eq!(SwitchRequest { mode: 2 }.encode_to_vec(), b"\x08\x02");
}
