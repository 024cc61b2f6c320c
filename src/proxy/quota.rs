//! What clients may ask for in a part of what is served: `[quota.NAME]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::limit::{Buckets, Crowd, Key, Member};
use super::rules::Known;
use crate::config;

/// All of them, by name.
pub(super) type Quotas = BTreeMap<Arc<str>, Arc<Quota>>;

/// One quota, shared by all sites and routes that name it, and by all workers.
#[derive(Debug)]
pub(super) struct Quota {
    /// As it is configured.
    terms: config::Quota,
    rate: Option<Buckets>,
    concurrent: Option<(Arc<Crowd>, NonZeroUsize)>,
}

impl Quota {
    /// Nothing of it is used up.
    pub fn new(quota: &config::Quota) -> Self {
        Self {
            rate: quota.rate.map(Buckets::new),
            concurrent: quota.concurrent.map(|most| (Arc::default(), most)),
            terms: quota.clone(),
        }
    }

    /// Whether this is what is configured.
    pub fn is(&self, quota: &config::Quota) -> bool {
        self.terms == *quota
    }

    /// Takes a request from it; how long to wait, where there is nothing left. What is returned is
    /// kept while the request is worked on.
    pub fn take(&self, client: IpAddr, known: &Known<'_>) -> Result<Option<Member>, Duration> {
        if config::contains(&self.terms.except, client) {
            return Ok(None);
        }
        let Some(template) = &self.terms.by else {
            return self.take_of(Key::Client(client));
        };
        match &known.text(template)[..] {
            [] => Ok(None),
            value => self.take_of(Key::Text(value)),
        }
    }

    fn take_of(&self, key: Key<'_>) -> Result<Option<Member>, Duration> {
        // Who is refused a place has asked all the same.
        if let Some(rate) = &self.rate {
            rate.take(key)?;
        }
        let Some((crowd, most)) = &self.concurrent else {
            return Ok(None);
        };
        let member = crowd.enter(key, most.get());
        member.map(Some).ok_or(Duration::ZERO)
    }
}
