//! The upstream of the corpus: it must get exactly what the case says, and answers only then.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::case::{Case, Step};
use super::{ADDED, CANARY};

/// How long the upstream may wait for the rest of what it expects.
const PATIENCE: Duration = Duration::from_secs(20);
const CANARY_REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary";

pub struct Origin {
    address: SocketAddr,
    stage: Arc<Stage>,
}

#[derive(Default)]
struct Stage {
    script: Mutex<Script>,
    moved: Condvar,
}

#[derive(Default)]
struct Script {
    /// Which case it is of: a connection of the last one has no part in it.
    case: usize,
    steps: Vec<Play>,
    next: usize,
    /// Connections that are waited for to be cut.
    cutting: usize,
    wrong: Option<String>,
    open: Vec<TcpStream>,
    /// Who was accepted last.
    last: Option<SocketAddr>,
}

#[derive(Clone)]
enum Play {
    Get(Vec<u8>),
    Cut(Vec<u8>),
    Put(Vec<u8>, bool),
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stage = Arc::<Stage>::default();
        let shared = Arc::clone(&stage);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stage = Arc::clone(&shared);
                let _ = stream.set_nodelay(true);
                let case = {
                    let mut script = stage.script.lock().unwrap();
                    script.open.push(stream.try_clone().unwrap());
                    script.last = stream.peer_addr().ok();
                    stage.moved.notify_all();
                    script.case
                };
                thread::spawn(move || serve(stream, &stage, case));
            }
        });
        Self { address, stage }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Plays the upstream's part of this case from now on.
    pub fn begin(&self, case: &Case) {
        let play = |step: &Step| match step {
            Step::Upstream(bytes) => Some(Play::Get(bytes.clone())),
            Step::Cut(bytes) => Some(Play::Cut(bytes.clone())),
            Step::Reply(bytes, close) => Some(Play::Put(bytes.clone(), *close)),
            _ => None,
        };
        let mut script = self.stage.script.lock().unwrap();
        *script = Script {
            case: script.case + 1,
            steps: case.steps.iter().filter_map(play).collect(),
            ..Script::default()
        };
    }

    /// Closes all connections; what was wrong.
    pub fn end(&self) -> Result<(), String> {
        // A connection of this case may not have been accepted yet, and must not be taken for one of
        // the next: whoever comes now comes behind it.
        let last = TcpStream::connect(self.address).unwrap().local_addr().ok();
        // A client may have its answer before its request has gone through to the end.
        let mut script = self.stage.script.lock().unwrap();
        let begin = Instant::now();
        while (script.waits() || script.last != last) && begin.elapsed() < PATIENCE {
            script = self.stage.moved.wait_timeout(script, PATIENCE).unwrap().0;
        }
        for stream in script.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        match script.wrong.take() {
            Some(wrong) => Err(wrong),
            None if script.waits() => Err(match script.steps.get(script.next) {
                Some(Play::Get(bytes)) => {
                    format!("the upstream waits for {}", bytes.escape_ascii())
                }
                _ => "the upstream is not done".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

impl Script {
    fn waits(&self) -> bool {
        let due = self.steps.get(self.next);
        let due = due.is_some_and(|play| !matches!(play, Play::Cut(_)));
        (due || self.cutting > 0) && self.wrong.is_none()
    }
}

impl Stage {
    /// Changes the script, where it is still that of this case.
    fn change(&self, case: usize, change: impl FnOnce(&mut Script)) {
        let mut script = self.script.lock().unwrap();
        if script.case == case {
            change(&mut script);
        }
        self.moved.notify_all();
    }

    /// What was due has come: what is said to it. Taken before it is said, since what is asked next
    /// may come, on another connection, before it is all said.
    fn replies(&self, case: usize) -> Vec<(Vec<u8>, bool)> {
        let mut replies = Vec::new();
        self.change(case, |script| {
            script.next += 1;
            while let Some(Play::Put(bytes, close)) = script.steps.get(script.next) {
                replies.push((bytes.clone(), *close));
                script.next += 1;
            }
        });
        replies
    }
}

/// Serves one connection: the steps that are due, then canaries.
fn serve(mut stream: TcpStream, stage: &Stage, case: usize) {
    let mut read = Vec::new();
    let mut buffer = [0; 64 << 10];
    let canary = CANARY.replace("\r\n\r\n", &format!("\r\n{ADDED}Via: 1.1 staunch\r\n\r\n"));
    loop {
        let now = {
            let mut script = stage.script.lock().unwrap();
            if script.case != case {
                return;
            }
            let now = script.steps.get(script.next).cloned();
            script.cutting += usize::from(matches!(now, Some(Play::Cut(_))));
            now
        };
        let expected = match &now {
            Some(Play::Cut(head)) => {
                let _ = stream.read_to_end(&mut read);
                let length = head.len().min(read.len());
                let whole = read[..length] != head[..length] || read.ends_with(b"0\r\n\r\n");
                let wrong = format!("upstream: a whole request: {}", read.escape_ascii());
                stage.change(case, |script| {
                    script.cutting -= 1;
                    if whole {
                        script.wrong.get_or_insert(wrong);
                    }
                });
                return;
            }
            Some(Play::Get(bytes)) => &bytes[..],
            Some(Play::Put(..)) | None => canary.as_bytes(),
        };
        if read.starts_with(expected) {
            read.drain(..expected.len());
            if now.is_none() {
                if stream.write_all(CANARY_REPLY).is_err() {
                    return;
                }
                continue;
            }
            for (bytes, close) in stage.replies(case) {
                let _ = stream.write_all(&bytes);
                if close {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
            continue;
        }
        if !expected.starts_with(&read) {
            let what = match now {
                Some(_) => "expected",
                None => "nothing was due, or the canary:",
            };
            let (expected, came) = (expected.escape_ascii(), read.escape_ascii());
            let wrong = format!("upstream: {what} {expected}\n    came     {came}");
            stage.change(case, |script| {
                script.wrong.get_or_insert(wrong);
            });
            let _ = stream.write_all(b"HTTP/1.1 599 Wrong\r\nConnection: close\r\n\r\n");
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
}
