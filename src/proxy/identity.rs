//! What a site asks of the connection that a request comes on, and what its upstream is told of the
//! client.
//!
//! A connection is accepted under the policy of the name that its client asked for. A request on it
//! may name another site; where that site has settings of its own, it must be the same ones, or the
//! client is sent to make a connection for it (RFC 9110, section 7.4). So no request reaches a site
//! that wants client certificates on a connection that was never asked for one; nor on one whose
//! client has been revoked since.

use super::Peer;
use super::error::Refusal;
use super::route::Site;
use crate::http::field::{Fields, Id};
use crate::tls::identity::Identity;

/// Whether a site is served on this connection.
pub(super) fn admit(peer: &Peer, site: &Site) -> Result<(), Refusal> {
    let satisfied = match &peer.policy {
        Some(policy) => {
            policy.satisfies(&site.tls)
                && (site.tls.client.is_none() || policy.still_believes(peer.identity.as_deref()))
        }
        None => site.tls.is_default(),
    };
    satisfied.then_some(()).ok_or(Refusal::Misdirected)
}

/// Who the client has shown to be, where the site asks for that. What it has shown to another site
/// on the same connection is none of this one's affair.
pub(super) fn shown<'p>(peer: &'p Peer, site: &Site) -> Option<&'p Identity> {
    let asks = site.tls.client.is_some();
    peer.identity.as_deref().filter(|_| asks)
}

/// Removes what a client says of its certificate, whoever it is, and adds what it has [`shown`].
pub(super) fn replace(fields: &mut Fields, shown: Option<&Identity>) {
    fields.remove(Id::Claim);
    if let Some(identity) = shown {
        for (name, value) in identity.fields() {
            fields.push(name.as_bytes(), value.as_bytes());
        }
    }
}
