//! A program, run with the alert as JSON on its standard input. No shell is involved.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

use super::error::{CommandError, SinkError};
use crate::alert::message::Notification;
use crate::alert::words;

/// Bytes of what it says that are kept.
const OUTPUT: usize = 2 * 1024;

/// A program and its arguments.
#[derive(Debug)]
pub struct Command {
    /// Both; never empty once configured.
    pub argv: Vec<Arc<str>>,
}

impl Command {
    /// The program, without its arguments, which may hold secrets.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", |it| it)
    }

    /// Runs it once. When the caller gives up, it and what it started is killed.
    pub async fn send(&self, told: &Notification) -> Result<(), SinkError> {
        let (program, arguments) = self.argv.split_first().ok_or(CommandError::Empty)?;
        let child = tokio::process::Command::new(&**program)
            .args(arguments.iter().map(|it| &**it))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // A group of its own, so that a script's children can be reached too.
            .process_group(0)
            .spawn()
            .map_err(|source| CommandError::Start {
                program: program.clone(),
                source,
            })?;
        let mut running = Running(child);
        let mut input = serde_json::to_vec(&told.alert).unwrap_or_default();
        input.push(b'\n');
        let (status, output) =
            running
                .finish(input)
                .await
                .map_err(|source| CommandError::Wait {
                    program: program.clone(),
                    source,
                })?;
        if status.success() {
            return Ok(());
        }
        let program = program.clone();
        let output = words::clean(String::from_utf8_lossy(&output).trim());
        Err(CommandError::Failed {
            program,
            status,
            output,
        }
        .into())
    }
}

/// A child that does not outlive the attempt, nor do its own children.
struct Running(Child);

impl Running {
    /// Feeds it, hears it and waits for it, all at once, so that no pipe can fill up.
    async fn finish(&mut self, input: Vec<u8>) -> io::Result<(ExitStatus, Vec<u8>)> {
        let stdin = self.0.stdin.take();
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input may still have done what it should.
                let _ = stdin.write_all(&input).await;
            }
        };
        let (status, (), out, err) =
            tokio::join!(self.0.wait(), feed, beginning(stdout), beginning(stderr));
        let mut output = err;
        output.extend_from_slice(&out);
        output.truncate(OUTPUT);
        Ok((status?, output))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // None once it was waited for: then the number may be another's.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// The beginning of what it says; the rest is read and thrown away.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut pipe) = pipe else {
        return Vec::new();
    };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = OUTPUT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    kept
}
