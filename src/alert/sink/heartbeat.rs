//! A heartbeat: a URL called at an interval while all is well, so that a dead man's switch
//! elsewhere notices when nothing here can tell anybody any more.
//!
//! "All is well" means the machinery that tells people: the alert loop turns, and not every other
//! sink fails. A certificate in trouble does not stop it: that is told by name, and a silent
//! heartbeat would say less. Only where no other sink is configured does it stop while something
//! critical fires, since nobody would hear of it otherwise.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::error::SinkError;
use crate::alert::http::{Client, HttpError};

/// A URL to call.
pub struct Heartbeat {
    /// What to `GET`.
    pub url: Arc<str>,
    /// How often.
    pub every: Duration,
    /// How.
    pub client: Client,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of such a URL is its secret.
        f.debug_struct("Heartbeat")
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// One beat.
    pub async fn beat(&self) -> Result<(), SinkError> {
        let request = Request::get(&*self.url)
            .body(Bytes::new())
            .map_err(|_| HttpError::Url("it is malformed"))?;
        self.client.send(request).await?;
        Ok(())
    }
}
