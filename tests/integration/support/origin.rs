//! A web server to put behind the program: does what a test says, byte by byte, and remembers what
//! it was sent.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::PATIENCE;
use super::http::{Fields, Incoming, all, find};

type Handler = dyn Fn(&mut Exchange<'_>) -> io::Result<()> + Send + Sync;

/// What is answered, before it begins to.
#[derive(Default)]
pub struct Plan {
    routes: Vec<(String, Arc<Handler>)>,
    name: String,
}

/// An origin that is running; stops when dropped.
pub struct Origin {
    place: Place,
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

struct Shared {
    plan: Plan,
    stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connections ever accepted.
    accepted: usize,
    open: HashMap<usize, Socket>,
    requests: Vec<Request>,
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which connection it came on, counted from 1.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub fields: Fields,
    /// The head, byte for byte.
    pub head: Vec<u8>,
}

impl Request {
    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.fields, name)
    }

    /// The value of a field that is there exactly once.
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        let values = self.all(name);
        assert_eq!(values.len(), 1, "{name} in {self:?}");
        values[0]
    }
}

impl Plan {
    /// Does this for a path, and for all below it where it ends in a slash. The first that matches
    /// is used; what matches none is echoed.
    pub fn route(
        mut self,
        path: &str,
        handler: impl Fn(&mut Exchange<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.routes.push((path.to_owned(), Arc::new(handler)));
        self
    }

    /// Answers a path with these bytes.
    pub fn raw(self, path: &str, bytes: &'static str) -> Self {
        self.route(path, move |exchange| exchange.send(bytes))
    }

    /// Echoes a path once the gate is open.
    pub fn gated(self, path: &str, gate: &Gate) -> Self {
        let gate = gate.clone();
        self.route(path, move |exchange| {
            gate.pass();
            exchange.echo()
        })
    }

    /// Listens on a port of its own.
    pub fn start(self) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.start_on(listener)
    }

    /// Serves a listener.
    pub fn start_on(self, listener: TcpListener) -> Origin {
        let place = Place::Tcp(listener.local_addr().unwrap());
        self.run(place, move || Ok(Socket::Tcp(listener.accept()?.0)))
    }

    /// Listens on a unix socket.
    pub fn start_unix(self, path: &Path) -> Origin {
        let listener = UnixListener::bind(path).unwrap();
        let place = Place::Unix(path.to_owned());
        self.run(place, move || Ok(Socket::Unix(listener.accept()?.0)))
    }

    fn run(self, place: Place, accept: impl Fn() -> io::Result<Socket> + Send + 'static) -> Origin {
        let shared = Arc::new(Shared {
            plan: self,
            stopped: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let origin = Origin {
            place,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            while let Ok(socket) = accept() {
                if shared.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let number = {
                    let mut state = shared.lock();
                    state.accepted += 1;
                    let number = state.accepted;
                    state.open.insert(number, socket.try_clone().unwrap());
                    number
                };
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // A connection that breaks is the test's business.
                    let _ = shared.serve(number, socket);
                    if let Some(socket) = shared.lock().open.remove(&number) {
                        let _ = socket.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        origin
    }
}

impl Origin {
    /// To be told what to answer.
    pub fn plan(name: &str) -> Plan {
        Plan {
            name: name.to_owned(),
            ..Plan::default()
        }
    }

    /// Answers every request with a JSON object that describes it.
    pub fn echo() -> Self {
        Self::named("origin")
    }

    /// The same, under a name that the answers bear.
    pub fn named(name: &str) -> Self {
        Self::plan(name).start()
    }

    /// As a server is written in the configuration.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("http://{address}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.lock().open.len()
    }

    /// Requests received so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The last request received.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("no request came")
    }

    /// Closes all connections that are open.
    pub fn close_connections(&self) {
        for socket in self.shared.lock().open.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.close_connections();
        // Wakes the thread that accepts.
        match &self.place {
            Place::Tcp(address) => drop(TcpStream::connect(address)),
            Place::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: usize, socket: Socket) -> io::Result<()> {
        let mut incoming = Incoming::new(socket);
        loop {
            let Some(request) = read_request(&mut incoming, connection)? else {
                return Ok(());
            };
            self.lock().requests.push(request.clone());
            let handler = self.plan.find(&request.target);
            let mut exchange = Exchange {
                request,
                incoming: &mut incoming,
                shared: self,
                close: false,
                body_read: false,
            };
            match handler {
                Some(handler) => handler(&mut exchange)?,
                None => exchange.echo()?,
            }
            if !exchange.body_read {
                exchange.body()?;
            }
            if exchange.close {
                return Ok(());
            }
        }
    }
}

impl Plan {
    fn find(&self, target: &str) -> Option<Arc<Handler>> {
        let path = target.split('?').next().unwrap_or_default();
        let matches =
            |route: &str| path == route || route.ends_with('/') && path.starts_with(route);
        let found = self.routes.iter().find(|(route, _)| matches(route));
        found.map(|(_, handler)| Arc::clone(handler))
    }
}

fn read_request(incoming: &mut Incoming<Socket>, connection: usize) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = find(incoming.buffered(), b"\r\n\r\n") {
            break end + 4;
        }
        if incoming.fill()? == 0 {
            return Ok(None);
        }
    };
    let head = incoming.buffered()[..end].to_vec();
    let Some((start, fields)) = incoming.head()? else {
        return Ok(None);
    };
    let mut parts = start.split(' ');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    Ok(Some(Request {
        connection,
        method: part(),
        target: part(),
        fields,
        head,
    }))
}

/// One request and its answer.
pub struct Exchange<'a> {
    pub request: Request,
    incoming: &'a mut Incoming<Socket>,
    shared: &'a Shared,
    close: bool,
    body_read: bool,
}

impl Exchange<'_> {
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.incoming.inner.write_all(bytes.as_ref())
    }

    /// Sends a whole response.
    pub fn respond(&mut self, status: u16, fields: &str, body: &[u8]) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} OK\r\n{fields}");
        write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
        let body = if self.request.method == "HEAD" {
            &[]
        } else {
            body
        };
        self.send([head.as_bytes(), body].concat())
    }

    /// Reads the request's body and its trailers.
    pub fn body(&mut self) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        let trailers = self.each_of_body(|data| body.extend_from_slice(data))?;
        Ok((body, trailers))
    }

    /// Reads the request's body and does not keep it; its length.
    pub fn discard(&mut self) -> io::Result<u64> {
        let mut length = 0;
        self.each_of_body(|data| length += data.len() as u64)?;
        Ok(length)
    }

    fn each_of_body(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<Fields> {
        self.body_read = true;
        if self.request.all("transfer-encoding") == ["chunked"] {
            return self.incoming.chunked(&mut take);
        }
        let length = self.request.all("content-length");
        let length = length.first().map_or(0, |length| length.parse().unwrap());
        self.incoming.stream(length, &mut take)?;
        Ok(Fields::new())
    }

    /// Reads what comes next, whatever it is: for tunnels. Empty at the end.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        self.body_read = true;
        if self.incoming.buffered().is_empty() {
            self.incoming.fill()?;
        }
        let some = self.incoming.buffered().to_vec();
        self.incoming.consume(some.len());
        Ok(some)
    }

    /// Sends back whatever comes, until the other side ends: for tunnels.
    pub fn send_back(&mut self) -> io::Result<()> {
        loop {
            let some = self.read_some()?;
            if some.is_empty() {
                self.close();
                return Ok(());
            }
            self.send(some)?;
        }
    }

    /// Closes the connection after this exchange.
    pub const fn close(&mut self) {
        self.close = true;
        self.body_read = true;
    }

    /// Answers with what was asked, as JSON.
    pub fn echo(&mut self) -> io::Result<()> {
        let (body, trailers) = self.body()?;
        let echo = self.describe(&body, &trailers);
        let echo = serde_json::to_vec(&echo).unwrap();
        self.respond(200, "Content-Type: application/json\r\n", &echo)
    }

    fn describe(&self, body: &[u8], trailers: &Fields) -> Value {
        let request = &self.request;
        json!({
            "origin": self.shared.plan.name,
            "connection": request.connection,
            "method": request.method,
            "target": request.target,
            "fields": request.fields,
            "body": String::from_utf8_lossy(body),
            "trailers": trailers,
        })
    }
}

/// Something that handlers wait for until the test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Closed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all pass, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; not for ever, so that a test that failed can end.
    pub fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        let wait = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open);
        drop(wait.unwrap());
    }
}

/// A connection of either kind.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Unix(socket) => socket.shutdown(how),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(data),
            Self::Unix(socket) => socket.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.flush(),
            Self::Unix(socket) => socket.flush(),
        }
    }
}
