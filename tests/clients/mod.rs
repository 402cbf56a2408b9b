//! The clients that people use, as they use them: psql, psycopg 3 and
//! tokio-postgres, over TLS with SCRAM, over plain TCP and over the Unix socket.

mod psql;
mod psql_describes;
mod psycopg;
mod tokio_postgres;

use crate::support::Server;

/// libpq connection strings: encrypted and bound to the server's certificate,
/// in plaintext, and over the Unix socket.
pub fn roads(server: &Server) -> [String; 3] {
    let login = format!(
        "port={} user={} password='{}' dbname={} connect_timeout=30",
        server.port, server.user, server.password, server.database
    );
    [
        format!(
            "{login} host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={} channel_binding=require",
            server.certificate.display()
        ),
        format!("{login} host=127.0.0.1 sslmode=disable"),
        format!("{login} host={}", server.sockets.display()),
    ]
}
