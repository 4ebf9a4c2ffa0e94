//! HTTP as a program at the other end of a connection sees it: a control thread and a worker that sees no device, and
//! connections that are memory.

use std::collections::BTreeSet;
use std::rc::Rc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use lvs_core::{Director, DirectorConfig, Seed};
use lvs_io::{MemoryPort, MonotonicClock, Worker, WorkerHandle};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::guard::{Access, Visitor};
use super::routes::{ROUTES, Site};
use super::server;
use super::token::Token;
use crate::args;
use crate::configuration::Configuration;
use crate::control::{Control, Peer, Setup};
use crate::files::Files;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const RULES: &str = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 3\n\
                     -a -t 192.0.2.80:80 -r 10.0.0.3:80 -m -w 1\n-A -u [2001:db8::53]:53 -s rr -p 300\n\
                     -a -u [2001:db8::53]:53 -r [fd00::2]:53 -m -w 1\n-A -f 7 -s wlc\n";

/// A director that is asked.
struct Bed {
    control: Control,
    handle: WorkerHandle,
    worker: Option<std::thread::JoinHandle<()>>,
}

impl Bed {
    fn with(rules: &str) -> Self {
        let options = args::Run::default();
        let mut configuration = Configuration::of(&options).unwrap();
        configuration.devices = crate::devices::Devices::Tun(Vec::new());
        let files = Files::of(&options, configuration, 1).unwrap();
        let config = DirectorConfig::default();
        let director = |rules: &str| {
            let mut director = Director::new(config.clone(), Seed::new(1));
            crate::rules::load(&mut director, rules).unwrap();
            director
        };
        let (_, device) = MemoryPort::pair(16);
        let mut worker = Worker::new(director(rules), device.into_arm(), None).unwrap();
        let handle = worker.handle();
        let worker = std::thread::spawn(move || worker.run().unwrap());
        let control = Control::start(Setup {
            listeners: Vec::new(),
            master: director(rules),
            config: config.clone(),
            workers: vec![handle.clone()],
            clock: MonotonicClock::new(),
            steering: None,
            addresses: Vec::new(),
            queues: Vec::new(),
            host_rules: None,
            journal: None,
            files,
        });
        Self { control: control.unwrap(), handle, worker: Some(worker) }
    }

    /// Has `visit` come in by a door that lets it do this much.
    fn visit<F: Future<Output = ()>>(&self, access: Access, visit: impl FnOnce(Caller) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let site = Rc::new(Site::new(self.control.asker(), Token::of(TOKEN), Access::Read));
        let peer = Peer::Process { uid: 0, pid: 1 };
        LocalSet::new().block_on(&runtime, visit(Caller { site, visitor: Visitor { access, peer } }));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Somebody who asks, a connection each time.
#[derive(Clone)]
struct Caller {
    site: Rc<Site>,
    visitor: Visitor,
}

/// What was answered.
struct Heard {
    status: StatusCode,
    content_type: String,
    text: String,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Caller {
    async fn send(&self, request: Request<Full<Bytes>>) -> hyper::Response<hyper::body::Incoming> {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::task::spawn_local(server::converse(far, self.visitor, Rc::clone(&self.site)));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::task::spawn_local(connection);
        sender.send_request(request).await.unwrap()
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Heard {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request.body(Full::from(body.to_owned())).unwrap()).await;
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let content_type = head.headers.get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
        Heard { status: head.status, content_type, text }
    }

    async fn get(&self, path: &str) -> Heard {
        self.ask("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Heard {
        self.ask("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }
}

fn description() -> Value {
    serde_json::from_str(include_str!("openapi.json")).expect("it is JSON")
}

/// A body for each path that takes one.
fn body_for(path: &str) -> Option<Value> {
    let server = json!({ "service": "tcp:192.0.2.80:80", "server": "10.0.0.2:80" });
    let with = |name: &str, value: Value| {
        let mut body = server.clone();
        body[name] = value;
        body
    };
    Some(match path {
        "/api/v1/explain" => json!({ "packet": "tcp 198.51.100.7:1024 > 192.0.2.80:80" }),
        "/api/v1/plan" => json!({ "rules": "-A -t 192.0.2.80:80 -s wlc\n" }),
        "/api/v1/apply" => json!({ "commands": ["-A -t 192.0.2.81:80 -s rr"] }),
        "/api/v1/drain" => with("deadline", "60s".into()),
        "/api/v1/undrain" => server.clone(),
        "/api/v1/weight" => with("weight", 5.into()),
        _ => return None,
    })
}

#[test]
fn the_description_has_every_path_and_no_other_and_says_which_take_the_token() {
    let description = description();
    let paths = description["paths"].as_object().unwrap();
    let described: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .iter()
                .map(move |(method, what)| (method.to_uppercase(), path.clone(), what.get("security").is_some()))
        })
        .collect();
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned(), route.needs == Access::Full))
        .collect();
    assert_eq!(described, routes);
}

#[test]
fn answers_have_the_names_that_are_described() {
    let description = description();
    let bed = Bed::with(RULES);
    bed.visit(Access::Full, |caller| async move {
        for route in ROUTES {
            let described = &description["paths"][route.path][route.method.to_lowercase()];
            let content = &described["responses"]["200"]["content"];
            let Some(schema) = content["application/json"].get("schema").filter(|schema| schema.get("$ref").is_some())
            else {
                continue;
            };
            let heard = match body_for(route.path) {
                Some(body) => {
                    check(
                        &description,
                        &described["requestBody"]["content"]["application/json"]["schema"],
                        &body,
                        route.path,
                    );
                    caller.post(route.path, &body).await
                }
                None if route.path == "/api/v1/servers" => {
                    caller.get("/api/v1/servers?service=tcp:192.0.2.80:80").await
                }
                None => caller.get(route.path).await,
            };
            assert_eq!(heard.status, StatusCode::OK, "{}: {}", route.path, heard.text);
            check(&description, schema, &heard.json(), route.path);
        }
    });
}

/// Whether a value has the names of its schema, all of them and no other, and values of its types.
fn check(description: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.rsplit('/').next().unwrap();
        let schema = &description["components"]["schemas"][name];
        assert!(schema.is_object(), "{name} is not described");
        return check(description, schema, value, at);
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        if !value.is_null() {
            check(description, &any[0], value, at);
        }
        return;
    }
    let is = |name: &str| {
        schema["type"] == name || schema["type"].as_array().is_some_and(|names| names.contains(&name.into()))
    };
    let fits = match value {
        Value::Null => is("null"),
        Value::Bool(_) => is("boolean"),
        Value::Number(_) => is("integer"),
        Value::String(_) => is("string"),
        Value::Array(_) => is("array"),
        Value::Object(_) => is("object"),
    };
    assert!(fits, "{at}: {value} is not {}", schema["type"]);
    if let Some(known) = schema.get("enum").and_then(Value::as_array) {
        assert!(known.contains(value), "{at}: {value}");
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| check(description, &schema["items"], value, at)),
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            for (name, value) in fields {
                let field =
                    properties.and_then(|properties| properties.get(name)).unwrap_or(&schema["additionalProperties"]);
                assert!(field.is_object(), "{at}: {name} is not described");
                check(description, field, value, &format!("{at} {name}"));
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is described and missing");
            }
        }
        _ => {}
    }
}

#[test]
fn without_the_token_a_tcp_door_reads_what_names_no_client_and_with_it_everything() {
    let bed = Bed::with(RULES);
    bed.visit(Access::Read, |caller| async move {
        for route in ROUTES.iter().filter(|route| route.path != "/api/v1/events") {
            let body = body_for(route.path).map(|body| body.to_string()).unwrap_or_default();
            let path =
                if route.path == "/api/v1/servers" { "/api/v1/servers?service=tcp:192.0.2.80:80" } else { route.path };
            let json = ("content-type", "application/json");
            let heard = caller.ask(route.method, path, &[json], &body).await;
            let expected = if route.needs == Access::Full { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
            assert_eq!(heard.status, expected, "{} without: {}", route.path, heard.text);
            let wrong = [json, ("authorization", "Bearer 0123456789abcdef0123456789abcdee")];
            assert_eq!(
                caller.ask(route.method, path, &wrong, &body).await.status,
                StatusCode::UNAUTHORIZED,
                "{} with a wrong one",
                route.path
            );
            let right =
                caller.ask(route.method, path, &[json, ("authorization", &format!("Bearer {TOKEN}"))], &body).await;
            assert_eq!(right.status, StatusCode::OK, "{} with it: {}", route.path, right.text);
        }
    });
}

#[test]
fn metrics_come_in_both_forms_with_every_reason_and_table() {
    let bed = Bed::with(RULES);
    bed.visit(Access::Read, |caller| async move {
        let plain = caller.get("/metrics").await;
        assert_eq!(plain.content_type, "text/plain; version=0.0.4; charset=utf-8");
        let open =
            caller.ask("GET", "/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")], "").await;
        assert!(open.content_type.starts_with("application/openmetrics-text") && open.text.ends_with("# EOF\n"));
        for text in [&plain.text, &open.text] {
            for reason in lvs_core::DropReason::ALL {
                assert!(text.contains(&format!("lvs_drops_total{{reason=\"{reason}\"}} 0\n")), "{reason}");
            }
            assert!(
                text.contains("lvs_server_weight{service=\"tcp:192.0.2.80:80\",server=\"10.0.0.2:80\"} 3\n"),
                "{text}"
            );
            assert!(text.contains("lvs_table_bound{table=\"connections\"} "));
        }
    });
}

#[test]
fn listings_come_page_by_page_with_everything_once() {
    let rules: String = (0..250).map(|port| format!("-A -t 192.0.2.80:{} -s rr\n", port + 1)).collect();
    let servers: String =
        (0..300).map(|at| format!("-a -t 192.0.2.80:1 -r 10.0.{}.{}:80 -m -w 1\n", at / 100, at % 100 + 1)).collect();
    let bed = Bed::with(&format!("{rules}{servers}"));
    bed.visit(Access::Read, |caller| async move {
        for (first, list, count) in [
            ("/api/v1/services?limit=70", "services", 250),
            ("/api/v1/servers?service=tcp:192.0.2.80:1&limit=70", "servers", 300),
        ] {
            let (mut seen, mut after, mut pages) = (BTreeSet::new(), String::new(), 0);
            loop {
                let page = caller.get(&format!("{first}{after}")).await.json();
                for one in page[list].as_array().unwrap() {
                    let name = one.get("service").or(one.get("server")).unwrap().as_str().unwrap().to_owned();
                    assert!(seen.insert(name), "{one} is told twice");
                }
                pages += 1;
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(seen.len(), count, "{first}");
            assert!((count / 70..=count / 70 + 2).contains(&pages), "{pages} pages of {first}");
        }
        let first = caller.get("/api/v1/services?limit=1000").await.json();
        let crowded = first["services"]
            .as_array()
            .unwrap()
            .iter()
            .find(|service| service["service"] == "tcp:192.0.2.80:1")
            .unwrap();
        assert_eq!((crowded["servers"].as_array().unwrap().len(), &crowded["more_servers"]), (256, &Value::Bool(true)));
    });
}

#[test]
fn what_is_wrong_is_told_in_a_sentence_and_changes_nothing() {
    let bed = Bed::with(RULES);
    bed.visit(Access::Full, |caller| async move {
        let before = caller.get("/api/v1/services").await.text;
        for (path, body, status, said) in [
            ("/api/v1/explain", json!({ "packet": "tcp here > there" }), 400, "ADDRESS:PORT"),
            ("/api/v1/explain", json!({ "hex": "450" }), 400, "pairs of hexadecimal"),
            ("/api/v1/explain", json!({}), 400, "one of the two"),
            ("/api/v1/plan", json!({ "rules": "-A -t 192.0.2.80:80\n-a -t 192.0.2.80:80\n" }), 400, "line 2"),
            (
                "/api/v1/apply",
                json!({ "commands": ["-A -t 192.0.2.82:80 -s rr", "-A -t 192.0.2.80:80 -s rr"] }),
                409,
                "exist",
            ),
            ("/api/v1/apply", json!({ "commands": ["-L"] }), 400, "changes nothing"),
            ("/api/v1/apply", json!({ "rules": "", "expect": 1 }), 412, "plan again"),
            ("/api/v1/apply", json!({ "rule": "" }), 400, "unknown field"),
            (
                "/api/v1/drain",
                json!({ "service": "tcp:192.0.2.80:80", "server": "10.0.0.9:80", "deadline": "1s" }),
                404,
                "No such destination",
            ),
            (
                "/api/v1/drain",
                json!({ "service": "tcp:192.0.2.80:80", "server": "10.0.0.2:80", "deadline": "soon" }),
                400,
                "30s",
            ),
            (
                "/api/v1/weight",
                json!({ "service": "tcp:192.0.2.89:80", "server": "10.0.0.2:80", "weight": 1 }),
                404,
                "no such service",
            ),
            (
                "/api/v1/weight",
                json!({ "service": "web", "server": "10.0.0.2:80", "weight": 1 }),
                400,
                "tcp:ADDRESS:PORT",
            ),
        ] {
            let heard = caller.post(path, &body).await;
            let detail = heard.json()["detail"].as_str().unwrap().to_owned();
            assert_eq!(
                (heard.status.as_u16(), heard.content_type.as_str()),
                (status, "application/problem+json"),
                "{path} {body}: {detail}"
            );
            assert!(detail.contains(said), "{path} {body}: {detail}");
        }
        for (method, path, headers, body, status) in [
            ("GET", "/nothing", &[][..], "", 404),
            ("POST", "/metrics", &[], "", 405),
            ("GET", "/api/v1/services?limit=0", &[], "", 400),
            ("GET", "/api/v1/services?after=x", &[], "", 400),
            ("GET", "/api/v1/services?token=secret", &[], "", 400),
            ("POST", "/api/v1/weight", &[], "{}", 415),
            ("POST", "/api/v1/weight", &[("content-type", "application/json")], "{", 400),
            ("GET", "/metrics", &[("origin", "http://evil.example")], "", 403),
        ] {
            let heard = caller.ask(method, path, headers, body).await;
            assert_eq!(heard.status.as_u16(), status, "{method} {path}: {}", heard.text);
        }
        let long = json!({ "rules": " ".repeat(9 << 20) });
        assert_eq!(caller.post("/api/v1/plan", &long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(caller.get("/api/v1/services").await.text, before);
    });
}

#[test]
fn a_plan_is_what_apply_then_does() {
    let bed = Bed::with(RULES);
    bed.visit(Access::Full, |caller| async move {
        let rules = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 9\n-A -f 7 -s wlc\n";
        let plan = caller.post("/api/v1/plan", &json!({ "rules": rules })).await.json();
        let commands: Vec<_> =
            plan["commands"].as_array().unwrap().iter().map(|one| one["command"].as_str().unwrap()).collect();
        assert_eq!(
            commands,
            [
                "-D -u [2001:db8::53]:53",
                "-d -t 192.0.2.80:80 -r 10.0.0.3:80",
                "-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 9"
            ]
        );
        let request = json!({ "rules": rules, "expect": plan["generation"] });
        let applied = caller.post("/api/v1/apply", &request).await.json();
        assert_eq!(applied["commands"], 3);
        assert_eq!(
            caller.post("/api/v1/apply", &request).await.status,
            StatusCode::PRECONDITION_FAILED,
            "it has moved on"
        );
        let again = caller.post("/api/v1/plan", &json!({ "rules": rules })).await.json();
        assert_eq!(again["commands"], json!([]));
        // The worker has it too.
        let explained =
            caller.post("/api/v1/explain", &json!({ "packet": "tcp 198.51.100.7:1024 > 192.0.2.80:80" })).await.json();
        assert!(explained["text"].as_str().unwrap().contains("10.0.0.2:80 weight 9"), "{explained}");
    });
}

#[test]
fn a_server_is_drained_weighed_and_put_back() {
    let bed = Bed::with(RULES);
    bed.visit(Access::Full, |caller| async move {
        let server = json!({ "service": "tcp:192.0.2.80:80", "server": "10.0.0.2:80" });
        let with = |name: &str, value: Value| {
            let mut body = server.clone();
            body[name] = value;
            body
        };
        let now = || async {
            let list = caller.get("/api/v1/servers?service=tcp:192.0.2.80:80").await.json();
            list["servers"].as_array().unwrap().iter().find(|one| one["server"] == "10.0.0.2:80").unwrap().clone()
        };
        assert_eq!(caller.post("/api/v1/drain", &with("deadline", "60s".into())).await.status, StatusCode::OK);
        let drained = now().await;
        assert!(
            drained["drain"]["ends_in_ms"].as_u64().unwrap() <= 60_000 && drained["drain"]["open"] == 0,
            "{drained}"
        );
        assert_eq!(caller.post("/api/v1/undrain", &server).await.status, StatusCode::OK);
        assert_eq!(now().await["drain"], Value::Null);
        assert_eq!(caller.post("/api/v1/weight", &with("weight", 7.into())).await.status, StatusCode::OK);
        assert_eq!((&now().await["weight"], &now().await["effective_weight"]), (&json!(7), &json!(7)));
    });
}

#[test]
fn readers_of_events_beyond_the_most_are_refused_and_a_place_is_free_when_one_goes() {
    let bed = Bed::with(RULES);
    bed.visit(Access::Read, |caller| async move {
        let ask = || {
            let request = Request::builder().uri("/api/v1/events").header("host", "localhost");
            caller.send(request.body(Full::default()).unwrap())
        };
        let mut readers = Vec::new();
        for _ in 0..super::events::READERS_MAX {
            let mut reader = ask().await;
            assert_eq!(reader.status(), StatusCode::OK);
            let first = reader.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(first.starts_with(b": "));
            readers.push(reader);
        }
        assert_eq!(ask().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        readers.clear();
        // Nothing is waited for but time, until each stream says that it is still there and finds nobody.
        tokio::time::pause();
        while ask().await.status() != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    });
}
