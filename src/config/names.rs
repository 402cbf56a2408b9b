//! Names of users and databases.
//!
//! A database's name becomes a file name, so a name that could leave the data
//! directory, hide in it, or not fit is refused wherever a name comes in.

/// The longest name in bytes, as in PostgreSQL (NAMEDATALEN - 1).
pub const MAX_BYTES: usize = 63;

/// Says what is wrong with a name of a user or database, if anything.
pub fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > MAX_BYTES {
        return Err("is longer than 63 bytes");
    }
    if name.starts_with('.') {
        return Err("begins with a dot");
    }
    if name.contains('/') {
        return Err("contains a slash");
    }
    if name.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_data_directory_are_refused() {
        for name in [
            "",
            "..",
            ".hidden",
            "a/b",
            "/etc/passwd",
            "a\0b",
            "a\nb",
            &"x".repeat(64),
        ] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["alice", "Ünïcode name", "a.b", &"x".repeat(63)] {
            assert!(check(name).is_ok(), "{name:?}");
        }
    }
}
