//! Closing a connection in order.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::http::Framing;
use crate::wire::{Body, Deadline, Reader};

/// How long a closing connection waits for the client to have read all and close too.
pub const LINGER: Duration = Duration::from_secs(2);

/// Closes the sending side, then reads what the client still sends, for a while: closing over
/// unread data would reset the connection and could take the end of the response away from the
/// client (RFC 9112, section 9.6). What was not yet sent has `send` for it. A client from which
/// nothing more is expected is not waited for, unless something of it is there already.
pub async fn close<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I, send: Duration, wait: bool) {
    let mut deadline = Deadline::default();
    deadline.set(send);
    let mut ignored = Reader::default();
    ignored.begin_body(Framing::UntilClose);
    let mut said = false;
    poll_fn(|cx| {
        if !said {
            match Pin::new(&mut *io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    said = true;
                    deadline.set(LINGER);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return deadline.poll(cx),
            }
        }
        loop {
            match ignored.poll_body(cx, io) {
                // Looked at between two reads: a client that never pauses ends all the same.
                Poll::Ready(Ok(Body::Data)) if !deadline.has_passed() => {
                    let count = ignored.data().len();
                    ignored.consume(count);
                }
                Poll::Pending if wait => return deadline.poll(cx),
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(()),
            }
        }
    })
    .await;
}
