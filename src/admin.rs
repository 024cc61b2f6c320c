//! The admin address: health, metrics, inventory, reload.
//!
//! Plain HTTP/1.1 on the control plane's runtime, loopback unless configured otherwise, so that it
//! answers however busy the listeners are. It reads the rest of the program through the closures of
//! [`State`] and owns nothing of it.
//!
//! **Who may change something.** There is no password: whoever can connect is an operator. What
//! must be kept out is a web page that makes an operator's browser connect, by a form (cross-site
//! request forgery) or under a name of its own that suddenly resolves to the loopback address (DNS
//! rebinding). Browsers send `Origin` with every `POST`, other clients do not. So a request that
//! changes something and has an `Origin` is refused with 403, unless that is the very address the
//! request is sent to *and* written as an IP address or `localhost`, which cannot be rebound. Reading
//! is not restricted in this way, and no `Access-Control-Allow-Origin` is ever sent.
//!
//! **Slow and many clients.** Heads, bodies and answers each have a deadline; bodies are bounded.
//! Beyond [`CONNECTIONS`] connections the oldest is closed rather than the newest kept waiting: a
//! client that asks and goes takes milliseconds, and a health probe must not queue behind those who
//! hold connections open.

pub mod certificates;
pub mod logs;
mod patience;
mod reply;
mod routes;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time;

use crate::cert::{Reason, Report};
use crate::metrics::Registry;
use crate::telemetry::Throttle;

pub use reply::Reply;
pub use routes::{Call, Route};

use patience::Patience;
use routes::Table;

/// Connections at once.
pub const CONNECTIONS: usize = 128;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;

/// A boxed future, as the closures of [`State`] return them.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Tells the present inventory.
pub type Inventory = Arc<dyn Fn() -> Vec<Report> + Send + Sync>;

/// What the admin address shows, and what it can set going.
pub struct State {
    /// For `/metrics`.
    pub registry: Registry,
    /// For `/readyz`.
    pub readiness: watch::Receiver<Readiness>,
    /// For `/api/certificates`. Called on a blocking thread.
    pub inventory: Inventory,
    /// For `/api/alerts`: `{"firing": […], "resolved": […]}`. Called on a blocking thread.
    pub alerts: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// For `/api/reload`: what `HUP` does. Runs to its end also when the client goes away.
    pub reload: Box<dyn Fn() -> Pending<ReloadOutcome> + Send + Sync>,
    /// For `/api/accept`. Runs to its end also when the client goes away.
    pub accept: Box<dyn Fn(Acceptance) -> Pending<AcceptOutcome> + Send + Sync>,
    /// Further routes.
    pub more: Vec<Route>,
}

/// Whether requests should be sent here, for load balancers. A certificate problem never shows here:
/// it would make them take every node out at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Readiness {
    /// Not yet.
    Starting {
        /// What is being waited for.
        reason: Cow<'static, str>,
    },
    /// Yes.
    Ready,
    /// No longer.
    Draining {
        /// Why it ends.
        reason: Cow<'static, str>,
    },
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOutcome {
    /// Whether the configuration on disk is in use now. If not, nothing changed.
    pub ok: bool,
    /// What changed, a sentence each.
    pub changed: Vec<String>,
    /// What was refused, and why: the faults of the configuration, or certificates that are not
    /// used.
    pub refused: Vec<String>,
}

/// An operator's word that what is on disk is to be used although it is worse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The source, as `/api/certificates` has it.
    pub source: String,
    /// The operator's reason, which is recorded.
    pub because: String,
}

/// What became of an [`Acceptance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptOutcome {
    /// What is on disk is in use.
    Accepted {
        /// What happened, in a sentence.
        detail: String,
    },
    /// There is no such source.
    Unknown,
    /// What is on disk is not held back: there is nothing to accept.
    Nothing {
        /// How it stands.
        detail: String,
    },
    /// What is on disk cannot be served at all.
    Unservable {
        /// The code.
        reason: Reason,
        /// What was expected and found, and what to do.
        detail: String,
    },
}

/// How long clients may take. Not configurable: nobody on this address has a reason to be slow.
#[derive(Clone, Copy)]
struct Deadlines {
    /// To the end of a request's head; also how long a connection is kept for the next one.
    head: Duration,
    /// For the whole of a request's body.
    body: Duration,
    /// How long nothing of an answer may be taken.
    stall: Duration,
    /// For answers that are being written when the end comes.
    grace: Duration,
}

const DEADLINES: Deadlines = Deadlines {
    head: Duration::from_secs(10),
    body: Duration::from_secs(10),
    stall: Duration::from_secs(20),
    grace: Duration::from_secs(2),
};

/// Serves until `shutdown` is done, then finishes the answers that are being written. What `shutdown`
/// gives is dropped in between, when no connection is accepted any more.
pub async fn serve<T>(listener: TcpListener, state: Arc<State>, shutdown: impl Future<Output = T>) {
    serve_within(DEADLINES, listener, state, shutdown).await;
}

async fn serve_within<T>(
    deadlines: Deadlines,
    listener: TcpListener,
    state: Arc<State>,
    shutdown: impl Future<Output = T>,
) {
    let table = Arc::new(Table::new(state, deadlines.body));
    let (close, closing) = watch::channel(());
    let mut connections = Connections::default();
    let mut shutdown = pin!(shutdown);
    let complaints = Throttle::new(1, Duration::from_secs(10));
    let told = loop {
        let accepted = tokio::select! {
            told = &mut shutdown => break told,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let table = Arc::clone(&table);
                connections.add(converse(deadlines, stream, table, closing.clone()));
            }
            Err(error) => {
                if let Some(suppressed) = complaints.allow() {
                    tracing::warn!(%error, suppressed, "the admin address cannot accept");
                }
                // For want of file descriptors mostly, which a busy loop would not bring back.
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    drop(listener);
    drop((told, close));
    connections.finish(deadlines.grace).await;
}

/// The connections that are open.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// The oldest first.
    by_age: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.by_age.len() >= CONNECTIONS {
            self.by_age.retain(|connection| !connection.is_finished());
        }
        if self.by_age.len() >= CONNECTIONS
            && let Some(oldest) = self.by_age.pop_front()
        {
            oldest.abort();
        }
        self.by_age.push_back(self.tasks.spawn(connection));
    }

    /// Waits for them a while, and ends those that are left.
    async fn finish(mut self, grace: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = time::timeout(grace, all).await;
    }
}

/// One connection. Errors on it are the client's affair and are not logged.
async fn converse(
    deadlines: Deadlines,
    stream: TcpStream,
    table: Arc<Table>,
    mut closing: watch::Receiver<()>,
) {
    // An answer is one write; waiting for more to put into the packet helps nobody.
    let _ = stream.set_nodelay(true);
    let answer = |request| {
        let table = Arc::clone(&table);
        async move { Ok::<_, Infallible>(table.answer(request).await) }
    };
    let connection = http1::Builder::new()
        // Without a timer hyper ignores the timeout.
        .timer(TokioTimer::new())
        .header_read_timeout(deadlines.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(
            TokioIo::new(Patience::new(stream, deadlines.stall)),
            service_fn(answer),
        );
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[cfg(test)]
mod tests;
