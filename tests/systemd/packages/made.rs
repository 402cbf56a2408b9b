//! Packages of this build, and others made of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::support::programs::run;

/// A program that can be asked for its version and does not do its work.
const BROKEN: &str = "#!/bin/sh\n[ \"$1\" = --version ] || exit 3\n";
/// One that cannot do even that.
const BROKEN_WHOLLY: &str = "#!/bin/sh\nexit 3\n";
/// What the next version's unit has in addition.
pub const NEW_IN_THE_UNIT: &str = "DUCKGRES_OF_THE_NEXT_UNIT=yes";

/// One version after the other.
pub struct Packages {
    /// This build.
    pub first: PathBuf,
    /// With another unit file.
    pub next: PathBuf,
    /// With that unit file, too.
    pub third: PathBuf,
    /// Whose control plane does not start.
    pub broken: PathBuf,
    /// Whose workers do not start.
    pub broken_worker: PathBuf,
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The makers share target/package.
static MAKING: Mutex<()> = Mutex::new(());

/// Runs packaging/NAME, which may have to bring in its tool, and takes its time then.
#[track_caller]
fn make(name: &str, words: &[&str]) {
    let output = Command::new(tree().join("packaging").join(name))
        .args(["--profile", "dev", "--fast", "--no-build"])
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The unit file, as the next version has it.
fn change_the_unit(root: &Path) {
    let unit = root.join("usr/lib/systemd/system/duckgres.service");
    let text = fs::read_to_string(&unit).unwrap();
    let new = format!("[Service]\nEnvironment={NEW_IN_THE_UNIT}\n");
    fs::write(unit, text.replacen("[Service]\n", &new, 1)).unwrap();
}

/// The packages for dpkg, made once.
pub fn debs() -> &'static Packages {
    static MADE: OnceLock<Packages> = OnceLock::new();
    MADE.get_or_init(|| {
        let _one = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        make("deb.sh", &["--version", "0.1.0"]);
        let first = tree().join("target/debian/duckgres_0.1.0_amd64.deb");
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debs");
        fs::create_dir_all(&place).unwrap();
        let other = |version: &str, change: &dyn Fn(&Path)| {
            let root = place.join("root");
            fs::remove_dir_all(&root).ok();
            run(Command::new("dpkg-deb").arg("-R").arg(&first).arg(&root), "").success();
            let control = root.join("DEBIAN/control");
            let text = fs::read_to_string(&control).unwrap();
            fs::write(
                &control,
                text.replace("Version: 0.1.0", &format!("Version: {version}")),
            )
            .unwrap();
            change(&root);
            let package = place.join(format!("duckgres_{version}_amd64.deb"));
            let mut build = Command::new("dpkg-deb");
            build.args(["-Znone", "-b"]).arg(&root).arg(&package);
            run(&mut build, "").success();
            fs::remove_dir_all(&root).unwrap();
            package
        };
        Packages {
            next: other("0.2.0", &change_the_unit),
            third: other("0.3.0", &change_the_unit),
            broken: other("0.4.0", &|root| {
                fs::write(root.join("usr/bin/duckgres"), BROKEN).unwrap();
            }),
            broken_worker: other("0.5.0", &|root| {
                fs::write(root.join("usr/bin/duckgres-worker"), BROKEN_WHOLLY).unwrap();
            }),
            first,
        }
    })
}

/// The packages for rpm, made once.
pub fn rpms() -> &'static Packages {
    static MADE: OnceLock<Packages> = OnceLock::new();
    MADE.get_or_init(|| {
        let _one = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        make("rpm.sh", &["--version", "0.1.0"]);
        let package =
            |version: &str| tree().join(format!("target/generate-rpm/duckgres-{version}-1.x86_64.rpm"));
        let root = tree().join("target/package/root");
        let other = |version: &str| {
            make("rpm.sh", &["--staged", "--version", version]);
            package(version)
        };
        change_the_unit(&root);
        let (next, third) = (other("0.2.0"), other("0.3.0"));
        let instead = |name: &str, script: &str, version: &str| {
            let program = root.join("usr/bin").join(name);
            let good = fs::read(&program).unwrap();
            fs::write(&program, script).unwrap();
            let made = other(version);
            fs::write(&program, good).unwrap();
            made
        };
        Packages {
            first: package("0.1.0"),
            next,
            third,
            broken: instead("duckgres", BROKEN, "0.4.0"),
            broken_worker: instead("duckgres-worker", BROKEN_WHOLLY, "0.5.0"),
        }
    })
}
