use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::history::History;
use super::*;
use crate::control::backend_id::BackendIds;

const MINUTE: Duration = Duration::from_secs(60);

fn policy() -> Policy {
    Policy {
        max_failed_attempts: 3,
        window: 5 * MINUTE,
        ban: 15 * MINUTE,
        max_connections: 2,
        ipv6_prefix: 64,
    }
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn enter(limits: &Arc<Limits>, text: &str) -> Result<Permit, Rejected> {
    limits.knock(address(text))?.admit()
}

fn network(text: &str) -> Network {
    policy().network_of(text.parse().unwrap())
}

#[test]
fn an_address_has_so_many_connections_and_gets_them_back() {
    let limits = Limits::new(policy());
    let first = enter(&limits, "192.0.2.1").unwrap();
    let _second = enter(&limits, "192.0.2.1").unwrap();
    let refused = enter(&limits, "192.0.2.1").err().unwrap();
    assert_eq!(refused.to_string(), "too many connections from 192.0.2.1");
    assert_eq!(Fatal::from(refused).code, "53300");
    assert_eq!(limits.rejected(), 1);
    drop(enter(&limits, "192.0.2.2").unwrap());
    drop(first);
    drop(enter(&limits, "192.0.2.1").unwrap());
}

#[test]
fn an_ipv6_network_is_one_address_and_a_mapped_address_is_ipv4() {
    let limits = Limits::new(policy());
    let kept: Vec<_> = ["2001:db8::1", "2001:db8::ffff:2", "192.0.2.1", "::ffff:192.0.2.1"]
        .map(|text| enter(&limits, text).unwrap())
        .into();
    let refused = enter(&limits, "2001:db8::3").err().unwrap();
    assert_eq!(refused.to_string(), "too many connections from 2001:db8::/64");
    assert!(enter(&limits, "192.0.2.1").is_err());
    assert!(enter(&limits, "2001:db8:0:1::1").is_ok());
    drop(kept);

    let single = Limits::new(Policy {
        ipv6_prefix: 128,
        ..policy()
    });
    let _kept = ["2001:db8::1", "2001:db8::1", "2001:db8::2"].map(|text| enter(&single, text).unwrap());
}

#[test]
fn who_only_visits_takes_no_connection_but_not_everybody_can_visit_at_once() {
    let limits = Limits::new(policy());
    let _used = [(); 2].map(|()| enter(&limits, "192.0.2.1").unwrap());
    let visitors: Vec<_> = std::iter::from_fn(|| limits.knock(address("192.0.2.1")).ok()).collect();
    assert_eq!(visitors.len(), 2 + 16);
    assert!(limits.knock(address("192.0.2.2")).is_ok());
    drop(visitors);
    assert!(limits.knock(address("192.0.2.1")).is_ok());
}

#[test]
fn a_session_counts_until_it_has_ended_and_only_if_its_end_is_told() {
    let limits = Limits::new(policy());
    for id in 0..10 {
        enter(&limits, "192.0.2.1").unwrap().hand_over(id);
    }
    limits.follow_sessions();
    enter(&limits, "192.0.2.1").unwrap().hand_over(11);
    enter(&limits, "192.0.2.1").unwrap().hand_over(12);
    assert!(enter(&limits, "192.0.2.1").is_err());
    limits.session_ended(11);
    limits.session_ended(11);
    enter(&limits, "192.0.2.1").unwrap().hand_over(13);
    assert!(enter(&limits, "192.0.2.1").is_err());
}

#[test]
fn a_session_may_end_before_its_handoff_has_returned() {
    let limits = Limits::new(policy());
    limits.follow_sessions();
    for id in 0..10 {
        let permit = enter(&limits, "192.0.2.1").unwrap();
        limits.session_ended(id);
        permit.hand_over(id);
    }
    // The same over the Unix socket leaves nothing behind that could be taken for another's.
    limits.session_ended(7);
    limits.knock(None).unwrap().admit().unwrap().hand_over(7);
    enter(&limits, "192.0.2.1").unwrap().hand_over(7);
    enter(&limits, "192.0.2.1").unwrap().hand_over(8);
    assert!(enter(&limits, "192.0.2.1").is_err());
    (0..100_000).for_each(|id| limits.session_ended(id));
    assert!(limits.state().overtaken.len() <= OVERTAKEN);
}

#[test]
fn a_worker_takes_the_counts_of_its_sessions_along() {
    let limits = Limits::new(policy());
    limits.follow_sessions();
    let (one, two) = (BackendIds::new(1, 0), BackendIds::new(2, 0));
    enter(&limits, "192.0.2.1").unwrap().hand_over(one.next());
    enter(&limits, "192.0.2.1").unwrap().hand_over(two.next());
    limits.worker_ended(1);
    let _kept = enter(&limits, "192.0.2.1").unwrap();
    assert!(enter(&limits, "192.0.2.1").is_err());
}

#[test]
fn sessions_from_before_a_restart_count_once_until_they_end() {
    let limits = Limits::new(policy());
    limits.follow_sessions();
    for _ in 0..3 {
        limits.session_found(1, "192.0.2.1".parse().unwrap());
        limits.session_found(2, "192.0.2.1".parse().unwrap());
    }
    assert!(enter(&limits, "192.0.2.1").is_err());
    limits.session_ended(1);
    let _kept = enter(&limits, "192.0.2.1").unwrap();
    assert!(enter(&limits, "192.0.2.1").is_err());
    limits.session_ended(2);
    assert!(enter(&limits, "192.0.2.1").is_ok());
}

#[test]
fn failures_lead_to_a_ban_that_hits_those_on_their_way_too() {
    let limits = Limits::new(policy());
    let early = limits.knock(address("192.0.2.1")).unwrap().admit().unwrap();
    for _ in 0..3 {
        early.check().unwrap();
        enter(&limits, "192.0.2.1").unwrap().login_failed();
    }
    assert!(matches!(early.check(), Err(Rejected::Banned(..))));
    let fatal = Fatal::from(limits.knock(address("192.0.2.1")).err().unwrap());
    assert_eq!(
        (fatal.code, fatal.message.as_str(), fatal.detail.as_deref()),
        (
            "28000",
            "connections from 192.0.2.1 are refused after too many failed logins",
            Some("The ban ends in 900 seconds.")
        )
    );
    let banned = limits.banned();
    assert_eq!(banned.len(), 1);
    assert_eq!(banned[0].network.to_string(), "192.0.2.1");
    assert!(banned[0].left > 14 * MINUTE);
    assert_eq!(limits.failed_logins(), 3);
    assert!(enter(&limits, "192.0.2.2").is_ok());
}

#[test]
fn the_unix_socket_is_never_limited() {
    let limits = Limits::new(policy());
    let local = || limits.knock(None).unwrap().admit().unwrap();
    let _kept: Vec<Permit> = (0..100).map(|_| local()).collect();
    (0..100).for_each(|_| local().login_failed());
    local().check().unwrap();
}

#[test]
fn zero_sets_no_limit() {
    let limits = Limits::new(Policy {
        max_failed_attempts: 0,
        max_connections: 0,
        ..policy()
    });
    let kept: Vec<Permit> = (0..100).map(|_| enter(&limits, "192.0.2.1").unwrap()).collect();
    kept.iter().for_each(Permit::login_failed);
    assert!(limits.banned().is_empty() && enter(&limits, "192.0.2.1").is_ok());
}

#[test]
fn a_failure_counts_for_as_long_as_the_window_and_a_ban_for_as_long_as_it_lasts() {
    let (mut history, policy, start) = (History::default(), policy(), Instant::now());
    let one = network("192.0.2.1");
    let mut fail = |minute: u32| history.failed(one, start + minute * MINUTE, &policy);
    // Never three within five minutes...
    assert!(!fail(0) && !fail(3) && !fail(5) && !fail(8) && !fail(10));
    // ...and now there are.
    assert!(fail(11));
    let left = |history: &mut History, minute: u32| history.banned(one, start + minute * MINUTE);
    assert_eq!(left(&mut history, 11), Some(15 * MINUTE));
    assert_eq!(left(&mut history, 25), Some(MINUTE));
    assert_eq!(left(&mut history, 26), None);
    // After it, all is forgotten.
    assert!(!history.failed(one, start + 26 * MINUTE, &policy));
}

#[test]
fn what_led_to_a_ban_does_not_count_again_after_a_short_one() {
    let (mut history, start) = (History::default(), Instant::now());
    let policy = Policy {
        ban: MINUTE,
        ..policy()
    };
    let one = network("192.0.2.1");
    let mut fail = |second: u64| history.failed(one, start + Duration::from_secs(second), &policy);
    assert!(!fail(0) && !fail(1) && fail(2));
    assert!(!fail(30), "during the ban");
    assert!(!fail(62) && !fail(63));
    // The first three leave the queue and take nothing along that is not theirs.
    assert!(fail(359));
}

#[test]
fn however_many_addresses_fail_the_memory_is_bounded() {
    let (mut history, start) = (History::default(), Instant::now());
    let policy = Policy {
        max_failed_attempts: 1,
        ..policy()
    };
    for number in 0..100_000_u32 {
        let stranger = Network::new(IpAddr::from(number.to_be_bytes()), 32);
        history.failed(stranger, start, &policy);
    }
    assert!(history.size() <= 4 * REMEMBERED, "{}", history.size());
    assert_eq!(history.bans(start).len(), REMEMBERED);
    assert_eq!(history.bans(start + policy.ban).len(), 0);
}
