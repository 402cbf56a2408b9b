//! Who may connect to which database: everyone to the one of their own name.

use std::path::Path;

use super::fatal::Fatal;

/// Refuses a user who may not connect. As in PostgreSQL, whether a database
/// exists is no secret from those who are logged in.
pub fn authorize(user: &str, database: &str, data_dir: &Path) -> Result<(), Fatal> {
    if user == database {
        return Ok(());
    }
    if !data_dir.join(format!("{database}.duckdb")).exists() {
        return Err(Fatal::new(
            "3D000",
            format!("database \"{database}\" does not exist"),
        ));
    }
    Err(Fatal {
        detail: Some("User does not have CONNECT privilege.".into()),
        ..Fatal::new("42501", format!("permission denied for database \"{database}\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_may_connect_to_their_own_database_only() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bob.duckdb"), b"").unwrap();
        let code = |user, database| authorize(user, database, directory.path()).map_err(|fatal| fatal.code);
        assert_eq!(code("alice", "alice"), Ok(()));
        assert_eq!(code("alice", "bob"), Err("42501"));
        assert_eq!(code("alice", "nobody"), Err("3D000"));
    }
}
