//! HTTP/1.1 messages, read strictly and independently of the program under test.

use std::io::{self, ErrorKind, Read};

use serde_json::Value;

/// Name and value of header fields, names in lower case, in order.
pub type Fields = Vec<(String, String)>;

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The 1xx responses that came before it.
    pub interim: Vec<Self>,
}

impl Response {
    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.fields, name)
    }

    /// The value of a field that is there at most once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(
            values.len() <= 1,
            "{name} is there more than once: {self:?}"
        );
        values.first().copied()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        json(&self.body)
    }

    /// Itself, if the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}\n{}", self.text());
        self
    }
}

/// Parses JSON, or fails showing what is not.
#[track_caller]
pub fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

/// The values of a field.
pub fn all<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let is_it = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
    (fields.iter().filter(is_it))
        .map(|field| field.1.as_str())
        .collect()
}

/// Bytes from a connection, kept until they are wanted.
pub struct Incoming<R> {
    pub inner: R,
    buffer: Vec<u8>,
    begin: usize,
}

impl<R: Read> Incoming<R> {
    pub const fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            begin: 0,
        }
    }

    /// What was read and not yet used.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.begin..]
    }

    /// Reads more; 0 at the end.
    pub fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + (64 << 10), 0);
        let result = loop {
            match self.inner.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let count = *result.as_ref().unwrap_or(&0);
        self.buffer.truncate(old + count);
        result
    }

    pub fn consume(&mut self, count: usize) {
        self.begin += count;
    }

    fn more(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffered().len() < count {
            self.more()?;
        }
        let bytes = self.buffered()[..count].to_vec();
        self.consume(count);
        Ok(bytes)
    }

    /// Up to and without CRLF.
    fn line(&mut self) -> io::Result<String> {
        let mut from = 0;
        loop {
            if let Some(end) = find(&self.buffered()[from..], b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffered()[..from + end]).into_owned();
                self.consume(from + end + 2);
                return Ok(line);
            }
            from = self.buffered().len().saturating_sub(1);
            self.more()?;
        }
    }

    /// A start line and fields, or `None` where the connection ends before.
    pub fn head(&mut self) -> io::Result<Option<(String, Fields)>> {
        if self.buffered().is_empty() && self.fill()? == 0 {
            return Ok(None);
        }
        let start = self.line()?;
        Ok(Some((start, self.fields()?)))
    }

    /// Fields up to the empty line.
    pub fn fields(&mut self) -> io::Result<Fields> {
        let mut fields = Fields::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
            fields.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }

    /// A body in the chunked coding, given to `take` piece by piece, and its trailers.
    pub fn chunked(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<Fields> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid(&line))?;
            if size == 0 {
                return self.fields();
            }
            self.stream(size as u64, &mut take)?;
            if !self.line()?.is_empty() {
                return Err(invalid("a chunk is longer than it says"));
            }
        }
    }

    /// So many bytes, given to `take` piece by piece.
    pub fn stream(&mut self, mut count: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        while count > 0 {
            if self.buffered().is_empty() {
                self.more()?;
            }
            let len = usize::try_from(count).unwrap_or(usize::MAX);
            let len = self.buffered().len().min(len);
            take(&self.buffered()[..len]);
            self.consume(len);
            count -= len as u64;
        }
        Ok(())
    }

    /// Everything to the end. `Err` where it ends without a proper close.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        let rest = self.buffered().to_vec();
        self.consume(rest.len());
        Ok(rest)
    }

    /// A response to a request with this method, interim ones included.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.response_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response);
                continue;
            }
            response.interim = interim;
            self.response_body(method, &mut response)?;
            return Ok(response);
        }
    }

    /// A status line and fields.
    pub fn response_head(&mut self) -> io::Result<Response> {
        let (start, fields) = self.head()?.ok_or(ErrorKind::UnexpectedEof)?;
        let mut parts = start.splitn(3, ' ');
        let (version, status) = (parts.next(), parts.next());
        if !matches!(version, Some("HTTP/1.1" | "HTTP/1.0")) {
            return Err(invalid(&start));
        }
        let status = status.and_then(|status| status.parse().ok());
        Ok(Response {
            status: status.ok_or_else(|| invalid(&start))?,
            fields,
            ..Response::default()
        })
    }

    fn response_body(&mut self, method: &str, response: &mut Response) -> io::Result<()> {
        let status = response.status;
        if method == "HEAD" || status == 101 || status == 204 || status == 304 {
            return Ok(());
        }
        let mut body = Vec::new();
        let mut take = |data: &[u8]| body.extend_from_slice(data);
        match (
            response.field("transfer-encoding"),
            response.field("content-length"),
        ) {
            (Some("chunked"), None) => response.trailers = self.chunked(&mut take)?,
            (None, Some(length)) => {
                let length = length.parse().map_err(|_| invalid(length))?;
                self.stream(length, &mut take)?;
            }
            (None, None) => body = self.rest()?,
            framing => return Err(invalid(&format!("{framing:?}"))),
        }
        response.body = body;
        Ok(())
    }
}

/// Where `needle` begins.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not HTTP/1.1: {what:?}"))
}
