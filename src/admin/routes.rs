//! Which request is answered with what.

use std::fmt::Write as _;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::{task, time};

use super::{AcceptOutcome, Acceptance, Pending, Readiness, Reply, State};

/// Bytes of a request's body.
const BODY_BYTES: usize = 64 * 1024;
/// Answers that take some work, made at once. More would only take turns on the same cores.
const HEAVY: usize = 2;

/// A request to a route: what is left of it when it has been routed.
#[derive(Debug)]
pub struct Call {
    /// What follows the `?`, as it was sent.
    pub query: Option<String>,
    /// Empty unless the route is a `POST`.
    pub body: Bytes,
}

/// One path of the admin address, and what answers there.
pub struct Route {
    method: Method,
    path: &'static str,
    about: &'static str,
    handler: Box<dyn Fn(Call) -> Pending<Reply> + Send + Sync>,
}

impl Route {
    /// A route that shows something, for `GET` and `HEAD`. `about` is its line on the index page.
    /// The handler must not block.
    pub fn get<F>(
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::new(Method::GET, path, about, handler)
    }

    /// A route that changes something, for `POST`. The handler must not block, and runs to its end
    /// also when the client goes away.
    pub fn post<F>(
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::new(Method::POST, path, about, handler)
    }

    fn new<F>(
        method: Method,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self {
            method,
            path,
            about,
            handler: Box::new(move |call| Box::pin(handler(call))),
        }
    }

    /// The methods, as `Allow` has them.
    fn methods(&self) -> &'static str {
        match self.method {
            Method::GET => "GET, HEAD",
            _ => "POST",
        }
    }

    fn allows(&self, method: &Method) -> bool {
        *method == self.method || (self.method == Method::GET && *method == Method::HEAD)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// All routes.
pub(super) struct Table {
    routes: Vec<Route>,
    state: Arc<State>,
    /// For the whole of a request's body.
    body: Duration,
}

impl Table {
    pub(super) fn new(state: Arc<State>, body: Duration) -> Self {
        let routes = own(&state);
        Self {
            routes,
            state,
            body,
        }
    }

    /// Answers a request. Infallible, like every answer here.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.reply(request)
            .await
            .unwrap_or_else(|refusal| refusal)
            .into()
    }

    /// The reply; as an error where the request did not get as far as a handler.
    async fn reply(&self, request: Request<Incoming>) -> Result<Reply, Reply> {
        let path = request.uri().path();
        if path == "/" {
            return self.index(request.method());
        }
        let mut routes = self.routes.iter().chain(&self.state.more);
        let Some(route) = routes.find(|route| route.path == path) else {
            let detail = "no such path; GET / lists those there are";
            return Err(Reply::error(StatusCode::NOT_FOUND, "not_found", detail));
        };
        if !route.allows(request.method()) {
            return Err(Reply::not_allowed(route.methods()));
        }
        let query = request.uri().query().map(str::to_owned);
        if route.method == Method::GET {
            let body = Bytes::new();
            return Ok((route.handler)(Call { query, body }).await);
        }
        if is_forged(request.headers()) {
            let detail = "requests from web pages are refused";
            return Err(Reply::error(StatusCode::FORBIDDEN, "origin", detail));
        }
        let body = read(request.into_body(), self.body).await?;
        // A task of its own: one that is halfway must not end because the client has gone.
        let task = tokio::spawn((route.handler)(Call { query, body }));
        task.await.map_err(|error| broken(&error))
    }

    /// What there is, for people.
    fn index(&self, method: &Method) -> Result<Reply, Reply> {
        if method != Method::GET && method != Method::HEAD {
            return Err(Reply::not_allowed("GET, HEAD"));
        }
        let mut text = format!("staunch {}\n\n", env!("CARGO_PKG_VERSION"));
        for route in self.routes.iter().chain(&self.state.more) {
            let (method, path, about) = (route.method.as_str(), route.path, route.about);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{method:<4}  {path:<18}  {about}");
        }
        Ok(Reply::text(StatusCode::OK, text))
    }
}

/// The routes that are always there.
fn own(state: &Arc<State>) -> Vec<Route> {
    let heavy = Heavy {
        state: Arc::clone(state),
        turns: Arc::new(Semaphore::new(HEAVY)),
    };
    vec![
        Route::get("/healthz", "200 while the process can answer", |_| async {
            Reply::json(StatusCode::OK, &json!({ "status": "ok" }))
        }),
        Route::get(
            "/readyz",
            "200 when ready, 503 while starting or draining",
            {
                let readiness = state.readiness.clone();
                move |_| std::future::ready(readyz(&readiness.borrow()))
            },
        ),
        heavy.route("/metrics", "metrics for Prometheus", |state| {
            Reply::metrics(state.registry.encode())
        }),
        heavy.route("/api/certificates", "the certificates held", |state| {
            let certificates = (state.inventory)();
            Reply::json(StatusCode::OK, &json!({ "certificates": certificates }))
        }),
        heavy.route("/api/alerts", "alerts, firing and resolved", |state| {
            Reply::json(StatusCode::OK, &(state.alerts)())
        }),
        Route::post(
            "/api/reload",
            "read configuration and certificates again",
            {
                let state = Arc::clone(state);
                move |_| reload(Arc::clone(&state))
            },
        ),
        Route::post(
            "/api/accept",
            r#"use what is held back: {"source": …, "because": …}"#,
            {
                let state = Arc::clone(state);
                move |call| accept(Arc::clone(&state), call.body)
            },
        ),
    ]
}

/// Routes whose answers take some work: on blocking threads, a few at a time.
struct Heavy {
    state: Arc<State>,
    turns: Arc<Semaphore>,
}

impl Heavy {
    fn route(&self, path: &'static str, about: &'static str, make: fn(&State) -> Reply) -> Route {
        let (state, turns) = (Arc::clone(&self.state), Arc::clone(&self.turns));
        Route::get(path, about, move |_| {
            let (state, turns) = (Arc::clone(&state), Arc::clone(&turns));
            async move {
                // It is closed never, and without a turn the answer would be right as well.
                let turn = turns.acquire_owned().await;
                let task = task::spawn_blocking(move || {
                    let reply = make(&state);
                    drop(turn);
                    reply
                });
                task.await.unwrap_or_else(|error| broken(&error))
            }
        })
    }
}

fn readyz(readiness: &Readiness) -> Reply {
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Starting { .. } | Readiness::Draining { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    Reply::json(status, readiness)
}

async fn reload(state: Arc<State>) -> Reply {
    let outcome = (state.reload)().await;
    let status = match outcome.ok {
        true => StatusCode::OK,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Reply::json(status, &outcome)
}

async fn accept(state: Arc<State>, body: Bytes) -> Reply {
    let acceptance: Acceptance = match serde_json::from_slice(&body) {
        Ok(acceptance) => acceptance,
        Err(error) => {
            let detail = format!(r#"the body is not {{"source": …, "because": …}}: {error}"#);
            return Reply::error(StatusCode::BAD_REQUEST, "malformed", &detail);
        }
    };
    if acceptance.because.trim().is_empty() {
        let detail = "\"because\" is empty: give a reason, it is recorded in the ledger";
        return Reply::error(StatusCode::BAD_REQUEST, "malformed", detail);
    }
    let source = acceptance.source.clone();
    match (state.accept)(acceptance).await {
        AcceptOutcome::Accepted { detail } => {
            Reply::json(StatusCode::OK, &json!({ "ok": true, "detail": detail }))
        }
        AcceptOutcome::Unknown => {
            let detail =
                format!("no certificate comes from {source}; `staunch certs` names the sources");
            Reply::error(StatusCode::NOT_FOUND, "unknown_source", &detail)
        }
        AcceptOutcome::Nothing { detail } => {
            Reply::error(StatusCode::CONFLICT, "nothing_held_back", &detail)
        }
        AcceptOutcome::Unservable { reason, detail } => {
            Reply::error(StatusCode::UNPROCESSABLE_ENTITY, reason.code(), &detail)
        }
    }
}

/// Whether a web page made a browser send this; see the module above.
fn is_forged(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let host = headers.get(HOST).map_or(&b""[..], |host| host.as_bytes());
    origin.as_bytes().strip_prefix(b"http://") != Some(host) || !is_unmistakable(host)
}

/// Whether an authority is an address or `localhost`, which no name server can point elsewhere.
fn is_unmistakable(authority: &[u8]) -> bool {
    let Ok(authority) = str::from_utf8(authority) else {
        return false;
    };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host == "localhost" || literal.unwrap_or(host).parse::<IpAddr>().is_ok()
}

/// The whole body, within its bounds.
async fn read(body: Incoming, deadline: Duration) -> Result<Bytes, Reply> {
    let collect = Limited::new(body, BODY_BYTES).collect();
    match time::timeout(deadline, collect).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("a body has {BODY_BYTES} bytes at most");
            Err(Reply::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                &detail,
            ))
        }
        Ok(Err(error)) => {
            let detail = error.to_string();
            Err(Reply::error(StatusCode::BAD_REQUEST, "malformed", &detail))
        }
        Err(_) => {
            let detail = "the body took too long";
            Err(Reply::error(StatusCode::REQUEST_TIMEOUT, "timeout", detail))
        }
    }
}

/// The answer where a handler panicked, or was cancelled at the end of the program.
fn broken(error: &task::JoinError) -> Reply {
    tracing::error!(%error, "an answer of the admin address failed");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Reply::error(status, "internal", "a fault of staunch; see its log")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_web_page_is_told_from_an_operator() {
        let forged = |origin: Option<&str>, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            is_forged(&headers)
        };
        assert!(!forged(None, "127.0.0.1:9180"));
        assert!(!forged(None, "node7.internal:9180"));
        assert!(!forged(Some("http://127.0.0.1:9180"), "127.0.0.1:9180"));
        assert!(!forged(Some("http://[::1]:9180"), "[::1]:9180"));
        assert!(!forged(Some("http://localhost"), "localhost"));
        assert!(forged(Some("http://evil.test:9180"), "evil.test:9180"));
        assert!(forged(Some("http://evil.test"), "127.0.0.1:9180"));
        assert!(forged(Some("https://127.0.0.1:9180"), "127.0.0.1:9180"));
        assert!(forged(Some("http://127.0.0.1:8080"), "127.0.0.1:9180"));
        assert!(forged(Some("null"), "127.0.0.1:9180"));
        assert!(forged(
            Some("http://127.0.0.1.evil.test"),
            "127.0.0.1.evil.test"
        ));
        assert!(forged(Some("http://"), ""));
    }
}
