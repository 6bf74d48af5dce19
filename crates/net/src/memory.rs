//! Memory: how much there may be, and what only starting needed.

use std::fs;

/// Gives back the pages of this program's code that were touched so far; the kernel maps those again that are still in use.
///
/// Parsing arguments, the first configuration and the first connection to the control plane run through megabytes of code that
/// an idle sidecar never sees again, and that count as its memory until somebody says so.
pub fn release_startup_code() {
    let here = release_startup_code as *const () as usize;
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    let Some((start, end)) = maps.lines().filter_map(code_range).find(|(start, end)| (*start..*end).contains(&here))
    else {
        return;
    };
    // SAFETY: the range is one whole mapping of the program file that is readable and executable and never writable, so no page
    // of it can differ from the file: dropping a page only means that the next access reads the same bytes from the file again.
    unsafe {
        libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
    }
}

/// How much memory this process may have, in bytes: what its control group says, else what the machine has.
pub fn memory_limit() -> usize {
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text));
    group.unwrap_or(usize::MAX).min(machine.unwrap_or(1 << 30))
}

fn machine_memory(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The range of a line of `/proc/self/maps` that is private, executable and not writable.
fn code_range(line: &str) -> Option<(usize, usize)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    rest.starts_with("r-xp").then_some(())?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_given_back() {
        let cases = [
            (
                "55d0c0000000-55d0c1000000 r-xp 00400000 fe:00 1 /usr/bin/maille",
                Some((0x55d0_c000_0000, 0x55d0_c100_0000)),
            ),
            ("55d0c0000000-55d0c1000000 r--p 00400000 fe:00 1 /usr/bin/maille", None),
            ("55d0c0000000-55d0c1000000 rwxp 00400000 fe:00 1 /usr/bin/maille", None),
            ("55d0c0000000-55d0c1000000 rw-p 00000000 00:00 0", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(code_range(line), expected, "{line}");
        }
    }

    #[test]
    fn how_much_there_is() {
        for (text, bytes) in
            [("MemTotal:  2 kB\nMemFree: 1 kB", Some(2048)), ("MemFree: 1 kB", None), ("MemTotal: x kB", None)]
        {
            assert_eq!(machine_memory(text), bytes, "{text}");
        }
        assert!(memory_limit() > 1 << 20);
    }

    #[test]
    fn the_program_goes_on() {
        release_startup_code();
        assert_eq!(code_range("1-2 r-xp"), Some((1, 2)));
    }
}
