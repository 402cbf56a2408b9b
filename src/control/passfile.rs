//! The password that standalone makes for its user.
//!
//! It is kept in libpq's own password file form, so that clients can be pointed
//! at the file and nobody has to see the password; it is never printed.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::data_dir::write_private;
use super::error::StartError;
use crate::config::Password;

/// The password of `user` in the file, made and added on first use.
pub fn password(path: &Path, user: &str) -> Result<Password, StartError> {
    let content = match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Zeroizing::default(),
        Err(error) => return Err(StartError::path(path)(error)),
    };
    let start = format!("*:*:*:{}:", escape(user));
    if let Some(password) = content.lines().find_map(|line| line.strip_prefix(&start)) {
        return Ok(Password::new(password.to_owned()));
    }
    let mut random = Zeroizing::new([0; 24]);
    aws_lc_rs::rand::fill(random.as_mut_slice()).map_err(|_| StartError::Random)?;
    // 192 bits in letters that need no escape, neither here nor in a URL.
    let password = Password::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
    let separator = if content.is_empty() || content.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let content = Zeroizing::new(format!(
        "{}{separator}{start}{}\n",
        content.as_str(),
        password.expose()
    ));
    write_private(path, content.as_bytes()).map_err(StartError::path(path))?;
    Ok(password)
}

fn escape(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_password_is_made_once_for_each_user_and_kept_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        let first = password(&path, "a:b\\c").unwrap();
        let other = password(&path, "bob").unwrap();
        assert_eq!(first.expose().len(), 32);
        assert_ne!(first.expose(), other.expose());
        assert_eq!(password(&path, "a:b\\c").unwrap().expose(), first.expose());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("*:*:*:a\\:b\\\\c:"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
