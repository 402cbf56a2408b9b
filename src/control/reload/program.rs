//! What this process was started as.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The program by the path that whoever installs a new version replaces, and the
/// arguments.
#[derive(Debug, Clone)]
pub struct Program {
    /// Absolute; links in it are not resolved.
    pub path: PathBuf,
    /// Without the program's own name.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This process's own. Must be asked before the program can have been replaced.
    pub fn own() -> std::io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let running = env::current_exe()?;
        let named = named(
            &name,
            &env::current_dir()?,
            &env::var_os("PATH").unwrap_or_default(),
        );
        // /proc/self/exe leads to where links lead to now, and to nowhere once the
        // file is replaced; the name may be anything at all.
        let path = named.into_iter().find(|path| same_file(path, &running));
        Ok(Self {
            path: path.unwrap_or(running),
            arguments: arguments.collect(),
        })
    }
}

/// Where a program of this name was found, as a shell or systemd looks for it.
fn named(name: &OsStr, here: &Path, search: &OsStr) -> Vec<PathBuf> {
    match name.as_encoded_bytes().contains(&b'/') {
        true => vec![here.join(name)],
        false => env::split_paths(search)
            .map(|directory| here.join(directory).join(name))
            .collect(),
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name_as_it_was_given() {
        let named = |name: &str, search: &str| named(name.as_ref(), Path::new("/here"), search.as_ref());
        assert_eq!(named("/usr/bin/x", "/a"), [Path::new("/usr/bin/x")]);
        assert_eq!(named("./x", "/a"), [Path::new("/here/./x")]);
        assert_eq!(named("x", "/a:b"), [Path::new("/a/x"), Path::new("/here/b/x")]);
        assert!(Program::own().unwrap().path.is_absolute());
    }

    #[test]
    fn a_link_is_the_same_file_as_what_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(same_file(&file, &link));
        assert!(!same_file(&file, directory.path()));
        assert!(!same_file(&file, &directory.path().join("none")));
    }
}
