//! The canary: a certificate of minutes that is renewed all day long through the very same files,
//! watch, verification, swap and listeners as every other, so that a broken chain of machinery is
//! found within minutes and not on the day it is needed.
//!
//! It has a name of its own that no client asks for (RFC 6761, `.invalid`), and lies in the state
//! directory. The server adds its file as one more certificate source, not to be kept for later.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::board::Board;
use super::condition::{Code, Condition};
use super::probe::{self, ProbeError, Target};
use super::words;
use crate::cert::{Fingerprint, Name, Report};
use crate::clock::{Clock, Timestamp};
use crate::config::{CertificateSource, Location, Severity};

/// What it is issued for.
pub const NAME: &str = "canary.staunch.invalid";
/// From one renewal to the next, unless a test is in a hurry.
pub const EVERY: Duration = Duration::from_secs(5 * 60);
/// How long one may take from the disk to the listeners; a healthy one takes a second or two, and
/// half a minute where only polling finds it.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How long one lives, in seconds: several rounds, so that a slow one does not expire.
const LIFETIME: i64 = 3600;
/// How far back one is dated, for clocks that are set while it is made.
const BACKDATED: i64 = 60;

/// Whether this entry of the inventory is the canary, or its place where none could be put there.
pub const fn is_canary(report: &Report) -> bool {
    report.routine
}

/// Whether a certificate with these names is one.
pub fn is_its_name(names: &[Name]) -> bool {
    matches!(names, [Name::Dns(name)] if **name == *NAME)
}

/// Where it lies.
pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("canary").join("canary.pem")
}

/// As a source of certificates.
pub fn source(state_dir: &Path) -> CertificateSource {
    CertificateSource {
        location: Location::Bundle {
            file: file(state_dir),
            ocsp: None,
        },
        accept_worse: false,
        keep: false,
        routine: true,
        line: 0,
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// None could be made.
    #[error("no canary certificate could be made: {0}")]
    Issue(#[from] rcgen::Error),
    /// It could not be put on disk.
    #[error("the canary certificate could not be written to {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was written and not taken up.
    #[error("a certificate written to {} was not taken up within {waited:?}", path.display())]
    NotTakenUp {
        /// Where it lies.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// It was taken up, and a listener does not serve it.
    #[error("the renewed certificate was taken up, but asked on {listener}: {source}")]
    NotServed {
        /// Which listener.
        listener: String,
        /// What it did instead.
        source: ProbeError,
    },
}

/// Puts the first one in its place, so that the source is not found empty at the start.
///
/// # Errors
/// When none could be made or written.
pub fn begin(state_dir: &Path, clock: &Clock) -> Result<(), CanaryError> {
    let path = file(state_dir);
    let (pem, _) = issue(clock.now())?;
    write(&path, &pem).map_err(|source| CanaryError::Write { path, source })
}

/// Says which certificate is held for a name.
pub type Held = Arc<dyn Fn(&str) -> Option<Fingerprint> + Send + Sync>;

/// What a canary needs.
pub struct Canary {
    /// Where it lies; see [`file()`].
    pub path: PathBuf,
    /// For its dates.
    pub clock: Clock,
    /// Where it is told of.
    pub board: Board,
    /// What the inventory holds for this name now.
    pub held: Held,
    /// The listeners to ask; name and expectation of each target are the canary's own.
    pub listeners: Arc<dyn Fn() -> Vec<Target> + Send + Sync>,
    /// From one renewal to the next.
    pub every: Duration,
    /// From being written to being served.
    pub patience: Duration,
}

impl Canary {
    /// Renews it for ever, and pins what it finds to the board.
    pub async fn run(self) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.round().await {
                Ok(()) => self.board.clear(Code::CanaryFailed, NAME),
                Err(error) => self.board.raise(condition(&error)),
            }
        }
    }

    /// One renewal, from the file to the wire.
    async fn round(&self) -> Result<(), CanaryError> {
        let (pem, fingerprint) = issue(self.clock.now())?;
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &pem)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|source| CanaryError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.taken_up(fingerprint).await?;
        for listener in (self.listeners)() {
            let target = Target {
                name: NAME.into(),
                expected: Arc::new(move || vec![fingerprint]),
                ..listener
            };
            probe::probe(&target)
                .await
                .map_err(|source| CanaryError::NotServed {
                    listener: format!("{} over {}", target.address, target.protocol),
                    source,
                })?;
        }
        Ok(())
    }

    /// Waits until the inventory holds it.
    async fn taken_up(&self, fingerprint: Fingerprint) -> Result<(), CanaryError> {
        let deadline = Instant::now() + self.patience;
        while (self.held)(NAME) != Some(fingerprint) {
            if Instant::now() >= deadline {
                return Err(CanaryError::NotTakenUp {
                    path: self.path.clone(),
                    waited: self.patience,
                });
            }
            sleep((self.patience / 100).max(Duration::from_millis(5))).await;
        }
        Ok(())
    }
}

fn condition(error: &CanaryError) -> Condition {
    let summary = format!(
        "The certificate that staunch renews for itself did not get through: {}. A renewal of \
         yours may not get through either.",
        words::clean(&error.to_string())
    );
    let step = match error {
        CanaryError::Write { path, .. } => {
            format!(
                "See `ls -ld {0}` and `df -h {0}`.",
                words::shell(&parent(path))
            )
        }
        CanaryError::NotServed { .. } => {
            "See who listens there: `ss -ltnp`. If it is another process, stop it.".to_owned()
        }
        CanaryError::NotTakenUp { .. } | CanaryError::Issue(_) => {
            "See the log, and have everything read again: `systemctl reload staunch`.".to_owned()
        }
    };
    Condition::new(Code::CanaryFailed, NAME, Severity::Warning, summary, step)
}

fn parent(path: &Path) -> String {
    path.parent().unwrap_or(path).to_string_lossy().into_owned()
}

/// Makes one: its key and certificate as PEM, and its fingerprint.
fn issue(now: Timestamp) -> Result<(String, Fingerprint), rcgen::Error> {
    let date = |at: Timestamp| {
        // A clock beyond what a date can hold is told of elsewhere.
        OffsetDateTime::from_unix_timestamp(at.unix()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
    params.not_before = date(now.plus(-BACKDATED));
    params.not_after = date(now.plus(LIFETIME));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?;
    let fingerprint = probe::fingerprint(certificate.der());
    Ok((
        format!("{}{}", certificate.pem(), key.serialize_pem()),
        fingerprint,
    ))
}

/// Writes it as a careful renewing job would: beside the old one, then renamed.
fn write(path: &Path, pem: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(pem.as_bytes())?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;
    use crate::alert::testing::until;

    /// A canary whose inventory is its file, for as long as `works`.
    fn canary(folder: &Path, works: &Arc<Mutex<bool>>) -> Canary {
        let path = file(folder);
        let (read, works) = (path.clone(), Arc::clone(works));
        Canary {
            path,
            clock: Clock::system(),
            board: Board::new(),
            held: Arc::new(move |name| {
                assert_eq!(name, NAME);
                let works = *works.lock().unwrap();
                let der = CertificateDer::from_pem_file(&read)
                    .ok()
                    .filter(|_| works)?;
                Some(probe::fingerprint(&der))
            }),
            listeners: Arc::new(Vec::new),
            every: Duration::from_millis(20),
            patience: Duration::from_millis(200),
        }
    }

    #[tokio::test]
    async fn a_canary_that_is_not_taken_up_is_told_of_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let works = Arc::new(Mutex::new(true));
        let canary = canary(folder.path(), &works);
        let (board, path) = (canary.board.clone(), canary.path.clone());
        let singing = tokio::spawn(canary.run());
        let read = || CertificateDer::from_pem_file(&path).ok();
        until(|| read().is_some()).await;
        let first = read();
        until(|| read().is_some_and(|it| Some(&it) != first.as_ref())).await;
        assert!(board.conditions().is_empty());
        *works.lock().unwrap() = false;
        until(|| board.holds(Code::CanaryFailed, NAME)).await;
        let summary = board.conditions().remove(0).summary;
        assert!(
            summary.contains("was not taken up within 200ms"),
            "{summary}"
        );
        *works.lock().unwrap() = true;
        until(|| board.conditions().is_empty()).await;
        singing.abort();
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_and_a_listener_that_is_gone_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let works = Arc::new(Mutex::new(true));
        let mut canary = canary(folder.path(), &works);
        canary.listeners = Arc::new(|| {
            vec![Target {
                address: "127.0.0.1:1".parse().unwrap(),
                name: "replaced".into(),
                protocol: probe::Protocol::H2,
                proxy_header: false,
                expected: Arc::new(Vec::new),
            }]
        });
        let error = canary.round().await.unwrap_err().to_string();
        assert!(
            error.contains("127.0.0.1:1 over HTTP/2: no connection"),
            "{error}"
        );
        fs::write(folder.path().join("file"), "").unwrap();
        canary.path = folder.path().join("file/canary.pem");
        let error = canary.round().await.unwrap_err();
        assert!(matches!(error, CanaryError::Write { .. }));
        assert!(condition(&error).next_step.contains("df -h"));
    }
}
