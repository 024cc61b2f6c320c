//! OCSP responses to staple (RFC 6960): whether one is worth sending.
//!
//! A bad staple is worse than none, since Firefox refuses the connection over it. The signature is
//! the client's to check; here a response has to be whole, about this certificate, and current.

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::time::ASN1Time;

use super::x509::{elements, sequence};
use crate::clock::Timestamp;

/// Whether the response says that the certificate with this serial number is good now.
///
/// # Errors
/// Why it is better not sent, in words.
pub(super) fn check(der: &[u8], serial: &[u8], now: Timestamp) -> Result<(), String> {
    let response = sequence(der).and_then(|response| elements(response.data));
    let (status, body) = match response.as_deref() {
        Some([status, body @ ..]) if status.tag() == Tag::Enumerated => (status, body.first()),
        _ => return Err("it is not an OCSP response".to_owned()),
    };
    if status.data != [0] {
        return Err("the responder gave an error instead of an answer".to_owned());
    }
    let singles = body
        .and_then(singles)
        .ok_or("it is not a basic OCSP response")?;
    let single = singles
        .iter()
        .find_map(|single| Single::read(single.data).filter(|single| single.serial == serial))
        .ok_or("it is about another certificate")?;
    if single.status != Tag(0) {
        return Err("it does not say that the certificate is good".to_owned());
    }
    match single.next_update {
        Some(at) if at < now => Err(format!("it was good until {at} only")),
        _ => Ok(()),
    }
}

/// When the certificate with this serial number was revoked, if the response says that it was. Its
/// age does not matter: what is revoked stays so.
pub(super) fn revoked(der: &[u8], serial: &[u8]) -> Option<Timestamp> {
    const REVOKED: Tag = Tag(1);
    let response = elements(sequence(der)?.data)?;
    let singles = singles(response.get(1)?)?;
    let mut about = singles
        .iter()
        .filter_map(|single| Single::read(single.data))
        .filter(|single| single.serial == serial && single.status == REVOKED);
    about
        .next()
        .map(|single| single.revoked_at.unwrap_or(Timestamp::from_unix(0)))
}

/// The list of single responses in the response's body (section 4.2.1).
fn singles<'a>(body: &Any<'a>) -> Option<Vec<Any<'a>>> {
    let bytes = elements(sequence(body.data)?.data)?;
    let basic = elements(sequence(bytes.get(1)?.data)?.data)?;
    let data = elements(basic.first()?.data)?;
    let list = data.iter().find(|field| field.tag() == Tag::Sequence)?;
    elements(list.data)
}

/// One certificate's status.
struct Single<'a> {
    serial: &'a [u8],
    /// 0 good, 1 revoked, 2 unknown.
    status: Tag,
    /// What is in a status that says `revoked` (RevokedInfo).
    revoked_at: Option<Timestamp>,
    next_update: Option<Timestamp>,
}

impl<'a> Single<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let fields = elements(data)?;
        let [id, status, _this_update, rest @ ..] = fields.as_slice() else {
            return None;
        };
        let next = rest.iter().find(|field| field.tag() == Tag(0));
        Some(Self {
            serial: elements(id.data)?.get(3)?.data,
            status: status.tag(),
            revoked_at: time(status.data),
            next_update: next.and_then(|next| time(next.data)),
        })
    }
}

fn time(der: &[u8]) -> Option<Timestamp> {
    let (_, at) = ASN1Time::from_der(der).ok()?;
    Some(Timestamp::from_unix(at.timestamp()))
}
