//! A headless Chromium, driven by its DevTools protocol over a pipe: JSON messages, each with a zero behind it. No crate is
//! wanted for that, and no port that another program could reach. Decides nothing about the page.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// The browser with one tab. It ends with this.
pub struct Browser {
    process: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
    folder: PathBuf,
    /// The tab.
    session: String,
    number: u64,
    /// What the tab told without being asked.
    told: VecDeque<Value>,
}

/// Whether there is a Chromium; else why not.
pub fn program() -> Result<&'static str, String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    names.into_iter().find(is_there).ok_or_else(|| "no chromium is installed".to_owned())
}

impl Browser {
    /// Starts one with nothing in it.
    pub fn start(program: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lvsd-browser-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("it can be made");
        // The pipe is at the descriptors 3 and 4; a shell puts it there.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", "sh", program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
            .args(["--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", folder.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let say = process.stdin.take().expect("it is piped");
        let hear = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut browser = Self { process, say, hear, folder, session: String::new(), number: 0, told: VecDeque::new() };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Has the browser do something, and returns what it says of it.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.try_ask(method, &parameters).unwrap_or_else(|| panic!("{method} {parameters}: the browser refuses"))
    }

    /// The same; `None` where the browser could not.
    fn try_ask(&mut self, method: &str, parameters: &Value) -> Option<Value> {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        write!(self.say, "{message}\0").and_then(|()| self.say.flush()).expect("the browser listens");
        loop {
            let answer = self.next();
            if answer["id"] == self.number {
                return answer.get("result").cloned();
            }
            self.told.push_back(answer);
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.hear.read_until(0, &mut bytes).expect("the browser talks");
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&bytes).expect("it talks JSON")
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url }));
        self.wait_for("document.body?.dataset.shown === 'yes'");
    }

    /// Has the window this size, light or dark.
    pub fn look(&mut self, (width, height): (u32, u32), scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", media);
    }

    /// What an expression comes to in the page; a promise is waited for.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page, for two minutes at most.
    pub fn wait_for(&mut self, expression: &str) {
        let look = format!(
            "new Promise((done, fail) => {{ const begun = Date.now(); const look = () => {{ let is = false; \
             try {{ is = {expression}; }} catch {{}} \
             is ? done(true) : Date.now() - begun > 120000 ? fail(new Error('never so')) : setTimeout(look, 50); }}; look(); }})"
        );
        let parameters = json!({ "expression": look, "awaitPromise": true, "returnByValue": true });
        // A page that is left takes the promise with it: the next one is asked.
        let answer = loop {
            if let Some(answer) = self.try_ask("Runtime.evaluate", &parameters) {
                break answer;
            }
        };
        let text = self.evaluate("document.body?.innerText ?? ''");
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}\n{text}");
    }

    /// What the page complained of: exceptions, errors in the console, what the browser logged as an error.
    pub fn complaints(&mut self) -> Vec<String> {
        let is_complaint = |told: &&Value| match told["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => matches!(told["params"]["type"].as_str(), Some("error" | "warning")),
            "Log.entryAdded" => matches!(told["params"]["entry"]["level"].as_str(), Some("error" | "warning")),
            _ => false,
        };
        self.told.iter().filter(is_complaint).map(Value::to_string).collect()
    }

    /// Every address that the page asked for.
    pub fn requests(&self) -> Vec<String> {
        let asked = self.told.iter().filter(|told| told["method"] == "Network.requestWillBeSent");
        asked.filter_map(|told| Some(told["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }

    /// The page as a picture (PNG): what is in sight, or so many pixels from its top.
    pub fn picture(&mut self, size: Option<(u32, u32)>) -> Vec<u8> {
        let mut parameters = json!({ "format": "png", "optimizeForSpeed": false });
        if let Some((width, height)) = size {
            parameters["clip"] = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
            parameters["captureBeyondViewport"] = true.into();
        }
        let answer = self.ask("Page.captureScreenshot", parameters);
        decoded(answer["data"].as_str().expect("a picture"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Base64 (RFC 4648 §4).
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte)) {
        (bits, count) = (bits << 6 | digit as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
