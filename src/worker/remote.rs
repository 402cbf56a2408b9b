//! Settings that a worker of systemd's is told by the control plane, because it
//! cannot read the configuration, which holds secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Worker;
use crate::config::QueryLog;
use crate::proto::Remote;

/// As they are used.
pub(super) struct Settings {
    pub(super) extensions: Vec<String>,
    pub(super) extension_directory: Option<PathBuf>,
    pub(super) file_access: Arc<[PathBuf]>,
    pub(super) query_log: QueryLog,
}

impl Settings {
    /// The control plane has checked them, as far as it can see what they are about.
    pub(super) fn read(remote: Remote, worker: &Worker) -> Settings {
        let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
        let directories = remote.file_access.into_iter().map(PathBuf::from);
        Settings {
            extensions: remote.extensions,
            extension_directory: path(remote.extension_directory),
            file_access: directories
                .filter(|directory| may_be_open(directory, &worker.data_dir))
                .collect(),
            query_log: QueryLog {
                statements: remote.query_log.parse().unwrap_or_default(),
                threshold: remote.log_min_duration_statement.parse().unwrap_or_default(),
                text: remote.query_log_text,
                file: path(remote.query_log_file),
            },
        }
    }
}

/// Whether SQL may have the directory. Not if it holds the databases, which would
/// be everybody's then; the control plane cannot see where those are.
fn may_be_open(directory: &Path, data_dir: &Path) -> bool {
    let refused = match (directory.canonicalize(), data_dir.canonicalize()) {
        (Ok(real), Ok(data)) if data.starts_with(&real) => "it contains the databases".to_owned(),
        (Ok(real), Ok(_)) if real.is_dir() => return true,
        (Ok(_), Ok(_)) => "it is no directory".to_owned(),
        (Err(error), _) | (_, Err(error)) => error.to_string(),
    };
    tracing::error!(
        directory = %directory.display(),
        "file_access: the directory cannot be used ({refused})"
    );
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_the_databases_is_not_for_sql() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["data", "files"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.path(), path("files/up")).unwrap();
        assert!(may_be_open(&path("files"), &path("data")));
        for wrong in ["", "data", "files/up", "nowhere"] {
            assert!(!may_be_open(&path(wrong), &path("data")), "{wrong}");
        }
    }
}
