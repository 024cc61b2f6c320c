//! Whether what a route asks of a request holds.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Peer;
use super::rules::{Known, Marks};
use crate::config::{Condition, Conditions, Piece, Variable, contains};
use crate::http::RequestHead;
use crate::tls::identity::Identity;

/// A request whose route is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What for.
    pub head: &'a RequestHead,
    /// On which connection.
    pub peer: &'a Peer,
    /// Who the client has shown to be, where the site asks for that.
    pub identity: Option<&'a Identity>,
    /// Who asks: the peer, or for whom it asks.
    pub client: IpAddr,
}

impl Asked<'_> {
    /// Whether conditions hold. `path`: as paths are compared.
    pub(super) fn meets(&self, conditions: &Conditions, path: &[u8]) -> bool {
        let Conditions {
            clients,
            except_clients,
            when,
            unless,
        } = conditions;
        if !clients.is_empty() && !contains(clients, self.client)
            || contains(except_clients, self.client)
        {
            return false;
        }
        // None of what a route gives to a request may be asked for.
        let marks = Marks::default();
        let known = Known {
            peer: self.peer,
            identity: self.identity,
            client: self.client,
            head: self.head,
            marks: &marks,
        };
        let holds = |condition: &Condition| {
            let value = value(condition, &known, path);
            condition.pattern.regex().is_match(&value)
        };
        when.iter().all(holds) && !unless.iter().any(holds)
    }
}

/// What is looked at: as it is in the request, where it is there in one piece.
fn value<'a>(condition: &'a Condition, known: &'a Known<'_>, path: &'a [u8]) -> Cow<'a, [u8]> {
    let of = |variable| match variable {
        // So that no condition can be walked around by another way of writing it.
        &Variable::Path => Cow::Borrowed(path),
        variable => known.value(variable),
    };
    if let [Piece::Variable(variable)] = condition.value.pieces() {
        return of(variable);
    }
    let mut out = Vec::new();
    for piece in condition.value.pieces() {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Variable(variable) => out.extend_from_slice(&of(variable)),
        }
    }
    Cow::Owned(out)
}
