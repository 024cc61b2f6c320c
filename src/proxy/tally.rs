//! What clients have had of what is limited: it outlives the configuration that limits it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limit::{Bucket, Buckets};
use super::quota::{Quota, Quotas};
use crate::config::{Config, Rate, SiteName};

/// Who has had how much, of every limit of a configuration. A limit that the next configuration has
/// too goes on as it was, so that neither a reload nor a server found under another address gives
/// anybody more than his share.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    clients: Option<(Rate, Arc<Buckets>)>,
    /// By the first name of the site.
    sites: BTreeMap<SiteName, (Rate, Arc<Bucket>)>,
    quotas: Quotas,
}

impl Tally {
    /// For a configuration that comes after another.
    pub fn new(config: &Config, previous: &Self) -> Self {
        let clients = config.limits.client_rate;
        let sites = config.sites.iter().filter_map(|site| {
            let (name, rate) = (site.names.first()?, site.rate?);
            let kept = kept(previous.sites.get(name), rate, Bucket::new);
            Some((name.clone(), kept))
        });
        let quotas = config.quotas.iter().map(|(name, quota)| {
            let same = |known: &&Arc<Quota>| known.is(quota);
            let known = previous.quotas.get(name).filter(same).cloned();
            let quota = known.unwrap_or_else(|| Arc::new(Quota::new(quota)));
            (Arc::clone(name), quota)
        });
        Self {
            clients: clients.map(|rate| kept(previous.clients.as_ref(), rate, Buckets::new)),
            sites: sites.collect(),
            quotas: quotas.collect(),
        }
    }

    /// What each client may still ask for, where that is limited.
    pub fn clients(&self) -> Option<&Buckets> {
        self.clients.as_ref().map(|(_, buckets)| &**buckets)
    }

    /// What a site may still be asked for, where that is limited.
    pub(super) fn site(&self, names: &[SiteName]) -> Option<Arc<Bucket>> {
        let (_, bucket) = self.sites.get(names.first()?)?;
        Some(Arc::clone(bucket))
    }

    /// All quotas, by name.
    pub(super) const fn quotas(&self) -> &Quotas {
        &self.quotas
    }
}

/// What was counted of a rate, or nothing yet where that is another one now.
fn kept<T>(before: Option<&(Rate, Arc<T>)>, rate: Rate, new: fn(Rate) -> T) -> (Rate, Arc<T>) {
    let same = before.filter(|(before, _)| *before == rate).cloned();
    same.unwrap_or_else(|| (rate, Arc::new(new(rate))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(rate: u32, previous: &Tally) -> Tally {
        let text = format!(
            "[limits]\nclient_rate = {rate}\n[quota.q]\nrequests = '{rate}/s'\n\
             [[site]]\nnames = ['a.test']\nrespond = 200\nquotas = ['q']\nrate = {rate}\n"
        );
        let config = crate::config::parse(&text, std::path::Path::new("f.toml")).unwrap();
        Tally::new(&config, previous)
    }

    /// Which of them are the same: of clients, of the site, the quota.
    fn same(one: &Tally, other: &Tally) -> [bool; 3] {
        let site = |tally: &Tally| tally.site(&[SiteName::Exact("a.test".into())]).unwrap();
        [
            std::ptr::eq(one.clients().unwrap(), other.clients().unwrap()),
            Arc::ptr_eq(&site(one), &site(other)),
            Arc::ptr_eq(&one.quotas()["q"], &other.quotas()["q"]),
        ]
    }

    #[test]
    fn what_was_counted_is_kept_until_the_limit_is_another_one() {
        let first = tally(1, &Tally::default());
        assert_eq!(same(&first, &tally(1, &first)), [true; 3]);
        assert_eq!(same(&first, &tally(2, &first)), [false; 3]);
    }
}
