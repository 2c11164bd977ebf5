//! The endpoints of a client.

use super::{Channel, Layers, Settings};
use cinchona_balance::{Balance, Dns, Options};
use cinchona_core::{Address, Discover, Invalid, Target};
use http::Uri;
use std::{collections::HashMap, sync::Arc};
use tokio::runtime::Handle;
use tonic::transport::{ClientTlsConfig, Endpoint};

/// The argument of [`Settings::connect`]; its parameter is the kind of endpoints, and is inferred.
pub trait Endpoints<Kind> {
    /// Builds a client of them.
    ///
    /// # Errors
    /// As [`Settings::connect`].
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid>;
}

/// The kinds of endpoints.
#[doc(hidden)]
pub mod kind {
    /// An address.
    #[derive(Debug)]
    pub enum Text {}
    /// Several addresses.
    #[derive(Debug)]
    pub enum Texts {}
    /// tonic's endpoint.
    #[derive(Debug)]
    pub enum Tonics {}
    /// tonic's endpoints.
    #[derive(Debug)]
    pub enum AllTonics {}
    /// A source of endpoints.
    #[derive(Debug)]
    pub enum Source {}
}

const NAME: &str = "dns:///host:port, dns:http://host:port or dns:https://host:port";

// === impl Settings ===

impl Settings {
    /// A client of these endpoints:
    ///
    /// | endpoints | |
    /// |---|---|
    /// | `"http://orders.internal:50051"` | one endpoint |
    /// | `"dns:///orders.internal:50051"` | each address of the name; TLS after [`with_tls`] |
    /// | `["http://10.0.0.1:50051", "http://10.0.0.2:50051"]` | these |
    /// | `"unix:///run/orders.sock"`, `"unix-abstract:name"` | a Unix domain socket |
    /// | `tonic::transport::Endpoint`, a `Vec` of them | with their own settings; not of sockets |
    /// | a [`Discover`](cinchona_core::Discover) | the endpoints that it finds |
    ///
    /// [`with_tls`]: Self::with_tls
    ///
    /// # Errors
    /// When an address is invalid, a number is outside its range, a name is not that of a method in
    /// the descriptor set, or there is no tokio runtime.
    pub fn connect<K>(&self, endpoints: impl Endpoints<K>) -> Result<Channel, Invalid> {
        endpoints.connect(self)
    }
}

// === impl Endpoints ===

impl Endpoints<kind::Text> for &str {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        let client = Client::new(settings, self)?;
        // A scheme has no case (RFC 3986, section 3.1).
        if let Some((scheme, name)) = self.split_once(':')
            && scheme.eq_ignore_ascii_case("dns")
        {
            let uri = uri_of(self, name, settings.tls.is_some())?;
            secured(settings, &uri.clone().into())?;
            return client.of(Dns::new(uri), Options::default());
        }
        let target = self.parse::<Target>()?;
        secured(settings, &target)?;
        client.of(vec![target], Options::of_one_endpoint())
    }
}

impl Endpoints<kind::Text> for String {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        self.as_str().connect(settings)
    }
}

impl Endpoints<kind::Text> for &String {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        self.as_str().connect(settings)
    }
}

impl<T: AsRef<str>> Endpoints<kind::Texts> for &[T] {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        let texts: Vec<&str> = self.iter().map(AsRef::as_ref).collect();
        if let [one] = texts[..] {
            return one.connect(settings);
        }
        if texts.is_empty() {
            return Err(Invalid::new("endpoints", "an empty list", "at least one endpoint"));
        }
        let targets = texts.iter().map(|text| text.parse::<Target>());
        let targets: Vec<Target> = targets.collect::<Result<_, _>>()?;
        targets.iter().try_for_each(|target| secured(settings, target))?;
        Client::new(settings, &texts.join(","))?.of(targets, Options::default())
    }
}

impl<T: AsRef<str>> Endpoints<kind::Texts> for Vec<T> {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        self[..].connect(settings)
    }
}

impl<T: AsRef<str>> Endpoints<kind::Texts> for &Vec<T> {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        self[..].connect(settings)
    }
}

impl<T: AsRef<str>, const N: usize> Endpoints<kind::Texts> for [T; N] {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        self[..].connect(settings)
    }
}

impl Endpoints<kind::Tonics> for Endpoint {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        vec![self].connect(settings)
    }
}

impl Endpoints<kind::AllTonics> for Vec<Endpoint> {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        if self.is_empty() {
            return Err(Invalid::new("endpoints", "an empty list", "at least one endpoint"));
        }
        let mut known: HashMap<Uri, Endpoint> = HashMap::new();
        for endpoint in &self {
            let uri = endpoint.uri();
            // What tonic has in place of the URI of a socket.
            if uri.authority().is_some_and(|authority| authority == "tonic") {
                let rule = "the text unix:/path: an Endpoint does not tell which socket it is of";
                return Err(Invalid::new("endpoint", "a Unix domain socket", rule));
            }
            if known.insert(uri.clone(), endpoint.clone()).is_some() {
                return Err(Invalid::new("endpoints", shown(&uri.to_string()), "each URI once"));
            }
        }
        let names: Vec<String> = self.iter().map(|one| one.uri().to_string()).collect();
        let client = Client::new(settings, &names.join(","))?;
        let targets: Vec<Target> =
            self.into_iter().map(|endpoint| endpoint.uri().clone().into()).collect();
        targets.iter().try_for_each(|target| secured(settings, target))?;
        let options = match targets.len() {
            1 => Options::of_one_endpoint(),
            _ => Options::default(),
        };
        // These are as the balancer would make them.
        client.with_known(known).of(targets, options)
    }
}

impl<D: Discover> Endpoints<kind::Source> for D {
    fn connect(self, settings: &Settings) -> Result<Channel, Invalid> {
        Client::new(settings, "channel")?.of(self, Options::default())
    }
}

/// A client in the making.
struct Client<'a> {
    settings: &'a Settings,
    layers: Layers,
    known: HashMap<Uri, Endpoint>,
}

// === impl Client ===

impl<'a> Client<'a> {
    /// # Errors
    /// When a setting is wrong, or there is no runtime.
    fn new(settings: &'a Settings, endpoints: &str) -> Result<Self, Invalid> {
        if Handle::try_current().is_err() {
            return Err(Invalid::new("runtime", "none", "a tokio runtime around the call"));
        }
        let layers = match &settings.target {
            Some(_) => settings.layers()?,
            None => settings.clone().with_target(shown(endpoints)).layers()?,
        };
        Ok(Self { settings, layers, known: HashMap::new() })
    }

    fn with_known(self, known: HashMap<Uri, Endpoint>) -> Self {
        Self { known, ..self }
    }

    /// `options` where the settings have none.
    fn of(self, endpoints: impl Discover, options: Options) -> Result<Channel, Invalid> {
        let Self { settings, layers, known } = self;
        let options = settings.balance.clone().unwrap_or(options);
        let options = Options { rng: settings.rng.clone(), ..options };
        let options = match &settings.service_config {
            Some(config) => config.balance(options),
            None => options,
        };
        let options = configured(options, settings, known);
        let balance: Balance = layers.balance(endpoints, options)?;
        Ok(layers.around(balance))
    }
}

/// Configures each connection by the user's endpoint, or by the TLS settings, then by `options`,
/// and then by the settings.
fn configured(options: Options, settings: &Settings, known: HashMap<Uri, Endpoint>) -> Options {
    let must_be_tls = settings.tls.is_some();
    let tls = settings.tls.clone();
    let tls = tls.unwrap_or_else(|| ClientTlsConfig::new().with_enabled_roots());
    let (theirs, changes) = (options.configure, settings.configure.clone());
    let configure = move |endpoint: Endpoint| {
        let is_tls = endpoint.uri().scheme_str() == Some("https");
        let (endpoint, is_ours) = match known.get(endpoint.uri()) {
            Some(known) => (known.clone(), false),
            None if is_tls => (endpoint.tls_config(tls.clone())?, false),
            // What a source has found.
            None if must_be_tls && !is_local(endpoint.uri()) => {
                return Err(format!("with_tls was set, so the endpoint must be {SECURED}").into());
            }
            None => (endpoint, true),
        };
        let theirs = match &theirs {
            Some(theirs) => theirs(endpoint.clone())?,
            None => None,
        };
        if is_ours && changes.is_empty() && theirs.is_none() {
            return Ok(None);
        }
        let endpoint = theirs.unwrap_or(endpoint);
        changes.iter().try_fold(endpoint, |endpoint, change| change(endpoint)).map(Some)
    };
    Options { configure: Some(Arc::new(configure)), ..options }
}

/// What an endpoint has to be after `with_tls`.
const SECURED: &str = "https://host:port or a Unix domain socket";

/// Refuses to connect to `target` in the clear where TLS is configured.
fn secured(settings: &Settings, target: &Target) -> Result<(), Invalid> {
    let is_socket = matches!(target.addresses[..], [Address::Unix(_) | Address::UnixAbstract(_)]);
    match target.is_tls() || settings.tls.is_none() || is_socket {
        true => Ok(()),
        // The URI may hold a password.
        false => Err(Invalid::new("endpoint", target.clone().without_userinfo(), SECURED)),
    }
}

/// Whether it is what a Unix domain socket has for a URI: of what a source finds, nothing else is
/// known here.
fn is_local(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| authority == "localhost")
}

/// The URI of a name that is looked up, of `https` where nothing says which and TLS is wanted.
fn uri_of(text: &str, name: &str, is_tls: bool) -> Result<Uri, Invalid> {
    let refused = || Invalid::new("target", format!("{:?}", shown(text)), NAME);
    let name = match name.strip_prefix("///") {
        Some(host) if is_tls => format!("https://{host}"),
        Some(host) => format!("http://{host}"),
        None => name.to_owned(),
    };
    let uri: Uri = name.parse().map_err(|_| refused())?;
    let is_named = uri.host().is_some_and(|host| !host.is_empty());
    let has_port = uri.port().is_some() || uri.scheme_str() == Some("https");
    match uri.scheme_str() {
        Some("http" | "https") if is_named && has_port => Ok(uri),
        _ => Err(refused()),
    }
}

/// Without the part before an `@`, which may contain a password.
fn shown(text: &str) -> String {
    let bare = |one: &str| match (one.split_once("//"), one.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}//{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => one.to_owned(),
    };
    text.split(',').map(bare).collect::<Vec<_>>().join(",")
}
