//! What is said in plain text before TLS begins, in protocols that begin so: PostgreSQL's request,
//! and `STARTTLS` of SMTP (RFC 3207), IMAP (RFC 9051, section 6.2.1) and POP3 (RFC 2595, section 4).
//!
//! Nothing of it reaches a server: it could only be a stranger's word before the client is known.
//! What a client sends behind its word for TLS, before it was told to go on, ends the connection
//! (CVE-2011-0411, CVE-2021-23214).

use std::io::{self, Cursor};
use std::sync::LazyLock;

use rustix::system::uname;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::StartTls;

/// What a client wants.
#[derive(Debug)]
pub enum Opening {
    /// TLS begins.
    Tls,
    /// To cancel a query of another connection of PostgreSQL: all that it sends, in plain text, as
    /// most clients do. It holds no more than the secret by which the server knows the other.
    Cancel(Cursor<Vec<u8>>),
}

/// Commands that a client may send before it begins TLS.
const COMMANDS: usize = 32;

/// The longest line (RFC 5321, section 4.5.3.1.4; RFC 9051 sets no limit, but nothing long is asked
/// for here).
const LINE: usize = 1024;

/// Leads a client to the beginning of TLS. The caller sets the deadline.
///
/// # Errors
/// Why it does not get there, in words for the log; the client has been told in its own.
pub async fn begin(protocol: StartTls, stream: &mut TcpStream) -> io::Result<Opening> {
    match protocol {
        StartTls::PostgreSql => postgresql(stream).await,
        StartTls::Smtp => lines(stream, &SMTP).await,
        StartTls::Imap => lines(stream, &IMAP).await,
        StartTls::Pop3 => lines(stream, &POP3).await,
    }
}

/// Codes in place of a protocol version (PostgreSQL, "Message Formats").
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The longest cancel request: a head of 12 bytes, and a key of up to 256 (protocol 3.2).
const LONGEST_CANCEL: u32 = 12 + 256;

/// The first byte of a record of TLS that holds a handshake.
const HANDSHAKE: u8 = 22;

/// What a client is told that would go on in plain text: an `ErrorResponse`.
const PLAIN: &[u8] =
    b"SFATAL\0VFATAL\0C28000\0Mno connection without TLS here: set sslmode to require or \
    better\0\0";

async fn postgresql(stream: &mut TcpStream) -> io::Result<Opening> {
    // Encryption by GSSAPI may be asked for before, once.
    for _ in 0..2 {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[0] == HANDSHAKE {
            return Ok(Opening::Tls); // `sslnegotiation=direct`
        }
        let (length, code) = (stream.read_u32().await?, stream.read_u32().await?);
        match (length, code) {
            (8, SSL_REQUEST) => {
                stream.write_all(b"S").await?;
                return Ok(Opening::Tls);
            }
            (8, GSSENC_REQUEST) => stream.write_all(b"N").await?,
            (16..=LONGEST_CANCEL, CANCEL_REQUEST) => {
                let mut whole = vec![0; length as usize];
                whole[..4].copy_from_slice(&length.to_be_bytes());
                whole[4..8].copy_from_slice(&code.to_be_bytes());
                stream.read_exact(&mut whole[8..]).await?;
                return Ok(Opening::Cancel(Cursor::new(whole)));
            }
            // Protocol 3.x: it would begin without TLS.
            (_, code) if code >> 16 == 3 => {
                stream.write_u8(b'E').await?;
                stream.write_u32(4 + PLAIN.len() as u32).await?;
                stream.write_all(PLAIN).await?;
                let _ = stream.shutdown().await;
                return Err(io::Error::other("the client would go on without TLS"));
            }
            _ => break,
        }
    }
    Err(io::Error::other("what came is not PostgreSQL"))
}

/// A protocol of lines.
struct Dialogue {
    greeting: fn() -> String,
    answer: fn(&str) -> Answer,
}

/// What is said to a line.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Say(String),
    /// This, and then TLS.
    Begin(String),
    /// This, and then nothing more.
    End(String),
}

async fn lines(stream: &mut TcpStream, dialogue: &Dialogue) -> io::Result<Opening> {
    stream.write_all((dialogue.greeting)().as_bytes()).await?;
    let mut buffer = Vec::with_capacity(LINE);
    for _ in 0..COMMANDS {
        let line = line(stream, &mut buffer).await?;
        match (dialogue.answer)(&line) {
            Answer::Say(text) => stream.write_all(text.as_bytes()).await?,
            Answer::Begin(_) if !buffer.is_empty() => {
                return Err(io::Error::other(
                    "the client went on in plain text after STARTTLS",
                ));
            }
            Answer::Begin(text) => {
                stream.write_all(text.as_bytes()).await?;
                return Ok(Opening::Tls);
            }
            Answer::End(text) => {
                stream.write_all(text.as_bytes()).await?;
                let _ = stream.shutdown().await;
                return Err(io::Error::other("the client left before TLS began"));
            }
        }
    }
    Err(io::Error::other("the client does not begin TLS"))
}

/// The next line, without its end. What follows it stays in the buffer.
async fn line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(at) = memchr::memchr(b'\n', buffer) {
            let line: Vec<u8> = buffer.drain(..=at).collect();
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if buffer.len() >= LINE {
            return Err(io::Error::other("a line is too long"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// This machine's name.
static NAME: LazyLock<String> = LazyLock::new(|| uname().nodename().to_string_lossy().into_owned());

const SMTP: Dialogue = Dialogue {
    greeting: || format!("220 {} ESMTP\r\n", *NAME),
    answer: |line| {
        let say = |text: &str| Answer::Say(format!("{text}\r\n"));
        match verb(line).as_str() {
            "EHLO" => Answer::Say(format!("250-{}\r\n250 STARTTLS\r\n", *NAME)),
            "HELO" => Answer::Say(format!("250 {}\r\n", *NAME)),
            // RFC 3207, section 4: it takes no parameters.
            "STARTTLS" if line.len() > 8 => say("501 5.5.4 no parameters"),
            "STARTTLS" => Answer::Begin("220 2.0.0 ready to start TLS\r\n".to_owned()),
            "NOOP" | "RSET" => say("250 2.0.0 OK"),
            "QUIT" => Answer::End("221 2.0.0 bye\r\n".to_owned()),
            _ => say("530 5.7.0 must issue a STARTTLS command first"),
        }
    },
};

const IMAP: Dialogue = Dialogue {
    greeting: || format!("* OK [CAPABILITY {IMAP_CAPABILITIES}] ready\r\n"),
    answer: |line| {
        let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
        // RFC 9051, section 9: `tag`.
        let is_tag = |byte: u8| byte.is_ascii_graphic() && !b"(){%*\"\\+".contains(&byte);
        if tag.is_empty() || !tag.bytes().all(is_tag) {
            return Answer::Say("* BAD no tag\r\n".to_owned());
        }
        match verb(command).as_str() {
            "CAPABILITY" => Answer::Say(format!(
                "* CAPABILITY {IMAP_CAPABILITIES}\r\n{tag} OK done\r\n"
            )),
            "STARTTLS" => Answer::Begin(format!("{tag} OK begin TLS now\r\n")),
            "NOOP" => Answer::Say(format!("{tag} OK done\r\n")),
            "LOGOUT" => Answer::End(format!("* BYE bye\r\n{tag} OK done\r\n")),
            // RFC 5530, section 3.
            _ => Answer::Say(format!("{tag} NO [PRIVACYREQUIRED] STARTTLS first\r\n")),
        }
    },
};

const IMAP_CAPABILITIES: &str = "IMAP4rev1 STARTTLS LOGINDISABLED";

const POP3: Dialogue = Dialogue {
    greeting: || "+OK ready\r\n".to_owned(),
    answer: |line| match verb(line).as_str() {
        "CAPA" => Answer::Say("+OK\r\nSTLS\r\n.\r\n".to_owned()),
        "STLS" => Answer::Begin("+OK begin TLS now\r\n".to_owned()),
        "QUIT" => Answer::End("+OK bye\r\n".to_owned()),
        _ => Answer::Say("-ERR STLS first\r\n".to_owned()),
    },
};

/// The first word of a command.
fn verb(line: &str) -> String {
    let word = line.split(' ').next().unwrap_or_default();
    word.to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(text: &str) -> Answer {
        Answer::Say(text.to_owned())
    }

    #[test]
    fn nothing_goes_on_without_tls() {
        assert_eq!((POP3.answer)("USER a"), say("-ERR STLS first\r\n"));
        assert_eq!(
            (SMTP.answer)("MAIL FROM:<a@b>"),
            say("530 5.7.0 must issue a STARTTLS command first\r\n")
        );
        assert_eq!(
            (IMAP.answer)("a1 login me secret"),
            say("a1 NO [PRIVACYREQUIRED] STARTTLS first\r\n")
        );
    }

    #[test]
    fn the_word_for_tls_is_known_in_any_case_and_without_parameters() {
        assert!(matches!((SMTP.answer)("StartTLS"), Answer::Begin(_)));
        assert!(matches!((SMTP.answer)("STARTTLS now"), Answer::Say(_)));
        assert!(matches!((POP3.answer)("stls"), Answer::Begin(_)));
        let begin = Answer::Begin("x-1 OK begin TLS now\r\n".to_owned());
        assert_eq!((IMAP.answer)("x-1 starttls"), begin);
        assert_eq!((IMAP.answer)("* starttls"), say("* BAD no tag\r\n"));
        assert_eq!((IMAP.answer)(""), say("* BAD no tag\r\n"));
    }
}
