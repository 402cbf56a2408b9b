//! Stops one thread of a process for ever, at a place where it would not stop by
//! itself: at a system call, by ptrace(2).

use std::fs;
use std::io;

use super::eventually;

/// The thread of that name.
pub fn thread_of(process: u32, name: &str) -> Option<i32> {
    fs::read_dir(format!("/proc/{process}/task"))
        .ok()?
        .find_map(|task| {
            let path = task.ok()?.path();
            let comm = fs::read_to_string(path.join("comm")).ok()?;
            (comm.trim_end() == name).then(|| path.file_name()?.to_str()?.parse().ok())?
        })
}

/// A thread that stands still until its process is killed. Only the thread that
/// made this may use it, and if it ends before, the other goes on.
pub struct Frozen(i32);

impl Frozen {
    /// Stops `thread` when it is about to make that system call.
    pub fn at(thread: i32, call: libc::c_long) -> io::Result<Frozen> {
        request(
            libc::PTRACE_SEIZE,
            thread,
            0,
            libc::PTRACE_O_TRACESYSGOOD as usize,
        )?;
        request(libc::PTRACE_INTERRUPT, thread, 0, 0)?;
        loop {
            eventually("the thread stops", || wait(thread).then_some(()));
            // SAFETY: a plain structure of numbers, for which zeroes are values.
            let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
            let size = size_of_val(&info);
            request(
                libc::PTRACE_GET_SYSCALL_INFO,
                thread,
                size,
                &raw mut info as usize,
            )?;
            if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                // SAFETY: `op` says that it is this member.
                let entered = unsafe { info.u.entry.nr };
                if entered == call.cast_unsigned() {
                    return Ok(Frozen(thread));
                }
            }
            request(libc::PTRACE_SYSCALL, thread, 0, 0)?;
        }
    }

    /// Returns when somebody has killed it.
    #[track_caller]
    pub fn killed(self) {
        eventually("the thread is killed", || wait(self.0).then_some(()));
    }
}

fn request(what: libc::c_uint, thread: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the requests used here write at most to `data`, which is then the
    // address of a structure of `address` bytes.
    match unsafe { libc::ptrace(what, thread, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Has its state changed?
fn wait(thread: i32) -> bool {
    // SAFETY: the status is not asked for.
    unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) == thread }
}
