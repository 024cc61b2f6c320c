//! What a restart must not forget, in `alerts.json` in the state directory: written atomically,
//! readable by its owner only. Missing or damaged, it costs a repeated message, nothing more.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::engine::Saved;
use super::memory::Memory;
use super::message::Notification;
use crate::clock::Timestamp;
use crate::state::StateDir;

/// The file's name in the state directory.
pub const FILE: &str = "alerts.json";
/// More than this was not written by us.
const MOST: u64 = 256 * 1024 * 1024;

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// When it was written.
    pub saved_at: Option<Timestamp>,
    /// The latest time that was believed.
    pub seen: Option<Timestamp>,
    /// What fires, and what was told of it.
    pub alerts: Saved,
    /// Habits and differences.
    pub memory: Memory,
    /// When each sink was sent a test.
    pub tested: BTreeMap<String, Timestamp>,
    /// What has not been delivered, by sink.
    pub undelivered: BTreeMap<String, Vec<Notification>>,
}

/// Reads it. A file that is not there is an empty state; one that is damaged is an error, and the
/// caller goes on with an empty state too.
pub fn load(dir: &StateDir) -> io::Result<State> {
    match dir.read(FILE, MOST) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(error),
    }
}

/// The memory of a server whose state is in this folder, as far as it can be read. Changes nothing
/// there, not even the permissions, so that a drill leaves no trace.
pub fn memory(folder: &Path) -> Memory {
    let read = || -> io::Result<State> {
        let mut text = Vec::new();
        File::open(folder.join(FILE))?
            .take(MOST)
            .read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    read().unwrap_or_default().memory
}

/// Writes it: either the old or the new state is on disk at any moment.
pub fn save(dir: &StateDir, state: &State) -> io::Result<()> {
    dir.write(FILE, &[&serde_json::to_vec(state)?])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_reads_what_it_wrote_and_is_its_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        assert_eq!(load(&dir).unwrap(), State::default());
        let state = State {
            seen: Some(Timestamp::from_unix(5)),
            ..State::default()
        };
        save(&dir, &State::default()).unwrap();
        save(&dir, &state).unwrap();
        assert_eq!(load(&dir).unwrap(), state);
        let mode = fs::metadata(dir.file(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        for damage in ["", "{", "[1]", "{\"seen\":\"never\"}", "\0\0"] {
            fs::write(dir.file(FILE), damage).unwrap();
            assert!(load(&dir).is_err(), "{damage:?}");
        }
    }
}
