//! How much processor time a process has used.

use std::mem::MaybeUninit;
use std::time::Duration;

/// The processor time of a process since it began, all its threads together;
/// zero when there is no such process.
pub fn of_process(pid: u32) -> Duration {
    let mut clock = 0;
    // SAFETY: clock is an out parameter.
    if unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } != 0 {
        return Duration::ZERO;
    }
    read(clock)
}

/// That of this thread.
pub fn of_this_thread() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// That of this process.
pub fn of_this_process() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: time is an out parameter; zeroed is a valid value of it.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
