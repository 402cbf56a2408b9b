//! How long it takes to hand a session over: one message there, one back, between
//! two threads that do nothing else.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use duckgres::handoff::{self, CancelKey, Listener, PeerFacts, Session, SessionState};

use crate::client::Result;
use crate::verdict;

const HANDOFFS: usize = 5000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures and prints it.
pub fn measure() -> Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = directory.path().join("handoff");
    let socket = handoff::bind(&path)?;
    std::thread::spawn(move || -> std::result::Result<(), String> {
        runtime()?.block_on(async {
            let own = nix::unistd::geteuid().as_raw();
            let listener = Listener::from_fd(socket, &[own]).map_err(|error| error.to_string())?;
            loop {
                let incoming = listener.accept().await.map_err(|error| error.to_string())?;
                let offer = incoming
                    .receive(PATIENCE)
                    .await
                    .map_err(|error| error.to_string())?
                    .offer()
                    .ok_or("somebody collects sessions")?;
                offer.accept().await.map_err(|error| error.to_string())?;
            }
        })
    });
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut times = Vec::with_capacity(HANDOFFS);
    runtime()?.block_on(async {
        for id in 1..=HANDOFFS as i32 {
            let client = std::net::TcpStream::connect(server.local_addr()?)?;
            let session = session(id, server.accept()?.0.into())?;
            let start = Instant::now();
            handoff::offer(&path, session, PATIENCE)
                .await
                .map_err(|error| error.to_string())?;
            times.push(start.elapsed());
            drop(client);
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    let met = verdict(at(0.99) <= 1000.0);
    println!("handoff: {HANDOFFS} times");
    println!(
        "  p50 {:.0} µs   p99 {:.0} µs (goal: at most 1000, {met})\n",
        at(0.5),
        at(0.99)
    );
    Ok(())
}

fn runtime() -> std::result::Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

fn session(backend_id: i32, socket: OwnedFd) -> Result<Session> {
    Ok(Session {
        socket,
        state: SessionState {
            backend_id,
            cancel_key: CancelKey::random(32)?,
            protocol_minor: 2,
            user: "bench".into(),
            database: "bench".into(),
            settings: vec![("application_name".into(), "bench".into())],
            unread_input: Default::default(),
            tls: None,
            peer: PeerFacts {
                address: "127.0.0.1:1".into(),
                tls_version: String::new(),
                tls_cipher: String::new(),
            },
            create_database: true,
            admin: false,
            frozen: None,
        },
    })
}
