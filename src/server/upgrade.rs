//! Giving way to a new process without a connection refused: what the old one does. The new one's
//! part, and the order of it all, is [`predecessor`](super::predecessor).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::alerting::{self, Running};
use super::predecessor::{FromNew, FromOld, Known, Legacy, VARIABLE};
use super::{Server, systemd, tell_all};
use crate::listen::adopt::Label;
use crate::listen::handover::{self, Link};
use crate::metrics::UpgradeResult;
use crate::worker::Command as Order;

/// How long a process that has been told to take over may need to say that it has. Nothing that
/// takes time is left to it then.
const SERVING: Duration = Duration::from_secs(10);

/// How long a process that says nothing any more may take to end, before it is ended.
const LAST: Duration = Duration::from_secs(1);

/// How often it is looked whether the successor is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Servers in one message.
const AT_ONCE: usize = 64;

/// The program on disk that this process runs, as it was called. Found at the start: later, what
/// `/proc/self/exe` says is of a file that may have been removed.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// Finds it.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn find() -> io::Result<Self> {
        let running = env::current_exe()?;
        let same = |path: &Path| match (fs::metadata(path), fs::metadata(&running)) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        };
        // By the name it was called by, which may be a symlink that leads elsewhere next time.
        let called = env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let candidates: Vec<_> = match called.components().count() {
            0 => Vec::new(),
            1 if !called.starts_with("/") => {
                let path = env::var_os("PATH").unwrap_or_default();
                let found = env::split_paths(&path).map(|folder| folder.join(&called));
                found.chain([called.clone()]).collect()
            }
            _ => vec![called],
        };
        let found = candidates.into_iter().find(|path| same(path));
        let found = found.and_then(|path| std::path::absolute(path).ok());
        Ok(Self(found.unwrap_or(running)))
    }
}

/// A process that serves now.
#[derive(Debug)]
pub struct Successor {
    /// Its id.
    pub process: u32,
    /// Its version.
    pub version: String,
    candidate: Arc<Candidate>,
}

impl Successor {
    /// Waits until it has failed, and says how. One that ends well was told to stop, or has given
    /// way to another.
    pub async fn failed(&self) -> String {
        loop {
            // The system tells only the one who started it.
            let ended = self.candidate.child().try_wait();
            match ended {
                Ok(Some(status)) if !status.success() => return status.to_string(),
                Ok(None) => tokio::time::sleep(LOOK).await,
                _ => std::future::pending().await,
            }
        }
    }
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The end of this process would be that of everything.
    #[error(
        "staunch is process 1 here, and with its end the whole container ends; start a new \
         container beside this one instead"
    )]
    First,
    /// It is not known what to start.
    #[error("it is not known where the program is: {0}")]
    Unknown(io::Error),
    /// It does not start at all.
    #[error("{} cannot be started: {error}", path.display())]
    Start {
        /// What.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It says why.
    #[error("{} refused: {why}", path.display())]
    Refused {
        /// What.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It ended without a word to us.
    #[error("{} ended before it was ready ({status}); its own words are in the log", path.display())]
    Ended {
        /// What.
        path: PathBuf,
        /// How.
        status: String,
    },
    /// It is not ready in its time.
    #[error(
        "{} was not ready within {within:?} and was ended; if it only needs longer, raise \
         upgrade.ready", path.display()
    )]
    Late {
        /// What.
        path: PathBuf,
        /// Its time.
        within: Duration,
    },
    /// Anything else.
    #[error("{} cannot take over: {error}", path.display())]
    Link {
        /// What.
        path: PathBuf,
        /// Why not.
        error: handover::Error,
    },
}

/// A process that is to take over, ended unless it does.
#[derive(Debug)]
struct Candidate {
    path: PathBuf,
    child: Mutex<Child>,
    link: Link,
    process: u32,
}

impl Candidate {
    /// On a thread of its own: those of the runtime make way for requests, and a process that one of
    /// them began would do so all its life.
    async fn begin(path: PathBuf) -> Result<Self, Failure> {
        let (tell, told) = oneshot::channel();
        let failed = {
            let path = path.clone();
            |error| Failure::Start { path, error }
        };
        let thread = thread::Builder::new().name("upgrade".to_owned());
        let spawned = thread.spawn(move || drop(tell.send(Self::start(&path))));
        match spawned {
            Ok(_) => (told.await).unwrap_or_else(|_| Err(failed(io::ErrorKind::Other.into()))),
            Err(error) => Err(failed(error)),
        }
    }

    fn start(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::Start {
            path: path.to_owned(),
            error,
        };
        let (link, stdin) = Link::pair().map_err(failed)?;
        let mut arguments = env::args_os();
        let called = arguments.next();
        let mut command = Command::new(path);
        if let Some(called) = called {
            std::os::unix::process::CommandExt::arg0(&mut command, called);
        }
        let child = command
            .args(arguments)
            .stdin(stdin)
            .env(VARIABLE, std::process::id().to_string())
            .env_remove("LISTEN_FDNAMES")
            .spawn()
            .map_err(failed)?;
        // The command holds the other end, and must not: its end is how we learn of the child's.
        drop(command);
        Ok(Self {
            path: path.to_owned(),
            process: child.id(),
            child: Mutex::new(child),
            link,
        })
    }

    fn hand_over(&self, sockets: &[(Label, OwnedFd)]) -> Result<(), Failure> {
        let mut chunks = sockets.chunks(handover::MOST).peekable();
        if chunks.peek().is_none() {
            let labels = Vec::new();
            return self.send(
                &FromOld::Sockets {
                    labels,
                    more: false,
                },
                &[],
            );
        }
        while let Some(chunk) = chunks.next() {
            let (labels, with) = (chunk.iter())
                .map(|(label, socket)| (*label, socket.as_fd()))
                .collect::<(Vec<_>, Vec<_>)>();
            let more = chunks.peek().is_some();
            self.send(&FromOld::Sockets { labels, more }, &with)?;
        }
        Ok(())
    }

    fn take_over(&self, mut known: Vec<Known>, legacy: Legacy) -> Result<(), Failure> {
        while !known.is_empty() {
            let some = known.drain(..known.len().min(AT_ONCE)).collect();
            self.send(&FromOld::Servers(some), &[])?;
        }
        self.send(&FromOld::Go(Box::new(legacy)), &[])
    }

    fn send(&self, message: &FromOld, with: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Failure> {
        (self.link.send(message, with)).map_err(|error| self.failure(error, Duration::ZERO))
    }

    /// Waits for its next word.
    fn hear(&self, within: Duration) -> Result<FromNew, Failure> {
        match self.link.receive(within) {
            Ok((FromNew::Refused(why), _)) => Err(Failure::Refused {
                path: self.path.clone(),
                why,
            }),
            Ok((said, _)) => Ok(said),
            Err(error) => Err(self.failure(error, within)),
        }
    }

    fn prepared(&self, within: Duration) -> Result<String, Failure> {
        match self.hear(within)? {
            FromNew::Prepared { version } => Ok(version),
            _ => Err(self.out_of_turn()),
        }
    }

    fn serving(&self) -> Result<(), Failure> {
        match self.hear(SERVING)? {
            FromNew::Serving => Ok(()),
            _ => Err(self.out_of_turn()),
        }
    }

    fn out_of_turn(&self) -> Failure {
        let error = handover::Error::Io(io::ErrorKind::InvalidData.into());
        self.failure(error, Duration::ZERO)
    }

    fn failure(&self, error: handover::Error, within: Duration) -> Failure {
        let path = self.path.clone();
        match error {
            handover::Error::Gone => Failure::Ended {
                path,
                status: self.ended().map_or_else(
                    || "it closed its standard input".to_owned(),
                    |status| status.to_string(),
                ),
            },
            handover::Error::Silent(_) => Failure::Late { path, within },
            error => Failure::Link { path, error },
        }
    }

    /// How it ended, if it has or is about to.
    fn ended(&self) -> Option<ExitStatus> {
        let until = Instant::now() + LAST;
        loop {
            let ended = self.child().try_wait().ok().flatten();
            if ended.is_some() || Instant::now() >= until {
                return ended;
            }
            thread::sleep(LAST / 100);
        }
    }

    fn end(&self) {
        let mut child = self.child();
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a candidate that has not taken over, however that came about, and goes on writing.
struct Attempt {
    server: Arc<Server>,
    candidate: Option<Arc<Candidate>>,
    taken_over: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.taken_over {
            return;
        }
        if let Some(candidate) = &self.candidate {
            candidate.end();
        }
        self.server.keeper.rest(false);
    }
}

/// Starts the program on disk and lets it take over. Where that fails, nothing has changed; where
/// this is dropped before its end, neither.
pub async fn give_way(
    server: &Arc<Server>,
    admin: Option<(SocketAddr, OwnedFd)>,
    alerting: &mut Option<Running>,
) -> Result<Successor, Failure> {
    systemd::upgrading();
    let result = attempt(server, admin, alerting).await;
    if let Err(error) = &result {
        error!(%error, "the upgrade failed; this process goes on");
        systemd::not_upgraded(server.shared.clock.now(), &error.to_string());
        server.upgrades.record(UpgradeResult::Failed);
    }
    result
}

/// Accepts no more connections at the addresses that the successor serves now, and says so when that
/// is certain.
pub async fn step_back(server: &Server, successor: &Successor) {
    for closed in tell_all(server, Order::CloseAll) {
        let _ = closed.await;
    }
    systemd::main_process(successor.process);
    info!(
        process = successor.process,
        version = successor.version,
        "a new process has taken over"
    );
    server.upgrades.record(UpgradeResult::Done);
}

async fn attempt(
    server: &Arc<Server>,
    admin: Option<(SocketAddr, OwnedFd)>,
    alerting: &mut Option<Running>,
) -> Result<Successor, Failure> {
    if std::process::id() == 1 {
        return Err(Failure::First);
    }
    let path = match &server.program {
        Ok(Program(path)) => path.clone(),
        Err(error) => {
            return Err(Failure::Unknown(io::Error::new(
                error.kind(),
                error.to_string(),
            )));
        }
    };
    let within = server.config().upgrade.ready;
    info!(program = %path.display(), "an upgrade begins");
    let mut attempt = Attempt {
        server: Arc::clone(server),
        candidate: None,
        taken_over: false,
    };
    let resting = Arc::clone(server);
    blocking(move || resting.keeper.rest(true)).await;
    let candidate = Candidate::begin(path).await?;
    let candidate = Arc::new(candidate);
    attempt.candidate = Some(Arc::clone(&candidate));

    let mut used = Vec::new();
    for lent in tell_all(server, Order::Lend) {
        used.extend(lent.await.unwrap_or_default());
    }
    used.extend(admin);
    let sockets = server.inherited.bequest(used);
    let version = {
        let candidate = Arc::clone(&candidate);
        blocking(move || {
            candidate.hand_over(&sockets)?;
            candidate.prepared(within)
        })
        .await?
    };

    // What was told is written down before the other tells.
    if let Some(running) = alerting.take() {
        running.end().await;
    }
    let legacy = Legacy {
        tickets: server.tls.bequeath(),
    };
    let known = Known::of(&server.shared.world.load().upstreams);
    let served = {
        let candidate = Arc::clone(&candidate);
        blocking(move || {
            candidate.take_over(known, legacy)?;
            candidate.serving()
        })
        .await
    };
    if let Err(failure) = served {
        // Ended first: nobody must write beside us.
        drop(attempt);
        *alerting = Some(alerting::start(server, server.state.clone()));
        return Err(failure);
    }
    attempt.taken_over = true;
    Ok(Successor {
        process: candidate.process,
        version,
        candidate,
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
