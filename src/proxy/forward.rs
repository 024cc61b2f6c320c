//! The way to one of the servers of an upstream, with further tries where they cannot hurt.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::error::{Failure, Progress};
use super::exchange::{self, Upload};
use super::{Account, Client, Local, Snapshot};
use crate::http::{RequestHead, ResponseHead};
use crate::metrics::{UpstreamOutcome, UpstreamSeries};
use crate::upstream::connection::Connection;
use crate::upstream::{InFlight, Upstream, pool};
use crate::wire::Deadline;

/// Tries of one request, the first included.
const MAX_ATTEMPTS: usize = 3;

/// One request on its way to one of the servers of an upstream.
pub(super) struct Forward<'a> {
    pub(super) local: &'a Local,
    pub(super) world: &'a Snapshot,
    pub(super) client: IpAddr,
    pub(super) upstream: &'a Upstream,
    pub(super) head: &'a RequestHead,
    pub(super) upgrade: Option<&'a [u8]>,
}

impl Forward<'_> {
    /// Tries servers until one answers or trying again could do harm.
    pub(super) async fn run<C: Client>(
        &self,
        client: &mut C,
        upload: &mut Upload,
        deadline: &mut Deadline,
        account: &mut Account,
    ) -> Result<(Connection, ResponseHead, InFlight), Failure> {
        let mut attempt = 0;
        loop {
            let choice = self.upstream.choose(self.client, attempt);
            let server = &self.upstream.servers()[choice];
            let series = self.world.server(self.upstream, choice);
            let in_flight = InFlight::new(server);
            account.server = Some(Arc::clone(&server.url));
            let begin = Instant::now();
            let mut reused = false;
            let result = self
                .attempt(client, &in_flight, series, upload, deadline, &mut reused)
                .await;
            account.upstream_time = Some(begin.elapsed());
            let failure = match result {
                Ok((connection, response)) => {
                    series
                        .response_duration
                        .observe(begin.elapsed().as_secs_f64());
                    series.outcome(match response.status {
                        500.. => UpstreamOutcome::ServerError,
                        _ => UpstreamOutcome::Response,
                    });
                    return Ok((connection, response, in_flight));
                }
                Err(failure) => failure,
            };
            series.outcome(failure.outcome());
            let progress = Progress {
                reused,
                idempotent: self.head.method.is_idempotent(),
                body_sent: upload.taken > 0,
            };
            attempt += 1;
            if attempt == MAX_ATTEMPTS || !failure.may_retry(progress) {
                return Err(failure);
            }
            debug!(server = %server.url, error = %failure, attempt, "trying again");
            series.retries.inc();
            upload.restart();
        }
    }

    async fn attempt<C: Client>(
        &self,
        client: &mut C,
        in_flight: &InFlight,
        series: &UpstreamSeries,
        upload: &mut Upload,
        deadline: &mut Deadline,
        reused: &mut bool,
    ) -> Result<(Connection, ResponseHead), Failure> {
        let timeouts = self.world.timeouts();
        let server = in_flight.server();
        let mut connection = match self.local.pool().take(server) {
            Some(connection) => connection,
            None => {
                series.connects.inc();
                // Boxed: it is rare, and its state would make every request's larger.
                Box::pin(pool::connect(server, timeouts.upstream_connect)).await?
            }
        };
        *reused = connection.is_reused();
        connection.send_head(self.head, self.upgrade);
        let response = exchange::request(
            client,
            &mut connection,
            self.head,
            upload,
            timeouts,
            deadline,
        )
        .await?;
        if response.status == 101 && self.upgrade.is_none() {
            return Err(Failure::UnaskedUpgrade);
        }
        Ok((connection, response))
    }
}
