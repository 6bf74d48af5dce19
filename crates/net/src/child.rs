//! Children that do not outlive us.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the kernel send SIGTERM to the child when the thread that starts it ends.
///
/// Start such children from a thread that lives as long as the process: the kernel watches the thread, not the process.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec the closure only makes two system calls (prctl, getppid), both async-signal-safe;
    // it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before the call above: then nobody would ever send the signal.
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}
