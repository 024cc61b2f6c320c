//! What applies where the file says nothing, each with its reason.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::read::Size;

/// Where a system service keeps what it must not lose, by the FHS. systemd says otherwise by
/// `$STATE_DIRECTORY`.
pub(super) const STATE_DIR: &str = "/var/lib/staunch";

/// Every address, IPv4 too: one socket, and nobody has to remember IPv6.
pub(super) const HTTPS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 443);

/// This machine only: the inventory and the reload are nobody else's business.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// A handshake is two round trips; 10 s leaves room for lost packets on a bad mobile link.
pub(super) const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// A head fits a few packets: whoever takes longer holds a connection open for its own sake.
pub(super) const REQUEST_HEAD: Duration = Duration::from_secs(10);

/// Between reads, not in total: a slow upload may take hours, a stalled one may not.
pub(super) const REQUEST_BODY: Duration = Duration::from_secs(30);

/// Long enough for a reader to click again without a new handshake; what browsers and load
/// balancers (mostly 60 s) are used to, and a little more so that they close first.
pub(super) const IDLE: Duration = Duration::from_secs(75);

/// Between writes, not in total: a client that takes nothing for half a minute is gone.
pub(super) const SEND: Duration = Duration::from_secs(30);

/// Upstreams are near. Three SYNs (at 0, 1 and 3 s) are enough to know.
pub(super) const UPSTREAM_CONNECT: Duration = Duration::from_secs(5);

/// What applications are written for; also the default of most other proxies.
pub(super) const UPSTREAM_RESPONSE: Duration = Duration::from_secs(60);

/// As for the head: a long poll pauses no longer in its body than before it.
pub(super) const UPSTREAM_IDLE: Duration = Duration::from_secs(60);

/// Below the 60 s at which most servers close: reusing a connection that the other side is
/// closing costs a retry, or a 502 where none is safe.
pub(super) const UPSTREAM_KEEP: Duration = Duration::from_secs(50);

/// Most answers come sooner, so that most connections are never asked; and ten seconds in all are
/// soon enough to send a request elsewhere while its client still waits.
pub(super) const UPSTREAM_PING: Duration = Duration::from_secs(5);

/// As many other servers as anybody has: what bounds them is the budget.
pub(super) const RETRIES: u32 = 8;

/// A fifth: an upstream that is overloaded is not made to carry twice the load.
pub(super) const RETRY_SHARE: f64 = 0.2;

/// For a few to wait while a server is busy for a moment; longer queues only make everybody late.
pub(super) const QUEUE: usize = 100;

/// Who waits longer than this at a browser has mostly asked again.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// One failure may be an accident.
pub(super) const EJECT_AFTER: u32 = 3;

/// About as long as a process takes to restart.
pub(super) const EJECT_TIME: Duration = Duration::from_secs(5);

/// The other half then carries at most twice its load.
pub(super) const EJECT_SHARE: f64 = 0.5;

/// With three to fall, and checks that come sooner once one was bad, a server that refuses is known
/// within 8 s and one that is silent within 14 s; by failed requests long before.
pub(super) const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// A health check that takes longer tells that it is not well.
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Two in a row: a server that restarts over and over is not let in between.
pub(super) const HEALTH_RISE: u32 = 2;

/// One lost packet, or two, take nobody out.
pub(super) const HEALTH_FALL: u32 = 3;

/// Tunnels are often silent on purpose; an hour still collects those whose peer has vanished.
pub(super) const TUNNEL: Duration = Duration::from_secs(3600);

/// Some 500 MB at 20 to 25 KiB for an idle connection: a small machine survives being full.
pub(super) const CONNECTIONS: usize = 20_000;

/// Half of all: nobody can shut the door alone, and a large company behind one address is served.
pub(super) const CONNECTIONS_PER_CLIENT: usize = 20_000;

/// A handshake takes some 20 KiB and, from an honest client, a fraction of a second: this many are a
/// storm, and 100 MB.
pub(super) const HANDSHAKES: usize = 5_000;

/// Against clients that would stay for ever on one worker; far above what load generators send.
pub(super) const REQUESTS_PER_CONNECTION: u32 = 1_000_000;

/// Room for large cookies and tokens; eight times what the strictest upstreams take.
pub(super) const REQUEST_HEAD_SIZE: Size = Size(64 * 1024);

/// Browsers send about 20; each field costs at every stage behind.
pub(super) const REQUEST_FIELDS: usize = 100;

/// None: how large an upload may be is for the application to say.
pub(super) const REQUEST_BODY_SIZE: Size = Size(0);

/// Keeps the method, and is for good.
pub(super) const REDIRECT: u32 = 308;

/// For what is written into a configuration: a word or two.
pub(super) const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// What Apache and others say.
pub(super) const REALM: &str = "Restricted";

/// A server beside us answers in milliseconds; one that asks another for it may need a second.
pub(super) const FORWARD_AUTH: Duration = Duration::from_secs(10);

/// Long enough for a crawler not to come back at once, short enough not to be missed.
pub(super) const MAINTENANCE_RETRY: Duration = Duration::from_secs(300);

/// At least 100 by RFC 9113, section 6.5.2; browsers use no more.
pub(super) const STREAMS: u32 = 128;

/// Two probes at the usual interval of 2 s, so that a load balancer has seen it.
pub(super) const DRAIN_NOTICE: Duration = Duration::from_secs(5);

/// With the notice this stays within the 90 s after which systemd kills; Kubernetes' 30 s want a
/// shorter one or a longer grace period.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// Ten thousand certificates are read in a second or two; on a busy machine with a cold disk it is
/// a few times that.
pub(super) const UPGRADE_READY: Duration = Duration::from_secs(60);

/// Downloads and tunnels go on in the old process meanwhile, at the cost of its memory.
pub(super) const UPGRADE_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// ACME clients renew with a third of the lifetime left; at a quarter, that has failed for a
/// twelfth of the lifetime: a week for 90 days, half a day for six.
pub(super) const OVERDUE: f64 = 0.25;

/// Nine days of 90, fourteen hours of six days: still time to act by hand.
pub(super) const EXPIRING: f64 = 0.10;

/// Once a shift: not forgotten, and not muted either.
pub(super) const REPEAT: Duration = Duration::from_secs(6 * 3600);

/// One attempt; a receiver that needs longer will be asked again.
pub(super) const SINK_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest period that dead man's switches commonly offer.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);

/// The Events API v2 is at the same place for every customer.
pub(super) const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// What an operator has to know, no more.
pub(super) const LOG_LEVEL: &str = "info";

/// Of requests, where they are logged: all.
pub(super) const LOG_SAMPLE: f64 = 1.0;

/// What spans say whose they are.
pub(super) const TRACES_SERVICE: &str = "staunch";
