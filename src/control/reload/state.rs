//! What a control plane has seen and counted, as it is carried over, so that bans
//! hold and counters never go back.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use prost::Message;

use crate::config::Network;
use crate::control::limits::{Limits, Past};
use crate::control::pool::Pool;
use crate::handoff::memfd;
use crate::proto::{CarriedBan, CarriedState, CarriedWorker, Histogram, PastFailure};

/// Four times what the most bans and failures that are remembered need.
const LONGEST: u64 = 16 << 20;

/// All of it, or what has come since `earlier` was gathered at that time.
pub fn gather(limits: &Limits, pool: &Pool, earlier: Option<(&CarriedState, Instant)>) -> CarriedState {
    let now = Instant::now();
    let past = limits.past(earlier.map(|(_, when)| when));
    let workers = pool.workers().into_iter().map(|worker| CarriedWorker {
        id: worker.id.into(),
        handoffs: Some(worker.tally.handoffs()),
        failed_handoffs: worker.tally.failed_handoffs(),
        restarts: worker.tally.restarts(),
        moved: worker.tally.moved_sessions(),
    });
    let state = CarriedState {
        rejected: limits.rejected(),
        failed_logins: limits.failed_logins(),
        failures: past
            .failures
            .iter()
            .map(|(when, network)| PastFailure {
                address: bytes(network.address()),
                milliseconds_ago: milliseconds(now.saturating_duration_since(*when)),
            })
            .collect(),
        bans: past
            .bans
            .iter()
            .map(|(until, network)| CarriedBan {
                address: bytes(network.address()),
                milliseconds_left: milliseconds(until.saturating_duration_since(now)),
            })
            .collect(),
        workers: workers.collect(),
    };
    match earlier {
        Some((earlier, _)) => less(state, earlier),
        None => state,
    }
}

/// Adds it to what is counted here.
pub fn add(state: &CarriedState, limits: &Limits, pool: &Pool) {
    let now = Instant::now();
    let past = Past {
        failures: state
            .failures
            .iter()
            .filter_map(|failure| {
                let ago = Duration::from_millis(failure.milliseconds_ago);
                // Before the machine was started: too long ago to count.
                Some((now.checked_sub(ago)?, network(&failure.address)?))
            })
            .collect(),
        bans: state
            .bans
            .iter()
            .filter_map(|ban| {
                let left = Duration::from_millis(ban.milliseconds_left);
                Some((now.checked_add(left)?, network(&ban.address)?))
            })
            .collect(),
    };
    limits.add(past, state.rejected, state.failed_logins);
    for carried in &state.workers {
        let worker = u16::try_from(carried.id).ok().and_then(|id| pool.worker(id));
        if let Some(worker) = worker {
            let handoffs = carried.handoffs.clone().unwrap_or_default();
            worker.tally.add(
                &handoffs,
                carried.failed_handoffs,
                carried.restarts,
                carried.moved,
            );
        }
    }
}

/// A sealed memfd with it.
pub fn write(state: &CarriedState) -> io::Result<OwnedFd> {
    memfd::create(&state.encode_to_vec())
}

/// What is in such a memfd.
pub fn read(fd: OwnedFd) -> io::Result<CarriedState> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    let length = rustix::fs::fstat(&fd)?.st_size as u64;
    if length > LONGEST {
        return Err(invalid("the state that was carried over is too long".to_owned()));
    }
    let bytes = memfd::read(fd, length as usize)?;
    CarriedState::decode(bytes.as_slice()).map_err(|error| invalid(error.to_string()))
}

fn less(mut state: CarriedState, earlier: &CarriedState) -> CarriedState {
    state.rejected = state.rejected.saturating_sub(earlier.rejected);
    state.failed_logins = state.failed_logins.saturating_sub(earlier.failed_logins);
    for worker in &mut state.workers {
        let Some(before) = earlier.workers.iter().find(|before| before.id == worker.id) else {
            continue;
        };
        worker.failed_handoffs = worker.failed_handoffs.saturating_sub(before.failed_handoffs);
        worker.restarts = worker.restarts.saturating_sub(before.restarts);
        worker.moved = worker.moved.saturating_sub(before.moved);
        if let (Some(handoffs), Some(before)) = (&mut worker.handoffs, &before.handoffs) {
            subtract(handoffs, before);
        }
    }
    state
}

fn subtract(histogram: &mut Histogram, before: &Histogram) {
    for (count, before) in histogram.counts.iter_mut().zip(&before.counts) {
        *count = count.saturating_sub(*before);
    }
    histogram.sum = (histogram.sum - before.sum).max(0.0);
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn network(bytes: &[u8]) -> Option<Network> {
    let address: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    Some(Network::new(address, u8::MAX))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::limits::Policy;
    use crate::control::pool::Queue;
    use std::sync::Arc;

    fn policy() -> Policy {
        Policy {
            max_failed_attempts: 2,
            window: Duration::from_secs(300),
            ban: Duration::from_secs(900),
            max_connections: 0,
            ipv6_prefix: 64,
        }
    }

    fn fail(limits: &Arc<Limits>, address: &str) {
        let visitor = limits.knock(Some(address.parse().unwrap())).unwrap();
        visitor.admit().unwrap().login_failed();
    }

    fn pool() -> Arc<Pool> {
        let (_, stopping) = tokio::sync::watch::channel(false);
        let queue = Queue {
            length: 1,
            timeout: Duration::ZERO,
        };
        Pool::new([], crate::control::tests::rig::ledger(), queue, stopping)
    }

    fn carry(from: &Limits, to: &Limits, earlier: Option<(&CarriedState, Instant)>) -> CarriedState {
        let state = gather(from, &pool(), earlier);
        add(&read(write(&state).unwrap()).unwrap(), to, &pool());
        state
    }

    #[test]
    fn bans_failures_and_counts_go_on_where_they_were() {
        let (old, new) = (Limits::new(policy()), Limits::new(policy()));
        fail(&old, "192.0.2.1");
        fail(&old, "192.0.2.1");
        fail(&old, "192.0.2.2");
        fail(&old, "2001:db8::1");
        assert!(old.knock(Some("192.0.2.1".parse().unwrap())).is_err());
        let began = Instant::now();
        let state = carry(&old, &new, None);
        assert_eq!((new.failed_logins(), new.rejected()), (4, 1));
        assert_eq!(new.banned().len(), 1);
        assert!(new.knock(Some("192.0.2.1".parse().unwrap())).is_err());
        fail(&new, "192.0.2.2");
        fail(&new, "2001:db8::2");
        assert_eq!(new.banned().len(), 3, "what was begun there leads to a ban here");

        // Who was on their way in the old process.
        fail(&old, "192.0.2.9");
        fail(&old, "192.0.2.9");
        fail(&old, "192.0.2.8");
        carry(&old, &new, Some((&state, began)));
        assert_eq!(new.failed_logins(), 9);
        assert_eq!(new.banned().len(), 4);
        fail(&new, "192.0.2.8");
        assert_eq!(new.banned().len(), 5);
    }

    #[test]
    fn the_new_policy_holds_for_what_is_carried_over() {
        let old = Limits::new(policy());
        fail(&old, "2001:db8::1");
        fail(&old, "2001:db8::1");
        let shorter = Limits::new(Policy {
            ban: Duration::from_secs(10),
            ipv6_prefix: 48,
            ..policy()
        });
        carry(&old, &shorter, None);
        let ban = shorter.banned()[0];
        assert!(ban.left <= Duration::from_secs(10));
        assert_eq!(ban.network.to_string(), "2001:db8::/48");
        let none = Limits::new(Policy {
            max_failed_attempts: 0,
            ..policy()
        });
        carry(&old, &none, None);
        assert!(none.banned().is_empty());
    }

    #[test]
    fn what_is_no_state_is_refused() {
        assert!(read(tempfile::tempfile().unwrap().into()).is_err());
        assert!(read(memfd::create(&[0xff; 7]).unwrap()).is_err());
    }
}
