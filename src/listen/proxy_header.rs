//! tmp
/// tmp
#[derive(Debug)]
pub struct Header;
impl Header {
    /// tmp
    pub fn source(&self) -> Option<std::net::SocketAddr> {
        None
    }
}
/// tmp
pub async fn read(_s: &mut tokio::net::TcpStream) -> std::io::Result<Header> {
    Ok(Header)
}
