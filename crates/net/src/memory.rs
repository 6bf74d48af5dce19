//! Memory that only starting needed.

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
    fn the_program_goes_on() {
        release_startup_code();
        assert_eq!(code_range("1-2 r-xp"), Some((1, 2)));
    }
}
