//! Fields that rules cannot touch, because what staunch says in them must be true.

use super::super::diagnostic::Complaint;
use super::super::upstream::token;
use crate::http::field::{Id, is_claim};

/// Which messages a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Requests, towards the upstream.
    Request,
    /// Responses, towards the client.
    Response,
}

/// What is done with the field, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Set,
    Add,
    Remove,
}

/// Why a rule for this field cannot be.
pub(super) fn refuse(name: &str, side: Side, touch: Touch) -> Result<(), Complaint> {
    token(name)?;
    // An upstream may make no difference between the two.
    let plain = name.replace('_', "-");
    if side == Side::Request && is_claim(name.as_bytes()) {
        return Err(Complaint::new(
            format!("`{name}` tells of the client's certificate, and only staunch may say that"),
            "choose what is told with `headers` in `[site.client_certificates]`",
        ));
    }
    let (why, help) = match (Id::of(plain.as_bytes()), side) {
        (Id::Host, Side::Request) if touch == Touch::Set && !name.contains('_') => return Ok(()),
        (Id::Host, Side::Request) => (
            "is in every request exactly once",
            "write it under `set`, to ask the upstream for another host",
        ),
        (Id::TransferEncoding | Id::ContentLength | Id::Trailer, _) => (
            "says where a message ends",
            "staunch writes it as it frames the message: leave it out",
        ),
        (
            Id::Connection
            | Id::KeepAlive
            | Id::ProxyConnection
            | Id::Te
            | Id::Upgrade
            | Id::Http2Settings,
            _,
        ) => (
            "belongs to one connection and is not passed on",
            "staunch writes its own on either side: leave it out",
        ),
        (Id::Expect, Side::Request) => (
            "decides when the request's body is sent",
            "staunch passes it on as the client sent it: leave it out",
        ),
        (Id::MaxForwards | Id::Via, _) => (
            "says which way a message went",
            "staunch keeps it right: leave it out",
        ),
        // Unlike who asks, this is no matter of trust: it can be said anew.
        (Id::XForwardedHost, Side::Request) if touch != Touch::Add && !name.contains('_') => {
            return Ok(());
        }
        (
            Id::Forwarded | Id::XForwardedFor | Id::XForwardedProto | Id::XForwardedHost,
            Side::Request,
        ) => (
            "says who asks, and staunch writes it",
            "`forwarded_from` in `[listen]` says whose word on it is believed; for a field of your \
             own, `\"X-Real-IP\" = \"{client_address}\"` is usual",
        ),
        (Id::Date, Side::Response) => (
            "says when the response was made",
            "staunch adds it where the upstream did not: leave it out",
        ),
        _ => return Ok(()),
    };
    Err(Complaint::new(format!("`{name}` {why}"), help))
}

/// Why a value cannot be sent in a field (RFC 9110, section 5.5).
pub(super) fn value(text: &str) -> Result<(), Complaint> {
    let wrong = |c: char| c != '\t' && c.is_control();
    if text.contains(wrong) {
        return Err(Complaint::new(
            "has a control character, which no field can have",
            "write it on one line",
        ));
    }
    if text.trim_matches([' ', '\t']).len() != text.len() {
        return Err(Complaint::new(
            "begins or ends with a space, which no field can have",
            "take it out",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_staunch_says_itself_is_refused() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "TE",
            "Upgrade",
            "Via",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "Forwarded",
            "Client-Cert",
            "x-client_cert-san",
            "a b",
            "",
        ] {
            assert!(refuse(name, Side::Request, Touch::Set).is_err(), "{name}");
        }
        for name in ["Content-Length", "Connection", "Date", "Via", "a:b"] {
            assert!(refuse(name, Side::Response, Touch::Add).is_err(), "{name}");
        }
        for name in [
            "X-Real-IP",
            "Authorization",
            "Cookie",
            "X-Forwarded-Port",
            "X-Forwarded-Host",
        ] {
            assert_eq!(refuse(name, Side::Request, Touch::Set), Ok(()), "{name}");
        }
        assert!(refuse("X-Forwarded-Host", Side::Request, Touch::Add).is_err());
        assert_eq!(refuse("Host", Side::Request, Touch::Set), Ok(()));
        assert!(refuse("Host", Side::Request, Touch::Remove).is_err());
        assert_eq!(refuse("Server", Side::Response, Touch::Remove), Ok(()));
    }
}
