//! The properties of methods in the .proto: which may be executed twice, what they stream, and
//! where their requests have a `request_id`.

mod canonical;
mod options;
mod shape;
mod wire;

pub use options::OPTIONS_PROTO;

use crate::{BoxError, IDEMPOTENCY_KEY, Invalid};
use cinchona_plumbing::{Paths, Reloadable, headers, is_of_the_server};
use cinchona_policy::Safety;
use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
    method_options::IdempotencyLevel,
};
use shape::{Described, Shapes};
use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// The properties of the methods in a set of .proto files; cheap to clone.
///
/// *Why:* a failure that leaves open whether the service executed the request may be retried only
/// if executing twice is harmless, and the author of the service knows that: `option
/// idempotency_level = NO_SIDE_EFFECTS;` or `IDEMPOTENT` declares it.
///
/// Two of them are equal if they say the same of every method.
#[derive(Clone, Debug, PartialEq)]
pub struct Methods {
    /// By path.
    listed: Arc<hashbrown::HashMap<String, Facts>>,
    shapes: Arc<Shapes>,
    /// Whether a descriptor set was read, which lists all methods.
    is_complete: bool,
    unlisted: Safety,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Facts {
    safety: Safety,
    /// Whether calls are recognised by their keys.
    is_keyed: bool,
    /// Unknown for a method that no descriptor set lists.
    kind: Option<MethodKind>,
    request_id: Option<u32>,
    /// Where the shape of its request is.
    request: Option<usize>,
}

/// What a method streams.
///
/// In a request's extensions it is that of the call, for a client without a descriptor set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// One message each way.
    Unary,
    /// Many messages to the server, and one back.
    ClientStreaming,
    /// One message to the server, and many back.
    ServerStreaming,
    /// Many messages each way.
    Bidi,
}

/// The kinds of all methods in descriptor sets that this process has read, as protobuf's other
/// libraries keep one registry of all their files; initially those that every server may have.
static KINDS: LazyLock<Reloadable<HashMap<String, MethodKind>>> = LazyLock::new(|| {
    let kinds = [
        ("/grpc.health.v1.Health/Check", MethodKind::Unary),
        ("/grpc.health.v1.Health/Watch", MethodKind::ServerStreaming),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MethodKind::Bidi),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MethodKind::Bidi),
    ];
    Reloadable::new(kinds.map(|(path, kind)| (path.to_owned(), kind)).into())
});

/// Held while methods are added to them.
static ADDING: Mutex<()> = Mutex::new(());

// === impl Methods ===

impl Methods {
    /// Reads an encoded `FileDescriptorSet`, as `tonic_prost_build` writes it to
    /// `file_descriptor_set_path` and `tonic::include_file_descriptor_set!` includes it.
    ///
    /// `option (cinchona.safety)` expresses what `idempotency_level` cannot; see [`OPTIONS_PROTO`].
    ///
    /// # Errors
    /// When `encoded` is not a `FileDescriptorSet`, or lists no method.
    pub fn from_file_descriptor_set(encoded: &[u8]) -> Result<Self, Invalid> {
        const SET: &str = "an encoded FileDescriptorSet with at least one method";
        let refused = |why: &dyn fmt::Display| Invalid::new("descriptor set", why, SET);
        let files = FileDescriptorSet::decode(encoded).map_err(|error| refused(&error))?.file;
        let messages = Described::new(&files);
        let services = files.iter().flat_map(|file| &file.service);
        let requests = services.flat_map(|service| &service.method);
        let unary = requests.filter(|method| kind_of(method) == MethodKind::Unary);
        let (shapes, places) = Shapes::of(&messages, unary.map(|method| method.input_type()));
        let facts = |method: &MethodDescriptorProto| Facts {
            request: places.get(method.input_type()).copied(),
            request_id: messages.get(method.input_type()).and_then(request_id_of),
            ..Facts::from(method)
        };
        let listed = files.iter().flat_map(methods_of);
        let mut listed: hashbrown::HashMap<_, _> =
            listed.map(|(path, method)| (path, facts(method))).collect();
        if listed.is_empty() {
            return Err(refused(&format!("one of {} bytes without a method", encoded.len())));
        }
        for (path, said) in options::read(encoded) {
            if let Some(facts) = listed.get_mut(&path) {
                (facts.safety, facts.is_keyed) = said;
            }
        }
        remember(&listed);
        Ok(Self {
            listed: Arc::new(listed),
            shapes: Arc::new(shapes),
            is_complete: true,
            unlisted: Safety::Unknown,
        })
    }

    /// Knows no method: only requests that were provably not processed may be repeated.
    pub fn unknown() -> Self {
        Self {
            listed: Arc::default(),
            shapes: Arc::default(),
            is_complete: false,
            unlisted: Safety::Unknown,
        }
    }

    /// Declares that every method may be executed twice.
    pub fn all_idempotent() -> Self {
        Self { unlisted: Safety::Idempotent, ..Self::unknown() }
    }

    /// Declares whether one method may be executed twice, or all listed methods of `service` if
    /// `method` is empty: for someone else's .proto.
    ///
    /// ```
    /// use cinchona_core::{Methods, Safety};
    ///
    /// let methods = Methods::unknown().with("orders.Orders", "Get", Safety::NoSideEffects)?;
    /// assert_eq!(methods.safety("/orders.Orders/Get"), Safety::NoSideEffects);
    /// assert!(methods.with("/orders.Orders", "Get", Safety::Idempotent).is_err());
    /// # Ok::<_, cinchona_core::Invalid>(())
    /// ```
    ///
    /// # Errors
    /// When a name is empty or has a slash, or a descriptor set was read and has no such method.
    pub fn with(mut self, service: &str, method: &str, safety: Safety) -> Result<Self, Invalid> {
        const NAMES: &str = "a service with its package, and a method, as the .proto has them";
        let path = format!("/{service}/{method}");
        let refused = || Invalid::new("method", &path, NAMES);
        if service.is_empty() || service.contains('/') || method.contains('/') {
            return Err(refused());
        }
        let listed = Arc::make_mut(&mut self.listed);
        let said = |facts: &mut Facts| (facts.safety, facts.is_keyed) = (safety, false);
        if method.is_empty() {
            let own = listed.iter_mut().filter(|(listed, _)| listed.starts_with(&path));
            let count = own.map(|(_, facts)| said(facts)).count();
            return if count == 0 { Err(refused()) } else { Ok(self) };
        }
        match listed.get_mut(&path) {
            Some(facts) => said(facts),
            None if self.is_complete => return Err(refused()),
            None => {
                let (kind, request_id, request) = (None, None, None);
                let facts = Facts { safety, is_keyed: false, kind, request_id, request };
                listed.insert(path, facts);
            }
        }
        Ok(self)
    }

    /// Declares that the server recognises a unary call with side effects by its `idempotency-key`:
    /// such a call may be repeated if it carries one.
    #[must_use]
    pub fn keyed(mut self) -> Self {
        for facts in Arc::make_mut(&mut self.listed).values_mut() {
            facts.is_keyed |= facts.kind == Some(MethodKind::Unary);
        }
        self
    }

    /// The safety of `request`: that of its method, or `Idempotent` if it carries an
    /// `idempotency-key`, by which the server recognises a repetition.
    pub fn safety_of<B>(&self, request: &http::Request<B>) -> Safety {
        if headers::has(request.headers(), &IDEMPOTENCY_KEY) {
            return Safety::Idempotent;
        }
        // Without a key the server would not recognise it.
        self.listed.get(request.uri().path()).map_or(self.unlisted, |facts| facts.safety)
    }

    /// The paths of the listed methods, in no order; none without a descriptor set.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.listed.keys().map(String::as_str)
    }

    /// Whether there is a method at `path`, or a service with the prefix `path`
    /// (`/package.Service/`): true for any without a descriptor set, and for gRPC's health checks
    /// and reflection in any case.
    pub fn has(&self, path: &str) -> bool {
        let is_listed = || match path.ends_with('/') {
            true => self.listed.keys().any(|listed| listed.starts_with(path)),
            false => self.listed.contains_key(path),
        };
        !self.is_complete || is_of_the_server(path) || is_listed()
    }

    /// The paths of the listed methods that may not be executed twice.
    pub fn unsafe_paths(&self) -> impl Iterator<Item = &str> {
        let listed = self.listed.iter().filter(|(_, facts)| !facts.with_key().allows_repeating());
        listed.map(|(path, _)| path.as_str())
    }

    /// The safety of the method at `path`, such as `/calculator.Calculator/Add`; if calls are
    /// recognised by their keys, that of a call with one.
    pub fn safety(&self, path: &str) -> Safety {
        self.listed.get(path).map_or(self.unlisted, |facts| facts.with_key())
    }

    /// Whether the method at `path` is listed, and streams neither requests nor responses.
    pub fn is_unary(&self, path: &str) -> bool {
        self.kind(path) == Some(MethodKind::Unary)
    }

    /// What the method at `path` streams; `None` if it is not listed.
    pub fn kind(&self, path: &str) -> Option<MethodKind> {
        self.listed.get(path)?.kind
    }

    /// The listed methods by path, and what they stream.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, MethodKind)> {
        let kind = |(path, facts): (_, &Facts)| Some((String::as_str(path), facts.kind?));
        self.listed.iter().filter_map(kind)
    }

    /// The kinds of the methods in all descriptor sets that this process has read so far, and of
    /// gRPC's health checks and reflection.
    ///
    /// *Why:* what a method streams is a property of its .proto. A layer that needs no other
    /// property takes it from any descriptor set that this process has read.
    pub fn known_kinds() -> Arc<HashMap<String, MethodKind>> {
        KINDS.get().clone()
    }

    /// The kinds of all methods that [this process has read](Self::known_kinds), overridden by
    /// those of `own`.
    pub fn all_kinds(own: Option<&Self>) -> Paths<MethodKind> {
        let known = Self::known_kinds();
        let known = known.iter().map(|(path, kind)| (path.as_str(), *kind));
        known.chain(own.into_iter().flat_map(Self::kinds)).collect()
    }

    /// Whether a server should recognise repeated calls of the method at `path`: it is listed,
    /// unary, and may have side effects.
    pub fn is_unary_with_effects(&self, path: &str) -> bool {
        self.listed.get(path).is_some_and(|facts| {
            facts.kind == Some(MethodKind::Unary) && facts.safety != Safety::NoSideEffects
        })
    }

    /// The number of the request message's field `string request_id`, the caller's id of a call
    /// ([AIP-155]).
    ///
    /// [AIP-155]: https://google.aip.dev/155
    pub fn request_id_field(&self, path: &str) -> Option<u32> {
        self.listed.get(path)?.request_id
    }

    /// The value of the field `string request_id` in a request to `path`; `None` if the message has
    /// no such field, or it is empty, which in proto3 means unset.
    ///
    /// # Errors
    /// When the message has such a field, and is not valid protobuf.
    pub fn request_id<'a>(
        &self,
        path: &str,
        message: &'a [u8],
    ) -> Result<Option<&'a [u8]>, BoxError> {
        let Some(facts) = self.listed.get(path) else { return Ok(None) };
        let Some(number) = facts.request_id else { return Ok(None) };
        let shape = facts.request.and_then(|place| self.shapes.get(place));
        let found = wire::string(message, number, |other| {
            shape.is_some_and(|shape| shape.excludes(number, other))
        });
        Ok(found.ok_or("the message is not written as protobuf is")?)
    }

    /// `message`, a request to `path`, in a canonical form: two requests are the same to the
    /// handler if these bytes are, whatever the order of their fields and of the entries of their
    /// maps. Unknown fields are compared as well, in any order. A message of an unknown type, or an
    /// invalid one, is unchanged.
    pub fn canonical_request<'a>(&self, path: &str, message: &'a [u8]) -> Cow<'a, [u8]> {
        match self.listed.get(path).and_then(|facts| facts.request) {
            Some(place) => canonical::canonical(&self.shapes, place, message),
            None => Cow::Borrowed(message),
        }
    }
}

/// Adds the methods of a descriptor set to [`KINDS`].
fn remember(listed: &hashbrown::HashMap<String, Facts>) {
    let _adding = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
    let known = KINDS.get();
    if listed.iter().any(|(path, facts)| known.get(path).copied() != facts.kind) {
        let mut kinds = HashMap::clone(&known);
        kinds.extend(listed.iter().filter_map(|(path, facts)| Some((path.clone(), facts.kind?))));
        KINDS.set(kinds);
    }
}

/// The methods of a file by their paths.
fn methods_of(
    file: &FileDescriptorProto,
) -> impl Iterator<Item = (String, &MethodDescriptorProto)> {
    let package = match file.package() {
        "" => String::new(),
        package => format!("{package}."),
    };
    file.service.iter().flat_map(move |service| {
        let prefix = format!("/{package}{}/", service.name());
        service.method.iter().map(move |method| (format!("{prefix}{}", method.name()), method))
    })
}

fn kind_of(method: &MethodDescriptorProto) -> MethodKind {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => MethodKind::Unary,
        (true, false) => MethodKind::ClientStreaming,
        (false, true) => MethodKind::ServerStreaming,
        (true, true) => MethodKind::Bidi,
    }
}

fn request_id_of(message: &DescriptorProto) -> Option<u32> {
    let field = message.field.iter().find(|field| field.name() == "request_id")?;
    let is_string = field.r#type() == Type::String && field.label() != Label::Repeated;
    is_string.then(|| u32::try_from(field.number()).ok()).flatten()
}

// === impl Facts ===

impl From<&MethodDescriptorProto> for Facts {
    /// The method's own declaration.
    fn from(method: &MethodDescriptorProto) -> Self {
        let safety = match method.options.as_ref().map(|options| options.idempotency_level()) {
            Some(IdempotencyLevel::NoSideEffects) => Safety::NoSideEffects,
            Some(IdempotencyLevel::Idempotent) => Safety::Idempotent,
            _ => Safety::Unknown,
        };
        let (kind, request_id, request) = (Some(kind_of(method)), None, None);
        Self { safety, is_keyed: false, kind, request_id, request }
    }
}

impl Facts {
    /// The safety of a call with a key, if its method's calls are recognised by theirs.
    const fn with_key(&self) -> Safety {
        match self.safety {
            Safety::Unknown if self.is_keyed => Safety::Idempotent,
            safety => safety,
        }
    }
}

// === impl MethodKind ===

impl MethodKind {
    /// Whether the client sends any number of messages.
    pub const fn streams_requests(self) -> bool {
        matches!(self, Self::ClientStreaming | Self::Bidi)
    }

    /// Whether the server sends any number of messages.
    pub const fn streams_responses(self) -> bool {
        matches!(self, Self::ServerStreaming | Self::Bidi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use prost_types::{FieldDescriptorProto, MethodOptions, ServiceDescriptorProto};

    fn method(name: &str, level: Option<IdempotencyLevel>) -> MethodDescriptorProto {
        let options = level.map(|level| MethodOptions {
            idempotency_level: Some(level.into()),
            ..Default::default()
        });
        MethodDescriptorProto { name: Some(name.into()), options, ..Default::default() }
    }

    #[test]
    fn the_proto_says_which_methods_may_be_repeated() {
        let service = ServiceDescriptorProto {
            name: Some("Bank".into()),
            method: vec![
                method("Balance", Some(IdempotencyLevel::NoSideEffects)),
                method("Set", Some(IdempotencyLevel::Idempotent)),
                method("Withdraw", None),
            ],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            package: Some("money.v1".into()),
            service: vec![service],
            ..Default::default()
        };
        let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        let methods = Methods::from_file_descriptor_set(&encoded).unwrap();
        assert_eq!(methods.safety("/money.v1.Bank/Balance"), Safety::NoSideEffects);
        assert_eq!(methods.safety("/money.v1.Bank/Set"), Safety::Idempotent);
        assert_eq!(methods.safety("/money.v1.Bank/Withdraw"), Safety::Unknown);
        assert_eq!(methods.safety("/money.v1.Bank/Missing"), Safety::Unknown);
        let mut paths: Vec<_> = methods.paths().collect();
        paths.sort_unstable();
        let listed = ["/money.v1.Bank/Balance", "/money.v1.Bank/Set", "/money.v1.Bank/Withdraw"];
        assert_eq!(paths, listed);
        assert_eq!(Methods::all_idempotent().paths().count(), 0);
    }

    #[test]
    fn the_proto_has_the_request_id_and_what_is_streamed() {
        let message = |name: &str, kind: Type, label: Label| DescriptorProto {
            name: Some(name.into()),
            field: vec![FieldDescriptorProto {
                name: Some("request_id".into()),
                number: Some(7),
                r#type: Some(kind.into()),
                label: Some(label.into()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let takes = |input: &str| MethodDescriptorProto {
            input_type: Some(format!(".money.v1.{input}")),
            ..method(input, None)
        };
        let stream = MethodDescriptorProto { server_streaming: Some(true), ..takes("Named") };
        let service = ServiceDescriptorProto {
            name: Some("Bank".into()),
            method: vec![takes("Named"), takes("Counted"), takes("Listed")],
            ..Default::default()
        };
        let streams = ServiceDescriptorProto {
            name: Some("Streams".into()),
            method: vec![stream],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            package: Some("money.v1".into()),
            message_type: vec![
                message("Named", Type::String, Label::Optional),
                message("Counted", Type::Int32, Label::Optional),
                message("Listed", Type::String, Label::Repeated),
            ],
            service: vec![service, streams],
            ..Default::default()
        };
        let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        let methods = Methods::from_file_descriptor_set(&encoded).unwrap();
        assert_eq!(methods.request_id_field("/money.v1.Bank/Named"), Some(7));
        for other in ["/money.v1.Bank/Counted", "/money.v1.Bank/Listed", "/money.v1.Bank/Missing"] {
            assert_eq!(methods.request_id_field(other), None, "{other}");
        }
        let keyed = methods.clone().keyed();
        assert_eq!(keyed.safety("/money.v1.Bank/Named"), Safety::Idempotent);
        assert_eq!(keyed.safety("/money.v1.Streams/Named"), Safety::Unknown);
        assert!(methods.is_unary("/money.v1.Bank/Named"));
        assert!(!methods.is_unary("/money.v1.Streams/Named"), "it streams");
        assert!(!methods.is_unary("/money.v1.Bank/Missing"), "nothing is known of it");
        assert_eq!(methods.kind("/money.v1.Streams/Named"), Some(MethodKind::ServerStreaming));
        assert_eq!(methods.kinds().count(), 4);
        let known = Methods::known_kinds();
        for (path, kind) in [
            ("/money.v1.Bank/Named", Some(MethodKind::Unary)),
            ("/money.v1.Streams/Named", Some(MethodKind::ServerStreaming)),
            ("/grpc.health.v1.Health/Watch", Some(MethodKind::ServerStreaming)),
            ("/money.v1.Bank/Missing", None),
        ] {
            assert_eq!(known.get(path).copied(), kind, "{path}");
        }
    }

    #[test]
    fn a_broken_descriptor_set_is_refused() {
        assert!(Methods::from_file_descriptor_set(b"\xff\xff\xff").is_err());
    }

    /// Methods of `money.v1.Bank`: `Balance`, `Set`, `Withdraw`, and `Watch`, which streams.
    fn bank() -> Methods {
        let watch = MethodDescriptorProto { server_streaming: Some(true), ..method("Watch", None) };
        let service = ServiceDescriptorProto {
            name: Some("Bank".into()),
            method: vec![
                method("Balance", Some(IdempotencyLevel::NoSideEffects)),
                method("Set", Some(IdempotencyLevel::Idempotent)),
                method("Withdraw", None),
                watch,
            ],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            package: Some("money.v1".into()),
            service: vec![service],
            ..Default::default()
        };
        let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        Methods::from_file_descriptor_set(&encoded).unwrap()
    }

    #[test]
    fn of_a_complete_list_only_what_is_listed_is_there_and_the_servers_own() {
        let (methods, unknown) = (bank(), Methods::unknown());
        for (path, is_there) in [
            ("/money.v1.Bank/Set", true),
            ("/money.v1.Bank/", true),
            ("/money.v1.Bank/Missing", false),
            ("/money.v1.Bankers/", false),
            ("/grpc.health.v1.Health/Check", true),
        ] {
            assert_eq!((methods.has(path), unknown.has(path)), (is_there, true), "{path}");
        }
    }

    #[test]
    fn methods_whose_repetition_may_do_harm_are_those_that_are_not_said_to_be_safe() {
        let methods = bank();
        let mut paths: Vec<_> = methods.unsafe_paths().collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/money.v1.Bank/Watch", "/money.v1.Bank/Withdraw"]);
        let repeats = |safety: Safety| safety.allows_repeating();
        let all = [Safety::NoSideEffects, Safety::Idempotent, Safety::Unknown];
        assert_eq!(all.map(repeats), [true, true, false]);
        let any = Methods::all_idempotent();
        assert_eq!(any.safety("/any.Service/Call"), Safety::Idempotent);
        assert_eq!(Methods::unknown().safety("/any.Service/Call"), Safety::Unknown);
    }

    #[test]
    fn a_repeated_call_is_recognised_where_its_method_is_unary_and_has_effects() {
        let methods = bank();
        for (name, is_recognised) in
            [("Balance", false), ("Set", true), ("Withdraw", true), ("Watch", false), ("No", false)]
        {
            let path = format!("/money.v1.Bank/{name}");
            assert_eq!(methods.is_unary_with_effects(&path), is_recognised, "{name}");
        }
        use MethodKind::{Bidi, ClientStreaming, ServerStreaming, Unary};
        let kinds = [Unary, ClientStreaming, ServerStreaming, Bidi];
        assert_eq!(kinds.map(MethodKind::streams_requests), [false, true, false, true]);
        assert_eq!(kinds.map(MethodKind::streams_responses), [false, false, true, true]);
    }

    #[test]
    fn what_is_said_of_a_method_needs_its_name_and_holds_for_it_alone() {
        let said = |methods: Methods, service, method| {
            methods.with(service, method, Safety::NoSideEffects)
        };
        for (service, method) in [("", "Set"), ("/money.v1.Bank", "Set"), ("money.v1.Bank", "a/b")]
        {
            assert!(said(bank(), service, method).is_err(), "{service}, {method}");
            assert!(said(Methods::unknown(), service, method).is_err(), "{service}, {method}");
        }
        // Of a complete list, only what is listed.
        assert!(said(bank(), "money.v1.Bank", "Missing").is_err());
        assert!(said(bank(), "money.v1.Missing", "").is_err());
        let one = said(bank(), "money.v1.Bank", "Withdraw").unwrap();
        assert_eq!(one.safety("/money.v1.Bank/Withdraw"), Safety::NoSideEffects);
        assert_eq!(one.safety("/money.v1.Bank/Set"), Safety::Idempotent);
        let all = said(bank(), "money.v1.Bank", "").unwrap();
        assert_eq!(all.unsafe_paths().count(), 0);
        let new = said(Methods::unknown(), "a.B", "C").unwrap();
        assert_eq!(new.safety("/a.B/C"), Safety::NoSideEffects);
        assert_eq!(new.safety("/a.B/D"), Safety::Unknown);
    }
}
