//! Taking over from another process: what the new one does. The old one's part is
//! [`upgrade`](super::upgrade).
//!
//! ```text
//! old                                    new
//!  │ starts it ──────────────────────────►│
//!  │ the open sockets ───────────────────►│ reads its configuration and certificates, binds
//!  │                                      │ what is new, prepares all that can fail
//!  │◄──────────── prepared (or refused) ──│
//!  │ writes down its alerts, and          │
//!  │ leaves: ticket keys, … ─────────────►│ accepts connections
//!  │◄──────────────────────────── serving │
//!  │ accepts no more, and finishes        │
//! ```
//!
//! Until the new one serves, the old one does. Should either be gone before that, the other goes on
//! as if nothing had been: the old one as before, the new one not at all.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::config::ServerAddress;
use crate::listen::adopt::{Inherited, Label};
use crate::listen::handover::{Error, Link};
use crate::tls;
use crate::upstream::health::{Moment, Standing};
use crate::upstream::{Server, Upstream, Upstreams};

/// The variable that says which process is the predecessor: nobody's but its child's affair, however
/// far it is inherited.
pub const VARIABLE: &str = "STAUNCH_PREDECESSOR";

/// How long the predecessor may take to write down what it knows.
const ANSWER: Duration = Duration::from_secs(60);

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromOld {
    /// Sockets come with this.
    Sockets {
        /// What each is.
        labels: Vec<Label>,
        /// There are more.
        more: bool,
    },
    /// What is known of servers behind; there may be more of these.
    Servers(Vec<Known>),
    /// Take over.
    Go(Box<Legacy>),
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromNew {
    /// It cannot, and ends.
    Refused(String),
    /// All that could fail has not.
    Prepared {
        /// Of the program.
        version: String,
    },
    /// It accepts connections.
    Serving,
}

/// What is not on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Legacy {
    /// What session tickets are encrypted with.
    pub tickets: tls::Legacy,
}

/// What is known of a server behind.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    upstream: String,
    url: String,
    /// An operator took it out.
    drained: bool,
    /// Checks say that it is down, and why.
    down: Option<String>,
    /// What its name stands for, should the name server not answer the new process.
    addresses: Vec<SocketAddr>,
}

impl Known {
    /// Of all servers of which it matters.
    pub fn of(upstreams: &Upstreams) -> Vec<Self> {
        let known = |upstream: &Upstream, server: &Server| Self {
            upstream: upstream.name.to_string(),
            url: server.url.to_string(),
            drained: server.health.proven() == Standing::Drained,
            down: (server.health.is_down()).then(|| server.health.complaint().unwrap_or_default()),
            addresses: match server.address {
                ServerAddress::Name(..) => server.addresses.all(),
                _ => Vec::new(),
            },
        };
        let all = upstreams.iter();
        all.flat_map(|upstream| upstream.servers().iter().map(|it| known(upstream, it)))
            .filter(|it| it.drained || it.down.is_some() || !it.addresses.is_empty())
            .collect()
    }

    /// Tells the server of that name, if there still is one.
    pub fn apply(self, upstreams: &Upstreams) {
        let now = Moment::now();
        let (upstream, url) = (&self.upstream, &self.url);
        let Some(group) = upstreams.get(upstream) else {
            return;
        };
        let Some(server) = (group.servers().iter()).find(|server| *server.url == **url) else {
            return;
        };
        if self.drained {
            server.health.drain(true, now);
            info!(%upstream, server = %url, "the server stays drained");
        }
        if let Some(why) = self.down.filter(|_| group.check.is_some()) {
            server.health.checked(false, Some(why), now);
            info!(%upstream, server = %url, "the server is down, as it was");
        }
        server.addresses.set(self.addresses);
    }
}

/// The process whose place this one is to take.
#[derive(Debug)]
pub struct Predecessor(Link);

impl Predecessor {
    /// If there is one. To be called once, before anything reads the standard input.
    pub fn find() -> Option<Self> {
        let id: i32 = std::env::var(VARIABLE).ok()?.parse().ok()?;
        let parent = rustix::process::getppid()?;
        if parent.as_raw_nonzero().get() != id {
            return None;
        }
        Link::from_stdin().ok().flatten().map(Self)
    }

    /// Its listening sockets.
    ///
    /// # Errors
    /// When it is gone.
    pub fn sockets(&self) -> Result<Inherited, Error> {
        let mut all = Vec::new();
        loop {
            match self.0.receive(ANSWER)? {
                (FromOld::Sockets { labels, more }, sockets) => {
                    all.extend(labels.into_iter().zip(sockets));
                    if !more {
                        return Ok(Inherited::from_predecessor(all));
                    }
                }
                _ => return Err(out_of_turn()),
            }
        }
    }

    /// Says why it cannot be done. If that is not heard, the end of this process is.
    pub fn refuse(&self, why: &str) {
        const LONGEST: usize = 16 * 1024;
        let why: String = why.trim().chars().take(LONGEST).collect();
        let _ = self.0.send(&FromNew::Refused(why), &[]);
    }

    /// Says that all is prepared, and waits for the word. What is heard of servers behind until
    /// then is given to `learn`.
    ///
    /// # Errors
    /// When it is gone: it decided otherwise.
    pub fn prepared(&self, mut learn: impl FnMut(Known)) -> Result<Legacy, Error> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.0.send(&FromNew::Prepared { version }, &[])?;
        loop {
            match self.0.receive(ANSWER)?.0 {
                FromOld::Servers(known) => known.into_iter().for_each(&mut learn),
                FromOld::Go(legacy) => return Ok(*legacy),
                FromOld::Sockets { .. } => return Err(out_of_turn()),
            }
        }
    }

    /// Says that connections are accepted here. Should it be gone, they are all the same.
    pub fn serving(&self) {
        let _ = self.0.send(&FromNew::Serving, &[]);
    }
}

fn out_of_turn() -> Error {
    Error::Io(std::io::ErrorKind::InvalidData.into())
}

/// The surroundings of a start: what was open before, and by whom.
#[derive(Debug, Default)]
pub struct Start {
    pub(super) inherited: Inherited,
    pub(super) predecessor: Option<Predecessor>,
}

impl Start {
    /// Looks around. To be called once, before any thread is started.
    ///
    /// # Errors
    /// When there is a predecessor, and it is gone.
    pub fn look() -> Result<Self, Error> {
        let predecessor = Predecessor::find();
        let inherited = match &predecessor {
            Some(predecessor) => predecessor.sockets()?,
            None => Inherited::from_manager(),
        };
        Ok(Self {
            inherited,
            predecessor,
        })
    }

    /// Says to whom it may concern why there will be nothing.
    pub fn refuse(&self, why: &str) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.refuse(why);
        }
    }
}
