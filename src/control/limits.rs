//! What one address may do: so many connections at a time, and so many failed
//! logins until it is banned for a while.
//!
//! A connection comes as a [`Visitor`], which has not said what it wants, and
//! becomes a [`Permit`] when it asks for a session; only permits count against
//! the limit, so that who has used up their connections can still cancel a
//! statement. A permit lasts as long as its session, which is a worker's by
//! then: see [`Limits::session_ended`]. Connections over the Unix socket have
//! no address and are never limited.
//!
//! Addresses of IPv6 count by their network ([`Policy::ipv6_prefix`]). What is
//! remembered about the past is bounded: when strangers fail from more
//! addresses than [`REMEMBERED`], the oldest failures and bans are forgotten.

mod history;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use self::history::History;
pub use self::history::Past;
use super::backend_id::worker_of;
use super::fatal::Fatal;
use crate::config::{Network, Settings};

/// How many failed logins, and how many bans, are remembered at most.
pub const REMEMBERED: usize = 65_536;

/// How many ends of sessions are kept for the handoffs that they overtook.
const OVERTAKEN: usize = 4096;

/// How many visitors beyond the limit on connections one address may have.
const MORE_VISITORS: u32 = 16;

/// The limits, as configured.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Failed logins within the window that lead to a ban; 0 bans nobody.
    pub max_failed_attempts: u32,
    /// For how long a failed login counts.
    pub window: Duration,
    /// For how long a ban lasts.
    pub ban: Duration,
    /// Connections of one address; 0 sets no limit.
    pub max_connections: u32,
    /// How many bits of an IPv6 address count as the address.
    pub ipv6_prefix: u8,
}

impl Policy {
    /// The policy of the settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            max_failed_attempts: settings.max_failed_attempts,
            window: settings.failed_attempt_window,
            ban: settings.ban_duration,
            max_connections: settings.max_connections_per_ip,
            ipv6_prefix: settings.ipv6_prefix.0,
        }
    }

    fn network_of(&self, address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => Network::new(v4.into(), 32),
            IpAddr::V6(v6) => Network::new(v6.into(), self.ipv6_prefix),
        }
    }
}

/// Why a connection is not welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The address is banned for this much longer.
    Banned(Network, Duration),
    /// The address has all the connections that it may have.
    TooManyConnections(Network),
    /// The address has too many connections that say nothing.
    TooManyVisitors(Network),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Banned(network, _) => {
                write!(
                    f,
                    "connections from {network} are refused after too many failed logins"
                )
            }
            Self::TooManyConnections(network) | Self::TooManyVisitors(network) => {
                write!(f, "too many connections from {network}")
            }
        }
    }
}

impl From<Rejected> for Fatal {
    fn from(rejected: Rejected) -> Self {
        match &rejected {
            Rejected::Banned(_, left) => Self {
                // Rounded up: who comes back when it is over is let in.
                detail: Some(format!(
                    "The ban ends in {} seconds.",
                    left.as_millis().div_ceil(1000)
                )),
                ..Self::new("28000", rejected.to_string())
            },
            _ => Self::new("53300", rejected.to_string()),
        }
    }
}

/// An address that is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The address, or the network that counts as one.
    pub network: Network,
    /// For how much longer.
    pub left: Duration,
}

/// The limits, and what they are measured against.
pub struct Limits {
    policy: Policy,
    state: Mutex<State>,
    rejected: AtomicU64,
    failed_logins: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Every address that has connections.
    open: HashMap<Network, Open>,
    /// Sessions that workers have, by backend id.
    sessions: HashMap<i32, Network>,
    /// Whether the ends of sessions are told.
    followed: bool,
    /// Sessions that have ended and were never begun here, oldest first.
    overtaken: VecDeque<i32>,
    history: History,
}

/// The connections of one address.
#[derive(Default)]
struct Open {
    visitors: u32,
    connections: u32,
}

impl State {
    fn leave(&mut self, network: Network, less: impl FnOnce(&mut Open)) {
        if let Some(open) = self.open.get_mut(&network) {
            less(open);
            if (open.visitors, open.connections) == (0, 0) {
                self.open.remove(&network);
            }
        }
    }

    fn release(&mut self, network: Network) {
        self.leave(network, |open| {
            open.connections = open.connections.saturating_sub(1)
        });
    }
}

impl Limits {
    /// Nobody is banned, and nobody is here.
    pub fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Self {
            policy,
            state: Mutex::default(),
            rejected: AtomicU64::new(0),
            failed_logins: AtomicU64::new(0),
        })
    }

    /// Lets a new connection say what it wants. `address` is the client's;
    /// `None` over the Unix socket.
    pub fn knock(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Visitor, Rejected> {
        let network = address.map(|address| self.policy.network_of(address));
        if let Some(network) = network {
            self.count_visitor(network)
                .inspect_err(|_| self.count_rejection())?;
        }
        Ok(Visitor {
            limits: self.clone(),
            network,
        })
    }

    fn count_visitor(&self, network: Network) -> Result<(), Rejected> {
        let mut state = self.state();
        if let Some(left) = state.history.banned(network, Instant::now()) {
            return Err(Rejected::Banned(network, left));
        }
        let visitors = state.open.get(&network).map_or(0, |open| open.visitors);
        let most = self.policy.max_connections.saturating_add(MORE_VISITORS);
        if self.policy.max_connections != 0 && visitors >= most {
            return Err(Rejected::TooManyVisitors(network));
        }
        state.open.entry(network).or_default().visitors += 1;
        Ok(())
    }

    /// From now on every end of a session is told by [`Limits::session_ended`]
    /// or [`Limits::worker_ended`]. Before that, a session stops counting when
    /// it is handed over, because nothing would ever take its count back.
    pub fn follow_sessions(&self) {
        self.state().followed = true;
    }

    /// A worker has this session, of a client with this address, from the time of
    /// an earlier control plane. It counts, even beyond the limit. Not for
    /// sessions whose handoff may still be under way: they would count twice.
    pub fn session_found(&self, backend_id: i32, address: IpAddr) {
        let network = self.policy.network_of(address);
        let mut state = self.state();
        if let Entry::Vacant(entry) = state.sessions.entry(backend_id) {
            entry.insert(network);
            state.open.entry(network).or_default().connections += 1;
        }
    }

    /// The session of this backend id has ended. May be told before the handoff
    /// has returned, more than once, and of sessions that are not known here.
    pub fn session_ended(&self, backend_id: i32) {
        let mut state = self.state();
        match state.sessions.remove(&backend_id) {
            Some(network) => state.release(network),
            None => {
                if state.overtaken.len() == OVERTAKEN {
                    state.overtaken.pop_front();
                }
                state.overtaken.push_back(backend_id);
            }
        }
    }

    /// The process of this worker has ended, and all its sessions with it.
    pub fn worker_ended(&self, worker: u16) {
        let mut state = self.state();
        let ended: Vec<Network> = state
            .sessions
            .extract_if(|backend_id, _| worker_of(*backend_id) == Some(worker))
            .map(|(_, network)| network)
            .collect();
        ended.into_iter().for_each(|network| state.release(network));
    }

    /// Who is banned now, those first whose ban ends first.
    pub fn banned(&self) -> Vec<Ban> {
        self.state().history.bans(Instant::now())
    }

    /// How many connections were refused for their address, since the start.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// How many logins have failed, over the Unix socket too, since the start.
    pub fn failed_logins(&self) -> u64 {
        self.failed_logins.load(Ordering::Relaxed)
    }

    /// What another control plane of this server needs to go on, of what has
    /// happened since `began`, or since ever. Connections are not in it: they are
    /// counted from what workers report.
    pub fn past(&self, began: Option<Instant>) -> Past {
        self.state().history.since(began, Instant::now(), &self.policy)
    }

    /// Adds what another control plane has seen and counted.
    pub fn add(&self, mut past: Past, rejected: u64, failed_logins: u64) {
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.failed_logins.fetch_add(failed_logins, Ordering::Relaxed);
        // Its policy may have had other networks.
        for (_, network) in past.failures.iter_mut().chain(&mut past.bans) {
            *network = self.policy.network_of(network.address());
        }
        self.state().history.add(past, Instant::now(), &self.policy);
    }

    fn count_rejection(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts hold after every statement that changes them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has not said what it wants.
pub struct Visitor {
    limits: Arc<Limits>,
    network: Option<Network>,
}

impl Visitor {
    /// The visitor asks for a session: counts it among the connections.
    pub fn admit(self) -> Result<Permit, Rejected> {
        if let Some(network) = self.network {
            let most = self.limits.policy.max_connections;
            let mut state = self.limits.state();
            let open = state.open.entry(network).or_default();
            if most != 0 && open.connections >= most {
                drop(state);
                self.limits.count_rejection();
                return Err(Rejected::TooManyConnections(network));
            }
            open.connections += 1;
        }
        Ok(Permit {
            limits: self.limits.clone(),
            network: self.network,
        })
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if let Some(network) = self.network {
            let less = |open: &mut Open| open.visitors = open.visitors.saturating_sub(1);
            self.limits.state().leave(network, less);
        }
    }
}

/// One of the connections that an address may have; given back when dropped.
#[must_use = "dropping it gives the connection's place back"]
pub struct Permit {
    limits: Arc<Limits>,
    network: Option<Network>,
}

impl Permit {
    /// Whether the client may still log in: others with its address may have
    /// led to a ban since it came.
    pub fn check(&self) -> Result<(), Rejected> {
        let Some(network) = self.network else {
            return Ok(());
        };
        match self.limits.state().history.banned(network, Instant::now()) {
            Some(left) => {
                self.limits.count_rejection();
                Err(Rejected::Banned(network, left))
            }
            None => Ok(()),
        }
    }

    /// The client has failed to log in.
    pub fn login_failed(&self) {
        self.limits.failed_logins.fetch_add(1, Ordering::Relaxed);
        let Some(network) = self.network else { return };
        let policy = &self.limits.policy;
        if self
            .limits
            .state()
            .history
            .failed(network, Instant::now(), policy)
        {
            let (failures, seconds) = (policy.max_failed_attempts, policy.ban.as_secs());
            warn!(%network, failures, seconds, "banned after failed logins");
        }
    }

    /// A worker has the session now: the place is taken until it ends.
    pub fn hand_over(mut self, backend_id: i32) {
        let limits = self.limits.clone();
        let mut state = limits.state();
        let overtaken = state.overtaken.iter().position(|id| *id == backend_id);
        if let Some(index) = overtaken {
            state.overtaken.remove(index);
        } else if let Some(network) = self.network.filter(|_| state.followed) {
            self.network = None;
            // An id that comes again belongs to a session whose end was missed.
            if let Some(network) = state.sessions.insert(backend_id, network) {
                state.release(network);
            }
        }
        // Whatever is left of the permit is given back after the lock.
        drop(state);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(network) = self.network {
            self.limits.state().release(network);
        }
    }
}

#[cfg(test)]
mod tests;
