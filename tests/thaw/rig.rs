//! A session without a worker: it is run, frozen, and thawed on another instance,
//! when the test says so.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use duckgres::engine::{Instance, Options};
use duckgres::handoff::{CancelKey, PeerFacts, SessionState};
use duckgres::session::{Ended, Gone, Ground, Observer, Pause, Pin, Policy, Session, Spare, Timeouts};
use duckgres::{handoff, tls};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::session::Session as Client;
use crate::support::transport::{Road, tls_config};
use crate::support::{PATIENCE, eventually};

pub const KEY: [u8; 4] = [1, 2, 3, 4];
pub const BACKEND: i32 = 42;

/// The server's side: a database, and a session that is its only one.
pub struct Rig {
    directory: TempDir,
    policy: Arc<Policy>,
    instance: Option<Arc<Instance>>,
    pub session: Option<Session>,
}

/// How a client and its session are connected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Plain,
    Tls12,
    Tls13,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Plain, Way::Tls12, Way::Tls13];
}

#[derive(Debug)]
struct Nobody;

impl Observer for Nobody {
    fn statement_ended(&self, _: &Ended<'_>) {}
    fn transaction_ended(&self, _: bool) {}
}

impl Rig {
    /// A session that has just begun.
    pub fn new(way: Way) -> (Rig, Client) {
        Rig::with(way, &[], Timeouts::default())
    }

    /// The same, with settings of its startup message and limits of the server's.
    pub fn with(way: Way, settings: &[(&str, &str)], limits: Timeouts) -> (Rig, Client) {
        let directory = tempfile::tempdir().unwrap();
        let policy = Arc::new(Policy {
            spool_directory: directory.path().to_owned(),
            ..Policy::default()
        });
        policy.set_timeouts(limits);
        let mut rig = Rig {
            directory,
            policy,
            instance: None,
            session: None,
        };
        let connection = rig.instance().connect().unwrap();
        let client = rig.begin(way, settings, connection);
        (rig, client)
    }

    /// Another session, on what is there for it.
    pub fn begin(&mut self, way: Way, settings: &[(&str, &str)], ground: impl Into<Ground>) -> Client {
        let (road, socket, state) = connect(way, &self.directory);
        let state = state_of(settings, state);
        let session = Session::start(socket, state, ground, self.policy.clone(), Arc::new(Nobody));
        self.session = Some(session.unwrap());
        self.serve();
        let mut client = Client::on(road);
        client.become_ready();
        client
    }

    /// The client takes its leave; what the session leaves to others.
    #[track_caller]
    pub fn leave(&mut self, mut client: Client) -> Option<Spare> {
        client.send(&crate::support::message::terminate());
        match self.session().run() {
            Pause::Over(Gone::Left) => {}
            other => panic!("the session goes on: {other:?}"),
        }
        self.session.take().unwrap().into_spare()
    }

    /// The instance that is open, opened now if there is none.
    pub fn instance(&mut self) -> Arc<Instance> {
        let path: PathBuf = self.directory.path().join("analytics.duckdb");
        self.instance
            // A process that another test is just starting has a copy of the lease.
            .get_or_insert_with(|| {
                eventually("the database opens", || {
                    Instance::open(&path, &Options::default()).ok()
                })
            })
            .clone()
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub fn session(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    /// Runs the session until it waits for its client.
    #[track_caller]
    pub fn serve(&mut self) {
        match self.session().run() {
            Pause::Idle => {}
            Pause::Over(gone) => panic!("the session is over: {gone}"),
        }
    }

    /// Freezes the session, and carries it over as bytes.
    #[track_caller]
    pub fn freeze(&mut self) -> handoff::Session {
        let frozen = self.session.take().unwrap().freeze();
        let handoff::Session { socket, state } = frozen.unwrap_or_else(|(_, pin)| panic!("pinned by {pin}"));
        let state = SessionState::decode(&state.encode()).unwrap();
        handoff::Session { socket, state }
    }

    /// Closes the database: nobody has it any more.
    #[track_caller]
    pub fn close(&mut self) {
        let instance = self.instance.take().unwrap();
        assert!(
            Arc::into_inner(instance).is_some(),
            "the session holds its instance"
        );
    }

    pub fn try_thaw(&mut self, frozen: handoff::Session) -> Result<Session, Gone> {
        let connection = self.instance().connect().unwrap();
        Session::thaw(frozen, connection, self.policy.clone(), Arc::new(Nobody))
    }

    #[track_caller]
    pub fn thaw(&mut self, frozen: handoff::Session) {
        self.session = Some(self.try_thaw(frozen).unwrap());
    }

    /// Moves the session to another instance of the database, and runs it there if
    /// it has work.
    #[track_caller]
    pub fn move_on(&mut self) {
        self.move_with_work();
        if self.session().has_work() {
            self.serve();
        }
    }

    /// Moves it, and leaves its work for later.
    #[track_caller]
    pub fn move_with_work(&mut self) {
        let frozen = self.freeze();
        self.close();
        self.thaw(frozen);
    }

    /// Why it cannot be moved.
    pub fn pin(&mut self) -> Option<Pin> {
        let pin = self.session().pin();
        if pin.is_some() {
            let Err((session, again)) = self.session.take().unwrap().freeze() else {
                panic!("frozen in spite of {pin:?}");
            };
            assert_eq!(Some(again), pin);
            self.session = Some(*session);
        }
        pin
    }

    /// The transcript of messages that are answered at once.
    #[track_caller]
    pub fn run(&mut self, client: &mut Client, messages: &[Vec<u8>]) -> Vec<String> {
        client.send(&messages.concat());
        self.serve();
        client.transcript()
    }

    /// The rows of a query that must succeed, columns joined by `|`.
    #[track_caller]
    pub fn rows(&mut self, client: &mut Client, sql: &str) -> Vec<String> {
        self.run(client, &[crate::support::message::query(sql)])
            .into_iter()
            .inspect(|answer| assert!(!answer.starts_with("Error"), "{sql}: {answer}"))
            .filter_map(|answer| answer.strip_prefix("DataRow ").map(str::to_owned))
            .collect()
    }

    #[track_caller]
    pub fn execute(&mut self, client: &mut Client, sql: &str) {
        self.rows(client, sql);
    }
}

/// What a session of this rig is begun with.
pub fn state_of(settings: &[(&str, &str)], tls: Option<tls::TlsState>) -> SessionState {
    SessionState {
        backend_id: BACKEND,
        cancel_key: CancelKey::new(&KEY).unwrap(),
        protocol_minor: 0,
        user: "ada".to_owned(),
        database: "analytics".to_owned(),
        settings: settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        unread_input: Default::default(),
        tls,
        peer: PeerFacts {
            address: "203.0.113.7:50312".to_owned(),
            ..PeerFacts::default()
        },
        create_database: true,
        admin: true,
        frozen: None,
    }
}

fn connect(way: Way, directory: &TempDir) -> (Road, OwnedFd, Option<tls::TlsState>) {
    let (client, server) = narrow_pair();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
    }
    let version = match way {
        Way::Plain => return (Road::Tcp(client), server.into(), None),
        Way::Tls12 => &rustls::version::TLS12,
        Way::Tls13 => &rustls::version::TLS13,
    };
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let path = directory.path().join("certificate.pem");
    std::fs::write(&path, &certificate).unwrap();
    let config = tls::server_config(certificate.as_bytes(), key.as_bytes(), tls::Version::Tls12).unwrap();
    let client =
        std::thread::spawn(move || Road::secure(client, tls_config(&path, &[version], &[])).unwrap());
    let (server, accepted) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            server.set_nonblocking(true).unwrap();
            let mut server = tokio::net::TcpStream::from_std(server).unwrap();
            let draws: Arc<dyn tls::Draws> = Arc::new(tls::Fresh);
            let accepted = tls::accept(&mut server, &[], &config, tls::Entry::SslRequest, &draws)
                .await
                .unwrap();
            (server.into_std().unwrap(), accepted)
        });
    (client.join().unwrap(), server.into(), Some(accepted.state))
}

/// A connection that is soon full, where that is the question. Its buffers are made
/// small before it exists: a window that was once announced is not taken back, and
/// what comes into it without room for it is dropped, and sent again much later.
fn narrow_pair() -> (TcpStream, TcpStream) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    for socket in [&listener, &client] {
        socket.set_send_buffer_size(4096).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
    }
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(1).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    (client.into(), listener.accept().unwrap().0.into())
}
