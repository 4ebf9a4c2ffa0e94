//! The page in a real browser: a headless Chromium looks at `lvsd demo --page`, where real HTTP goes through a real director.
//! Skipped where there is no Chromium, or the demo's namespaces are denied; both say so.
//!
//! `LVS_PICTURES=FOLDER cargo test -p lvs-director --test page` leaves pictures of it there, among them the one that the README
//! shows (`page-desk-light.png`, there `docs/src/pictures/page.png`).

mod browser;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use browser::Browser;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The demo with its page. It ends with this.
struct Demo {
    process: Child,
    address: String,
}

impl Demo {
    /// Starts it at a port that was free a moment ago; `Err` is why it cannot be.
    fn start() -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free");
        let address = free.to_string();
        let mut process = Command::new(env!("CARGO_BIN_EXE_lvsd"))
            .args(["demo", &format!("--page={address}")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lvsd starts");
        let mut said = String::new();
        BufReader::new(process.stderr.as_mut().expect("it is piped")).read_line(&mut said).expect("it is text");
        if said.contains("the page is at") {
            return Ok(Self { process, address });
        }
        let _ = process.wait();
        Err(said.trim().to_owned())
    }

    /// What lvsd itself says.
    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        serde_json::from_str(text.split_once("\r\n\r\n").expect("a body").1).expect("it is JSON")
    }

    fn connections(&self, service: &str) -> u64 {
        let services = self.get("/api/v1/services");
        let found = services["services"].as_array().unwrap().iter().find(|one| one["service"] == service);
        found.expect("it is there")["statistics"]["connections"].as_u64().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::INT);
        let _ = self.process.wait();
    }
}

#[test]
fn the_page_shows_what_the_director_does_and_what_is_done_there_is_done() {
    let started = browser::program().and_then(|program| Ok((Demo::start()?, Browser::start(program))));
    let (demo, mut browser) = match started {
        Ok(started) => started,
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "skipped: the page in a browser: {reason}");
            return;
        }
    };
    let url = format!("http://{}/", demo.address);
    browser.look((1280, 900), "light");
    browser.open(&url);
    the_numbers_are_the_directors(&mut browser, &demo);
    a_packet_is_explained(&mut browser);
    connections_are_listed(&mut browser);
    a_weight_and_a_drain_count(&mut browser, &demo);
    pictures(&mut browser);
    let refused = |complaint: &String| complaint.contains("400 (Bad Request)") && complaint.contains("/api/v1/explain");
    let complaints = browser.complaints();
    assert_eq!(complaints.iter().filter(|complaint| refused(complaint)).count(), 1, "the packet that is none");
    assert_eq!(complaints.into_iter().filter(|complaint| !refused(complaint)).collect::<Vec<_>>(), [""; 0]);
    let elsewhere = |request: &String| !request.starts_with(&url) && !request.starts_with("data:");
    assert_eq!(
        browser.requests().into_iter().filter(elsewhere).collect::<Vec<_>>(),
        [""; 0],
        "requests left for elsewhere"
    );
}

const SERVICE: &str = "tcp:192.0.2.80:80";
const SERVER: &str = "10.2.0.11:8080";

fn the_numbers_are_the_directors(browser: &mut Browser, demo: &Demo) {
    let shown = "parseInt(document.querySelector('[data-service=\"tcp:192.0.2.80:80\"] .head').children[4].textContent.replaceAll(',', ''))";
    let before = demo.connections(SERVICE);
    browser.wait_for(&format!("{shown} > {before}"));
    let seen = browser.evaluate(shown).as_u64().unwrap();
    let after = demo.connections(SERVICE);
    assert!(before < seen && seen <= after, "{before} < {seen} <= {after}");
    let servers =
        browser.evaluate("[...document.querySelectorAll('[data-server]')].map(row => row.dataset.server).sort()");
    let mut expected: Vec<String> = Vec::new();
    for service in demo.get("/api/v1/services")["services"].as_array().unwrap() {
        expected.extend(
            service["servers"].as_array().unwrap().iter().map(|one| one["server"].as_str().unwrap().to_owned()),
        );
    }
    expected.sort();
    assert_eq!(servers, json!(expected));
}

fn a_packet_is_explained(browser: &mut Browser) {
    browser.evaluate("$('packet').value = 'tcp 10.1.0.1:1024 > 192.0.2.80:80'; $('ask').requestSubmit()");
    browser.wait_for("$('explanation').textContent.includes('scheduler wrr chooses') && $('explanation').textContent.includes('verdict: forward')");
    browser.evaluate("$('packet').value = 'nonsense'; $('ask').requestSubmit()");
    browser.wait_for("$('explanation').textContent.includes('no protocol')");
    browser.evaluate("$('packet').value = ''; $('ask').requestSubmit()");
    browser.wait_for("$('explanation').textContent.includes('verdict:')");
}

fn connections_are_listed(browser: &mut Browser) {
    browser.wait_for("[...document.querySelectorAll('.active')].some(cell => cell.textContent > 0)");
    browser.evaluate("$('client').value = '10.1.0.1'; $('filter').requestSubmit()");
    browser.wait_for("$('connections').textContent.includes('10.1.0.1:')");
}

fn a_weight_and_a_drain_count(browser: &mut Browser, demo: &Demo) {
    let row = format!("document.querySelector('[data-server=\"{SERVER}\"]')");
    let server = |demo: &Demo| {
        let list = demo.get(&format!("/api/v1/servers?service={SERVICE}"));
        list["servers"].as_array().unwrap().iter().find(|one| one["server"] == SERVER).unwrap().clone()
    };
    browser
        .evaluate(&format!("{row}.querySelector('button').click(); $('weight').value = 5; $('weigh').requestSubmit()"));
    browser.wait_for(&format!("!$('server').open && {row}.querySelector('.weight').textContent === '5'"));
    assert_eq!(server(demo)["weight"], 5);
    browser.evaluate(&format!(
        "{row}.querySelector('button').click(); $('deadline').value = '3s'; $('drain').requestSubmit()"
    ));
    browser.wait_for(&format!("!$('server').open && /draining, \\d+ left/.test({row}.textContent)"));
    assert!(!server(demo)["drain"].is_null(), "it drains");
    browser.wait_for(&format!("/drained/.test({row}.textContent)"));
    assert_eq!(server(demo)["drain"]["ends_in_ms"], 0, "it has ended there too");
    browser.evaluate(&format!("{row}.querySelector('button').click(); $('back').click()"));
    browser.wait_for(&format!("!$('server').open && {row}.querySelector('.state').textContent === 'up'"));
    assert_eq!(server(demo)["drain"], Value::Null);
}

/// Nothing is wider than the window, at a desk's width and a phone's; pictures where they are asked for.
fn pictures(browser: &mut Browser) {
    let folder = std::env::var_os("LVS_PICTURES").map(std::path::PathBuf::from);
    if folder.is_some() {
        // Lines of a minute and a half.
        browser.wait_for("document.querySelector('.tile svg').samples.length >= 45");
    }
    for (name, size) in [("desk", (1280, 900)), ("phone", (390, 844))] {
        for scheme in ["light", "dark"] {
            browser.look(size, scheme);
            let width = browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap();
            assert!(width <= u64::from(size.0), "{name}: it is {width} wide");
            let Some(folder) = &folder else { continue };
            let height = browser.evaluate("document.documentElement.scrollHeight").as_u64().unwrap() as u32;
            let height = height.min(PICTURE_HEIGHT);
            let picture = browser.picture(Some((size.0, height)));
            std::fs::write(folder.join(format!("page-{name}-{scheme}.png")), picture).expect("it can be written");
        }
    }
}

/// What there is below is seen as well as this.
const PICTURE_HEIGHT: u32 = 1300;
