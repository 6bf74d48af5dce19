//! The limit on open files: a proxy needs two per connection.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Raises the soft limit on open files to the hard limit; what it is then.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above; the call only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Has the kernel's table of this process's open files be large enough for so many at once. It grows by itself, but where there are threads
/// whoever opens the file that makes it grow waits for milliseconds until every core has let go of the old one.
pub fn make_room_for_files(count: u64) -> io::Result<()> {
    let last = i32::try_from(count.saturating_sub(1)).unwrap_or(i32::MAX);
    let file = std::fs::File::open("/dev/null")?;
    // SAFETY: the descriptor is open, and belongs to `file`; the call makes another one, which nobody else knows.
    let made = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it has just been made, and nobody else owns it. Closing it leaves the table as it is.
    drop(unsafe { OwnedFd::from_raw_fd(made) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_files_is_as_large_as_was_asked_for() {
        let most = raise_open_files().unwrap();
        let size = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            line.trim().parse::<u64>().unwrap()
        };
        let wanted = (size() * 2).min(most);
        make_room_for_files(wanted).unwrap();
        assert!(size() >= wanted, "{} of {wanted}", size());
        assert!(make_room_for_files(most + 1).is_err(), "more than may be open");
    }
}
