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

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::listen::adopt::{Inherited, Label};
use crate::listen::handover::{Error, Link};
use crate::tls;
use crate::upstream::Upstreams;
use crate::upstream::health::{Moment, Standing};

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
    /// Servers that an operator took out: upstream and URL.
    pub drained: Vec<(String, String)>,
}

impl Legacy {
    /// What an operator did to servers.
    pub fn drained(upstreams: &Upstreams) -> Vec<(String, String)> {
        let now = Moment::now();
        let of = |upstream: &crate::upstream::Upstream| {
            let drained = |server: &&std::sync::Arc<crate::upstream::Server>| {
                server.health.proven(now) == Standing::Drained
            };
            let servers = upstream.servers().iter().filter(drained);
            let pair = |url: &str| (upstream.name.to_string(), url.to_owned());
            servers.map(|server| pair(&server.url)).collect::<Vec<_>>()
        };
        upstreams.iter().flat_map(|upstream| of(upstream)).collect()
    }

    /// Takes out what was taken out.
    pub fn drain(&self, upstreams: &Upstreams) {
        let now = Moment::now();
        for (upstream, url) in &self.drained {
            let servers = upstreams.get(upstream).into_iter();
            let mut servers = servers.flat_map(|upstream| upstream.servers());
            if let Some(server) = servers.find(|server| *server.url == **url) {
                server.health.drain(true, now);
                info!(%upstream, server = %url, "the server stays drained");
            }
        }
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
                (FromOld::Go(_), _) => return Err(out_of_turn()),
            }
        }
    }

    /// Says why it cannot be done. If that is not heard, the end of this process is.
    pub fn refuse(&self, why: &str) {
        const LONGEST: usize = 16 * 1024;
        let why: String = why.trim().chars().take(LONGEST).collect();
        let _ = self.0.send(&FromNew::Refused(why), &[]);
    }

    /// Says that all is prepared, and waits for the word.
    ///
    /// # Errors
    /// When it is gone: it decided otherwise.
    pub fn prepared(&self) -> Result<Legacy, Error> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.0.send(&FromNew::Prepared { version }, &[])?;
        match self.0.receive(ANSWER)?.0 {
            FromOld::Go(legacy) => Ok(*legacy),
            FromOld::Sockets { .. } => Err(out_of_turn()),
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
