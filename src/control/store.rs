//! What a worker has its supervisor keep while it has no process.
//!
//! For its own workers the control plane does what systemd does for a service
//! (sd_notify(3)): each has a datagram socket (`NOTIFY_SOCKET`) to which its process
//! says how it is, and sends descriptors that its next process gets again, beside its
//! sockets, by their names. So a worker need not know who supervises it.
//!
//! A message counts only if the kernel says that it is from the worker's process
//! (`SCM_CREDENTIALS`, unix(7)). Only who is on duty reads; the socket and what is kept
//! go on to the next control plane at a reload. When the control plane is killed, its
//! descriptors are gone with it, and the next one binds the socket anew: a worker that
//! is told to restart meanwhile cannot store anything and must stay.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

use super::duty::Duty;

/// What one message can have of descriptors (unix(7), SCM_MAX_FD).
const MOST_DESCRIPTORS: usize = 253;

/// The longest message; systemd's own limit.
const LONGEST: usize = 4096;

/// All names together, each with a colon: `LISTEN_FDNAMES` is one string of the
/// environment, and the kernel takes none of 128 KiB (execve(2)).
const LONGEST_NAMES: usize = 120_000;

/// The longest name of a descriptor (sd_notify(3), FDNAME=).
const LONGEST_NAME: usize = 255;

/// The name of descriptors that were given none (sd_listen_fds(3)).
const NAMELESS: &str = "stored";

/// How many messages are read before others get a turn.
const AT_ONCE: usize = 64;

/// How many descriptors all stores of this process keep together.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// A quarter of the descriptors that this process may have: each is needed twice
    /// while a process is being started, and clients need some, too.
    pub fn of_this_process() -> Self {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        Self::new(usize::try_from(soft / 4).unwrap_or(usize::MAX))
    }

    fn new(descriptors: usize) -> Self {
        Self(Arc::new(Semaphore::new(descriptors.min(Semaphore::MAX_PERMITS))))
    }
}

/// A descriptor that is kept. Copies are of the same.
#[derive(Clone, Debug)]
pub struct Kept {
    name: String,
    fd: Arc<OwnedFd>,
    _counted: Arc<OwnedSemaphorePermit>,
}

impl Kept {
    /// As its worker has called it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a process has said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Which process.
    pub process: Option<u32>,
    /// It serves.
    pub ready: bool,
    /// It is about to end, as it was told to.
    pub stopping: bool,
    /// In a line, for people.
    pub status: String,
}

/// One worker's.
#[derive(Debug)]
pub struct Store {
    socket: AsyncFd<OwnedFd>,
    budget: Budget,
    state: Mutex<State>,
    told: watch::Sender<Told>,
}

#[derive(Debug, Default)]
struct State {
    kept: Vec<Kept>,
    closed: bool,
}

impl Store {
    /// Binds the socket; another of that name is replaced. Must be called inside a
    /// runtime.
    pub fn bind(path: &Path, budget: Budget) -> io::Result<Arc<Self>> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        Self::inherit(socket, budget)
    }

    /// The socket that another process of this server has bound, with nothing kept yet.
    /// Must be called inside a runtime.
    pub fn inherit(socket: OwnedFd, budget: Budget) -> io::Result<Arc<Self>> {
        sockopt::set_socket_passcred(&socket, true)?;
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd always answers with the one descriptor that it keeps
        // open until it is dropped, and nothing takes it out of the AsyncFd.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Arc::new(Self {
            socket,
            budget,
            state: Mutex::default(),
            told: watch::Sender::new(Told::default()),
        }))
    }

    /// What is kept now.
    pub fn kept(&self) -> Vec<Kept> {
        self.lock().kept.clone()
    }

    /// Whether anything is kept.
    pub fn is_empty(&self) -> bool {
        self.lock().kept.is_empty()
    }

    /// How many descriptors it has room for, with those that it has.
    pub fn limit(&self) -> usize {
        self.lock().kept.len() + self.budget.0.available_permits()
    }

    /// Takes over what another process of this server has kept for the worker.
    pub fn take_over(&self, kept: impl IntoIterator<Item = (String, OwnedFd)>) {
        let mut state = self.lock();
        kept.into_iter().for_each(|(name, fd)| {
            self.keep(&mut state, name, fd);
        });
    }

    /// What the worker's process says of itself.
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Starts the worker's next process, which `start` gives the id of, with what is
    /// kept. It stays here until the process has it removed, in case it fails.
    pub fn launch<T>(&self, start: impl FnOnce(&[Kept]) -> io::Result<(T, u32)>) -> io::Result<T> {
        // The last words of the one before.
        self.settle();
        // Nothing that the process says is looked at before it is known.
        let state = self.lock();
        let (started, process) = start(&state.kept)?;
        self.belongs_to(process);
        Ok(started)
    }

    /// The worker's process is this one, from now on.
    pub fn belongs_to(&self, process: u32) {
        self.told.send_if_modified(|told| {
            let another = told.process != Some(process);
            if another {
                *told = Told {
                    process: Some(process),
                    ..Told::default()
                };
            }
            another
        });
    }

    /// The worker has no next process: what is kept is closed, and what it still sends
    /// is too.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.kept.clear();
    }

    /// Hears what the process says whenever this one is on duty. Never returns.
    pub async fn listen(&self, mut duty: Duty) {
        loop {
            duty.begins().await;
            let readable = tokio::select! {
                readable = self.socket.readable() => readable,
                () = duty.ends() => continue,
            };
            match readable {
                Ok(mut readable) => {
                    if duty.act(|| self.read_some()) == Some(false) {
                        readable.clear_ready();
                    }
                }
                Err(error) => {
                    warn!(%error, "a worker is not heard any more");
                    return std::future::pending().await;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Hears all that has been said. To be called on duty, when the process has ended.
    pub fn settle(&self) {
        while self.read_some() {}
    }

    /// Reads a few messages; false when there are none left.
    fn read_some(&self) -> bool {
        let mut state = self.lock();
        for _ in 0..AT_ONCE {
            match receive(self.socket.get_ref().as_fd()) {
                Ok(received) => self.hear(&mut state, received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    warn!(%error, "a worker's message is lost");
                    return false;
                }
            }
        }
        true
    }

    fn hear(&self, state: &mut State, received: Received) {
        let process = self.told.borrow().process;
        let from = received.from;
        if from.is_none() || from != process.map(|process| (process, geteuid().as_raw())) {
            return debug!(?from, ?process, "a message of somebody who is not the worker");
        }
        let Ok(text) = std::str::from_utf8(&received.text) else {
            return warn!(process, "a worker's message is no text");
        };
        let message = Message::of(text);
        if received.cut {
            warn!(
                process,
                "a worker's message was cut: too few descriptors may be open (LimitNOFILE=)"
            );
        }
        self.told.send_if_modified(|told| message.tell(told));
        let Some(name) = message.name else {
            return warn!(process, "a worker's descriptor has a name that it cannot have");
        };
        // Dropped otherwise, which is the whole answer to a barrier.
        if message.store {
            let before = state.kept.len();
            let count = received.descriptors.len();
            for fd in received.descriptors {
                self.keep(state, name.to_owned(), fd);
            }
            let missing = before + count - state.kept.len();
            if missing > 0 && !state.closed {
                warn!(
                    process,
                    name, missing, "there is no room for a worker's descriptors"
                );
            }
        } else if message.remove {
            state.kept.retain(|kept| kept.name != name);
        }
    }

    /// Keeps it if there is room.
    fn keep(&self, state: &mut State, name: String, fd: OwnedFd) {
        let names: usize = state.kept.iter().map(|kept| kept.name.len() + 1).sum();
        if state.closed || names + name.len() + 1 > LONGEST_NAMES {
            return;
        }
        if let Ok(counted) = self.budget.0.clone().try_acquire_owned() {
            state.kept.push(Kept {
                name,
                fd: Arc::new(fd),
                _counted: Arc::new(counted),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// What a message asks for.
#[derive(Debug, Default, PartialEq)]
struct Message<'a> {
    store: bool,
    remove: bool,
    /// `None` if it cannot be one.
    name: Option<&'a str>,
    ready: bool,
    stopping: bool,
    status: Option<&'a str>,
}

impl<'a> Message<'a> {
    fn of(text: &'a str) -> Self {
        let mut message = Self {
            name: Some(NAMELESS),
            ..Self::default()
        };
        for line in text.lines() {
            match line.split_once('=') {
                Some(("FDSTORE", "1")) => message.store = true,
                Some(("FDSTOREREMOVE", "1")) => message.remove = true,
                Some(("FDNAME", name)) => message.name = Some(name).filter(|name| is_name(name)),
                Some(("READY", "1")) => message.ready = true,
                Some(("STOPPING", "1")) => message.stopping = true,
                Some(("STATUS", status)) => message.status = Some(status),
                // A barrier is its descriptor; the rest is for systemd.
                _ => {}
            }
        }
        message
    }

    /// True if it says anything new.
    fn tell(&self, told: &mut Told) -> bool {
        let before = told.clone();
        told.ready |= self.ready;
        told.stopping |= self.stopping;
        if let Some(status) = self.status {
            status.clone_into(&mut told.status);
        }
        *told != before
    }
}

/// As sd_notify(3) has it, so that names can be listed with colons between them.
fn is_name(name: &str) -> bool {
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    fits && name
        .bytes()
        .all(|byte| byte.is_ascii() && !byte.is_ascii_control() && byte != b':')
}

struct Received {
    text: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// The process and the user.
    from: Option<(u32, u32)>,
    /// Something of it is missing.
    cut: bool,
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<Received> {
    let mut text = vec![0; LONGEST];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = net::recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    let (mut descriptors, mut from) = (Vec::new(), None);
    for ancillary in control.drain() {
        match ancillary {
            RecvAncillaryMessage::ScmRights(passed) => descriptors.extend(passed),
            RecvAncillaryMessage::ScmCredentials(sender) => {
                from = Some((
                    sender.pid.as_raw_nonzero().get().unsigned_abs(),
                    sender.uid.as_raw(),
                ));
            }
            _ => {}
        }
    }
    text.truncate(received.bytes);
    Ok(Received {
        text,
        descriptors,
        from,
        cut: received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::IoSlice;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    struct Rig {
        store: Arc<Store>,
        path: std::path::PathBuf,
        _directory: tempfile::TempDir,
    }

    fn rig(descriptors: usize) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify.sock");
        let store = Store::bind(&path, Budget::new(descriptors)).unwrap();
        store.belongs_to(std::process::id());
        Rig {
            store,
            path,
            _directory: directory,
        }
    }

    impl Rig {
        fn say(&self, text: &str, descriptors: &[BorrowedFd<'_>]) {
            let socket = net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
            net::connect(&socket, &SocketAddrUnix::new(&self.path).unwrap()).unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
            let text = [IoSlice::new(text.as_bytes())];
            net::sendmsg(&socket, &text, &mut control, SendFlags::empty()).unwrap();
        }

        fn names(&self) -> Vec<String> {
            self.store.settle();
            let kept = self.store.kept();
            kept.iter().map(|kept| kept.name().to_owned()).collect()
        }
    }

    fn file() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    #[tokio::test]
    async fn descriptors_are_kept_by_name_until_they_are_removed() {
        let rig = rig(1000);
        let one = file();
        rig.say("FDSTORE=1\nFDNAME=z", &[one.as_fd(); 200]);
        rig.say("FDSTORE=1\nFDNAME=lease\nFDPOLL=0", &[one.as_fd()]);
        rig.say("FDSTORE=1", &[one.as_fd()]);
        rig.say("FDSTORE=1\nFDNAME=a:b", &[one.as_fd()]);
        rig.say("STATUS=nothing to keep", &[one.as_fd()]);
        let names = rig.names();
        assert_eq!(names.len(), 202);
        assert_eq!(names[199..], ["z", "lease", NAMELESS]);
        rig.say("FDSTOREREMOVE=1\nFDNAME=z", &[]);
        assert_eq!(rig.names(), ["lease", NAMELESS]);
        rig.store.close();
        rig.say("FDSTORE=1\nFDNAME=z", &[one.as_fd()]);
        assert!(rig.names().is_empty());
    }

    #[tokio::test]
    async fn a_barrier_is_over_when_all_before_it_was_heard() {
        let rig = rig(10);
        let (mut near, far) = UnixStream::pair().unwrap();
        rig.say("FDSTORE=1\nFDNAME=z", &[file().as_fd()]);
        rig.say("BARRIER=1", &[far.as_fd()]);
        drop(far);
        assert_eq!(rig.names(), ["z"]);
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test]
    async fn only_the_workers_process_is_heard() {
        let rig = rig(10);
        rig.store.belongs_to(1);
        rig.say("FDSTORE=1\nFDNAME=z\nREADY=1", &[file().as_fd()]);
        assert!(rig.names().is_empty());
        assert!(!rig.store.told().borrow().ready);
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_closed_and_room_comes_back() {
        let rig = rig(2);
        let one = file();
        rig.say("FDSTORE=1\nFDNAME=z", &[one.as_fd(); 3]);
        assert_eq!(rig.names().len(), 2);
        assert_eq!(rig.store.limit(), 2);
        rig.say("FDSTOREREMOVE=1\nFDNAME=z", &[]);
        rig.say("FDSTORE=1\nFDNAME=y", &[one.as_fd()]);
        assert_eq!(rig.names(), ["y"]);
    }

    #[tokio::test]
    async fn names_never_grow_too_long_for_the_next_process() {
        let rig = rig(10_000);
        let one = file();
        let name = "n".repeat(LONGEST_NAME);
        for _ in 0..10 {
            rig.say(&format!("FDSTORE=1\nFDNAME={name}"), &[one.as_fd(); 60]);
            rig.names();
        }
        assert_eq!(rig.names().len(), LONGEST_NAMES / (LONGEST_NAME + 1));
    }

    #[tokio::test]
    async fn a_process_tells_how_it_is_and_the_next_one_begins_anew() {
        let rig = rig(10);
        rig.say("READY=1\nSTATUS=2 sessions\nWATCHDOG=1", &[]);
        rig.store.settle();
        let told = rig.store.told().borrow().clone();
        assert_eq!((told.ready, told.status.as_str()), (true, "2 sessions"));
        rig.say("STOPPING=1", &[]);
        rig.store
            .launch(|kept| Ok((assert!(kept.is_empty()), 1)))
            .unwrap();
        assert_eq!(
            *rig.store.told().borrow(),
            Told {
                process: Some(1),
                ..Told::default()
            }
        );
    }

    #[tokio::test]
    async fn the_socket_is_heard_on_duty_only_and_by_the_next_one_then() {
        let rig = rig(10);
        let roster = crate::control::duty::Roster::new();
        let next = Store::inherit(rig.store.as_fd().try_clone_to_owned().unwrap(), Budget::new(10)).unwrap();
        next.belongs_to(std::process::id());
        let mut told = next.told();
        let (here, there) = (rig.store.clone(), next.clone());
        let (duty, always) = (roster.duty(), Duty::always());
        let one = tokio::spawn(async move { here.listen(duty).await });
        rig.say("READY=1", &[]);
        let other = tokio::spawn(async move { there.listen(always).await });
        told.wait_for(|told| told.ready).await.unwrap();
        assert!(!rig.store.told().borrow().ready);
        one.abort();
        other.abort();
    }
}
