//! The dashboard: its sources of data, and how it is served.

use crate::{Console, FaultRule, Feed, Map, Tile, feed::Line, places::Places};
use cinchona_core::{Mode, Secret};
use cinchona_plumbing::Trust;
use serde::Serialize;
use std::{fmt, sync::Arc};
use tokio::sync::watch;

/// A page of tiles, a feed and a console, served over HTTP/1; see the [crate] for the paths and the
/// clients allowed.
///
/// The functions given to it are called on the runtime, while requests are answered: they must not
/// block.
pub struct Dashboard {
    tiles: Box<dyn Fn() -> Vec<Tile> + Send + Sync>,
    map: Option<Box<dyn Fn() -> Map + Send + Sync>>,
    metrics: Option<Box<dyn Fn() -> String + Send + Sync>>,
    console: Option<Box<dyn Console>>,
    feed: Feed,
    trust: Trust,
    hosts: Vec<String>,
}

/// A dashboard that is being served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    dashboard: Arc<Dashboard>,
    pub(crate) watchers: Arc<Places>,
    /// Holds true, or is closed, when the server stops.
    pub(crate) is_over: watch::Receiver<bool>,
}

/// The state that the page shows, with the new lines of the feed.
#[derive(Debug, Serialize)]
pub(crate) struct State {
    /// Whether it is the first of its stream, with all lines kept.
    is_first: bool,
    /// Seconds since the feed was made, as the lines' `at`.
    now: f64,
    needs_token: bool,
    tiles: Vec<Tile>,
    map: Option<Map>,
    events: Vec<Line>,
    faults: Option<Faults>,
}

#[derive(Debug, Serialize)]
struct Faults {
    mode: Option<&'static str>,
    hint: String,
    rules: Vec<FaultRule>,
}

// === impl Dashboard ===

impl Dashboard {
    /// An empty page.
    pub fn new() -> Self {
        Self {
            tiles: Box::new(Vec::new),
            map: None,
            metrics: None,
            console: None,
            feed: Feed::new(),
            trust: Trust::new(None),
            hosts: Vec::new(),
        }
    }

    /// Shows these tiles; `tiles` is called each 500 ms per connected page.
    #[must_use]
    pub fn tiles(self, tiles: impl Fn() -> Vec<Tile> + Send + Sync + 'static) -> Self {
        Self { tiles: Box::new(tiles), ..self }
    }

    /// Shows this map of a cluster; `map` is called as often as the tiles. Without it, the page has
    /// none.
    #[must_use]
    pub fn map(self, map: impl Fn() -> Map + Send + Sync + 'static) -> Self {
        Self { map: Some(Box::new(map)), ..self }
    }

    /// Shows the lines of this feed.
    #[must_use]
    pub fn events(self, feed: Feed) -> Self {
        Self { feed, ..self }
    }

    /// Serves `/metrics`: text in Prometheus' format. Without it, the path is 404.
    #[must_use]
    pub fn metrics(self, metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { metrics: Some(Box::new(metrics)), ..self }
    }

    /// Shows the console. Without it, the page has none, and its paths are 404.
    #[must_use]
    pub fn faults(self, console: impl Console + 'static) -> Self {
        Self { console: Some(Box::new(console)), ..self }
    }

    /// Requires `authorization: Bearer <token>` for changes, which may then come from any address.
    /// Default: no token, and changes from loopback only, not through a proxy: see
    /// [`Trust`](cinchona_plumbing::Trust).
    #[must_use]
    pub fn with_token(self, token: Secret) -> Self {
        Self { trust: Trust::new(Some(token.expose())), ..self }
    }

    /// Also answers requests for these host names, without a port and in any case, such as
    /// `orders.internal`, by which a scraper or a browser reaches it. Default: none; a request for
    /// another host than loopback, or the address at which it arrived, is 421.
    ///
    /// Name only hosts whose DNS you control: a web page of a host that is named here can read what
    /// the dashboard shows to the browser in which it is open.
    #[must_use]
    pub fn with_hosts(self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { hosts: hosts.into_iter().map(Into::into).collect(), ..self }
    }

    /// Whether it was given this name.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| !own.is_empty() && own.eq_ignore_ascii_case(host))
    }

    pub(crate) fn metrics_text(&self) -> Option<String> {
        self.metrics.as_ref().map(|metrics| metrics())
    }

    pub(crate) fn console(&self) -> Option<&dyn Console> {
        self.console.as_deref()
    }

    pub(crate) const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The state with the lines after that number (`None`: all), and the number of the last.
    pub(crate) fn state(&self, after: Option<u64>) -> (State, u64) {
        let (events, last) = self.feed.after(after.unwrap_or(0));
        let faults = self.console().map(|console| Faults {
            mode: console.switch().map(|switch| mode_name(switch.mode())),
            hint: console.hint().to_owned(),
            rules: console.list(),
        });
        let state = State {
            is_first: after.is_none(),
            now: self.feed.now().as_secs_f64(),
            needs_token: self.trust.needs_token(),
            tiles: (self.tiles)(),
            map: self.map.as_ref().map(|map| map()),
            events,
            faults,
        };
        (state, last)
    }
}

impl Default for Dashboard {
    /// An empty page.
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard")
            .field("map", &self.map.is_some())
            .field("metrics", &self.metrics.is_some())
            .field("faults", &self.console.is_some())
            .field("token", &self.trust.needs_token())
            .field("hosts", &self.hosts)
            .field("feed", &self.feed.len())
            .finish_non_exhaustive()
    }
}

// === impl Served ===

impl Served {
    pub(crate) fn new(
        dashboard: Dashboard,
        watchers: Arc<Places>,
        is_over: watch::Receiver<bool>,
    ) -> Self {
        Self { dashboard: Arc::new(dashboard), watchers, is_over }
    }
}

impl std::ops::Deref for Served {
    type Target = Dashboard;

    fn deref(&self) -> &Dashboard {
        &self.dashboard
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
        Mode::Off => "off",
    }
}
