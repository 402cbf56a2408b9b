//! A client that speaks raw bytes: it sends what a test says, right or wrong,
//! and writes down what comes back.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::message::{self, Answer, Report, query, sasl_initial, sasl_response};
use super::transport::{Road, Transport, certificate_der};
use super::{PATIENCE, Server};

/// Protocol version 3.0.
pub const V3_0: u32 = 3 << 16;
/// Protocol version 3.2, which made cancel keys long.
pub const V3_2: u32 = (3 << 16) | 2;

/// A connection and what was learned on it.
pub struct Session {
    road: Road,
    inbox: BytesMut,
    /// The latest value of each parameter that the server reported.
    pub parameters: BTreeMap<String, String>,
    /// Process and secret for a CancelRequest.
    pub key: (i32, Vec<u8>),
}

impl Session {
    /// Connected to the shared server over plain TCP, logged in, idle.
    pub fn new() -> Session {
        Session::over(Server::shared(), Transport::Tcp)
    }

    /// Logged in on that road, idle.
    #[track_caller]
    pub fn over(server: &Server, transport: Transport) -> Session {
        Session::with(server, transport, V3_0, &[])
    }

    /// Logged in with further startup parameters, idle.
    #[track_caller]
    pub fn with(server: &Server, transport: Transport, version: u32, more: &[(&str, &str)]) -> Session {
        let mut session = Session::open(server, transport);
        let mut parameters = vec![
            ("user", server.user.as_str()),
            ("database", server.database.as_str()),
        ];
        parameters.extend(more);
        session.send(&message::startup(version, &parameters));
        session
            .authenticate(&server.password)
            .unwrap_or_else(|report| panic!("{report:?}"));
        session.become_ready();
        session
    }

    /// Logged in as another user to that user's database, idle.
    #[track_caller]
    pub fn of(server: &Server, user: &str, transport: Transport) -> Session {
        let mut session = Session::open(server, transport);
        session.send(&message::startup(V3_0, &[("user", user), ("database", user)]));
        session
            .authenticate(&server.password)
            .unwrap_or_else(|report| panic!("{report:?}"));
        session.become_ready();
        session
    }

    /// The number of the worker that runs the session.
    pub fn worker(&self) -> u32 {
        u32::try_from(self.key.0).unwrap() >> 21
    }

    /// Connected, TLS established if the road has it, and not a word said.
    #[track_caller]
    pub fn open(server: &Server, transport: Transport) -> Session {
        let road = Road::open(server, transport).unwrap_or_else(|error| panic!("{transport:?}: {error}"));
        Session::on(road)
    }

    pub fn on(road: Road) -> Session {
        Session {
            road,
            inbox: BytesMut::new(),
            parameters: BTreeMap::new(),
            key: (0, Vec::new()),
        }
    }

    /// Answers SCRAM-SHA-256 with the password.
    pub fn authenticate(&mut self, password: &str) -> Result<(), Report> {
        self.authenticate_by(password, "SCRAM-SHA-256", ChannelBinding::unsupported())
    }

    /// Answers SCRAM-SHA-256-PLUS, bound to the certificate in that file.
    pub fn authenticate_bound(
        &mut self,
        password: &str,
        certificate: &std::path::Path,
    ) -> Result<(), Report> {
        let certificate = certificate_der(certificate);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate);
        let binding = ChannelBinding::tls_server_end_point(hash.as_ref().to_vec());
        self.authenticate_by(password, "SCRAM-SHA-256-PLUS", binding)
    }

    fn authenticate_by(
        &mut self,
        password: &str,
        mechanism: &str,
        binding: ChannelBinding,
    ) -> Result<(), Report> {
        self.expect_authentication(10)?;
        let mut scram = ScramSha256::new(password.as_bytes(), binding);
        self.send(&sasl_initial(mechanism, scram.message()));
        let challenge = self.expect_authentication(11)?;
        scram.update(&challenge).expect("the server's SCRAM challenge");
        self.send(&sasl_response(scram.message()));
        let outcome = self.expect_authentication(12)?;
        scram.finish(&outcome).expect("the server's SCRAM signature");
        self.expect_authentication(0)?;
        Ok(())
    }

    /// The data of the Authentication message of that kind, or the server's refusal.
    pub fn expect_authentication(&mut self, kind: u32) -> Result<Vec<u8>, Report> {
        loop {
            match self.next() {
                Answer::Authentication { code, data } if code == kind => return Ok(data),
                Answer::NegotiateProtocolVersion { .. } => {}
                Answer::Error(report) => return Err(report),
                other => panic!("expected Authentication {kind}, got {other}"),
            }
        }
    }

    /// Reads what follows AuthenticationOk, up to the first ReadyForQuery.
    #[track_caller]
    pub fn become_ready(&mut self) {
        loop {
            match self.next() {
                Answer::ParameterStatus(..) | Answer::Notice(_) => {}
                Answer::BackendKeyData { process, secret } => self.key = (process, secret),
                Answer::ReadyForQuery('I') => return,
                other => panic!("expected the session to begin, got {other}"),
            }
        }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// Sends bytes over TLS, the first `cut` of what goes over the network before
    /// `between` and the rest behind it.
    #[track_caller]
    pub fn send_in_two(&mut self, bytes: &[u8], cut: usize, between: impl FnOnce()) {
        let Road::Tls(stream) = &mut self.road else {
            panic!("not TLS")
        };
        stream.conn.writer().write_all(bytes).unwrap();
        let mut records = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut records).unwrap();
        }
        stream.sock.write_all(&records[..cut]).unwrap();
        between();
        stream.sock.write_all(&records[cut..]).unwrap();
    }

    /// Sends bytes to a server that may have hung up.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.road.write_all(bytes)?;
        self.road.flush()
    }

    /// Reads up to so many bytes and forgets them; how many there were.
    pub fn read_some(&mut self, most: usize) -> usize {
        let mut buffer = vec![0; most];
        self.road.read(&mut buffer).unwrap()
    }

    /// The next message, or nothing when the server has ended the connection.
    #[track_caller]
    pub fn next_or_end(&mut self) -> Option<Answer> {
        loop {
            if let Some(answer) = message::take(&mut self.inbox) {
                if let Answer::ParameterStatus(name, value) = &answer {
                    self.parameters.insert(name.clone(), value.clone());
                }
                return Some(answer);
            }
            let mut buffer = [0; 1 << 16];
            match self.road.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.inbox.extend_from_slice(&buffer[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        panic!("no answer within {PATIENCE:?}")
                    }
                    // A server may end a broken connection as roughly as it likes.
                    io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof => break,
                    _ => panic!("{error}"),
                },
            }
        }
        assert!(
            self.inbox.is_empty(),
            "the connection ended in the middle of a message"
        );
        None
    }

    /// The next message.
    #[track_caller]
    pub fn next(&mut self) -> Answer {
        self.next_or_end().expect("the server ended the connection")
    }

    /// The next `count` messages.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().to_string()).collect()
    }

    /// All messages up to and including the next ReadyForQuery.
    #[track_caller]
    pub fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            answers.push(self.next());
            if let Some(Answer::ReadyForQuery(_)) = answers.last() {
                return answers;
            }
        }
    }

    /// The transcript up to and including the next ReadyForQuery.
    #[track_caller]
    pub fn transcript(&mut self) -> Vec<String> {
        self.answers().iter().map(Answer::to_string).collect()
    }

    /// The transcript up to the end of the connection.
    #[track_caller]
    pub fn last_words(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next_or_end())
            .map(|answer| answer.to_string())
            .collect()
    }

    /// One byte outside of any message: the answer to SSLRequest and GSSENCRequest.
    #[track_caller]
    pub fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.road.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// Whatever comes until the connection ends, be it messages or not.
    pub fn bytes_to_the_end(&mut self) -> Vec<u8> {
        let mut bytes = self.inbox.to_vec();
        self.road.read_to_end(&mut bytes).ok();
        bytes
    }

    /// Ends TLS from this side, politely.
    pub fn close_notify(&mut self) {
        let Road::Tls(stream) = &mut self.road else {
            panic!("not TLS")
        };
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }

    /// Has TLS 1.3 go on with new keys in both directions.
    pub fn refresh_keys(&mut self) {
        let Road::Tls(stream) = &mut self.road else {
            panic!("not TLS")
        };
        stream.conn.refresh_traffic_keys().unwrap();
    }

    /// Sends all messages in one write and reads up to the next ReadyForQuery.
    #[track_caller]
    pub fn run(&mut self, messages: &[Vec<u8>]) -> Vec<String> {
        self.send(&messages.concat());
        self.transcript()
    }

    /// The transcript of a simple query.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<String> {
        self.run(&[query(sql)])
    }

    /// Runs statements that must succeed.
    #[track_caller]
    pub fn execute(&mut self, sql: &str) {
        self.send(&query(sql));
        for answer in self.answers() {
            if let Answer::Error(report) = answer {
                panic!("{sql}: {report:?}");
            }
        }
    }

    /// The rows of a simple query that must succeed, columns joined by `|`.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<String> {
        self.query(sql)
            .into_iter()
            .inspect(|answer| assert!(!answer.starts_with("Error"), "{sql}: {answer}"))
            .filter_map(|answer| answer.strip_prefix("DataRow ").map(str::to_string))
            .collect()
    }

    /// The ErrorResponse of a simple query that must fail.
    #[track_caller]
    pub fn error(&mut self, sql: &str) -> Report {
        self.send(&query(sql));
        let answers = self.answers();
        let report = answers.iter().find_map(|answer| match answer {
            Answer::Error(report) => Some(report.clone()),
            _ => None,
        });
        report.unwrap_or_else(|| panic!("{sql} did not fail: {answers:?}"))
    }

    /// Asks the server to stop what this session is doing. Returns when the
    /// server has taken the request: it closes the connection then.
    pub fn cancel(key: &(i32, Vec<u8>), server: &Server, transport: Transport) {
        let mut messenger = Session::open(server, transport);
        messenger.send(&message::cancel_request(key.0, &key.1));
        assert_eq!(
            messenger.last_words(),
            [] as [&str; 0],
            "a CancelRequest has no answer"
        );
    }

    /// Lets a cancel that may still be on its way hit a statement that does not
    /// mind: PostgreSQL closes the messenger's connection before it signals.
    pub fn settle(&mut self) {
        loop {
            let calm = self.query("select count(*) as a from generate_series(1, 100000) g(i)");
            if !calm.iter().any(|answer| answer == "Error 57014") {
                return;
            }
        }
    }

    /// Leaves as a client does whose machine lost its power.
    pub fn vanish(self) {
        self.road.vanish();
    }
}
