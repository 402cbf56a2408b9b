//! What is installed beside the programs and made from their own definitions:
//! man pages, completions. The files are in `packaging/`, so that a package needs no
//! further step; `./dev handbook` writes them, and here it is found out if nobody did.

mod completions;
mod man;
mod monitoring;
mod roff;

use std::fs;
use std::path::{Path, PathBuf};

/// With this variable set, files are written instead of compared.
const WRITE: &str = "DUCKGRES_WRITE_HANDBOOK";

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

/// Whether files are being written: then nothing is said of what is in them, because
/// other tests run at the same time.
fn is_writing() -> bool {
    let writing = std::env::var_os(WRITE).is_some();
    if writing {
        println!("skipped: the files are being written");
    }
    writing
}

/// The file must have this content, or gets it.
#[track_caller]
fn is_up_to_date(path: &str, made: &str) {
    let path = packaging(path);
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == made,
        "{} is not what the definitions say now: ./dev handbook writes it",
        path.display()
    );
}
