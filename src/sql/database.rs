//! CREATE DATABASE and DROP DATABASE, with the options that PostgreSQL knows, and
//! BACKUP DATABASE, which it does not.
//!
//! A database here is a file with one encoding and one order of characters, and
//! configuration says who may use it. So an option is accepted if it asks for
//! what there is anyway. Source: PostgreSQL manual, part VI "SQL Commands".

use super::classify::Words;

/// A statement about a whole database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseStatement {
    /// CREATE DATABASE name options.
    Create {
        /// The database's name.
        name: String,
        /// As they were written.
        options: Vec<DatabaseOption>,
    },
    /// DROP DATABASE name.
    Drop {
        /// The database's name.
        name: String,
        /// IF EXISTS: without the database there is nothing to do.
        if_exists: bool,
        /// WITH (FORCE): its sessions are ended first.
        force: bool,
    },
    /// `BACKUP DATABASE [name]`: a copy of the session's own database.
    Backup {
        /// The database's name, if it was said.
        name: Option<String>,
    },
    /// None of them; the text is for the client.
    Malformed(String),
}

/// An option of CREATE DATABASE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseOption {
    /// Its name in upper case, one blank between two words.
    pub name: String,
    /// `None` is DEFAULT.
    pub value: Option<String>,
}

/// Why options are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// PostgreSQL has no such option either.
    #[error("option \"{0}\" not recognized")]
    Unknown(String),
    /// Two values.
    #[error("conflicting or redundant options")]
    Redundant,
    /// It asks for something that databases here do not have.
    #[error("CREATE DATABASE with {0} = {1} is not supported")]
    Unsupported(String, String),
}

impl DatabaseStatement {
    /// How the statement is called.
    pub fn command(&self) -> &'static str {
        match self {
            DatabaseStatement::Create { .. } => "CREATE DATABASE",
            DatabaseStatement::Drop { .. } => "DROP DATABASE",
            DatabaseStatement::Backup { .. } => "BACKUP DATABASE",
            DatabaseStatement::Malformed(_) => "",
        }
    }
}

/// What follows CREATE DATABASE.
pub(super) fn create(words: &mut Words<'_>) -> DatabaseStatement {
    let malformed = || DatabaseStatement::Malformed("syntax error in CREATE DATABASE".to_owned());
    let Some(name) = words.name() else {
        return malformed();
    };
    words.take("WITH");
    let mut options = Vec::new();
    while !words.at_end() {
        let Some(option) = option(words) else {
            return malformed();
        };
        options.push(option);
    }
    DatabaseStatement::Create { name, options }
}

fn option(words: &mut Words<'_>) -> Option<DatabaseOption> {
    let mut name = words.name()?.to_uppercase();
    if name == "CONNECTION" {
        words.take("LIMIT").then_some(())?;
        name.push_str(" LIMIT");
    }
    words.take("=");
    let value = match words.take("DEFAULT") {
        true => None,
        false => Some(words.value()?),
    };
    Some(DatabaseOption { name, value })
}

/// What follows DROP DATABASE.
pub(super) fn drop(words: &mut Words<'_>) -> DatabaseStatement {
    let malformed = || DatabaseStatement::Malformed("syntax error in DROP DATABASE".to_owned());
    let if_exists = words.take("IF");
    if if_exists && !words.take("EXISTS") {
        return malformed();
    }
    let Some(name) = words.name() else {
        return malformed();
    };
    let mut force = false;
    let with = words.take("WITH");
    if words.take("(") {
        loop {
            let Some(option) = words.name() else {
                return malformed();
            };
            if option != "force" {
                let message = format!("unrecognized DROP DATABASE option \"{option}\"");
                return DatabaseStatement::Malformed(message);
            }
            force = true;
            if !words.take(",") {
                break;
            }
        }
        if !words.take(")") {
            return malformed();
        }
    } else if with {
        return malformed();
    }
    match words.at_end() {
        true => DatabaseStatement::Drop {
            name,
            if_exists,
            force,
        },
        false => malformed(),
    }
}

/// What follows BACKUP DATABASE.
pub(super) fn backup(words: &mut Words<'_>) -> DatabaseStatement {
    let name = (!words.at_end()).then(|| words.name());
    match name {
        None => DatabaseStatement::Backup { name: None },
        Some(Some(name)) if words.at_end() => DatabaseStatement::Backup { name: Some(name) },
        Some(_) => DatabaseStatement::Malformed("syntax error in BACKUP DATABASE".to_owned()),
    }
}

/// Are these options what every database has? `user` asks.
///
/// # Errors
/// See [`OptionError`].
pub fn check_options(options: &[DatabaseOption], user: &str) -> Result<(), OptionError> {
    for (at, DatabaseOption { name, value }) in options.iter().enumerate() {
        let is_one_of = |values: &[&str]| {
            value
                .as_ref()
                .is_none_or(|value| values.iter().any(|one| one.eq_ignore_ascii_case(value)))
        };
        let fits = match name.as_str() {
            "OWNER" => value
                .as_ref()
                .is_none_or(|owner| owner == user || owner.to_lowercase() == user),
            "TEMPLATE" => is_one_of(&["template0", "template1"]),
            // 6 is PostgreSQL's number for UTF8.
            "ENCODING" => is_one_of(&["UTF8", "UTF-8", "unicode", "6"]),
            // Text is compared by its bytes.
            "LOCALE" | "LC_COLLATE" | "LC_CTYPE" | "BUILTIN_LOCALE" => {
                is_one_of(&["C", "POSIX", "C.UTF-8", "C.UTF8"])
            }
            "LOCALE_PROVIDER" => is_one_of(&["libc", "builtin"]),
            // How an empty template is copied.
            "STRATEGY" => is_one_of(&["wal_log", "file_copy"]),
            "TABLESPACE" => is_one_of(&["pg_default"]),
            "ALLOW_CONNECTIONS" => is_one_of(&["true", "on", "yes", "1"]),
            "CONNECTION LIMIT" => is_one_of(&["-1"]),
            "IS_TEMPLATE" => is_one_of(&["false", "off", "no", "0"]),
            "ICU_LOCALE" | "ICU_RULES" | "COLLATION_VERSION" | "OID" => value.is_none(),
            _ => return Err(OptionError::Unknown(name.to_lowercase())),
        };
        if options[..at].iter().any(|other| other.name == *name) {
            return Err(OptionError::Redundant);
        }
        if !fits {
            let value = value.clone().unwrap_or_default();
            return Err(OptionError::Unsupported(name.clone(), value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{SessionStatement, classify};
    use super::*;

    fn parse(sql: &str) -> DatabaseStatement {
        match classify(sql) {
            Some(SessionStatement::Database(statement)) => statement,
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn check(options: &str) -> Result<(), OptionError> {
        match parse(&format!("create database x {options}")) {
            DatabaseStatement::Create { options, .. } => check_options(&options, "alice"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_database_is_dropped_by_its_name() {
        let drop = |name: &str, if_exists, force| DatabaseStatement::Drop {
            name: name.into(),
            if_exists,
            force,
        };
        assert_eq!(parse("drop database Sales"), drop("sales", false, false));
        assert_eq!(
            parse("DROP DATABASE IF EXISTS \"Sales 1\""),
            drop("Sales 1", true, false)
        );
        assert_eq!(parse("drop database a with (force)"), drop("a", false, true));
        assert_eq!(parse("drop database a (force, FORCE)"), drop("a", false, true));
        for sql in [
            "drop database",
            "drop database if a",
            "drop database a with",
            "drop database a with (quietly)",
            "drop database a (force",
            "drop database a cascade",
            "create database",
            "create database 'a'",
            "create database a owner",
            "create database if not exists a",
        ] {
            assert!(matches!(parse(sql), DatabaseStatement::Malformed(_)), "{sql}");
        }
    }

    #[test]
    fn options_that_ask_for_what_there_is_are_accepted() {
        for options in [
            "",
            "with",
            "with owner alice encoding 'UTF8' template = template0",
            "owner = \"alice\" encoding = 'unicode' lc_collate 'C' lc_ctypE = 'C.UTF-8'",
            "template default tablespace default connection limit -1 allow_connections true",
        ] {
            assert_eq!(check(options), Ok(()), "{options}");
        }
        for (options, name) in [
            ("owner bob", "OWNER"),
            ("encoding 'LATIN1'", "ENCODING"),
            ("template sales", "TEMPLATE"),
            ("locale 'de_DE.UTF-8'", "LOCALE"),
            ("connection limit = 5", "CONNECTION LIMIT"),
            ("is_template true", "IS_TEMPLATE"),
        ] {
            let error = check(options).unwrap_err();
            assert!(
                matches!(&error, OptionError::Unsupported(option, _) if option == name),
                "{options}: {error}"
            );
        }
        assert_eq!(check("colour 'red'"), Err(OptionError::Unknown("colour".into())));
        assert_eq!(check("owner alice owner alice"), Err(OptionError::Redundant));
    }
}
