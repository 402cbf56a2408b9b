//! A server whose control plane is replaced, by `duckgres reload` or by a file.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;

use super::programs::run;
use super::{Server, Session, Transport};

impl Server {
    /// `duckgres reload`, not started yet.
    pub fn reload_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
        command
            .args(["reload", "--data-dir"])
            .arg(self.data())
            .env_remove("DUCKGRES_CONFIG");
        command
    }

    /// Has another process take this one's place, which must succeed.
    #[track_caller]
    pub fn reload(&self) {
        let said = run(&mut self.reload_command(), "").success();
        let process: u32 = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
        assert_ne!(process, self.pid(), "{said}");
        self.succeeded_by(process);
    }

    /// Another process has taken this one's place.
    pub fn succeeded_by(&self, process: u32) {
        self.successor.store(process, Ordering::SeqCst);
    }

    /// The process that says it has the data directory.
    pub fn owner(&self) -> u32 {
        let owner = fs::read_to_string(self.data().join("duckgres.lock")).unwrap();
        owner.trim().parse().unwrap()
    }

    /// The path of the program, which a test may replace.
    pub fn program(&self) -> PathBuf {
        self.home.path().join("duckgres")
    }

    /// Installs this script in the place of the program, as a package manager would.
    pub fn install(&self, script: &str) {
        let new = self.home.path().join("duckgres.new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, self.program()).unwrap();
    }

    /// Installs the program again.
    pub fn install_ours(&self) {
        fs::remove_file(self.program()).ok();
        symlink(env!("CARGO_BIN_EXE_duckgres"), self.program()).unwrap();
    }

    /// The same for one of the users of [`Server::with_workers`].
    #[track_caller]
    pub fn assert_serving_to(&self, user: &str) {
        let mut session = Session::of(self, user, Transport::Tls13);
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
}
