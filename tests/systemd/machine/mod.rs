//! A small Debian in a container, booted by its own systemd, with the units and
//! the programs of this tree.
//!
//! Its root file system is an overlay that is gone with the machine; /etc, the
//! programs and the journal are directories of the host, so that a test can
//! change them before and after boot. Each machine has a network of its own, and
//! so its own port 5432. When the test program is killed, the kernel has the
//! container stop (PR_SET_PDEATHSIG); what is left on disk the next run removes.

mod client;
mod stage;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use client::Network;

use crate::support::programs::{Output, run};
use crate::support::{PATIENCE, eventually};

/// Which Debian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Release {
    /// 12, systemd 252.
    Bookworm,
    /// 13, systemd 257.
    Trixie,
}

impl Release {
    fn suite(self) -> &'static str {
        match self {
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
        }
    }
}

/// Makes of each function two tests, one for each release. The function is given
/// a machine that has not booted.
macro_rules! on_each_release {
    ($($name:ident),+ $(,)?) => {
        $crate::machine::on_each_release!(stage: $($name),+);
    };
    // `bare`: without duckgres.
    ($kind:ident: $($name:ident),+ $(,)?) => {
        $(mod $name {
            use $crate::machine::{Machine, Release};
            #[test]
            fn on_debian_12() {
                Machine::$kind(Release::Bookworm).map(super::$name);
            }
            #[test]
            fn on_debian_13() {
                Machine::$kind(Release::Trixie).map(super::$name);
            }
        })+
    };
}
pub(crate) use on_each_release;

/// A machine, on or off.
pub struct Machine {
    name: String,
    root: PathBuf,
    /// etc, programs, journal: what the host shares with the machine.
    place: PathBuf,
    on: Option<On>,
}

struct On {
    nspawn: Child,
    /// The machine's first process, as the host sees it.
    leader: u32,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Machine {
    /// A machine of that release with the units of this tree, nothing enabled,
    /// that has not booted. `None`, after saying why, where there can be none.
    pub fn stage(release: Release) -> Option<Machine> {
        Machine::furnished(release, stage::furnish)
    }

    /// A machine of that release without duckgres.
    pub fn bare(release: Release) -> Option<Machine> {
        Machine::furnished(release, stage::furnish_bare)
    }

    fn furnished(release: Release, furnish: fn(&Path, &Path)) -> Option<Machine> {
        if let Err(missing) = stage::possible() {
            println!("skipped: {missing}");
            return None;
        }
        let root = stage::root(release.suite());
        let serial = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{serial}", stage::PREFIX, std::process::id());
        let place = stage::machines().join(&name);
        stage::sweep();
        furnish(&root, &place);
        Some(Machine {
            name,
            root,
            place,
            on: None,
        })
    }

    /// A file of the machine's /etc, before boot or after.
    pub fn etc(&self, path: &str) -> PathBuf {
        self.place.join("etc").join(path)
    }

    /// A program of the machine, which a test may replace.
    pub fn program(&self, name: &str) -> PathBuf {
        self.place.join("programs/bin").join(name)
    }

    /// Configures a machine that has duckgres: the users `u0` to `u9`, a certificate,
    /// no limits for one address, and the rest as in the text.
    pub fn configure(&self, text: &str) {
        let text = text.replacen("users:\n", &format!("users:\n{}", stage::users()), 1)
            + "tls:\n  cert: /etc/duckgres/server.crt\n  key: /etc/duckgres/server.key\n\
               rate_limit:\n  max_connections_per_ip: 0\n  max_failed_attempts: 0\n";
        stage::configure_as(&self.place.join("etc"), &text);
    }

    /// Adds a file below the machine's /etc.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.etc(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A user's number in the machine.
    pub fn uid(&self, user: &str) -> u32 {
        stage::uid(&self.place.join("etc"), user)
    }

    /// Enables units, as `systemctl enable` does, before boot.
    #[track_caller]
    pub fn enable(&self, units: &[&str]) {
        let mut command = Command::new("systemctl");
        command.arg("--root").arg(&self.place).arg("enable").args(units);
        run(&mut command, "").success();
    }

    /// Boots; returns when the machine's systemd is done with that.
    #[track_caller]
    pub fn boot(&mut self) {
        let socket = UnixDatagram::bind(self.place.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new("systemd-nspawn");
        command
            .arg("--directory")
            .arg(&self.root)
            .arg(format!("--machine={}", self.name))
            .args(["--volatile=overlay", "--boot", "--register=no", "--keep-unit"])
            .args(["--link-journal=no", "--console=passive", "--notify-ready=yes"])
            // Without it systemd cannot give services a network of their own, and
            // does not say so.
            .arg("--private-network")
            .arg(format!("--bind={}:/etc", self.place.join("etc").display()))
            .arg(format!(
                "--bind={}:/var/log/journal",
                self.place.join("journal").display()
            ))
            .arg(format!(
                "--bind-ro={}:/opt/duckgres",
                self.place.join("programs").display()
            ))
            .env("UNIFIED_CGROUP_HIERARCHY", "1")
            .env("NOTIFY_SOCKET", self.place.join("notify"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.place.join("console")).unwrap())
            .stderr(fs::File::create(self.place.join("nspawn")).unwrap());
        let groups = stage::control_groups(&self.name);
        for group in &groups {
            fs::create_dir_all(group).unwrap();
        }
        let files: Vec<fs::File> = groups
            .iter()
            .map(|group| {
                fs::OpenOptions::new()
                    .write(true)
                    .open(group.join("cgroup.procs"))
                    .unwrap()
            })
            .collect();
        // SAFETY: between fork and exec only prctl(2) and write(2) run, which are
        // async-signal-safe, on descriptors that the closure keeps open.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
                // In a group of its own, or two containers collide in theirs.
                files
                    .iter()
                    .try_for_each(|file| nix::unistd::write(file, b"0").map(drop))?;
                Ok(())
            });
        }
        let nspawn = command.spawn().unwrap();
        let mut on = On { nspawn, leader: 0 };
        let mut message = [0; 4096];
        loop {
            let count = match socket.recv(&mut message) {
                Ok(count) => count,
                Err(error) => {
                    let said = |name| fs::read_to_string(self.place.join(name)).unwrap_or_default();
                    on.nspawn.kill().ok();
                    panic!("no boot: {error}\n{}\n{}", said("nspawn"), said("console"));
                }
            };
            let text = String::from_utf8_lossy(&message[..count]).into_owned();
            for line in text.lines() {
                if let Some(leader) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                    on.leader = leader.parse().unwrap();
                }
            }
            if text.lines().any(|line| line == "READY=1") {
                break;
            }
        }
        assert_ne!(on.leader, 0, "nspawn says who the leader is before it is ready");
        self.on = Some(on);
    }

    /// Switches off and boots again, with what /etc is then. What services have
    /// stored is gone.
    #[track_caller]
    pub fn switch_off(&mut self) {
        let Some(mut on) = self.on.take() else { return };
        kill(Pid::from_raw(on.nspawn.id().try_into().unwrap()), Signal::SIGTERM).ok();
        let deadline = Instant::now() + PATIENCE;
        while on.nspawn.try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                on.nspawn.kill().ok();
                on.nspawn.wait().ok();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(self.place.join("notify")).ok();
        stage::remove_control_groups(&self.name);
    }

    fn leader(&self) -> u32 {
        self.on.as_ref().expect("the machine is on").leader
    }

    /// A command inside the machine, as its root.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.leader().to_string(), "--all"]);
        command.args(words).env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        command
    }

    /// Runs a command inside the machine.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        run(&mut self.command(words), "")
    }

    /// Whether a program ends with 0.
    pub fn succeeds(&self, words: &[&str]) -> bool {
        self.command(words).output().unwrap().status.success()
    }

    /// Another version of a program: this one, or a script.
    pub fn replace_program(&self, name: &str, other: impl AsRef<[u8]>) {
        let program = self.place.join("programs/bin").join(name);
        fs::rename(&program, program.with_extension("good")).unwrap();
        fs::write(&program, other).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The version of before.
    pub fn restore_program(&self, name: &str) {
        let program = self.place.join("programs/bin").join(name);
        fs::rename(program.with_extension("good"), &program).unwrap();
    }

    /// `systemctl WORDS`, which must succeed.
    #[track_caller]
    pub fn systemctl(&self, words: &[&str]) -> String {
        self.run(&[&["systemctl"], words].concat()).success()
    }

    /// A property of a unit.
    #[track_caller]
    pub fn property(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "--property", property, unit])
            .trim()
            .to_owned()
    }

    /// The unit's main process, as the machine counts.
    #[track_caller]
    pub fn main_process(&self, unit: &str) -> u32 {
        eventually("the unit has a main process", || {
            let process = self.property(unit, "MainPID").parse().unwrap();
            (process != 0).then_some(process)
        })
    }

    /// Sends a unit's main process a signal.
    #[track_caller]
    pub fn signal(&self, unit: &str, signal: &str) {
        self.systemctl(&["kill", "--kill-who=main", "--signal", signal, unit]);
    }

    /// Waits until the unit's property has that value.
    #[track_caller]
    pub fn await_property(&self, unit: &str, property: &str, value: &str) {
        eventually(&format!("{property} of {unit} is {value:?}"), || {
            (self.property(unit, property) == value).then_some(())
        });
    }

    /// Whether two processes, as the machine counts, have one network.
    #[track_caller]
    pub fn same_network(&self, one: &str, other: &str) -> bool {
        let network = |process| {
            self.run(&["readlink", &format!("/proc/{process}/ns/net")])
                .success()
        };
        network(one) == network(other)
    }

    /// A path of the machine, from the host.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.leader())).join(path.trim_start_matches('/'))
    }

    /// The journal: what `journalctl WORDS` prints.
    pub fn journal(&self, words: &[&str]) -> String {
        let mut command = Command::new("journalctl");
        command.arg("--directory").arg(self.place.join("journal"));
        run(command.args(["--no-pager", "--quiet"]).args(words), "").out
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.journal(&["--output=short-precise"]);
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("unknown").replace("::", ".");
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.journal"));
            fs::write(&kept, text).ok();
            eprintln!("the machine's journal is in {}", kept.display());
        }
        self.switch_off();
        fs::remove_dir_all(&self.place).ok();
    }
}
