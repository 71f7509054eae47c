//! A tab: its actions, and the errors that occur in it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::Engine;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::eventually;
use tokio::sync::broadcast::error::RecvError;

use crate::devtools::{Devtools, Event};

/// The timeout of a page, for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const AXE: &str = include_str!("../axe-core/axe.min.js");

/// The size and colour scheme of a page.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// The width in CSS pixels.
    pub width: u32,
    /// Whether the system prefers dark colours.
    pub dark: bool,
}

impl Look {
    fn is_phone(self) -> bool {
        self.width < 600
    }
}

/// The events that a tab recorded.
#[derive(Debug, Default)]
struct Notes {
    complaints: Vec<String>,
    requests: Vec<String>,
}

/// A tab of a [`crate::Chromium`].
#[derive(Debug)]
pub struct Tab {
    devtools: Devtools,
    target: String,
    session: String,
    notes: Arc<Mutex<Notes>>,
}

impl Tab {
    pub(crate) async fn new(devtools: Devtools, look: Look) -> Self {
        let target = devtools.call("", "Target.createTarget", json!({ "url": "about:blank" })).await.expect("a tab");
        let target = target["targetId"].as_str().expect("its name").to_owned();
        let attached = devtools.call("", "Target.attachToTarget", json!({ "targetId": target, "flatten": true })).await;
        let session = attached.expect("a session")["sessionId"].as_str().expect("its name").to_owned();
        let tab = Self { devtools, target, session, notes: Arc::default() };
        tab.note();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({})).await;
        }
        let (height, scale) = if look.is_phone() { (844, 2) } else { (860, 1) };
        let size =
            json!({ "width": look.width, "height": height, "deviceScaleFactor": scale, "mobile": look.is_phone() });
        tab.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        tab.call("Emulation.setEmulatedMedia", features).await;
        tab
    }

    /// Records the tab's errors and requests from now on.
    fn note(&self) {
        let (mut events, session, notes) = (self.devtools.events(), self.session.clone(), self.notes.clone());
        tokio::spawn(async move {
            loop {
                let mut complaint = match events.recv().await {
                    Ok(event) if event.session != session => continue,
                    Ok(event) if event.method == "Network.requestWillBeSent" => {
                        let url = event.params["request"]["url"].as_str().unwrap_or_default().to_owned();
                        notes.lock().unwrap_or_else(PoisonError::into_inner).requests.push(url);
                        continue;
                    }
                    Ok(event) => complaint(&event),
                    Err(RecvError::Lagged(_)) => Some("more happened than was noted".to_owned()),
                    Err(RecvError::Closed) => return,
                };
                notes.lock().unwrap_or_else(PoisonError::into_inner).complaints.extend(complaint.take());
            }
        });
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        self.devtools.call(&self.session, method, params).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens an address.
    ///
    /// # Panics
    /// If the page does not load.
    pub async fn open(&self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.finds("document.readyState === 'complete'").await;
    }

    /// Runs scripts of pages from now on, or runs none. A script of the test runs either way, unless it
    /// waits.
    pub async fn allow_scripts(&self, allowed: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !allowed })).await;
    }

    /// Waits until the page has this text.
    pub async fn sees(&self, text: &str) {
        self.finds(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Waits until a script finds it true.
    pub async fn finds(&self, script: &str) {
        let found = async {
            while self.try_ask(script).await != Ok(json!(true)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(TIMEOUT, found).await.is_err() {
            let page = self.try_ask("location.href + '\\n' + document.body.innerText").await;
            panic!("within {TIMEOUT:?} it should have come true that {script}; the page is {page:#?}");
        }
    }

    /// The result of a script, or of its promise.
    ///
    /// # Panics
    /// If the script fails.
    pub async fn ask<T: DeserializeOwned>(&self, script: &str) -> T {
        let answer = self.try_ask(script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        serde_json::from_value(answer).expect("an answer of this kind")
    }

    /// Fails while the tab changes pages.
    async fn try_ask(&self, script: &str) -> Result<Value, String> {
        let params = json!({ "expression": script, "returnByValue": true, "awaitPromise": true, "userGesture": true });
        let mut answer = self.devtools.call(&self.session, "Runtime.evaluate", params).await?;
        match answer.get("exceptionDetails") {
            Some(exception) => Err(exception.to_string()),
            None => Ok(answer["result"]["value"].take()),
        }
    }

    /// The text of an element.
    pub async fn text(&self, selector: &str) -> String {
        self.ask(&format!("document.querySelector({})?.innerText ?? ''", json!(selector))).await
    }

    /// Presses the button or the link with this text, within the element that `within` selects.
    pub async fn press(&self, within: &str, text: &str) {
        let within = if within.is_empty() { "body" } else { within };
        let found = format!(
            "[...document.querySelectorAll({} + ' :is(a, button, summary)')].find(e => e.innerText?.trim() === {})",
            json!(within),
            json!(text)
        );
        self.click(&found).await;
    }

    /// Clicks the centre of the element once nothing covers it.
    async fn click(&self, found: &str) {
        let script = format!(
            "(() => {{ const e = {found}; if (!e) return null; e.scrollIntoView({{ block: 'center', behavior: 'instant' }});
              const r = e.getClientRects()[0]; if (!r) return null; const at = [r.x + r.width / 2, r.y + r.height / 2];
              const top = document.elementFromPoint(...at); return top && (e.contains(top) || top.contains(e)) ? at : null; }})()"
        );
        eventually(&format!("there is {found}"), async || {
            let Ok(Value::Array(at)) = self.try_ask(&script).await else { return false };
            for kind in ["mousePressed", "mouseReleased"] {
                let press = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
                self.call("Input.dispatchMouseEvent", press).await;
            }
            true
        })
        .await;
    }

    /// Moves the pointer to the element that a script finds.
    pub async fn hover(&self, found: &str) {
        let (x, y): (f64, f64) = self
            .ask(&format!("(r => [r.left + r.width / 2, r.top + r.height / 2])({found}.getBoundingClientRect())"))
            .await;
        self.call("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": x, "y": y })).await;
    }

    /// Presses a key, by its name.
    pub async fn key(&self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key })).await;
        }
    }

    /// Types into a field, then presses Enter if `enter`.
    pub async fn types(&self, selector: &str, text: &str, enter: bool) {
        self.click(&format!("document.querySelector({})", json!(selector))).await;
        self.call("Input.insertText", json!({ "text": text })).await;
        if enter {
            let key = |kind: &str| json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" });
            self.call("Input.dispatchKeyEvent", key("keyDown")).await;
            self.call("Input.dispatchKeyEvent", key("keyUp")).await;
        }
    }

    /// Waits until the tab is at this path.
    pub async fn is_at(&self, path: &str) {
        self.finds(&format!("location.pathname === {} && document.readyState === 'complete'", json!(path))).await;
    }

    /// Brings the tab to the front.
    pub async fn to_front(&self) {
        self.call("Page.bringToFront", json!({})).await;
    }

    /// Closes the tab.
    ///
    /// # Panics
    /// If Chromium has ended.
    pub async fn close(&self) {
        let closed = self.devtools.call("", "Target.closeTarget", json!({ "targetId": self.target })).await;
        closed.expect("the tab is there");
    }

    /// A screenshot of the whole page, as PNG.
    ///
    /// # Panics
    /// If Chromium returns none.
    pub async fn picture(&self) -> Vec<u8> {
        let metrics = self.call("Page.getLayoutMetrics", json!({})).await;
        let (width, height) = (&metrics["cssContentSize"]["width"], &metrics["cssContentSize"]["height"]);
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let params = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.call("Page.captureScreenshot", params).await;
        let picture = picture["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(picture).expect("base64")
    }

    /// Checks the page with axe-core, injected by the protocol, so that the page's policy stays
    /// unchanged.
    ///
    /// # Panics
    /// If axe-core reports a serious or critical problem.
    pub async fn is_accessible(&self) {
        self.try_ask(AXE).await.expect("axe-core loads");
        let run = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
            .filter(({ impact }) => impact === 'serious' || impact === 'critical')
            .map(({ id, nodes }) => [id, ...nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`)]))";
        let found: Vec<Vec<String>> = self.ask(run).await;
        let place: String = self.ask("location.href").await;
        assert!(found.is_empty(), "{place}: {found:#?}");
    }

    /// Checks that nothing is wider than the window.
    ///
    /// # Panics
    /// If an element is.
    pub async fn fits(&self) {
        // Not `innerWidth`: on a phone it grows with the content.
        let (wide, window): (f64, f64) =
            self.ask("[document.documentElement.scrollWidth, document.documentElement.clientWidth]").await;
        let place: String = self.ask("location.href").await;
        assert!(wide <= window, "{place} is {wide} wide in a window of {window}");
    }

    /// Checks everything that happened in this tab.
    ///
    /// # Panics
    /// If there was an error, or a request to another origin.
    pub fn was_good(&self, origin: &str) {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // A live page that loads itself again after its session has ended rejects the redirect to the
        // sign-in page, and the browser logs that.
        let is_end_of_session = |entry: &String| entry.contains("net::ERR_FAILED") && entry.contains("/sign-in?next=");
        let complaints: Vec<&String> = notes.complaints.iter().filter(|entry| !is_end_of_session(entry)).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        assert!(notes.requests.len() > 5, "requests are seen: {:?}", notes.requests);
        let ours = |url: &&String| url.starts_with(&format!("{origin}/")) || url.starts_with("data:");
        let others: Vec<&String> = notes.requests.iter().filter(|url| !ours(url)).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

/// The error in an event, if any.
fn complaint(event: &Event) -> Option<String> {
    let params = &event.params;
    let wrong = match event.method.as_str() {
        "Log.entryAdded" => params["entry"]["level"] == "error",
        "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "assert",
        "Runtime.exceptionThrown" | "Page.javascriptDialogOpening" => true,
        _ => false,
    };
    wrong.then(|| format!("{}: {params}", event.method))
}

impl Drop for Tab {
    /// Prints the recorded errors if the test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!(
                "complaints: {:#?}\nlast requests: {:#?}",
                notes.complaints,
                notes.requests.iter().rev().take(8).collect::<Vec<_>>()
            );
        }
    }
}
