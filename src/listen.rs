//! Sockets: bind, adopt, keep, close; the accept loop.
pub mod proxy_header;
use std::io;
/// tmp
pub fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
/// tmp
pub fn configure(stream: &tokio::net::TcpStream) {
    let _ = stream.set_nodelay(true);
}
