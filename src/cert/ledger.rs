//! The ledger: what happened to certificates, one JSON object a line, so that the postmortem is
//! written already.
//!
//! It is only ever appended to, and bounded: when it is long enough it becomes the previous one,
//! and the previous one goes.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Event, Reason, Rejection, Verified};
use crate::clock::Timestamp;
use crate::state::StateDir;

/// The ledger, and the one before it.
const NAMES: [&str; 2] = ["ledger.jsonl", "ledger.1.jsonl"];

/// Bytes after which a new one is begun.
const LONGEST: u64 = 4 * 1024 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was seen.
    pub time: Timestamp,
    /// What: `loaded`, `swapped`, `rejected`, `held-back`, `accepted`, `recovered`, `removed`.
    pub event: String,
    /// The source.
    pub source: String,
    /// The certificate, where one could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// When that one expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Entry {
    /// What the ledger says of an event.
    pub fn of(event: &Event, time: Timestamp) -> Self {
        let entry = |what: &str, source: &str| Self {
            time,
            event: what.to_owned(),
            source: source.to_owned(),
            fingerprint: None,
            not_after: None,
            reason: None,
            detail: None,
        };
        match event {
            Event::Loaded { source, facts } => entry("loaded", source).of_certificate(facts),
            Event::Swapped { source, old, new } => {
                let mut swapped = entry("swapped", source).of_certificate(new);
                swapped.detail = Some(format!("in place of {}", old.facts().fingerprint));
                swapped
            }
            Event::Rejected { source, rejection } => {
                entry("rejected", source).because_of(rejection)
            }
            Event::HeldBack {
                source,
                fingerprint,
                rejection,
            } => Self {
                fingerprint: Some(fingerprint.to_string()),
                ..entry("held-back", source).because_of(rejection)
            },
            Event::Accepted {
                source,
                fingerprint,
                because,
            } => Self {
                fingerprint: Some(fingerprint.to_string()),
                detail: Some(because.to_string()),
                ..entry("accepted", source)
            },
            Event::Recovered { source } => entry("recovered", source),
            Event::Removed { source } => entry("removed", source),
        }
    }

    fn of_certificate(self, certificate: &Verified) -> Self {
        let facts = certificate.facts();
        Self {
            fingerprint: Some(facts.fingerprint.to_string()),
            not_after: Some(facts.validity.not_after),
            ..self
        }
    }

    fn because_of(self, rejection: &Rejection) -> Self {
        let Rejection {
            reason,
            path,
            detail,
            help,
        } = rejection;
        Self {
            reason: Some(*reason),
            detail: Some(format!("{}: {detail}; {help}", path.display())),
            ..self
        }
    }
}

/// The ledger, to be written.
#[derive(Debug)]
pub struct Ledger {
    dir: StateDir,
    file: File,
    length: u64,
    /// The last line may be cut short.
    torn: bool,
}

impl Ledger {
    /// The ledger in a state directory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &StateDir) -> io::Result<Self> {
        let file = dir.append(NAMES[0])?;
        let length = file.metadata()?.len();
        Ok(Self {
            dir: dir.clone(),
            file,
            length,
            torn: false,
        })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.length + line.len() as u64 > LONGEST {
            self.begin_anew()?;
        }
        // One write, so that lines of two programs do not mix, and a crash costs the last at most.
        if std::mem::take(&mut self.torn) {
            // Half a line on a full disk must not spoil this one. It is left out when it is read.
            line.insert(0, b'\n');
        }
        if let Err(error) = self.file.write_all(&line) {
            self.torn = true;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        match fs::rename(self.dir.file(NAMES[0]), self.dir.file(NAMES[1])) {
            // Somebody moved it away, or it was renamed before and no other could be made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = self.dir.append(NAMES[0])?;
        self.length = 0;
        Ok(())
    }
}

/// Everything in the ledger of this state directory, the oldest first. A line that cannot be read
/// (a crash may have cut the last) is left out.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn read(state_dir: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    match read_one(&state_dir.join(NAMES[1]), &mut entries) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    read_one(&state_dir.join(NAMES[0]), &mut entries)?;
    Ok(entries)
}

fn read_one(path: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        entries.extend(serde_json::from_slice::<Entry>(&line).ok());
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(detail: &str) -> Entry {
        let rejection = Rejection {
            reason: Reason::KeyMismatch,
            path: "/k".into(),
            detail: detail.to_owned(),
            help: "look".to_owned(),
        };
        let event = Event::Rejected {
            source: "/c".into(),
            rejection: rejection.into(),
        };
        Entry::of(&event, Timestamp::from_unix(1_790_000_000))
    }

    #[test]
    fn half_a_line_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ledger = Ledger::open(&state).unwrap();
        ledger.write(&entry("one")).unwrap();
        // As a disk that is full leaves it.
        let writable = std::mem::replace(&mut ledger.file, File::open("/dev/null").unwrap());
        ledger.write(&entry("lost")).unwrap_err();
        ledger.file = writable;
        ledger.file.write_all(b"{\"half").unwrap();
        ledger.write(&entry("two")).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [entry("one"), entry("two")]);
    }

    #[test]
    fn what_is_written_is_read_again_and_a_torn_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ledger = Ledger::open(&state).unwrap();
        ledger.write(&entry("one")).unwrap();
        drop(ledger);
        let mut ledger = Ledger::open(&state).unwrap();
        ledger.write(&entry("two")).unwrap();
        ledger.file.write_all(b"{\"time\":\"20").unwrap();
        let entries = read(dir.path()).unwrap();
        assert_eq!(entries, [entry("one"), entry("two")]);
        assert_eq!(entries[0].reason, Some(Reason::KeyMismatch));
    }

    #[test]
    fn it_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ledger = Ledger::open(&state).unwrap();
        let long = "x".repeat(100_000);
        for _ in 0..150 {
            ledger.write(&entry(&long)).unwrap();
        }
        let sizes = NAMES.map(|name| fs::metadata(state.file(name)).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= LONGEST), "{sizes:?}");
        assert!(read(dir.path()).unwrap().len() > 40);
    }

    #[test]
    fn one_that_was_moved_away_when_it_is_long_enough_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ledger = Ledger::open(&state).unwrap();
        ledger.write(&entry("one")).unwrap();
        fs::rename(state.file(NAMES[0]), state.file("aside")).unwrap();
        ledger.length = LONGEST;
        ledger.write(&entry("two")).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [entry("two")]);
    }

    #[test]
    fn no_ledger_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_err());
    }
}
