//! What a machine is made of, on the host.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::support::programs::run;

/// What the names of machines begin with; the test program's number follows.
pub const PREFIX: &str = "duckgres-test-";

/// The password of the users `u0` to `u9`.
pub const PASSWORD: &str = "not-a-secret";

/// What is missing for machines, if anything is.
pub fn possible() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("containers need root".into());
    }
    for (program, package) in [
        ("systemd-nspawn", "systemd-container"),
        ("mmdebstrap", "mmdebstrap"),
        ("nsenter", "util-linux"),
        ("systemd-sysusers", "systemd"),
    ] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|place| place.join(program).is_file());
        if !found {
            return Err(format!("{program} is missing (Debian's package {package})"));
        }
    }
    // Root inside a container may not be root enough.
    let unshare = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "true"])
        .output();
    if !unshare.is_ok_and(|output| output.status.success()) {
        return Err("this root cannot make namespaces".into());
    }
    let probe = format!("{PREFIX}{}-probe", std::process::id());
    static PROBING: Mutex<()> = Mutex::new(());
    let _one = PROBING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for group in control_groups(&probe) {
        fs::create_dir(&group).map_err(|error| format!("control groups cannot be made: {error}"))?;
        fs::remove_dir(&group).ok();
    }
    Ok(())
}

fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    Path::new(&home).join(".cache/duckgres")
}

/// Where machines are while they live.
pub fn machines() -> PathBuf {
    cache().join("machines")
}

/// The root file system of that Debian, made now if there is none.
#[track_caller]
pub fn root(suite: &str) -> PathBuf {
    // One after the other: each reads hundreds of packages.
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // Another number for another root.sh: an old root may be in use elsewhere.
    let root = cache().join("roots").join(format!("{suite}-2"));
    if !root.join("complete").exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/root.sh");
        run(Command::new(script).arg(suite).arg(&root), "").success();
    }
    root
}

/// Lays out what the machine shares with the host, with duckgres in it.
#[track_caller]
pub fn furnish(root: &Path, place: &Path) {
    furnish_bare(root, place);
    let etc = place.join("etc");
    install(&etc);
    programs(&place.join("programs"));
    configure(&etc);
}

/// The same without duckgres.
#[track_caller]
pub fn furnish_bare(root: &Path, place: &Path) {
    for name in ["journal", "programs/bin"] {
        fs::create_dir_all(place.join(name)).unwrap();
    }
    let etc = place.join("etc");
    run(Command::new("cp").arg("-a").arg(root.join("etc")).arg(&etc), "").success();
    // With an identity the machine has booted before: nothing is preset.
    fs::write(etc.join("machine-id"), format!("{:032x}\n", std::process::id())).unwrap();
}

/// The units, users and directories of this tree.
fn install(etc: &Path) {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for entry in fs::read_dir(&units).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let to = match path.extension().and_then(|extension| extension.to_str()) {
            Some("service" | "socket" | "target") => etc.join("systemd/system").join(name),
            Some("sysusers") => etc.join("sysusers.d/duckgres.conf"),
            Some("tmpfiles") => etc.join("tmpfiles.d/duckgres.conf"),
            _ => continue,
        };
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, to).unwrap();
    }
    let place = etc.parent().unwrap();
    let mut sysusers = Command::new("systemd-sysusers");
    sysusers.arg("--root").arg(place);
    run(&mut sysusers, "").success();
}

/// What this build made, and the library where the programs look for it.
fn programs(to: &Path) {
    for program in [
        env!("CARGO_BIN_EXE_duckgres"),
        env!("CARGO_BIN_EXE_duckgres-worker"),
    ] {
        let program = Path::new(program);
        place_file(program, &to.join("bin").join(program.file_name().unwrap()));
    }
    let library = "lib/duckgres/1.5.5/libduckdb.so";
    let built = Path::new(env!("CARGO_BIN_EXE_duckgres"))
        .parent()
        .unwrap()
        .parent()
        .unwrap();
    fs::create_dir_all(to.join(library).parent().unwrap()).unwrap();
    let from = built.join(library).canonicalize().unwrap();
    place_file(&from, &to.join(library));
}

/// A link where that is possible; these files are large.
fn place_file(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}

/// Ten users, one on each line, as they stand under `users:`.
pub fn users() -> String {
    (0..10).map(|i| format!("  u{i}: {PASSWORD}\n")).collect()
}

/// Ten users, a certificate, two workers' worth of nothing.
fn configure(etc: &Path) {
    let users = users();
    let text = format!(
        "users:\n{users}tls:\n  cert: /etc/duckgres/server.crt\n  key: /etc/duckgres/server.key\n\
         rate_limit:\n  max_connections_per_ip: 0\n  max_failed_attempts: 0\n"
    );
    configure_as(etc, &text);
}

/// That configuration, and a certificate.
pub fn configure_as(etc: &Path, text: &str) {
    let directory = etc.join("duckgres");
    fs::create_dir_all(&directory).unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let group = gid(etc, "duckgres");
    for (name, text) in [
        ("duckgres.yaml", text.to_owned()),
        ("server.crt", certified.cert.pem()),
        ("server.key", certified.signing_key.serialize_pem()),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        chown(&path, Some(0), Some(group)).unwrap();
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o750)).unwrap();
    chown(&directory, Some(0), Some(group)).unwrap();
}

/// The third field of that name's line.
fn number(file: &Path, name: &str) -> u32 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    line.and_then(|line| line.split(':').nth(2)?.parse().ok())
        .unwrap_or_else(|| panic!("{name} is not in {}", file.display()))
}

pub fn uid(etc: &Path, user: &str) -> u32 {
    number(&etc.join("passwd"), user)
}

fn gid(etc: &Path, group: &str) -> u32 {
    number(&etc.join("group"), group)
}

/// The control groups of a machine, one in each hierarchy that systemd uses.
pub fn control_groups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hybrid = [root.join("unified"), root.join("systemd")];
    match hybrid.iter().all(|place| place.is_dir()) {
        true => hybrid.iter().map(|place| place.join(name)).collect(),
        false => vec![root.join(name)],
    }
}

/// Removes the control groups of a machine that is off.
pub fn remove_control_groups(name: &str) {
    control_groups(name).iter().for_each(|group| remove_groups(group));
}

fn remove_groups(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_groups(&entry.path());
    }
    // One that still has processes is not removed.
    fs::remove_dir(group).ok();
}

/// Removes what test programs that were killed have left.
pub fn sweep() {
    let entries = fs::read_dir(machines()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|owner| owner.parse::<i32>().ok()) else {
            continue;
        };
        if nix::sys::signal::kill(nix::unistd::Pid::from_raw(owner), None) == Err(nix::Error::ESRCH) {
            remove_control_groups(name);
            match fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => println!("{name}: {error}"),
                _ => {}
            }
        }
    }
}
