//! The secrets of sessions in a file, for whoever has to read recorded traffic (the format of
//! `SSLKEYLOGFILE`; RFC 9850).
//!
//! Whoever has that file can read everything. It is written only when asked for by a flag.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rustls::KeyLog;

/// Lines that wait to be written; beyond that they are left out, and no handshake waits.
const WAITING: usize = 4096;

/// Writes to a file, from a thread of its own.
struct File(SyncSender<String>);

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog")
    }
}

/// Opens the file, for its owner only, and appends to it from now on.
pub fn to_file(path: &Path) -> io::Result<Arc<dyn KeyLog>> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let (lines, waiting) = sync_channel::<String>(WAITING);
    thread::Builder::new()
        .name("tls-keylog".to_owned())
        .spawn(move || {
            for line in waiting {
                // A full disk is no reason to stop serving.
                let _ = file.write_all(line.as_bytes());
            }
        })?;
    Ok(Arc::new(File(lines)))
}

impl KeyLog for File {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line =
            String::with_capacity(label.len() + 2 * (client_random.len() + secret.len()));
        line.push_str(label);
        for part in [client_random, secret] {
            line.push(' ');
            line.extend(part.iter().map(|byte| format!("{byte:02x}")));
        }
        line.push('\n');
        let _ = self.0.try_send(line);
    }
}
