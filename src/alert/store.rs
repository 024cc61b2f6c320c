//! What a restart must not forget, in `alerts.json` in the state directory: written atomically,
//! readable by its owner only. Missing or damaged, it costs a repeated message, nothing more.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::engine::Saved;
use super::memory::Memory;
use super::message::Notification;
use crate::clock::Timestamp;

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
    /// What has not been delivered, by sink.
    pub undelivered: BTreeMap<String, Vec<Notification>>,
}

/// Reads it. A file that is not there is an empty state; one that is damaged is an error, and the
/// caller goes on with an empty state too.
pub fn load(path: &Path) -> io::Result<State> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes it: either the old or the new state is on disk at any moment.
pub fn save(path: &Path, state: &State) -> io::Result<()> {
    let text = serde_json::to_vec(state)?;
    let beside = path.with_extension("json.new");
    // A leftover may belong to somebody else, or be a link; O_EXCL follows neither.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_reads_what_it_wrote_and_is_its_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(load(&path).unwrap(), State::default());
        let state = State {
            seen: Some(Timestamp::from_unix(5)),
            ..State::default()
        };
        save(&path, &State::default()).unwrap();
        save(&path, &state).unwrap();
        assert_eq!(load(&path).unwrap(), state);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for damage in ["", "{", "[1]", "{\"seen\":\"never\"}", "\0\0"] {
            fs::write(&path, damage).unwrap();
            assert!(load(&path).is_err(), "{damage:?}");
        }
        assert!(save(&folder.path().join("no/such/folder"), &State::default()).is_err());
    }
}
