//! Which files SQL may name: those in the permitted directories, by their text
//! and by where they really are.
//!
//! DuckDB refuses links that lead out of the permitted directories, but not one
//! that leads to the database's own file, which it permits everywhere. So links
//! are followed here, also those that a pattern could come across.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Is `file`, or is all that it can match if it is a pattern, an absolute path
/// below one of `directories`?
pub(super) fn is_inside(file: &str, directories: &[PathBuf]) -> bool {
    let path = Path::new(file);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return false;
    }
    let Some((directory, rest)) = directories
        .iter()
        .find_map(|directory| Some((directory, path.strip_prefix(directory).ok()?)))
    else {
        return false;
    };
    let rest: Vec<&str> = rest.iter().filter_map(|part| part.to_str()).collect();
    let real: Vec<PathBuf> = directories.iter().filter_map(|path| resolve(path)).collect();
    !rest.is_empty() && leads_inside(directory, &rest, &real)
}

/// Do all paths below `base` that fit the pattern end inside?
fn leads_inside(base: &Path, pattern: &[&str], directories: &[PathBuf]) -> bool {
    let Some((part, rest)) = pattern.split_first() else {
        return resolve(base).is_some_and(|real| directories.iter().any(|path| real.starts_with(path)));
    };
    if !part.contains(['*', '?', '[']) {
        return leads_inside(&base.join(part), rest, directories);
    }
    let Ok(entries) = fs::read_dir(base) else {
        return true;
    };
    entries.flatten().all(|entry| {
        let any_depth = *part == "**";
        let fits = any_depth || entry.file_name().to_str().is_none_or(|name| fits(part, name));
        // A link is followed here by its name, and judged where it ends.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        !fits
            || leads_inside(&path, &[], directories)
                && (!is_directory
                    || leads_inside(&path, rest, directories)
                        && (!any_depth || leads_inside(&path, pattern, directories)))
    })
}

/// Does the name fit the pattern of one part of a path? Yes in case of doubt.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('[' | '\\') => true,
        Some('*') => name
            .char_indices()
            .map(|(at, _)| at)
            .chain([name.len()])
            .any(|at| fits(rest.as_str(), &name[at..])),
        Some(wanted) => {
            let mut found = name.chars();
            found.next().is_some_and(|found| wanted == '?' || wanted == found)
                && fits(rest.as_str(), found.as_str())
        }
    }
}

/// Where the path leads; it need not exist to its end. A link to nowhere leads
/// nowhere.
fn resolve(path: &Path) -> Option<PathBuf> {
    match path.canonicalize() {
        Ok(real) => Some(real),
        Err(_) if path.is_symlink() => None,
        Err(_) => Some(resolve(path.parent()?)?.join(path.file_name()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_judged_by_where_they_end_and_patterns_by_all_that_they_fit() {
        let home = tempfile::tempdir().unwrap();
        let (open, closed) = (home.path().join("open"), home.path().join("closed"));
        for directory in [&open.join("a/b"), &closed] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(closed.join("x.duckdb"), "").unwrap();
        fs::write(open.join("a/1.csv"), "").unwrap();
        symlink(&closed, open.join("a/out")).unwrap();
        symlink(closed.join("new"), open.join("nowhere")).unwrap();
        symlink(open.join("a"), open.join("in")).unwrap();
        let directories = [open.clone()];
        let inside = |file: &str| is_inside(&open.join(file).display().to_string(), &directories);
        for file in [
            "new",
            "a/1.csv",
            "a/new/new",
            "a/*.csv",
            "in/1.csv",
            "a/b/**/*.csv",
            "a/?.csv",
        ] {
            assert!(inside(file), "{file}");
        }
        for file in [
            "",
            "../closed/x.duckdb",
            "a/out",
            "a/out/x.duckdb",
            "a/out/new",
            "a/*/x.duckdb",
            "a/o?t/x.duckdb",
            "a/[o]ut/x.duckdb",
            "*/out/x.duckdb",
            // Where a link leads that leads nowhere now can change.
            "*/1.csv",
            "**",
            "**/x.duckdb",
            "a/**/x.duckdb",
            "in/out/x.duckdb",
            "nowhere",
        ] {
            assert!(!inside(file), "{file}");
        }
    }
}
