//! What can go wrong with a request, whose fault it is, whether it may be tried again, and what
//! the client is told.

use std::io;

use crate::http::framing::BodyError;
use crate::http::parse::HeadError;
use crate::metrics::{ErrorKind, Limit, Timeout, UpstreamOutcome};
use crate::upstream::gate::Full;
use crate::upstream::pool::ConnectError;
use crate::wire::ReadError;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Client,
    /// The upstream server's.
    Upstream,
    /// Ours.
    Here,
}

/// Why a request was not answered by an upstream server, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request is refused as it stands.
    #[error("the request is refused: {0}")]
    Refused(#[from] Refusal),
    /// It cannot be found out whether the client may ask.
    #[error("whether the client may ask is not known: {0}")]
    Undecided(#[from] Undecided),
    /// The client closed or reset before the end.
    #[error("the client went away")]
    ClientGone,
    /// The client sent a malformed body.
    #[error("the request's body is refused: {0}")]
    ClientBody(BodyError),
    /// The client stopped sending its body.
    #[error("the client stopped sending its request")]
    ClientStalled,
    /// The client stopped reading.
    #[error("the client stopped reading the response")]
    ClientNotReading,
    /// The upstream has no server that may be used.
    #[error("all servers are drained")]
    NoServer,
    /// The server has as many requests as it may have.
    #[error("the server is full: {0}")]
    Full(#[from] Full),
    /// There is no connection to the server.
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    /// The server closed or broke the connection before its response began.
    #[error("the server closed the connection without a response: {0}")]
    NoResponse(ReadError),
    /// The server sent something that is not a response.
    #[error("the server's response is malformed: {0}")]
    BadHead(HeadError),
    /// The server switched protocols without being asked.
    #[error("the server switched protocols without being asked")]
    UnaskedUpgrade,
    /// The server took longer to answer than it may.
    #[error("the server did not answer in time")]
    ResponseTimeout,
    /// Checks found the server to be down while the request waited for it.
    #[error("the server went down before it answered")]
    WentDown,
    /// The server stopped within its response's body.
    #[error("the server stopped sending its response")]
    BodyTimeout,
    /// The server's response ended early or is malformed.
    #[error("the server's response broke off: {0}")]
    BrokenBody(ReadError),
    /// The response cannot be compressed.
    #[error("the response cannot be compressed: {0}")]
    Coding(io::Error),
}

/// Why it cannot be found out whether a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// Too many passwords are to be hashed.
    #[error("too many passwords wait to be verified")]
    Busy,
    /// The file with the users could never be read.
    #[error("the file of `basic_auth` could not be read yet")]
    NoUsers,
    /// The server that is asked said something that is no answer.
    #[error("the server of `forward_auth` answered with {0}")]
    Answer(u16),
    /// A request that asks is asked about itself.
    #[error("the upstream of `forward_auth` leads back to a site that asks it")]
    Circle,
}

/// Why a request is refused as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The head.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Host or `:authority` is not a host.
    #[error("the host is malformed")]
    Host,
    /// The path leaves the root.
    #[error("the path is malformed")]
    Path,
    /// The server speaks HTTP/2 only, which has no words for the request.
    #[error("the request cannot be said in HTTP/2")]
    Unsayable,
    /// No site answers to the host.
    #[error("no site answers to this host")]
    Misdirected,
    /// No route of the site matches.
    #[error("no route matches the path")]
    NoRoute,
    /// The method is not for a gateway.
    #[error("the method is not allowed")]
    Method,
    /// An extended CONNECT for something that there is no translation for.
    #[error("the protocol to connect by is not known")]
    Protocol,
    /// The body is longer than the limit.
    #[error("the body is longer than the limit")]
    TooLarge,
    /// The head took too long.
    #[error("the request's head did not arrive in time")]
    HeadTimeout,
    /// An expectation other than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
    /// The client asks for more than it may; for how many seconds.
    #[error("the client asks too often")]
    ClientRate(u32),
    /// The client's address is not let in.
    #[error("the client's address is not let in")]
    Forbidden,
    /// The client does not say who it is.
    #[error("the client does not say who it is")]
    Anonymous,
    /// There is no such user, or the password is another.
    #[error("user or password are wrong")]
    Credentials,
    /// There is maintenance; for how many seconds.
    #[error("there is maintenance")]
    Maintenance(u32),
    /// A quota is used up; for how many seconds.
    #[error("a quota is used up")]
    Quota(u32),
    /// The site is asked for more than it may be; for how many seconds.
    #[error("the site is asked too often")]
    SiteRate(u32),
}

impl Refusal {
    /// The status that says so (RFC 9110, section 15.5; RFC 6585).
    pub const fn status(self) -> u16 {
        match self {
            Self::Head(HeadError::TooLong | HeadError::TooManyFields) => 431,
            Self::Head(HeadError::Version) => 505,
            // RFC 9220, section 3, says so of an extended CONNECT.
            Self::Head(HeadError::TransferCoding) | Self::Protocol => 501,
            Self::Head(HeadError::Malformed(_)) | Self::Host | Self::Path | Self::Unsayable => 400,
            Self::Anonymous | Self::Credentials => 401,
            Self::Forbidden => 403,
            Self::Maintenance(_) => 503,
            Self::Misdirected => 421,
            Self::NoRoute => 404,
            Self::Method => 405,
            Self::TooLarge => 413,
            Self::HeadTimeout => 408,
            Self::Expectation => 417,
            Self::ClientRate(_) | Self::SiteRate(_) | Self::Quota(_) => 429,
        }
    }
}

impl Failure {
    /// The status that the client is told, where it can still be told anything. 499 is for logs
    /// alone: the client is gone.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::Undecided(Undecided::Busy | Undecided::NoUsers) => 503,
            Self::Undecided(Undecided::Answer(_)) => 502,
            Self::Undecided(Undecided::Circle) => 508,
            Self::ClientGone | Self::ClientNotReading => 499,
            Self::ClientBody(_) => 400,
            Self::ClientStalled => 408,
            Self::Connect(ConnectError::Timeout(_))
            | Self::ResponseTimeout
            | Self::WentDown
            | Self::BodyTimeout => 504,
            Self::Connect(ConnectError::Exhausted(_)) | Self::NoServer | Self::Full(_) => 503,
            Self::Connect(_)
            | Self::NoResponse(_)
            | Self::BadHead(_)
            | Self::UnaskedUpgrade
            | Self::BrokenBody(_) => 502,
            Self::Coding(_) => 500,
        }
    }

    /// The limit that acted, where one did.
    pub const fn limit(&self) -> Option<Limit> {
        let refusal = match self {
            Self::Refused(refusal) => refusal,
            Self::Undecided(Undecided::Busy) => return Some(Limit::Passwords),
            _ => return None,
        };
        Some(match refusal {
            Refusal::Head(HeadError::TooLong) => Limit::RequestHead,
            Refusal::Head(HeadError::TooManyFields) => Limit::RequestFields,
            Refusal::TooLarge => Limit::RequestBody,
            Refusal::ClientRate(_) => Limit::ClientRate,
            Refusal::SiteRate(_) => Limit::SiteRate,
            Refusal::Quota(_) => Limit::Quota,
            _ => return None,
        })
    }

    /// Seconds after which it is worth asking again (RFC 9110, section 10.2.3), where that is
    /// known.
    pub const fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Refused(
                Refusal::ClientRate(seconds)
                | Refusal::SiteRate(seconds)
                | Refusal::Quota(seconds)
                | Refusal::Maintenance(seconds),
            ) => Some(*seconds),
            _ if self.status() == 503 => Some(1),
            _ => None,
        }
    }

    /// Whose fault it is.
    pub const fn side(&self) -> Side {
        match self {
            Self::Refused(_)
            | Self::Undecided(Undecided::Busy)
            | Self::ClientGone
            | Self::ClientBody(_)
            | Self::ClientStalled
            | Self::ClientNotReading => Side::Client,
            Self::Undecided(Undecided::NoUsers | Undecided::Circle) => Side::Here,
            Self::Connect(ConnectError::Exhausted(_))
            | Self::NoServer
            | Self::Full(_)
            | Self::Coding(_) => Side::Here,
            _ => Side::Upstream,
        }
    }

    /// Its name in metrics and logs; `None` where the client just went away.
    pub const fn kind(&self) -> Option<ErrorKind> {
        Some(match self {
            Self::Refused(refusal) => match refusal.status() {
                401 => ErrorKind::Unauthorized,
                403 => ErrorKind::Forbidden,
                404 => ErrorKind::NoRoute,
                408 => ErrorKind::RequestTimeout,
                413 => ErrorKind::BodyTooLarge,
                421 => ErrorKind::Misdirected,
                429 => ErrorKind::TooManyRequests,
                431 => ErrorKind::HeadTooLarge,
                503 => ErrorKind::Maintenance,
                _ => ErrorKind::BadRequest,
            },
            Self::Undecided(Undecided::Busy) => ErrorKind::Overloaded,
            Self::Undecided(_) => ErrorKind::Undecided,
            Self::ClientGone | Self::ClientNotReading => return None,
            Self::ClientBody(_) => ErrorKind::BadRequest,
            Self::ClientStalled => ErrorKind::RequestTimeout,
            Self::Connect(ConnectError::Timeout(_)) => ErrorKind::UpstreamConnectTimeout,
            Self::Connect(ConnectError::Resolve(_)) => ErrorKind::UpstreamResolve,
            Self::Connect(ConnectError::Connect(_)) => ErrorKind::UpstreamConnect,
            Self::Connect(ConnectError::Tls(_)) => ErrorKind::UpstreamTls,
            Self::Connect(ConnectError::Exhausted(_)) | Self::Full(_) => ErrorKind::Overloaded,
            Self::NoServer => ErrorKind::NoServer,
            Self::NoResponse(_) => ErrorKind::UpstreamClosed,
            Self::BadHead(_) | Self::UnaskedUpgrade => ErrorKind::UpstreamMalformed,
            Self::ResponseTimeout | Self::WentDown => ErrorKind::UpstreamTimeout,
            Self::BodyTimeout | Self::BrokenBody(_) => ErrorKind::UpstreamBody,
            Self::Coding(_) => ErrorKind::Internal,
        })
    }

    /// The timeout that acted, if one did.
    pub const fn timeout(&self) -> Option<Timeout> {
        Some(match self {
            Self::ClientStalled => Timeout::RequestBody,
            Self::ClientNotReading => Timeout::Send,
            Self::Connect(ConnectError::Timeout(_)) => Timeout::UpstreamConnect,
            Self::ResponseTimeout => Timeout::UpstreamResponse,
            Self::BodyTimeout => Timeout::UpstreamIdle,
            _ => return None,
        })
    }

    /// How an attempt that ended like this is counted for its server.
    pub const fn outcome(&self) -> UpstreamOutcome {
        match self {
            Self::Connect(_) => UpstreamOutcome::Connect,
            Self::NoResponse(_) | Self::BrokenBody(_) => UpstreamOutcome::Closed,
            Self::BadHead(_) | Self::UnaskedUpgrade => UpstreamOutcome::Malformed,
            Self::ResponseTimeout | Self::WentDown | Self::BodyTimeout => UpstreamOutcome::Timeout,
            Self::Full(_) => UpstreamOutcome::Full,
            Self::Refused(_)
            | Self::Undecided(_)
            | Self::NoServer
            | Self::ClientGone
            | Self::ClientBody(_)
            | Self::ClientStalled
            | Self::ClientNotReading
            | Self::Coding(_) => UpstreamOutcome::Aborted,
        }
    }

    /// Whether it says something of the server, rather than of the client or of this machine.
    pub fn is_of_server(&self) -> bool {
        self.side() == Side::Upstream
    }

    /// Whether it counts as a failure of the server once the response has begun. A pause does not: it
    /// has answered, and may have nothing to say for a while, as in a stream of events.
    pub fn is_held_against_server(&self) -> bool {
        self.is_of_server() && !matches!(self, Self::BodyTimeout)
    }

    /// Whether another try cannot do harm, given how far this one got (RFC 9110, section 9.2.2).
    /// Nothing of a response has reached the client but interim ones.
    pub const fn may_retry(&self, progress: Progress) -> bool {
        let Progress {
            sent,
            idempotent,
            replayable,
        } = progress;
        replayable
            && match self {
                // It would fail at any server.
                Self::Connect(ConnectError::Exhausted(_)) => false,
                // Nothing was sent.
                Self::Connect(_) => true,
                // It may have been processed, if it got there.
                Self::NoResponse(_)
                | Self::BadHead(_)
                | Self::UnaskedUpgrade
                | Self::WentDown
                | Self::ResponseTimeout => idempotent || !sent,
                _ => false,
            }
    }
}

impl From<io::Error> for Failure {
    /// An error of the client's stream.
    fn from(_: io::Error) -> Self {
        Self::ClientGone
    }
}

/// How far an attempt got before it failed.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Some of the request may have reached the server.
    pub sent: bool,
    /// The request's method is idempotent.
    pub idempotent: bool,
    /// What is gone of the request's body can be sent again.
    pub replayable: bool,
}

/// The reason phrase of a status (RFC 9110, section 15; RFC 6585); empty, which is allowed, where
/// there is none.
pub const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        _ => "",
    }
}
