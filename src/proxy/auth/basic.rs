//! Users and passwords (RFC 7617).

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ipnet::IpNet;

use super::turns::Turns;
use super::users::Users;
use crate::config::{self, BasicAuth};
use crate::http::RequestHead;
use crate::http::field::Fields;
use crate::metrics::BasicOutcome;
use crate::proxy::error::{Failure, Refusal, Undecided};
use crate::proxy::forward::unless_gone;
use crate::proxy::rules::material::Material;
use crate::proxy::{Client, Local};

/// Where clients put what they are known by.
pub(super) const AUTHORIZATION: &[u8] = b"Authorization";

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The users of a site or route.
#[derive(Debug)]
pub(super) struct Basic {
    users: Arc<Users>,
    turns: Arc<Turns>,
    challenge: Box<[u8]>,
    except: Box<[IpNet]>,
    /// Whether the upstream sees what the client sent.
    pub pass: bool,
}

impl Basic {
    pub fn new(rule: &BasicAuth, material: &Material) -> Self {
        let realm = rule.realm.replace('\\', "\\\\").replace('"', "\\\"");
        Self {
            users: material.users(&rule.file),
            turns: Arc::clone(material.turns()),
            challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
                .into_bytes()
                .into(),
            except: rule.except.as_slice().into(),
            pass: rule.pass,
        }
    }

    /// The value of `WWW-Authenticate`.
    pub const fn challenge(&self) -> &[u8] {
        &self.challenge
    }

    /// Lets a request in or not; who it is from, where that was asked.
    pub async fn admit<C: Client>(
        &self,
        local: &Local,
        head: &RequestHead,
        client: &mut C,
        from: IpAddr,
    ) -> Result<Option<Box<[u8]>>, Failure> {
        if config::contains(&self.except, from) {
            return Ok(None);
        }
        let (outcome, result) = self.decide(head, client, from).await?;
        local.edge().basic_auth(outcome);
        result.map(Some)
    }

    async fn decide<C: Client>(
        &self,
        head: &RequestHead,
        client: &mut C,
        from: IpAddr,
    ) -> Result<(BasicOutcome, Result<Box<[u8]>, Failure>), Failure> {
        let Some(given) = Credentials::of(&head.fields) else {
            return Ok((BasicOutcome::Anonymous, Err(Refusal::Anonymous.into())));
        };
        let Some(list) = self.users.list() else {
            let failure = Failure::Undecided(Undecided::NoUsers);
            return Ok((BasicOutcome::Unavailable, Err(failure)));
        };
        let tag = self.users.tag(&given.text);
        if list.remembers(given.name(), &tag) {
            return Ok((BasicOutcome::Remembered, Ok(given.name().into())));
        }
        let (name, double) = (given.name().into(), self.users.double(given.name()));
        let check = move || list.check(given.name(), given.password(), tag, double);
        // Boxed: it is rare.
        let turn = Box::pin(self.turns.take(from, check));
        Ok(match unless_gone(client, turn).await? {
            Some(true) => (BasicOutcome::Accepted, Ok(name)),
            Some(false) => (BasicOutcome::Refused, Err(Refusal::Credentials.into())),
            None => {
                let failure = Failure::Undecided(Undecided::Busy);
                (BasicOutcome::Busy, Err(failure))
            }
        })
    }
}

/// A name and a password.
struct Credentials {
    text: Vec<u8>,
    colon: usize,
}

impl Credentials {
    /// Those that a request brings, where it brings one, well written: a second field might be the
    /// one that an upstream looks at.
    fn of(fields: &Fields) -> Option<Self> {
        let mut all = (fields.iter())
            .filter(|(_, name, _)| name.eq_ignore_ascii_case(AUTHORIZATION))
            .map(|(_, _, value)| value);
        let (Some(value), None) = (all.next(), all.next()) else {
            return None;
        };
        let (scheme, rest) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
        if !scheme.eq_ignore_ascii_case(b"Basic") {
            return None;
        }
        let text = BASE64.decode(rest.trim_ascii()).ok()?;
        // RFC 7617, section 2: neither has control characters.
        let colon = text.iter().position(|byte| *byte == b':')?;
        (!text.iter().any(u8::is_ascii_control)).then_some(Self { text, colon })
    }

    fn name(&self) -> &[u8] {
        &self.text[..self.colon]
    }

    fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_they_are_written() {
        for (values, expected) in [
            (
                &["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="][..],
                Some(("Aladdin", "open sesame")),
            ),
            // RFC 7617, section 2.1.
            (&["basic dGVzdDoxMjPCow=="], Some(("test", "123£"))),
            (&["BASIC   dGVzdDoxMjPCow"], Some(("test", "123£"))),
            (&["Basic YTpiOmM="], Some(("a", "b:c"))),
            (&["Basic Og=="], Some(("", ""))),
            (&["Basic YWJj"], None),
            (&["Basic"], None),
            (&["Basic !"], None),
            (&["Basic YTpiCg=="], None),
            (&["Bearer YTpi"], None),
            (&["Basic YTpi", "Basic YTpi"], None),
            (&[], None),
        ] {
            let mut fields = Fields::default();
            for value in values {
                fields.push(b"authorization", value.as_bytes());
            }
            let found = Credentials::of(&fields);
            let found = found.as_ref().map(|found| (found.name(), found.password()));
            let expected = expected.map(|(name, password)| (name.as_bytes(), password.as_bytes()));
            assert_eq!(found, expected, "{values:?}");
        }
    }

    #[test]
    fn a_realm_is_quoted() {
        let rule = BasicAuth {
            file: "/nowhere".into(),
            realm: "a \"b\" \\".into(),
            except: Vec::new(),
            pass: true,
        };
        let basic = Basic::new(&rule, &Material::default());
        let expected = br#"Basic realm="a \"b\" \\", charset="UTF-8""#;
        assert_eq!(basic.challenge(), expected);
    }
}
