//! What two processes say to each other while one takes over from the other: messages, and with
//! them open sockets.
//!
//! The old process gives the new one an end of a socket pair as its standard input. That needs no
//! number of a descriptor to be believed, and no `unsafe`: a descriptor that comes with a message
//! (`SCM_RIGHTS`, unix(7)) is owned by whoever receives it, and closed on exec from the first
//! moment. The pair keeps messages apart (`SOCK_SEQPACKET`), and when one side is gone the other is
//! told.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors in one message. The kernel takes 253.
pub const MOST: usize = 64;

/// How long the other side may take until there is room for more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of one message.
const LONGEST: usize = 128 * 1024;

/// Why nothing could be said or heard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has ended, or closed its side.
    #[error("the other process is gone")]
    Gone,
    /// It says nothing.
    #[error("the other process said nothing for {0:?}")]
    Silent(Duration),
    /// It speaks another language.
    #[error("the other process said what cannot be understood: {0}")]
    Strange(#[from] serde_json::Error),
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Gone,
            errno => Self::Io(errno.into()),
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Two ends: one for this process, one for the standard input of another.
    ///
    /// # Errors
    /// Those of `socketpair`.
    pub fn pair() -> io::Result<(Self, Stdio)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Send, Some(PATIENCE))?;
        Ok((Self(ours), theirs.into()))
    }

    /// The end that is this process's standard input, which is nothing any more from now on.
    /// `None` where it is something else.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub fn from_stdin() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if sockopt::socket_type(&stdin) != Ok(SocketType::SEQPACKET) {
            return Ok(None);
        }
        let ours = stdin.as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(Some(Self(ours)))
    }

    /// Says something. At most [`MOST`] descriptors go with it.
    ///
    /// # Errors
    /// When the other side is gone, or what is said is too long.
    pub fn send(&self, message: &impl Serialize, with: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let text = serde_json::to_vec(message)?;
        if text.len() > LONGEST || with.len() > MOST {
            return Err(Error::Io(io::ErrorKind::InvalidInput.into()));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !with.is_empty() && !control.push(SendAncillaryMessage::ScmRights(with)) {
            return Err(Error::Io(io::ErrorKind::InvalidInput.into()));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&text)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Waits for what the other side says, and what comes with it.
    ///
    /// # Errors
    /// When it is gone, says nothing in this time, or nothing that can be understood.
    pub fn receive<T: DeserializeOwned>(
        &self,
        within: Duration,
    ) -> Result<(T, Vec<OwnedFd>), Error> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(within))?;
        let mut text = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut text)];
            match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Error::Silent(within)),
                other => break other?,
            }
        };
        let sockets = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Err(Error::Gone);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(Error::Io(io::ErrorKind::InvalidData.into()));
        }
        Ok((serde_json::from_slice(&text[..received.bytes])?, sockets))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Link, Link) {
        let flags = SocketFlags::CLOEXEC;
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Link(a), Link(b))
    }

    #[test]
    fn a_listening_socket_goes_over_with_its_queue() {
        let (ours, theirs) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = TcpStream::connect(address).unwrap();
        ours.send(&[address], &[listener.as_fd()]).unwrap();
        drop(listener);
        let (said, mut sockets) = theirs.receive::<Vec<String>>(SOON).unwrap();
        assert_eq!(said, [address.to_string()]);
        let listener = TcpListener::from(sockets.remove(0));
        let (_, from) = listener.accept().unwrap();
        assert_eq!(from, waiting.local_addr().unwrap());
    }

    #[test]
    fn messages_stay_apart_and_an_end_is_heard() {
        let (ours, theirs) = pair();
        ours.send(&"one", &[]).unwrap();
        ours.send(&"two", &[]).unwrap();
        drop(ours);
        assert_eq!(theirs.receive::<String>(SOON).unwrap().0, "one");
        assert_eq!(theirs.receive::<String>(SOON).unwrap().0, "two");
        assert!(matches!(theirs.receive::<String>(SOON), Err(Error::Gone)));
        assert!(matches!(theirs.send(&"three", &[]), Err(Error::Gone)));
    }

    #[test]
    fn silence_and_nonsense_are_errors() {
        let (ours, theirs) = pair();
        let moment = Duration::from_millis(10);
        assert!(matches!(
            theirs.receive::<String>(moment),
            Err(Error::Silent(_))
        ));
        ours.send(&5, &[]).unwrap();
        assert!(matches!(
            theirs.receive::<String>(SOON),
            Err(Error::Strange(_))
        ));
        assert!(ours.send(&"x".repeat(LONGEST), &[]).is_err());
    }
}
