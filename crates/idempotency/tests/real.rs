//! Real tonic clients and a real tonic server, over loopback, and so on a real clock.
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

use cinchona_core::Methods;
use cinchona_idempotency::{DedupCounters, DedupLayer, MemoryStore};
use http::uri::PathAndQuery;
use prost::Message;
use prost_types::{
    Any, DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codec::CompressionEncoding,
    metadata::MetadataValue,
    server::NamedService,
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
        server::TcpIncoming,
    },
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// `Bank.Pay`, whose message's field 1 is a `request_id`.
fn methods() -> Methods {
    let request_id = FieldDescriptorProto {
        name: Some("request_id".into()),
        number: Some(1),
        r#type: Some(Type::String.into()),
        label: Some(Label::Optional.into()),
        ..Default::default()
    };
    let request = DescriptorProto {
        name: Some("Request".into()),
        field: vec![request_id],
        ..Default::default()
    };
    let pay = MethodDescriptorProto {
        name: Some("Pay".into()),
        input_type: Some(".Request".into()),
        ..Default::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("Bank".into()),
        method: vec![pay],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        message_type: vec![request],
        service: vec![service],
        ..Default::default()
    };
    let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&encoded).unwrap()
}

/// Answers with the number of its execution, and reads all compressions of tonic.
#[derive(Clone, Default)]
struct Bank(Arc<AtomicU32>);

const ENCODINGS: [CompressionEncoding; 3] =
    [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd];

impl NamedService for Bank {
    const NAME: &'static str = "Bank";
}

impl Service<http::Request<Body>> for Bank {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let executed = self.0.clone();
        let pay = service_fn(move |_: Request<Any>| {
            let n = executed.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Status>(Response::new(n)) }
        });
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<u32, Any>::default());
            for encoding in ENCODINGS {
                grpc = grpc.accept_compressed(encoding);
            }
            Ok(grpc.unary(pay, request).await)
        })
    }
}

/// Starts a server with a layer; returns its address.
async fn serve(tls: Option<ServerTlsConfig>) -> (String, Bank, DedupLayer<MemoryStore>) {
    let (bank, dedup) = (Bank::default(), DedupLayer::new(MemoryStore::new(), methods()));
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = incoming.local_addr().unwrap();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let serving = server.layer(dedup.clone()).add_service(bank.clone());
    tokio::spawn(serving.serve_with_incoming(incoming));
    (addr.to_string(), bank, dedup)
}

async fn pay(
    channel: &Channel,
    encoding: Option<CompressionEncoding>,
    message: Request<Any>,
) -> Result<Response<u32>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    if let Some(encoding) = encoding {
        client = client.send_compressed(encoding);
    }
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    client.unary(message, PathAndQuery::from_static("/Bank/Pay"), ProstCodec::default()).await
}

fn named(id: &str) -> Request<Any> {
    Request::new(Any { type_url: id.into(), value: vec![7; 1000] })
}

fn keyed(key: &str) -> Request<Any> {
    let mut request = named("");
    let key = MetadataValue::try_from(key).unwrap();
    request.metadata_mut().insert("idempotency-key", key);
    request
}

// catalogue: S-C3
#[tokio::test]
async fn the_same_request_id_in_any_compression_of_tonics_is_one_call() {
    let (addr, bank, dedup) = serve(None).await;
    let channel = Endpoint::new(format!("http://{addr}")).unwrap().connect().await.unwrap();
    for encoding in [None].into_iter().chain(ENCODINGS.map(Some)).chain([None]) {
        let answered = pay(&channel, encoding, named("m")).await.unwrap();
        assert_eq!(answered.into_inner(), 0, "{encoding:?}");
    }
    assert_eq!(bank.0.load(Ordering::Relaxed), 1);
    let DedupCounters { executed, replayed, unreadable, .. } = dedup.counters();
    assert_eq!((executed, replayed, unreadable), (1, 4, 0));
    for encoding in ENCODINGS {
        let other = Request::new(Any { type_url: "m".into(), value: vec![8; 1000] });
        let refused = pay(&channel, Some(encoding), other).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_peer_is_recognised_on_another_connection() {
    let (addr, bank, _) = serve(None).await;
    for _ in 0..3 {
        let channel = Endpoint::new(format!("http://{addr}")).unwrap().connect().await.unwrap();
        assert_eq!(pay(&channel, None, keyed("k")).await.unwrap().into_inner(), 0);
        let mut with_token = keyed("k");
        with_token.metadata_mut().insert("authorization", "alice".parse().unwrap());
        assert_eq!(pay(&channel, None, with_token).await.unwrap().into_inner(), 1);
    }
    assert_eq!(bank.0.load(Ordering::Relaxed), 2);
}

/// A certificate authority, and certificates that it has issued.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.0.pem())
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

// catalogue: S-F3
#[tokio::test]
async fn another_certificate_is_another_caller() {
    let authority = Authority::new();
    let tls = ServerTlsConfig::new()
        .identity(authority.issue("localhost"))
        .client_ca_root(authority.certificate());
    let (addr, bank, _) = serve(Some(tls)).await;
    let [alice, bob] = ["alice", "bob"].map(|name| authority.issue(name));
    for (identity, expected) in [(&alice, 0), (&bob, 1), (&alice, 0), (&bob, 1)] {
        let tls = ClientTlsConfig::new()
            .ca_certificate(authority.certificate())
            .domain_name("localhost")
            .identity(identity.clone());
        let endpoint = Endpoint::new(format!("https://{addr}")).unwrap().tls_config(tls).unwrap();
        let channel = endpoint.connect().await.unwrap();
        assert_eq!(pay(&channel, None, keyed("k")).await.unwrap().into_inner(), expected);
    }
    assert_eq!(bank.0.load(Ordering::Relaxed), 2);
}
