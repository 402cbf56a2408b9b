//! tokio-postgres: prepared statements, types, transactions, portals, COPY,
//! cancelling; over TLS with channel binding, plain TCP, and the Unix socket.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use rustls::pki_types::ServerName;
use rustls::version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{self, MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::support::transport::{certificate_der, tls_config};
use crate::support::{PATIENCE, Server};

/// rustls for tokio-postgres.
#[derive(Clone)]
struct Rustls(Arc<rustls::ClientConfig>);

/// A TLS connection that knows what the channel is bound to.
struct Secured<S>(tokio_rustls::client::TlsStream<S>);

impl<S> MakeTlsConnect<S> for Rustls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Secured<S>;
    type TlsConnect = Rustls;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _host: &str) -> io::Result<Rustls> {
        Ok(self.clone())
    }
}

impl<S> TlsConnect<S> for Rustls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let name = ServerName::try_from("localhost").unwrap();
        Box::pin(async move {
            Ok(Secured(
                tokio_rustls::TlsConnector::from(self.0)
                    .connect(name, stream)
                    .await?,
            ))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pin!(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for Secured<S> {
    fn channel_binding(&self) -> tls::ChannelBinding {
        let certificate = self
            .0
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        match certificate {
            Some(certificate) => {
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
                tls::ChannelBinding::tls_server_end_point(hash.as_ref().to_vec())
            }
            None => tls::ChannelBinding::none(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Road {
    Encrypted,
    Plain,
    Unix,
}

fn config(server: &Server, road: Road) -> Config {
    let mut config = Config::new();
    config
        .port(server.port)
        .user(&server.user)
        .password(&server.password)
        .dbname(&server.database);
    match road {
        Road::Encrypted => config
            .host("localhost")
            .hostaddr("127.0.0.1".parse().unwrap())
            .ssl_mode(SslMode::Require)
            .channel_binding(ChannelBinding::Require),
        Road::Plain => config.host("127.0.0.1").ssl_mode(SslMode::Disable),
        Road::Unix => config.host_path(&server.sockets).ssl_mode(SslMode::Disable),
    };
    config
}

fn rustls(server: &Server) -> Rustls {
    // Reads the certificate, too: a missing one should say so here.
    certificate_der(&server.certificate);
    Rustls(Arc::new(tls_config(
        &server.certificate,
        &[&version::TLS13, &version::TLS12],
        &[],
    )))
}

async fn connect(server: &Server, road: Road) -> Client {
    match road {
        Road::Encrypted => {
            let (client, connection) = config(server, road).connect(rustls(server)).await.unwrap();
            tokio::spawn(connection);
            client
        }
        Road::Plain | Road::Unix => {
            let (client, connection) = config(server, road).connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        }
    }
}

/// Runs a test over every road, within the usual patience.
fn everywhere<F: Future<Output = ()>>(test: impl Fn(Client, Road) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for road in [Road::Encrypted, Road::Plain, Road::Unix] {
        runtime.block_on(async {
            let work = async { test(connect(Server::shared(), road).await, road).await };
            let done = tokio::time::timeout(3 * PATIENCE, work).await;
            assert!(done.is_ok(), "not done in time over {road:?}");
        });
    }
}

/// A table name for this test and road.
fn table(test: &str, road: Road) -> String {
    format!("tokio_{test}_{road:?}").to_lowercase()
}

#[test]
fn tokio_postgres_runs_simple_queries() {
    everywhere(|client, _| async move {
        let messages = client
            .simple_query("select 1 as a, null as b; select 'x' as c")
            .await
            .unwrap();
        let rows: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some((row.get(0).map(str::to_string), row.columns().len())),
                _ => None,
            })
            .collect();
        assert_eq!(rows, [(Some("1".into()), 2), (Some("x".into()), 1)]);
    });
}

#[test]
fn tokio_postgres_prepares_with_the_right_types() {
    everywhere(|client, road| async move {
        let name = table("prepare", road);
        client
            .batch_execute(&format!(
                "create table {name} (i int, b bigint, d double precision)"
            ))
            .await
            .unwrap();
        let statement = client
            .prepare(&format!("select i, b, d from {name} where i = $1 and b > $2"))
            .await
            .unwrap();
        assert_eq!(statement.params(), [Type::INT4, Type::INT8]);
        let columns: Vec<_> = statement
            .columns()
            .iter()
            .map(|column| (column.name(), column.type_()))
            .collect();
        assert_eq!(
            columns,
            [("i", &Type::INT4), ("b", &Type::INT8), ("d", &Type::FLOAT8)]
        );
        let insert = client
            .prepare(&format!("insert into {name} values ($1, $2, $3)"))
            .await
            .unwrap();
        for i in 0..10i32 {
            assert_eq!(
                client
                    .execute(&insert, &[&i, &i64::from(i), &f64::from(i)])
                    .await
                    .unwrap(),
                1
            );
        }
        let row = client.query_one(&statement, &[&7i32, &6i64]).await.unwrap();
        assert_eq!(
            (row.get::<_, i32>(0), row.get::<_, i64>(1), row.get::<_, f64>(2)),
            (7, 7, 7.0)
        );
        assert_eq!(client.query(&statement, &[&7i32, &7i64]).await.unwrap().len(), 0);
    });
}

/// Sends the value as a parameter of that type and reads it back, in binary.
async fn round_trip<T>(client: &Client, sql_type: &str, value: T)
where
    T: ToSql + for<'a> tokio_postgres::types::FromSql<'a> + PartialEq + std::fmt::Debug + Sync,
{
    let row = client
        .query_one(&format!("select cast($1 as {sql_type}) as v"), &[&value])
        .await;
    let row = row.unwrap_or_else(|error| panic!("{value:?} as {sql_type}: {error:?}"));
    assert_eq!(row.get::<_, T>(0), value, "{sql_type}");
}

#[test]
fn tokio_postgres_passes_values_in_binary() {
    everywhere(|client, _| async move {
        round_trip(&client, "boolean", Some(true)).await;
        round_trip(&client, "smallint", i16::MIN).await;
        round_trip(&client, "integer", i32::MAX).await;
        round_trip(&client, "bigint", i64::MIN).await;
        round_trip(&client, "real", -0.25f32).await;
        round_trip(&client, "double precision", 1e300).await;
        round_trip(&client, "double precision", f64::INFINITY).await;
        round_trip(&client, "text", "ä€𝄞 and \\ and '".to_string()).await;
        round_trip(&client, "text", String::new()).await;
        round_trip(&client, "bytea", (0..=255u8).collect::<Vec<u8>>()).await;
        round_trip(
            &client,
            "timestamptz",
            SystemTime::UNIX_EPOCH + Duration::from_micros(1_719_835_200_000_001),
        )
        .await;
        round_trip(&client, "integer[]", vec![Some(1), None, Some(-3)]).await;
        round_trip(
            &client,
            "text[]",
            vec!["a".to_string(), "b,\"c\"".into(), String::new()],
        )
        .await;
        round_trip(&client, "bigint[]", Vec::<i64>::new()).await;
        round_trip::<Option<i32>>(&client, "integer", None).await;
    });
}

#[test]
fn tokio_postgres_accepts_declared_parameter_types() {
    everywhere(|client, _| async move {
        let statement = client
            .prepare_typed(
                "select $1 + $2 as sum, $3 as t",
                &[Type::INT8, Type::INT8, Type::TEXT],
            )
            .await;
        let statement = statement.unwrap();
        let row = client
            .query_one(&statement, &[&40i64, &2i64, &"text"])
            .await
            .unwrap();
        assert_eq!((row.get::<_, i64>("sum"), row.get::<_, &str>("t")), (42, "text"));
    });
}

#[test]
fn tokio_postgres_commits_and_rolls_back() {
    everywhere(|mut client, road| async move {
        let name = table("transactions", road);
        client
            .batch_execute(&format!("create table {name} (i int primary key)"))
            .await
            .unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction
            .execute(&format!("insert into {name} values (1)"), &[])
            .await
            .unwrap();
        transaction.commit().await.unwrap();

        let transaction = client.transaction().await.unwrap();
        transaction
            .execute(&format!("insert into {name} values (2)"), &[])
            .await
            .unwrap();
        drop(transaction);

        let transaction = client.transaction().await.unwrap();
        transaction
            .execute(&format!("insert into {name} values (3)"), &[])
            .await
            .unwrap();
        let error = transaction
            .execute(&format!("insert into {name} values (1)"), &[])
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
        let error = transaction.query("select 1", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        transaction.commit().await.unwrap();

        let rows = client.query(&format!("select i from {name}"), &[]).await.unwrap();
        assert_eq!(
            rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(),
            [1]
        );
    });
}

#[test]
fn tokio_postgres_fetches_portals_in_pieces() {
    everywhere(|mut client, _| async move {
        let transaction = client.transaction().await.unwrap();
        let statement = transaction
            .prepare("select cast(i as int) as i from generate_series(1, 10000) g(i) order by i")
            .await
            .unwrap();
        let one = transaction.bind(&statement, &[]).await.unwrap();
        let other = transaction.bind(&statement, &[]).await.unwrap();
        let mut next = 1;
        for limit in [1, 2047, 2048, 2049, 3000] {
            for portal in [&one, &other] {
                let rows = transaction.query_portal(portal, limit).await.unwrap();
                let values: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
                assert_eq!(values, (next..next + limit).collect::<Vec<_>>());
            }
            next += limit;
        }
        assert_eq!(
            transaction.query_portal(&one, 0).await.unwrap().len(),
            usize::try_from(10_001 - next).unwrap()
        );
        transaction.rollback().await.unwrap();
    });
}

#[test]
fn tokio_postgres_streams_rows() {
    everywhere(|client, _| async move {
        let rows = client
            .query_raw(
                "select cast(i as bigint) as i from generate_series(1, 50000) g(i)",
                Vec::<i32>::new(),
            )
            .await
            .unwrap();
        let sum = pin!(rows)
            .try_fold(0i64, |sum, row| async move { Ok(sum + row.get::<_, i64>(0)) })
            .await;
        assert_eq!(sum.unwrap(), 50_000 * 50_001 / 2);
    });
}

#[test]
fn tokio_postgres_pipelines_queries_polled_together() {
    everywhere(|client, _| async move {
        let statement = client.prepare("select cast($1 as int) * 2 as v").await.unwrap();
        let queries = (0..100i32).map(|i| {
            let (client, statement) = (&client, &statement);
            async move { client.query_one(statement, &[&i]).await.unwrap().get::<_, i32>(0) }
        });
        let answers = futures_util::future::join_all(queries).await;
        assert_eq!(answers, (0..100).map(|i| i * 2).collect::<Vec<_>>());
    });
}

#[test]
fn tokio_postgres_copies_in_and_out() {
    everywhere(|client, road| async move {
        let name = table("copy", road);
        client
            .batch_execute(&format!("create table {name} (i int, t text)"))
            .await
            .unwrap();
        let sink = client.copy_in(&format!("copy {name} from stdin")).await.unwrap();
        let mut sink = pin!(sink);
        for i in 0..1000 {
            sink.send(Bytes::from(format!("{i}\trow {i}\n"))).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 1000);

        let stream = client
            .copy_out(&format!("copy (select * from {name} order by i) to stdout csv"))
            .await
            .unwrap();
        let data: Vec<Bytes> = stream.try_collect().await.unwrap();
        let expected: String = (0..1000).map(|i| format!("{i},row {i}\n")).collect();
        assert_eq!(data.concat(), expected.as_bytes());

        // A sink that is dropped sends CopyFail.
        let sink = client.copy_in(&format!("copy {name} from stdin")).await.unwrap();
        let mut sink = Box::pin(sink);
        sink.send(Bytes::from_static(b"1\tx\n")).await.unwrap();
        drop(sink);
        let row = client
            .query_one(&format!("select count(*) as n from {name}"), &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 1000);
    });
}

#[test]
fn tokio_postgres_cancels() {
    everywhere(|client, road| async move {
        let token = client.cancel_token();
        let connector = rustls(Server::shared());
        let press = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                match road {
                    Road::Encrypted => token.cancel_query(connector.clone()).await.unwrap(),
                    Road::Plain | Road::Unix => token.cancel_query(NoTls).await.unwrap(),
                }
            }
        };
        let query = client.query(crate::wire::ENDLESS, &[]);
        let error = tokio::select! { result = query => result.unwrap_err(), () = press => unreachable!() };
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        client.query_one("select 1 as a", &[]).await.unwrap();
    });
}

#[test]
fn tokio_postgres_receives_notices() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::shared();
        let (client, mut connection) = config(server, Road::Plain).connect(NoTls).await.unwrap();
        let messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        let (send, mut notices) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(messages.for_each(move |message| {
            if let Ok(tokio_postgres::AsyncMessage::Notice(notice)) = message {
                send.send(notice.code().clone()).ok();
            }
            std::future::ready(())
        }));
        client.batch_execute("commit").await.unwrap();
        let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap();
        assert_eq!(notice, Some(SqlState::NO_ACTIVE_SQL_TRANSACTION));
    });
}

#[test]
fn tokio_postgres_knows_the_error_and_where_it_is() {
    everywhere(|client, _| async move {
        let error = client.query("select 1, nosuch", &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code(), &SqlState::UNDEFINED_COLUMN);
        assert_eq!(
            error.position(),
            Some(&tokio_postgres::error::ErrorPosition::Original(11))
        );
    });
}
