//! PostgreSQL's catalogs as SQL: views, tables and macros over DuckDB's own.
//!
//! They live in a database of their own, [`DATABASE`], that is attached in memory
//! to an instance ([`definitions`]); the user's file holds nothing of it. Clients
//! ask by PostgreSQL's names, and [`super::rewrite()`] finds out what they mean
//! ([`relation`], [`function`]). Source: PostgreSQL manual, chapters 53, 54, 37
//! (the columns) and 9.26 (the functions).

use std::collections::HashSet;
use std::sync::LazyLock;

/// The database that the catalogs are in. Clients may not name it.
pub const DATABASE: &str = "__duckgres";

/// In the files `@` stands for the schema of what is PostgreSQL's, and `#` for
/// information_schema.
const PG: &str = "__duckgres.pg.";
const INFORMATION: &str = "__duckgres.info.";

/// In this order each stands on what is before it.
const FILES: [&str; 5] = [
    include_str!("functions.sql"),
    include_str!("tables.sql"),
    include_str!("empty.sql"),
    include_str!("lookups.sql"),
    include_str!("information_schema.sql"),
];

/// Extensions that are part of libduckdb.
const BUILT_IN: [&str; 4] = ["core_functions", "icu", "json", "parquet"];

/// The statements that make the catalogs in an empty, attached [`DATABASE`].
/// `extensions` are those that were loaded beside the built-in ones.
pub fn definitions(extensions: &[String]) -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN.map(str::to_owned).to_vec();
    names.extend(
        extensions
            .iter()
            .filter(|name| !BUILT_IN.contains(&name.as_str()))
            .cloned(),
    );
    let rows: Vec<String> = names
        .iter()
        .map(|name| format!("({})", super::quote_literal(name)))
        .collect();
    let rows = rows.join(", ");
    let mut statements = vec![
        format!("CREATE SCHEMA {DATABASE}.pg"),
        format!("CREATE SCHEMA {DATABASE}.info"),
    ];
    for file in FILES {
        for range in super::split(file) {
            let statement = file[range].replace('@', PG).replace('#', INFORMATION);
            let statement = statement.replace("~VERSION~", env!("CARGO_PKG_VERSION"));
            statements.push(statement.replace("~EXTENSIONS~", &rows));
        }
    }
    statements
}

/// What the files define.
#[derive(Debug, Default)]
struct Names {
    relations: HashSet<&'static str>,
    information: HashSet<&'static str>,
    functions: HashSet<&'static str>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut names = Names::default();
    for line in FILES.iter().flat_map(|file| file.lines()) {
        let Some(rest) = line.strip_prefix("CREATE ") else {
            continue;
        };
        let Some((kind, rest)) = rest.split_once(' ') else {
            continue;
        };
        let end = rest[1..].find([' ', '(']).map_or(rest.len(), |end| end + 1);
        let name = rest[1..end].trim_matches('"');
        match (kind, rest.as_bytes()[0]) {
            ("MACRO", _) => names.functions.insert(name),
            (_, b'#') => names.information.insert(name),
            _ => names.relations.insert(name),
        };
    }
    names
});

/// Where the table `pg_catalog.<name>` is, if it is one of these. `name` is folded.
pub fn relation(name: &str) -> Option<String> {
    let known = name.starts_with("pg_") && NAMES.relations.contains(name);
    known.then(|| format!("{PG}{name}"))
}

/// Where the table `information_schema.<name>` is, if it is one of these.
pub fn information_schema(name: &str) -> Option<String> {
    NAMES
        .information
        .contains(name)
        .then(|| format!("{INFORMATION}{name}"))
}

/// Where the function `pg_catalog.<name>` is, if it is one of these. Helpers of
/// the catalogs' own are none.
pub fn function(name: &str) -> Option<String> {
    const OTHERS: [&str; 21] = [
        "acldefault",
        "array_lower",
        "array_remove",
        "array_upper",
        "col_description",
        "current_catalog",
        "current_role",
        "current_schemas",
        "current_user",
        "format_type",
        "getdatabaseencoding",
        "obj_description",
        "quote_ident",
        "quote_literal",
        "quote_nullable",
        "session_user",
        "shobj_description",
        "to_regclass",
        "to_regtype",
        "user",
        "version",
    ];
    let public = name.starts_with("pg_") || name.starts_with("has_") || OTHERS.contains(&name);
    (public && NAMES.functions.contains(name)).then(|| helper(name))
}

/// Where a function of the catalogs' own is.
pub fn helper(name: &str) -> String {
    match name {
        "current_user" | "session_user" | "current_role" | "user" | "current_catalog" => {
            format!("{PG}\"{name}\"")
        }
        _ => format!("{PG}{name}"),
    }
}

/// The name that PostgreSQL gives a column which DuckDB named after an expression
/// with a function of these in it.
pub fn column_name(name: &str) -> Option<&str> {
    let Some(rest) = name.strip_prefix(PG) else {
        return name.contains(PG).then_some("?column?");
    };
    let end = rest.find('(').unwrap_or(rest.len());
    let name = rest[..end].trim_matches('"');
    Some(
        match name.strip_prefix("reg").and_then(|_| name.rsplit_once('_')) {
            Some((kind, "oid" | "text")) => kind,
            _ => name,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_define_is_known_by_its_name() {
        assert_eq!(relation("pg_class").unwrap(), "__duckgres.pg.pg_class");
        assert_eq!(function("format_type").unwrap(), "__duckgres.pg.format_type");
        assert_eq!(information_schema("columns").unwrap(), "__duckgres.info.columns");
        for name in ["relations", "pg_nothing", "constraints"] {
            assert_eq!(relation(name), None, "{name} may be a user's own");
        }
        assert_eq!(function("relation_name"), None);
        assert_eq!(
            column_name("__duckgres.pg.\"current_user\"()"),
            Some("current_user")
        );
    }
}
