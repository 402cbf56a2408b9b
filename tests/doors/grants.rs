//! Which databases a user may connect to.

use super::configured;
use crate::support::message::{Report, startup};
use crate::support::session::V3_0;
use crate::support::{Server, Session, Transport};

const USERS: &str = "
users:
  sales: {password: correct horse}
  alice: {password: correct horse, databases: [alice, sales, nosuch]}
  bob: correct horse
  guest: {password: correct horse, databases: [sales]}
  reader: {password: correct horse, databases: '*'}
  root: {password: correct horse, admin: on}
";

/// Connects to the database and gives the refusal after the login, if any.
fn connect(server: &Server, user: &str, database: &str) -> Result<Session, String> {
    let mut session = Session::open(server, Transport::Tcp);
    session.send(&startup(V3_0, &[("user", user), ("database", database)]));
    let refusal = |report: Report| format!("{} {}", report.sqlstate(), report.message());
    session.authenticate("correct horse").map_err(refusal)?;
    match session.next() {
        crate::support::Answer::Error(report) => Err(refusal(report)),
        _ => {
            session.become_ready();
            Ok(session)
        }
    }
}

#[test]
fn users_connect_to_the_databases_that_they_were_granted_and_to_no_other() {
    let Some(server) = configured(USERS, &[]) else {
        return;
    };
    let denied = |database: &str| Some(format!("42501 permission denied for database \"{database}\""));
    let missing = |database: &str| Some(format!("3D000 database \"{database}\" does not exist"));
    let refusal = |user: &str, database: &str| connect(&server, user, database).err();

    // Not even with a grant is a database made, but one's own is.
    assert_eq!(refusal("alice", "sales"), missing("sales"));
    let mut sales = connect(&server, "sales", "sales").unwrap();
    sales.execute("create table orders as select 42 as number");

    for user in ["alice", "guest", "reader", "root"] {
        let mut session = connect(&server, user, "sales").unwrap();
        assert_eq!(session.rows("select number from orders"), ["42"], "{user}");
        assert_eq!(session.rows("select current_database()"), ["sales"]);
    }
    assert_eq!(refusal("bob", "sales"), denied("sales"));
    for user in ["alice", "bob", "guest", "reader", "root"] {
        assert_eq!(refusal(user, "nosuch"), missing("nosuch"), "{user}");
    }
    // Who was granted others only has none of their own.
    assert_eq!(refusal("guest", "guest"), missing("guest"));
    for user in ["alice", "bob", "reader", "root"] {
        assert_eq!(refusal(user, user), None, "{user}");
    }
    assert_eq!(refusal("sales", "alice"), denied("alice"));
}
