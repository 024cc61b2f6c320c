use super::*;
use crate::cert::testing::*;
use crate::cert::{KeyType, Name};

#[test]
fn a_whole_chain_is_complete_and_trusted() {
    let world = World::new();
    let verified = world.verified(&Leaf::new(&["Example.com", "*.example.com", "192.0.2.1"]));
    let facts = verified.facts();
    assert_eq!(facts.chain_length, 2);
    assert!(facts.chain_complete && facts.trusted && facts.server_usage);
    assert_eq!(facts.key_type, KeyType::EcdsaP256);
    assert_eq!(facts.issuer, "Test Intermediate");
    assert_eq!(facts.chain_not_after, day(60));
    assert_eq!(
        facts.names,
        [
            Name::Dns("example.com".into()),
            Name::Wildcard("example.com".into()),
            Name::Ip([192, 0, 2, 1].into()),
        ]
    );
    assert_eq!(facts.notes, Vec::<String>::new());
    assert_eq!(verified.faults(NOW), []);
    assert!(verified.key().keys_match().is_ok());
}
