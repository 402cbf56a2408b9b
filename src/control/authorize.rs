//! Who may connect to which database.

use std::path::Path;

use super::fatal::Fatal;
use super::logins::Account;

/// What a session may do in its database and beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether the database may be made if it does not exist: everybody's own is.
    pub create_database: bool,
    /// Whether the session is an administrator's.
    pub admin: bool,
}

/// Refuses a user who may not connect. As in PostgreSQL, whether a database
/// exists is no secret from those who are logged in. Without a `data_dir` that
/// is for the worker to find out, who alone sees the files.
pub fn authorize(account: &Account, database: &str, data_dir: Option<&Path>) -> Result<Access, Fatal> {
    let granted = account.databases.contains(database);
    let own = granted && account.name == database;
    let missing = |data_dir: &Path| !data_dir.join(format!("{database}.duckdb")).exists();
    if !own && data_dir.is_some_and(missing) {
        return Err(Fatal::new(
            "3D000",
            format!("database \"{database}\" does not exist"),
        ));
    }
    if !granted {
        return Err(Fatal {
            detail: Some("User does not have CONNECT privilege.".into()),
            ..Fatal::new("42501", format!("permission denied for database \"{database}\""))
        });
    }
    Ok(Access {
        create_database: own,
        admin: account.admin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Databases;

    fn account(databases: Databases) -> Account {
        Account {
            name: "alice".into(),
            databases,
            admin: false,
        }
    }

    #[test]
    fn users_may_connect_to_what_they_were_granted_and_make_their_own_only() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("sales.duckdb"), b"").unwrap();
        let codes = |databases: Databases| {
            let account = account(databases);
            ["alice", "sales", "nosuch"].map(|database| {
                authorize(&account, database, Some(directory.path()))
                    .map(|access| access.create_database)
                    .map_err(|fatal| fatal.code)
            })
        };
        let named = |names: &[&str]| Databases::Named(names.iter().map(|name| name.to_string()).collect());
        assert_eq!(codes(named(&["alice"])), [Ok(true), Err("42501"), Err("3D000")]);
        assert_eq!(
            codes(named(&["sales", "nosuch"])),
            [Err("3D000"), Ok(false), Err("3D000")]
        );
        assert_eq!(codes(Databases::All), [Ok(true), Ok(false), Err("3D000")]);
        std::fs::write(directory.path().join("alice.duckdb"), b"").unwrap();
        assert_eq!(codes(named(&["sales"]))[0], Err("42501"));
    }

    #[test]
    fn a_session_knows_whether_it_is_an_administrators() {
        let directory = tempfile::tempdir().unwrap();
        for admin in [false, true] {
            let account = Account {
                admin,
                ..account(Databases::All)
            };
            assert_eq!(
                authorize(&account, "alice", Some(directory.path()))
                    .unwrap()
                    .admin,
                admin
            );
        }
    }
}
