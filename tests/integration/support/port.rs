//! Ports for the program under test, which must know them before it binds them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which the kernel gives ports to outgoing connections: no client of another
/// test can take one in between.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A TCP port that is free, and stays reserved as long as this lives. The reservation is the UDP
/// port of the same number: it holds among all processes that ask here, leaves TCP free, and goes
/// away with its owner however that ends. That `bind` would fail is no protection, because
/// SO_REUSEPORT lets two programs share a port without noticing.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UdpSocket,
}

impl Port {
    /// Reserves one.
    pub fn free() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let offset = std::process::id().wrapping_mul(97);
        for _ in 0..COUNT {
            let next = offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let number = u16::try_from(FIRST + next % COUNT).unwrap();
            let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Self {
                    number,
                    _reservation: reservation,
                };
            }
        }
        panic!("no port is free");
    }

    /// Its number.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// On the IPv4 loopback.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
