//! What an upstream chooses, and whom it leaves alone.

use std::collections::HashMap;
use std::net::IpAddr;

use super::balance::Key;
use super::*;
use crate::http::RequestHead;

const NOW: Moment = Moment(1);

fn timeouts() -> Timeouts {
    config::parse("", std::path::Path::new("f.toml"))
        .unwrap()
        .timeouts
}

fn build(configured: config::Upstream, previous: &Upstreams) -> Upstreams {
    let all = BTreeMap::from([("u".into(), configured)]);
    Upstreams::build(
        &all,
        &timeouts(),
        &Arc::default(),
        &Clock::system(),
        previous,
    )
}

/// Servers with these weights; 0 stands for a backup.
fn configured(balance: Balance, weights: &[u32]) -> config::Upstream {
    let server = |(n, &weight): (usize, &u32)| config::Server {
        url: format!("http://10.0.0.{n}").into(),
        address: ServerAddress::Ip(([10, 0, 0, n as u8], 80).into()),
        tls: false,
        weight: weight.max(1),
        backup: weight == 0,
        domain: None,
    };
    config::Upstream {
        balance,
        ..config::Upstream::of(weights.iter().enumerate().map(server).collect())
    }
}

fn upstream(balance: Balance, weights: &[u32]) -> Upstream {
    let all = build(configured(balance, weights), &Upstreams::default());
    Arc::into_inner(all.0.into_values().next().unwrap()).unwrap()
}

fn choose(upstream: &Upstream) -> usize {
    upstream.choose(Key::default(), &[], NOW).unwrap()
}

fn client(upstream: &Upstream, n: u8) -> Key {
    upstream.key(IpAddr::from([192, 0, 2, n]), &RequestHead::unread())
}

fn request(text: &str) -> RequestHead {
    let text = format!("GET /path?query HTTP/1.1\r\nHost: a\r\n{text}\r\n");
    crate::http::parse::complete(crate::http::parse::request(text.as_bytes(), 100)).unwrap()
}

fn down(upstream: &Upstream, server: usize) {
    upstream.servers[server].health.checked(false, None, NOW);
}

#[test]
fn round_robin_takes_each_in_turn() {
    let upstream = upstream(Balance::RoundRobin, &[1, 1, 1]);
    let order: Vec<_> = (0..6).map(|_| choose(&upstream)).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn round_robin_by_weight_is_smooth() {
    let upstream = upstream(Balance::RoundRobin, &[5, 1, 1]);
    let order: Vec<_> = (0..14).map(|_| choose(&upstream)).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_further_try_goes_to_a_server_that_was_not_tried() {
    for balance in [
        Balance::RoundRobin,
        Balance::LeastRequests,
        Balance::Random,
        Balance::Hash,
    ] {
        let upstream = upstream(balance, &[3, 1, 2, 0]);
        let mut tried = Vec::new();
        while let Some(choice) = upstream.choose(Key::default(), &tried, NOW) {
            assert!(!tried.contains(&choice));
            tried.push(choice);
        }
        assert_eq!(tried.len(), 4, "{balance:?}");
        assert_eq!(tried[3], 3, "the backup comes last");
    }
}

#[test]
fn least_requests_avoids_the_busy_and_minds_weights() {
    let upstream = upstream(Balance::LeastRequests, &[1, 1]);
    let busy = InFlight::new(&upstream.servers[0], None);
    for _ in 0..4 {
        assert_eq!(choose(&upstream), 1);
    }
    drop(busy);
    let upstream = super::tests::upstream(Balance::LeastRequests, &[1, 3]);
    let mut in_flight = Vec::new();
    for _ in 0..40 {
        let choice = choose(&upstream);
        in_flight.push(InFlight::new(&upstream.servers[choice], None));
    }
    assert_eq!(upstream.servers[1].load.in_flight(), 30);
}

#[test]
fn of_two_at_random_the_less_busy_is_taken() {
    let upstream = upstream(Balance::Random, &[1; 10]);
    let mut in_flight = Vec::new();
    for _ in 0..1000 {
        let choice = choose(&upstream);
        in_flight.push(InFlight::new(&upstream.servers[choice], None));
    }
    for server in &upstream.servers {
        let count = server.load.in_flight();
        assert!((90..=110).contains(&count), "{count}");
    }
}

#[test]
fn a_client_keeps_its_server_when_another_goes() {
    let three = upstream(Balance::Hash, &[1, 1, 1]);
    let two = upstream(Balance::Hash, &[1, 1]);
    let mut moved = 0;
    for n in 0..200 {
        let before = three.choose(client(&three, n), &[], NOW).unwrap();
        let after = two.choose(client(&two, n), &[], NOW).unwrap();
        if before != 2 {
            assert_eq!(before, after);
        } else {
            moved += 1;
        }
    }
    assert!((40..=95).contains(&moved), "{moved}");
}

#[test]
fn hashing_minds_weights() {
    let upstream = upstream(Balance::Hash, &[1, 3]);
    let heavy = (0..4000_u64)
        .filter(|n| {
            let hash = fnv(&[&n.to_be_bytes()]);
            upstream.choose(Key { hash, tag: None }, &[], NOW) == Some(1)
        })
        .count();
    assert!((2850..=3150).contains(&heavy), "{heavy}");
}

#[test]
fn what_is_hashed_can_be_chosen() {
    let with = |hash| {
        let configured = config::Upstream {
            hash,
            ..configured(Balance::Hash, &[1, 1])
        };
        build(configured, &Upstreams::default())
    };
    let key = |upstreams: &Upstreams, n: u8, head: &RequestHead| {
        let upstream = upstreams.get("u").unwrap();
        upstream.key(IpAddr::from([192, 0, 2, n]), head).hash
    };
    let plain = request("");
    let path = with(HashKey::Path);
    assert_eq!(key(&path, 1, &plain), key(&path, 2, &plain));
    let header = with(HashKey::Header("x-user".into()));
    assert_ne!(key(&header, 1, &plain), key(&header, 2, &plain));
    let one = request("X-User: one\r\n");
    assert_eq!(key(&header, 1, &one), key(&header, 2, &one));
    assert_ne!(
        key(&header, 1, &one),
        key(&header, 1, &request("X-User: two\r\n"))
    );
    let cookie = with(HashKey::Cookie("id".into()));
    let one = request("Cookie: x=y; id=1; z=1\r\n");
    assert_eq!(key(&cookie, 1, &one), key(&cookie, 2, &one));
    assert_ne!(
        key(&cookie, 1, &one),
        key(&cookie, 1, &request("Cookie: id=2\r\n"))
    );
}

#[test]
fn a_cookie_brings_a_client_back_while_its_server_is_up() {
    let all = build(
        config::Upstream {
            sticky: Some("srv".into()),
            ..configured(Balance::RoundRobin, &[1, 1, 1])
        },
        &Upstreams::default(),
    );
    let upstream = all.get("u").unwrap();
    let cookie = upstream.cookie(1, true).unwrap();
    let pair = cookie.split(';').next().unwrap();
    let head = request(&format!("Cookie: a=b; {pair}\r\n"));
    let key = upstream.key([192, 0, 2, 1].into(), &head);
    for _ in 0..5 {
        assert_eq!(upstream.choose(key, &[], NOW), Some(1));
    }
    down(upstream, 1);
    assert_ne!(upstream.choose(key, &[], NOW), Some(1));
    let bad = request("Cookie: srv=zzz\r\n");
    assert!(upstream.key([192, 0, 2, 1].into(), &bad).tag.is_none());
}

#[test]
fn backups_are_used_when_all_others_are_down_and_the_down_when_all_are() {
    let upstream = upstream(Balance::RoundRobin, &[1, 1, 0]);
    for _ in 0..10 {
        assert_ne!(choose(&upstream), 2);
    }
    down(&upstream, 0);
    assert_eq!(choose(&upstream), 1);
    down(&upstream, 1);
    assert_eq!(choose(&upstream), 2);
    down(&upstream, 2);
    assert_ne!(choose(&upstream), 2, "better the first choice");
    upstream.servers[0].health.drain(true, NOW);
    for _ in 0..3 {
        assert_eq!(choose(&upstream), 1);
    }
}

#[test]
fn who_is_drained_is_not_used() {
    let upstream = upstream(Balance::RoundRobin, &[1]);
    upstream.servers[0].health.drain(true, NOW);
    assert_eq!(upstream.choose(Key::default(), &[], NOW), None);
    upstream.servers[0].health.drain(false, NOW);
    assert_eq!(choose(&upstream), 0);
}

#[test]
fn no_more_than_a_share_is_ejected() {
    let upstream = upstream(Balance::RoundRobin, &[1, 1, 1, 1]);
    for server in 0..4 {
        for _ in 0..10 {
            upstream.failed(server, NOW, &"it is broken");
        }
    }
    let ejected: Vec<_> = upstream
        .servers
        .iter()
        .map(|server| server.health.is_ejected(NOW))
        .collect();
    assert_eq!(ejected, [true, true, false, false]);
    for _ in 0..10 {
        assert!(choose(&upstream) >= 2);
    }
}

#[test]
fn the_only_server_is_never_ejected() {
    let upstream = upstream(Balance::RoundRobin, &[1]);
    for _ in 0..10 {
        upstream.failed(0, NOW, &"it is broken");
    }
    assert!(!upstream.servers[0].health.is_ejected(NOW));
}

#[test]
fn who_comes_back_gets_a_rising_share() {
    let all = build(
        config::Upstream {
            slow_start: Some(Duration::from_secs(10)),
            ..configured(Balance::RoundRobin, &[1, 1])
        },
        &Upstreams::default(),
    );
    let upstream = all.get("u").unwrap();
    down(upstream, 0);
    upstream.servers[0].health.checked(true, None, Moment(1000));
    let share = |now| {
        let mut counts = HashMap::new();
        for _ in 0..1000 {
            let choice = upstream.choose(Key::default(), &[], now).unwrap();
            *counts.entry(choice).or_insert(0) += 1;
        }
        counts[&0]
    };
    let (early, half, late) = (
        share(Moment(1001)),
        share(Moment(6000)),
        share(Moment(99_000)),
    );
    assert!((60..=120).contains(&early), "{early}");
    assert!((310..=350).contains(&half), "{half}");
    assert_eq!(late, 500);
}

#[test]
fn a_full_server_is_passed_over() {
    let capacity = config::Capacity {
        connections: std::num::NonZeroUsize::new(1),
        ..config::Capacity::default()
    };
    let all = build(
        config::Upstream {
            capacity,
            ..configured(Balance::RoundRobin, &[1, 1])
        },
        &Upstreams::default(),
    );
    let upstream = all.get("u").unwrap();
    let pass = upstream.gate(0).unwrap().try_pass().unwrap();
    for _ in 0..4 {
        assert_eq!(choose(upstream), 1);
    }
    drop(pass);
    assert_eq!(choose(upstream).min(choose(upstream)), 0);
}

#[test]
fn a_server_survives_a_reload() {
    let old = build(configured(Balance::Random, &[1]), &Upstreams::default());
    let new = build(configured(Balance::RoundRobin, &[2, 1]), &old);
    let id = |all: &Upstreams, at: usize| all.get("u").unwrap().servers[at].id;
    assert_eq!(id(&old, 0), id(&new, 0));
    assert_ne!(id(&old, 0), id(&new, 1));
}
