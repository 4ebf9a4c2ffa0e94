//! Which paths there are, who may ask for each, and what it answers. `openapi.json` describes the same; a test holds them
//! together.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::answer::{Answer, Complaint, json, page, whole};
use super::events::Events;
use super::guard::{self, Access, Visitor};
use super::query::Query;
use super::token::Token;
use super::{changes, explain, lists, metrics};
use crate::control::Asker;

/// What is answered from.
pub(super) struct Site {
    pub asker: Asker,
    pub token: Option<Token>,
    /// What a TCP door lets everybody do.
    pub of_tcp: Access,
    /// Listings of everything are put together one at a time, so that there is memory for one alone.
    whole: Semaphore,
    pub events: Arc<Events>,
}

impl Site {
    pub fn new(asker: Asker, token: Option<Token>, of_tcp: Access) -> Self {
        Self { asker, token, of_tcp, whole: Semaphore::new(1), events: Arc::new(Events::new()) }
    }
}

/// One path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// What whoever asks must be allowed to do.
    pub needs: Access,
    name: Name,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Page,
    Description,
    Metrics,
    Services,
    Servers,
    Connections,
    Settings,
    Drops,
    Gauges,
    Events,
    Explain,
    Plan,
    Apply,
    Drain,
    Undrain,
    Weight,
}

const fn get(path: &'static str, needs: Access, name: Name) -> Route {
    Route { method: "GET", path, needs, name }
}

/// Whatever is posted needs every right.
const fn post(path: &'static str, name: Name) -> Route {
    Route { method: "POST", path, needs: Access::Full, name }
}

/// Every path.
pub(super) const ROUTES: &[Route] = &[
    get("/", Access::Read, Name::Page),
    get("/metrics", Access::Read, Name::Metrics),
    get("/api/v1/openapi.json", Access::Read, Name::Description),
    get("/api/v1/services", Access::Read, Name::Services),
    get("/api/v1/servers", Access::Read, Name::Servers),
    get("/api/v1/connections", Access::Full, Name::Connections),
    get("/api/v1/settings", Access::Read, Name::Settings),
    get("/api/v1/drops", Access::Read, Name::Drops),
    get("/api/v1/gauges", Access::Read, Name::Gauges),
    get("/api/v1/events", Access::Read, Name::Events),
    post("/api/v1/explain", Name::Explain),
    post("/api/v1/plan", Name::Plan),
    post("/api/v1/apply", Name::Apply),
    post("/api/v1/drain", Name::Drain),
    post("/api/v1/undrain", Name::Undrain),
    post("/api/v1/weight", Name::Weight),
];

/// Answers a request.
pub(super) async fn answer(request: Request<Incoming>, visitor: Visitor, site: Rc<Site>) -> Answer {
    respond(request, visitor, &site).await.unwrap_or_else(Answer::from)
}

async fn respond(request: Request<Incoming>, visitor: Visitor, site: &Site) -> Result<Answer, Complaint> {
    let access = guard::access(request.headers(), &visitor, site.token.as_ref())?;
    let route = find(request.method(), request.uri().path())?;
    if access < route.needs {
        return Err(Complaint::unauthorized("this takes the token, in an Authorization header: 'Bearer TOKEN'"));
    }
    let query = Query::of(&request);
    let asker = &site.asker;
    let peer = visitor.peer;
    query.knows(match route.name {
        Name::Services => &["after", "limit"],
        Name::Servers => &["service", "after", "limit"],
        Name::Connections => &["after", "limit", "client", "virtual", "real", "state", "protocol"],
        _ => &[],
    })?;
    Ok(match route.name {
        Name::Page => page(PAGE)?,
        Name::Description => whole("application/json", DESCRIPTION),
        Name::Metrics => {
            let accept = request.headers().get(ACCEPT).cloned();
            site.alone(metrics::answer(asker, accept.as_ref())).await?
        }
        Name::Services => lists::services(site, &query).await?,
        Name::Servers => lists::servers(asker, &query).await?,
        Name::Connections => lists::connections(asker, &query).await?,
        Name::Settings => lists::settings(asker).await?,
        Name::Drops => lists::drops(asker).await?,
        Name::Gauges => lists::gauges(asker, access).await?,
        Name::Events => site.events.answer(access)?,
        Name::Explain => json(&explain::explain(asker, body(request).await?).await?),
        Name::Plan => json(&changes::plan(asker, body(request).await?).await?),
        Name::Apply => json(&changes::apply(asker, peer, body(request).await?).await?),
        Name::Drain => json(&changes::drain(asker, peer, body(request).await?).await?),
        Name::Undrain => json(&changes::undrain(asker, peer, body(request).await?).await?),
        Name::Weight => json(&changes::weight(asker, peer, body(request).await?).await?),
    })
}

fn find(method: &Method, path: &str) -> Result<&'static Route, Complaint> {
    let mut of_path = ROUTES.iter().filter(|route| route.path == path).peekable();
    let Some(first) = of_path.peek() else {
        return Err(Complaint::new(
            StatusCode::NOT_FOUND,
            format!("there is no {path}: /api/v1/openapi.json says what there is"),
        ));
    };
    let allow = Some(first.method);
    let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
    of_path.find(|route| route.method == wanted).ok_or_else(|| Complaint {
        allow,
        ..Complaint::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}"))
    })
}

impl Site {
    /// What takes much memory, after what takes it now.
    pub async fn alone<T>(&self, work: impl Future<Output = T>) -> T {
        let _place = self.whole.acquire().await;
        work.await
    }
}

/// Reads a body of JSON.
async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Complaint> {
    if !guard::is_json(request.headers().get(CONTENT_TYPE)) {
        return Err(Complaint::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send JSON, with Content-Type: application/json",
        ));
    }
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(request.into_body(), BODY_MAX).collect()).await;
    let collected = collected.map_err(|_| Complaint::new(StatusCode::REQUEST_TIMEOUT, "the body does not come"))?;
    let bytes: Bytes = collected
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Complaint::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has {BODY_MAX} bytes at most")),
            None => Complaint::bad(format!("the body cannot be read: {error}")),
        })?
        .to_bytes();
    serde_json::from_slice(&bytes)
        .map_err(|error| Complaint::bad(format!("the body is not what is asked for: {error}")))
}

/// The page, whole.
const PAGE: &str = include_str!("page.html");
/// What describes all this.
const DESCRIPTION: &str = include_str!("openapi.json");
const BODY_TIME: Duration = Duration::from_secs(10);
/// 10,000 rules have less.
const BODY_MAX: usize = 8 << 20;
