//! Failed logins and bans, in time and space that the past cannot grow.
//!
//! Failures are one queue in the order of time and a count for each address;
//! what has left the queue no longer counts. Bans all last equally long, so
//! they too end in the order in which they began.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Ban, Policy, REMEMBERED};
use crate::config::Network;

#[derive(Default)]
pub struct History {
    failures: VecDeque<(Instant, Network)>,
    counts: HashMap<Network, Count>,
    bans: VecDeque<(Instant, Network)>,
    until: HashMap<Network, Instant>,
}

/// The failures of one address that are in the queue and count.
struct Count {
    failures: u32,
    /// Older ones in the queue have led to a ban and count no more.
    since: Instant,
}

/// What there is to remember.
#[derive(Debug, Default)]
pub struct Past {
    /// When who failed.
    pub failures: Vec<(Instant, Network)>,
    /// Until when who is banned.
    pub bans: Vec<(Instant, Network)>,
}

impl History {
    /// For how much longer the address is banned, if it is.
    pub fn banned(&mut self, network: Network, now: Instant) -> Option<Duration> {
        self.end_bans(now);
        let until = self.until.get(&network)?;
        Some(until.saturating_duration_since(now))
    }

    /// Notes a failed login, and whether it has led to a ban.
    pub fn failed(&mut self, network: Network, now: Instant, policy: &Policy) -> bool {
        // Those who came before the ban can still fail after it began.
        if policy.max_failed_attempts == 0 || self.banned(network, now).is_some() {
            return false;
        }
        while let Some((when, _)) = self.failures.front()
            && (now.saturating_duration_since(*when) >= policy.window || self.failures.len() >= REMEMBERED)
        {
            self.forget_oldest();
        }
        self.failures.push_back((now, network));
        let count = self.counts.entry(network).or_insert(Count {
            failures: 0,
            since: now,
        });
        count.failures += 1;
        if count.failures < policy.max_failed_attempts {
            return false;
        }
        self.counts.remove(&network);
        if self.bans.len() >= REMEMBERED
            && let Some((_, network)) = self.bans.pop_front()
        {
            self.until.remove(&network);
        }
        self.bans.push_back((now + policy.ban, network));
        self.until.insert(network, now + policy.ban);
        true
    }

    /// The failures that count and the bans in force, each with when it began or
    /// will end, of those that have begun since then. Oldest first.
    pub fn since(&mut self, began: Option<Instant>, now: Instant, policy: &Policy) -> Past {
        self.end_bans(now);
        let counts = |when: Instant, network: &Network| {
            let count = self.counts.get(network);
            count.is_some_and(|count| count.since <= when)
        };
        Past {
            failures: self
                .failures
                .iter()
                .filter(|(when, network)| began.is_none_or(|began| *when >= began) && counts(*when, network))
                .copied()
                .collect(),
            bans: self
                .bans
                .iter()
                .filter(|(until, _)| began.is_none_or(|began| *until >= began + policy.ban))
                .copied()
                .collect(),
        }
    }

    /// Goes on from another's past, as this policy sees it.
    pub fn add(&mut self, past: Past, now: Instant, policy: &Policy) {
        if policy.max_failed_attempts == 0 {
            return;
        }
        self.end_bans(now);
        for (until, network) in past.bans {
            // In order, because no ban ends later than one that begins now.
            let until = until.min(now + policy.ban);
            if until > now && self.bans.len() < REMEMBERED && !self.until.contains_key(&network) {
                self.until.insert(network, until);
                let place = self.bans.partition_point(|(earlier, _)| *earlier <= until);
                self.bans.insert(place, (until, network));
            }
        }
        for (when, network) in past.failures {
            self.failed(network, when.min(now), policy);
        }
    }

    /// All bans that are in force, in the order in which they end.
    pub fn bans(&mut self, now: Instant) -> Vec<Ban> {
        self.end_bans(now);
        let ban = |(until, network): &(Instant, Network)| Ban {
            network: *network,
            left: until.saturating_duration_since(now),
        };
        self.bans.iter().map(ban).collect()
    }

    fn end_bans(&mut self, now: Instant) {
        while let Some((until, network)) = self.bans.front().copied()
            && until <= now
        {
            self.bans.pop_front();
            self.until.remove(&network);
        }
    }

    fn forget_oldest(&mut self) {
        let Some((when, network)) = self.failures.pop_front() else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&network)
            && count.since <= when
        {
            count.failures -= 1;
            if count.failures == 0 {
                self.counts.remove(&network);
            }
        }
    }

    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.failures.len() + self.counts.len() + self.bans.len() + self.until.len()
    }
}
