//! Which of several certificates is the best for a client, now.
//!
//! The order, most important first ([`Rank`]): usable by this client; valid now; not held back; a
//! more specific name before a wildcard; what is on disk before what was kept; ECDSA and Ed25519
//! before RSA; later expiry. So a valid wildcard stands in for an expired exact certificate, RSA
//! for an expired ECDSA, yesterday's for today's broken one, and an expired certificate is used
//! only when nothing better is held.
//!
//! Usable stands first although a valid certificate is otherwise worth more than anything: one that
//! the client cannot use ends the handshake for certain, and no certificate may do that while
//! another is held.
//!
//! Validity is looked at for each handshake, so that a certificate from the future comes into use
//! at its `notBefore`, and an expiring one hands over at that second, with no event on disk.

use std::sync::Arc;

use rustls::SignatureScheme;

use super::{KeyType, Origin, Verified};
use crate::clock::Timestamp;

/// A certificate that is held, and what stands for or against it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The certificate.
    pub certificate: Arc<Verified>,
    /// The inventory's number for its source.
    pub slot: u32,
    /// Its source's place in the configuration.
    pub order: u32,
    /// It is what is on disk, rather than kept from before.
    pub on_disk: bool,
    /// It is worse than another of the same source.
    pub held_back: bool,
}

/// What a client can do.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// Everything.
    Any,
    /// Only signatures of this type of key.
    Only(KeyType),
    /// These signatures (RFC 8446, section 4.2.3).
    Offers(&'a [SignatureScheme]),
}

/// How good a candidate is; the greater, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    usable: bool,
    alive: Alive,
    in_favour: bool,
    exact: bool,
    on_disk: bool,
    modern: bool,
    until: Timestamp,
    from: Timestamp,
}

/// Whether clients find it in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alive {
    /// It has expired, or is not valid yet.
    No,
    /// It is valid, and a certificate above it has expired: a client may know another way.
    Alone,
    /// So is its chain.
    Whole,
}

impl Candidate {
    /// How good it is for this client now; `exact` says whether the name it was found by is the
    /// client's own, or a wildcard.
    pub fn rank(&self, exact: bool, client: Client<'_>, now: Timestamp) -> Rank {
        let facts = self.certificate.facts();
        let alive = if !facts.validity.contains(now) {
            Alive::No
        } else if facts.chain_not_after < now {
            Alive::Alone
        } else {
            Alive::Whole
        };
        Rank {
            usable: client.can_use(facts.key_type),
            alive,
            in_favour: !self.held_back,
            exact,
            on_disk: self.on_disk,
            modern: !matches!(facts.key_type, KeyType::Rsa(_)),
            until: self.until(),
            from: facts.validity.not_before,
        }
    }

    /// Where it came from.
    pub const fn origin(&self) -> Origin {
        if self.on_disk {
            Origin::Disk
        } else {
            Origin::LastGood
        }
    }

    /// Whether it ranks no lower than `other` for every name that `other` covers, every client,
    /// and every moment from `now` on: then `other` need not be kept.
    pub fn outshines(&self, other: &Self, now: Timestamp) -> bool {
        let (mine, others) = (self.certificate.facts(), other.certificate.facts());
        (!self.held_back || other.held_back)
            && (self.on_disk || !other.on_disk)
            && mine.validity.not_before <= now
            && mine.validity.not_after >= others.validity.not_after
            && (self.until(), mine.validity.not_before)
                >= (other.until(), others.validity.not_before)
            && schemes(mine.key_type) == schemes(others.key_type)
            && others.names.iter().all(|name| mine.names.contains(name))
    }

    /// The moments after which its rank may be another.
    pub fn turning_points(&self) -> [Timestamp; 3] {
        let facts = self.certificate.facts();
        [
            facts.validity.not_before,
            facts.validity.not_after.plus(1),
            facts.chain_not_after.plus(1),
        ]
    }

    fn until(&self) -> Timestamp {
        let facts = self.certificate.facts();
        facts.validity.not_after.min(facts.chain_not_after)
    }
}

impl Client<'_> {
    /// Whether a handshake with a key of this type can be completed.
    pub fn can_use(self, key: KeyType) -> bool {
        match self {
            Self::Any => true,
            Self::Only(only) => schemes(only) == schemes(key),
            Self::Offers(offered) => offered.iter().any(|scheme| schemes(key).contains(scheme)),
        }
    }
}

/// The best of these, the first where several are equally good.
pub fn best<'a>(
    candidates: impl IntoIterator<Item = (&'a Candidate, bool)>,
    client: Client<'_>,
    now: Timestamp,
) -> Option<&'a Candidate> {
    candidates
        .into_iter()
        .map(|(candidate, exact)| (candidate.rank(exact, client, now), candidate))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, candidate)| candidate)
}

/// What a key can sign with. The key itself would make a signer, which allocates, to answer.
const fn schemes(key: KeyType) -> &'static [SignatureScheme] {
    match key {
        KeyType::Rsa(_) => &[
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA256,
        ],
        KeyType::EcdsaP256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
        KeyType::EcdsaP384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
        KeyType::EcdsaP521 => &[SignatureScheme::ECDSA_NISTP521_SHA512],
        KeyType::Ed25519 => &[SignatureScheme::ED25519],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cert::testing::{Leaf, NOW, World, day};
    use crate::cert::{Facts, Fingerprint, Name, Validity, load};

    /// A certificate of which only the facts matter.
    pub(in crate::cert) fn certificate(change: impl FnOnce(&mut Facts)) -> Arc<Verified> {
        thread_local! {
            static MODEL: Verified = World::new().verified(&Leaf::new(&["model.test"]));
        }
        MODEL.with(|model| {
            let mut facts = model.facts().clone();
            facts.chain_not_after = day(3000);
            change(&mut facts);
            facts.chain_not_after = facts.chain_not_after.min(facts.validity.not_after);
            Arc::new(Verified::new(Arc::clone(model.key()), facts))
        })
    }

    const KEYS: [KeyType; 5] = [
        KeyType::Rsa(2048),
        KeyType::EcdsaP256,
        KeyType::EcdsaP384,
        KeyType::EcdsaP521,
        KeyType::Ed25519,
    ];

    pub(in crate::cert) fn names() -> impl Strategy<Value = Vec<Name>> {
        let name = prop_oneof![
            Just(Name::Dns("a.test".into())),
            Just(Name::Dns("b.test".into())),
            Just(Name::Wildcard("test".into())),
            Just(Name::Dns("x.a.test".into())),
            Just(Name::Wildcard("a.test".into())),
        ];
        prop::collection::vec(name, 1..3)
    }

    prop_compose! {
        pub(in crate::cert) fn candidate()(
            names in names(),
            from in -3_i64..3,
            length in 1_i64..5,
            chain in -2_i64..6,
            key in 0..KEYS.len(),
            id in any::<u8>(),
            order in 0_u32..4,
            on_disk in any::<bool>(),
            held_back in any::<bool>(),
        ) -> Candidate {
            let certificate = certificate(|facts| {
                facts.names = names.into();
                facts.validity = Validity { not_before: day(from), not_after: day(from + length) };
                facts.chain_not_after = day(chain);
                facts.key_type = KEYS[key];
                facts.fingerprint = Fingerprint([id; 32]);
            });
            Candidate { certificate, slot: order, order, on_disk, held_back }
        }
    }

    pub(in crate::cert) fn client() -> impl Strategy<Value = Option<KeyType>> {
        prop_oneof![Just(None), (0..KEYS.len()).prop_map(|key| Some(KEYS[key]))]
    }

    pub(in crate::cert) fn what_it_can(only: Option<KeyType>) -> Client<'static> {
        only.map_or(Client::Any, Client::Only)
    }

    fn pick<'a>(
        candidates: &'a [Candidate],
        host: &str,
        client: Client<'_>,
        now: Timestamp,
    ) -> Option<&'a Candidate> {
        let covering = candidates.iter().flat_map(|candidate| {
            let names = candidate.certificate.facts().names.iter();
            names
                .filter(|name| name.covers(host))
                .map(move |name| (candidate, !matches!(name, Name::Wildcard(_))))
        });
        best(covering, client, now)
    }

    #[test]
    fn the_table_of_schemes_is_what_the_keys_say() {
        let algorithms: [&'static rcgen::SignatureAlgorithm; 4] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
        ];
        let rsa =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        let keys = algorithms
            .into_iter()
            .map(|algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap())
            .chain([rsa.unwrap()]);
        for key in keys {
            let issued = Leaf::new(&["a.test"]).key(key).self_signed();
            let loaded = issued.load(&load::Roots::empty()).unwrap();
            let key_type = loaded.facts().key_type;
            assert!(loaded.facts().validity.contains(NOW));
            for scheme in KEYS.into_iter().flat_map(schemes) {
                assert_eq!(
                    loaded.key().key.choose_scheme(&[*scheme]).is_some(),
                    Client::Offers(&[*scheme]).can_use(key_type),
                    "{key_type} {scheme:?}"
                );
            }
        }
    }

    proptest! {
        /// The law, written out as a person would: each step keeps only the best of what the step
        /// before it left.
        #[test]
        fn the_best_is_what_the_order_says(
            all in prop::collection::vec(candidate(), 0..6),
            only in client(),
            at in -4_i64..8,
        ) {
            let (host, now, client) = ("a.test", day(at), what_it_can(only));
            let mut left: Vec<_> = all.iter().filter(|c| c.certificate.covers(host)).collect();
            let mut keep = |test: &dyn Fn(&Candidate) -> bool| {
                if left.iter().any(|c| test(c)) {
                    left.retain(|c| test(c));
                }
            };
            keep(&|c| client.can_use(c.certificate.facts().key_type));
            keep(&|c| c.certificate.facts().validity.contains(now));
            keep(&|c| {
                let facts = c.certificate.facts();
                facts.validity.contains(now) && facts.chain_not_after >= now
            });
            keep(&|c| !c.held_back);
            keep(&|c| c.certificate.facts().names.contains(&Name::Dns(host.into())));
            keep(&|c| c.on_disk);
            keep(&|c| !matches!(c.certificate.facts().key_type, KeyType::Rsa(_)));
            let latest = left.iter().map(|c| c.until()).max();
            left.retain(|c| Some(c.until()) == latest);
            let picked = pick(&all, host, client, now);
            prop_assert_eq!(picked.is_none(), left.is_empty());
            if let Some(picked) = picked {
                prop_assert!(left.iter().any(|c| std::ptr::eq(*c, picked)));
            }
        }

        /// What is pruned was never going to be the best.
        #[test]
        fn what_is_outshone_is_never_missed(
            one in candidate(),
            other in candidate(),
            only in client(),
            at in 0_i64..8,
        ) {
            if one.outshines(&other, NOW) {
                let pair = [one, other];
                for host in ["a.test", "b.test", "x.a.test"] {
                    if pair[1].certificate.covers(host) {
                        let picked = pick(&pair, host, what_it_can(only), day(at)).unwrap();
                        let alone = pick(&pair[..1], host, what_it_can(only), day(at));
                        prop_assert!(std::ptr::eq(picked, alone.unwrap()));
                    }
                }
            }
        }

        /// Ranks change at turning points and nowhere else.
        #[test]
        fn a_rank_changes_only_at_a_turning_point(one in candidate(), at in -4_i64 * 86_400..8 * 86_400) {
            let now = NOW.plus(at);
            let rank = |at| one.rank(true, Client::Any, at);
            if rank(now) != rank(now.plus(1)) {
                prop_assert!(one.turning_points().contains(&now.plus(1)));
            }
        }
    }
}
