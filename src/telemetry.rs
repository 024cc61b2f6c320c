//! The log and the access log.
//!
//! The log is `tracing`, written to standard error: for eyes on a terminal, one JSON object a line
//! otherwise, or as configured. Whoever logs only puts a line into a bounded queue; a thread of its
//! own writes it. A reader of standard error that hangs costs lines, which are counted, and never
//! a request.
//!
//! The access log, in [`access`], has lanes of its own; spans of requests, in [`spans`], a queue.
//!
//! Nothing here knows of the rest of the program.

pub mod access;
mod lane;
mod queue;
pub mod spans;
mod throttle;

use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use throttle::Throttle;

use queue::Queue;

/// An environment variable with filter directives that take the place of the configured level.
pub const OVERRIDE: &str = "STAUNCH_LOG";

/// How the log is written.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Least level written, as `tracing` filter directives: `info`, `warn,staunch::tls=debug`.
    pub level: Arc<str>,
    /// `None`: human on a terminal, else JSON.
    pub format: Option<Format>,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directives do not parse.
    #[error("{level:?} is not a log level or filter: {source}")]
    Level {
        /// As written.
        level: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
    /// Somebody else has set up `tracing` already.
    #[error(transparent)]
    Taken(#[from] tracing::dispatcher::SetGlobalDefaultError),
}

/// Directives that parse: what can be applied without failing.
pub struct Level(EnvFilter);

impl Level {
    /// Reads filter directives. A level alone is that of staunch: `h2` has a line for each frame.
    pub fn parse(directives: &str) -> Result<Self, Error> {
        let own = match directives {
            "debug" | "trace" => &format!("info,staunch={directives}"),
            _ => directives,
        };
        EnvFilter::builder()
            .parse(own)
            .map(Self)
            .map_err(|source| Error::Level {
                level: directives.into(),
                source,
            })
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Level({})", self.0)
    }
}

/// The log, set up. Dropping it does not stop it; [`flush`](Self::flush) before the end.
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    /// [`OVERRIDE`] is set, and the configured level does not matter.
    overridden: bool,
    queue: Queue,
}

/// Sets up the log for the whole process, to standard error. Once only.
pub fn init(settings: &Settings) -> Result<Telemetry, Error> {
    let terminal = io::stderr().is_terminal();
    let coloured = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let format = settings.format.unwrap_or(match terminal {
        true => Format::Human,
        false => Format::Json,
    });
    let directives = env::var(OVERRIDE).ok().filter(|text| !text.is_empty());
    let level = Level::parse(directives.as_deref().unwrap_or(&settings.level))?;
    let queue = Queue::start(io::stderr())?;
    let (dispatch, filter) = dispatch(level, format, coloured, queue.clone());
    tracing::dispatcher::set_global_default(dispatch)?;
    Ok(Telemetry {
        filter,
        overridden: directives.is_some(),
        queue,
    })
}

impl Telemetry {
    /// Logs at another level from now on. Does nothing where [`OVERRIDE`] is set.
    pub fn set_level(&self, level: Level) {
        if !self.overridden {
            // It fails only when the subscriber is gone, and then there is no log to filter.
            let _ = self.filter.reload(level.0);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// A function for [`dropped`](Self::dropped) that outlives this.
    pub fn dropped_lines(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let queue = self.queue.clone();
        move || queue.dropped()
    }

    /// Waits until all that was logged is written, at most for `patience`. False when it is not.
    pub fn flush(&self, patience: Duration) -> bool {
        self.queue.flush(patience)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

fn dispatch(
    level: Level,
    format: Format,
    coloured: bool,
    queue: Queue,
) -> (Dispatch, reload::Handle<EnvFilter, Registry>) {
    let (filter, handle) = reload::Layer::new(level.0);
    let registry = Registry::default().with(filter);
    let layer = tracing_subscriber::fmt::layer();
    let dispatch = match format {
        Format::Human => {
            let lines = Lines { queue, format };
            let layer = layer.with_writer(lines).with_ansi(coloured);
            Dispatch::new(registry.with(layer.with_target(false)))
        }
        Format::Json => {
            let lines = Lines { queue, format };
            let layer = layer.with_writer(lines).json().flatten_event(true);
            Dispatch::new(registry.with(layer))
        }
    };
    (dispatch, handle)
}

/// Takes one formatted event at a time to the queue.
struct Lines {
    queue: Queue,
    format: Format,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.queue.push(match self.format {
            Format::Json => event.into(),
            Format::Human => one_entry(event),
        });
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event for eyes, in which a line break inside a value cannot pass for the beginning of another
/// entry. Escape sequences in values are the subscriber's own care, other control characters ours.
fn one_entry(event: &[u8]) -> Box<[u8]> {
    let body = event.strip_suffix(b"\n").unwrap_or(event);
    let mut entry = Vec::with_capacity(event.len() + 1);
    for &byte in body {
        match byte {
            b'\n' => entry.extend_from_slice(b"\n  | "),
            b'\t' | 0x1b | b' '.. => entry.push(byte),
            _ => entry.extend(byte.escape_ascii()),
        }
    }
    entry.push(b'\n');
    entry.into()
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// A place to write to that tests can read.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_level_alone_is_our_own() {
        let applied = |text| Level::parse(text).unwrap().0.to_string();
        assert_eq!(applied("debug"), "staunch=debug,info");
        assert_eq!(applied("trace"), "staunch=trace,info");
        assert_eq!(applied("warn"), "warn");
        assert_eq!(applied("h2=debug"), "h2=debug");
    }

    fn logged(format: Format, log: impl FnOnce(&reload::Handle<EnvFilter, Registry>)) -> String {
        let paper = Paper::default();
        let queue = Queue::start(paper.clone()).unwrap();
        let level = Level::parse("info").unwrap();
        let (dispatch, filter) = dispatch(level, format, false, queue.clone());
        tracing::dispatcher::with_default(&dispatch, || log(&filter));
        assert!(queue.flush(Duration::from_secs(5)));
        paper.text()
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(Format::Json, |_| {
            tracing::warn!(path = %"/a\n{\"level\":\"FORGED\"}", "odd");
            tracing::debug!("not this");
        });
        let [line] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "odd");
        assert_eq!(value["path"], "/a\n{\"level\":\"FORGED\"}");
    }

    #[test]
    fn a_value_cannot_forge_an_entry_for_eyes() {
        let text = logged(Format::Human, |_| {
            tracing::warn!(path = %"/a\n2024-06-05T00:00:00Z ERROR forged\r\x07", "odd");
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("WARN odd path=/a"), "{text}");
        assert!(lines[1].starts_with("  | 2024"), "{text}");
        assert!(lines[1].ends_with("\\r\\x07"), "{text}");
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        let text = logged(Format::Human, |filter| {
            tracing::debug!("first");
            filter.reload(Level::parse("debug").unwrap().0).unwrap();
            tracing::debug!("second");
        });
        assert!(!text.contains("first") && text.contains("second"), "{text}");
        assert!(Level::parse("staunch=loud").is_err());
    }

    #[test]
    fn a_reader_that_hangs_costs_lines_and_not_time() {
        struct Stuck(mpsc::Receiver<()>, Paper);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = mpsc::channel();
        let paper = Paper::default();
        let queue = Queue::start(Stuck(stuck, paper.clone())).unwrap();
        // So long that what fits into the queue and one write is fewer than these, however fast
        // either side is.
        let line = format!("{}\n", "x".repeat(63));
        for _ in 0..10_000 {
            queue.push(line.as_bytes().into());
        }
        assert!(queue.dropped() > 0);
        assert!(!queue.flush(Duration::from_millis(10)));
        drop(release);
        assert!(queue.flush(Duration::from_secs(5)));
        let written = paper.text().lines().count() as u64;
        assert_eq!(written + queue.dropped(), 10_000);
    }
}
