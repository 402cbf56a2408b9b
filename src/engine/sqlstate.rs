//! From DuckDB's errors to PostgreSQL's SQLSTATEs, in one table.
//!
//! Clients act on these: they retry on 40001, tell a missing table (42P01) from
//! a missing column (42703), and report the rest. Source: PostgreSQL manual,
//! appendix A "PostgreSQL Error Codes".

use super::Error;

/// A row of the table; an empty string fits everything.
struct Rule {
    exception: &'static str,
    subtype: &'static str,
    entry: &'static str,
    /// Part of the message, for what DuckDB does not tell apart otherwise.
    message: &'static str,
    sqlstate: &'static str,
}

const fn rule(
    exception: &'static str,
    subtype: &'static str,
    entry: &'static str,
    message: &'static str,
    sqlstate: &'static str,
) -> Rule {
    Rule {
        exception,
        subtype,
        entry,
        message,
        sqlstate,
    }
}

/// The first rule that fits decides.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    rule("Parser",     "", "", "",                                        "42601"),
    rule("Syntax",     "", "", "",                                        "42601"),
    rule("Catalog", "MISSING_ENTRY", "Table", "",                         "42P01"),
    rule("Catalog", "MISSING_ENTRY", "View", "",                          "42P01"),
    rule("Catalog", "MISSING_ENTRY", "Schema", "",                        "3F000"),
    rule("Catalog", "MISSING_ENTRY", "Type", "",                          "42704"),
    rule("Catalog", "MISSING_ENTRY", "Sequence", "",                      "42P01"),
    rule("Catalog", "MISSING_ENTRY", "Scalar Function", "",               "42883"),
    rule("Catalog", "MISSING_ENTRY", "Aggregate Function", "",            "42883"),
    rule("Catalog", "MISSING_ENTRY", "Table Function", "",                "42883"),
    rule("Catalog", "MISSING_ENTRY", "Macro Function", "",                "42883"),
    rule("Catalog", "MISSING_ENTRY", "Index", "",                         "42704"),
    rule("Catalog", "", "", "Column with name",                           "42701"),
    rule("Catalog", "ENTRY_ALREADY_EXISTS", "Schema", "",                 "42P06"),
    rule("Catalog", "", "", "Schema with name",                           "3F000"),
    rule("Catalog", "MISSING_ENTRY", "", "unction",                       "42883"),
    rule("Catalog", "MISSING_ENTRY", "", "",                              "42704"),
    rule("Catalog", "ENTRY_ALREADY_EXISTS", "Scalar Function", "",        "42723"),
    rule("Catalog", "ENTRY_ALREADY_EXISTS", "Macro Function", "",         "42723"),
    rule("Catalog", "ENTRY_ALREADY_EXISTS", "Type", "",                   "42710"),
    rule("Catalog", "ENTRY_ALREADY_EXISTS", "", "",                       "42P07"),
    rule("Catalog", "", "", "already exists",                             "42P07"),
    rule("Catalog", "", "", "Table with name",                            "42P01"),
    rule("Catalog", "", "", "is not an table",                            "42809"),
    rule("Catalog", "", "", "configuration parameter",                    "42704"),
    rule("Catalog", "", "", "does not exist",                             "42704"),
    rule("Catalog",    "", "", "",                                        "42704"),
    rule("Binder",  "COLUMN_NOT_FOUND", "", "",                           "42703"),
    rule("Binder",  "NO_MATCHING_FUNCTION", "", "",                       "42883"),
    rule("Binder",     "", "", "Referenced table",                        "42P01"),
    rule("Binder",     "", "", "Referenced column",                       "42703"),
    rule("Binder",     "", "", "does not have a column",                  "42703"),
    rule("Binder",     "", "", "mbiguous reference",                      "42702"),
    rule("Binder",     "", "", "GROUP BY clause",                         "42803"),
    rule("Binder",     "", "", "No function matches",                     "42883"),
    rule("Binder",     "", "", "Duplicate alias",                         "42712"),
    rule("Binder",     "", "", "Cannot compare values of type",           "42883"),
    rule("Binder",     "", "", "Cannot mix values of type",               "42804"),
    rule("Binder",     "", "", "but 0 values were supplied",              "42601"),
    rule("Binder",     "", "", "values were supplied",                    "42601"),
    rule("Binder",     "", "", "does not exist",                          "42704"),
    rule("Binder",     "", "", "",                                        "42601"),
    rule("Parameter Not Resolved", "", "", "",                            "42P18"),
    rule("Parameter Not Allowed",  "", "", "",                            "42P02"),
    rule("Invalid type",   "", "", "",                                    "42804"),
    rule("Mismatch Type",  "", "", "",                                    "42804"),
    rule("Conversion", "", "", "timestamp field value out of range",      "22008"),
    rule("Conversion", "", "", "date field value out of range",           "22008"),
    rule("Conversion", "", "", "out of range",                            "22003"),
    rule("Conversion", "", "", "Type INT",                                "22003"),
    rule("Conversion", "", "", "Could not cast value",                    "22003"),
    rule("Conversion", "", "", "invalid timestamp field format",          "22007"),
    rule("Conversion", "", "", "invalid date field format",               "22007"),
    rule("Conversion",  "", "", "",                                       "22P02"),
    rule("Out of Range", "", "", "ivision by zero",                       "22012"),
    rule("Out of Range", "", "", "",                                      "22003"),
    rule("Decimal",     "", "", "",                                       "22003"),
    rule("Divide by Zero", "", "", "",                                    "22012"),
    rule("Constraint", "", "", "NOT NULL constraint",                     "23502"),
    rule("Constraint", "", "", "CHECK constraint",                        "23514"),
    rule("Constraint", "", "", "foreign key",                             "23503"),
    rule("Constraint", "", "", "uplicate key",                            "23505"),
    rule("Constraint", "", "", "PRIMARY KEY or UNIQUE",                   "23505"),
    rule("Constraint",  "", "", "",                                       "23000"),
    rule("TransactionContext", "", "", "uplicate key",                    "23505"),
    rule("TransactionContext", "", "", "PRIMARY KEY or UNIQUE",           "23505"),
    rule("TransactionContext", "", "", "foreign key",                     "23503"),
    rule("TransactionContext", "", "", "transaction is aborted",          "25P02"),
    rule("TransactionContext", "", "", "within a transaction",            "25001"),
    rule("TransactionContext", "", "", "no transaction is active",        "25P01"),
    rule("TransactionContext", "", "", "read-only",                       "25006"),
    rule("TransactionContext", "", "", "READ ONLY",                       "25006"),
    rule("TransactionContext", "", "", "No space left",                   "53100"),
    rule("TransactionContext", "", "", "quota exceeded",                  "53100"),
    rule("TransactionContext", "", "", "Could not write file",            "58030"),
    rule("TransactionContext", "", "", "Could not truncate file",         "58030"),
    rule("TransactionContext", "", "", "",                                "40001"),
    rule("Invalid Input", "", "", "read-only",                            "25006"),
    rule("Invalid Input", "", "", "permission denied",                    "42501"),
    rule("Invalid Input", "", "", "configuration has been locked",        "42501"),
    rule("Invalid Input", "", "", "Prepared statement",                   "08P01"),
    rule("Invalid Input", "", "", "",                                     "22023"),
    rule("Interrupt",   "", "", "",                                       "57014"),
    rule("Out of Memory", "", "", "offload data block",                   "53100"),
    rule("Out of Memory", "", "", "",                                     "53200"),
    rule("IO",          "", "", "No space left",                          "53100"),
    rule("IO",          "", "", "quota exceeded",                         "53100"),
    rule("IO",          "", "", "Permission denied",                      "42501"),
    rule("IO",          "", "", "Read-only file system",                  "42501"),
    rule("IO",          "", "", "No files found",                         "58P01"),
    rule("IO",          "", "", "No such file",                           "58P01"),
    rule("IO",          "", "", "",                                       "58030"),
    rule("Permission",  "", "", "",                                       "42501"),
    rule("Dependency",  "", "", "",                                       "2BP01"),
    rule("Not implemented", "", "", "",                                   "0A000"),
    rule("Missing Extension", "", "", "",                                 "0A000"),
    rule("Settings",    "", "", "",                                       "22023"),
    rule("Sequence",    "", "", "",                                       "2200H"),
    rule("Invalid Configuration", "", "", "",                             "22023"),
    rule("Serialization", "", "", "",                                     "58030"),
];

/// The SQLSTATE for an error of DuckDB's; XX000 (internal error) if the table
/// has nothing for it.
pub fn sqlstate(error: &Error) -> &'static str {
    let same = |rule: &str, value: &str| rule.is_empty() || rule.eq_ignore_ascii_case(value);
    RULES
        .iter()
        .find(|rule| {
            same(rule.exception, &error.exception)
                && same(rule.subtype, error.subtype.as_deref().unwrap_or_default())
                && same(rule.entry, error.entry.as_deref().unwrap_or_default())
                && error.message.contains(rule.message)
        })
        .map_or("XX000", |rule| rule.sqlstate)
}
