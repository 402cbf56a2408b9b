//! Notices that a client has gone while its statement runs.
//!
//! A session that computes does not read its socket. One thread waits for the
//! hang-ups of all sockets instead, and for nothing else about them, so that
//! traffic does not wake it. Source: epoll_ctl(2), EPOLLRDHUP.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::runtime::Handle as Runtime;

use super::keep_stopping;
use super::registry::Registry;

/// The watch over all clients.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: Arc<Epoll>,
}

impl Watch {
    /// Starts the watching thread.
    pub(super) fn start(registry: Arc<Registry>) -> io::Result<Watch> {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let watched = epoll.clone();
        let runtime = Runtime::current();
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch(&watched, &registry, &runtime))?;
        Ok(Watch { epoll })
    }

    /// Watches the socket of session `backend_id` until it is closed.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, backend_id: i32) -> io::Result<()> {
        let flags = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLONESHOT;
        // Backend ids are positive.
        let event = EpollEvent::new(flags, u64::from(backend_id.unsigned_abs()));
        Ok(self.epoll.add(socket, event)?)
    }
}

fn watch(epoll: &Epoll, registry: &Registry, runtime: &Runtime) {
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => {
                tracing::error!(%error, "clients that vanish are no longer noticed");
                return;
            }
        };
        for event in &events[..count] {
            let Some(handle) = i32::try_from(event.data()).ok().and_then(|id| registry.get(id)) else {
                continue;
            };
            if let Some(serial) = handle.client_is_gone() {
                runtime.spawn(async move { keep_stopping(&handle, serial).await });
            }
        }
    }
}
