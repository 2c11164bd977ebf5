//! A headless Chromium, driven over the DevTools protocol by a pair of pipes: so neither a port nor
//! a websocket is needed.

use base64::{Engine, prelude::BASE64_STANDARD};
use outside::needed;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// A page in a browser of its own, which is killed when it is dropped.
pub(super) struct Page {
    browser: Child,
    asks: ChildStdin,
    says: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    /// What went wrong in the page, and what it has logged as errors.
    pub(super) errors: Vec<String>,
    _profile: TempDir,
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
];

/// The protocol is spoken on descriptors 3 and 4.
const PIPED: &str = r#"exec 3<&0 4>&1; exec "$@" </dev/null >/dev/null 2>&1"#;

// === impl Page ===

impl Page {
    /// The page at `url`.
    pub(super) fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Command::new("sh")
            .args(["-c", PIPED, "sh"])
            .arg(needed("chromium", "chromium"))
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (asks, mut said) =
            (browser.stdin.take().unwrap(), BufReader::new(browser.stdout.take().unwrap()));
        let (tell, says) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while said.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap();
                if tell.send(parsed).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, asked, errors) = (None, 0, Vec::new());
        let mut page = Self { browser, asks, says, session, asked, errors, _profile: profile };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = page.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        page.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.call("Page.navigate", json!({ "url": url }));
        page
    }

    /// What a command of the protocol answers.
    pub(super) fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut asked = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            asked["sessionId"] = session.as_str().into();
        }
        write!(self.asks, "{asked}\0").unwrap();
        loop {
            let said = self.says.recv_timeout(PATIENCE);
            let said = said.unwrap_or_else(|_| panic!("no answer to {method} in {PATIENCE:?}"));
            if said["id"] == self.asked {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
            self.hear(&said);
        }
    }

    fn hear(&mut self, said: &Value) {
        let params = &said["params"];
        let is_error = match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => params["type"] == "error",
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if is_error {
            self.errors.push(params.to_string());
        }
    }

    /// What the expression comes to.
    pub(super) fn evaluate(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    pub(super) fn wait_for(&mut self, expression: &str) {
        let millis = PATIENCE.as_millis() - 5000;
        let is_true = self.evaluate(&format!(
            "new Promise((done) => {{
                const until = performance.now() + {millis};
                const look = () => {{
                    if ({expression}) done(true);
                    else if (performance.now() > until) done(false);
                    else setTimeout(look, 50);
                }};
                look();
            }})"
        ));
        if is_true != true {
            let page = self.evaluate("document.body.innerText");
            panic!("not within {millis} ms: {expression}\n{}", page.as_str().unwrap_or_default());
        }
    }

    /// Presses a key that has a name.
    pub(super) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => panic!("{key} is not known here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let mut key = json!({ "type": kind, "key": key, "code": key });
            key["windowsVirtualKeyCode"] = code.into();
            if !text.is_empty() {
                key["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// Goes on with Tab until the element of that id has the focus.
    pub(super) fn tab_to(&mut self, id: &str) {
        for _ in 0..50 {
            if self.evaluate("document.activeElement.id") == id {
                return;
            }
            self.press("Tab");
        }
        panic!("Tab does not lead to {id}");
    }

    pub(super) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// The page in a window of this width, in the theme `light` or `dark`.
    pub(super) fn show(&mut self, width: u32, theme: &str) {
        let size = json!({
            "width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
        self.call("Emulation.setScrollbarsHidden", json!({ "hidden": true }));
        let theme = json!({ "name": "prefers-color-scheme", "value": theme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [theme] }));
        // Once it is drawn anew.
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))");
    }

    /// Writes the whole page into a PNG file.
    pub(super) fn screenshot(&mut self, file: &Path) {
        let size = &self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"];
        let (width, height) = (&size["width"], &size["height"]);
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let whole = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let shot = self.call("Page.captureScreenshot", whole);
        let png = BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        fs::write(file, png).unwrap();
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It ends its children; killed, it would leave them.
        self.session = None;
        if write!(self.asks, "{}\0", json!({ "id": 0, "method": "Browser.close" })).is_err() {
            _ = self.browser.kill();
        }
        while self.says.recv_timeout(Duration::from_secs(5)).is_ok() {}
        _ = self.browser.kill();
        _ = self.browser.wait();
    }
}
