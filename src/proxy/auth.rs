//! Who may ask: `basic_auth` and `forward_auth`. Before anything of a request's body is read, and
//! before it is known whether there is a route for it: who is not let in learns nothing.
//!
//! A site or route without them has none of this: an `Option` that is `None`.

mod ask;
mod basic;
mod md5crypt;
mod secret;
pub mod turns;
pub mod users;

use std::ops::ControlFlow;
use std::sync::Arc;

use super::error::Failure;
use super::rules::material::Material;
use super::{Client, Exchange};
use crate::config::{self, Setting};
use crate::http::field::{Fields, is_same_name};
use crate::upstream::Upstreams;
use ask::Ask;
use basic::Basic;

/// See the module.
#[derive(Debug)]
pub struct Auth {
    basic: Option<Basic>,
    ask: Option<Ask>,
    /// Fields that no client is believed.
    vouched: Box<[Arc<str>]>,
}

impl Auth {
    /// Makes it ready; `None` where nobody is asked for anything.
    pub(super) fn new(
        rules: &config::Rules,
        upstreams: &Upstreams,
        material: &Material,
    ) -> Option<Box<Self>> {
        let basic = rules.basic_auth.as_ref().and_then(Setting::on);
        let ask = rules.forward_auth.as_ref().and_then(Setting::on);
        let auth = Self {
            basic: basic.map(|rule| Basic::new(rule, material)),
            // A configuration names only upstreams that exist.
            ask: ask.and_then(|rule| Ask::new(rule, upstreams)),
            vouched: rules.vouched.as_slice().into(),
        };
        let is_empty = auth.basic.is_none() && auth.ask.is_none() && auth.vouched.is_empty();
        (!is_empty).then(|| Box::new(auth))
    }

    /// What clients are told to show.
    pub(super) fn challenge(&self) -> Option<&[u8]> {
        self.basic.as_ref().map(Basic::challenge)
    }

    /// Lets a request in or not. `Break`: the client has its answer.
    pub(super) async fn admit<'w, C: Client>(
        &'w self,
        guest: &mut Exchange<'_, 'w, C>,
    ) -> Result<ControlFlow<()>, Failure> {
        if let Some(basic) = &self.basic {
            let from = guest.account.client;
            let user = basic.admit(guest.local, guest.head, &mut *guest.client, from);
            if let Some(user) = user.await? {
                guest.account.marks.get_or_insert_default().user = Some(user);
            }
        }
        if let Some(ask) = &self.ask {
            // What it vouches for itself it says anew below.
            if ask.admit(guest, &self.vouched).await?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        } else {
            for name in &self.vouched {
                remove(&mut guest.head.fields, name);
            }
        }
        if self.basic.as_ref().is_some_and(|basic| !basic.pass) {
            remove(&mut guest.head.fields, "Authorization");
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Removes a field under every name that an upstream could take for it.
fn remove(fields: &mut Fields, name: &str) {
    let found: Vec<Vec<u8>> = (fields.iter())
        .filter(|(_, found, _)| is_same_name(found, name))
        .map(|(_, found, _)| found.to_vec())
        .collect();
    for found in found {
        fields.remove_named(&found);
    }
}
