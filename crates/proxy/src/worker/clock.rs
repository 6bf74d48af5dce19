//! A clock that ticks once a second: cheap enough to be asked for everything.

use std::cell::{Cell, RefCell};
use std::time::{Instant, SystemTime};

use maille_telemetry::time::TimeFormat;

/// Seconds since the worker began, and the `date` of now.
pub(crate) struct Clock {
    start: Instant,
    seconds: Cell<u32>,
    date: RefCell<Vec<u8>>,
    format: TimeFormat,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        // The format is a constant; were it wrong, there would be no date, and a test would say so.
        let format = TimeFormat::parse("%a, %d %b %Y %H:%M:%S GMT").or_else(|_| TimeFormat::parse("")).ok();
        let clock = Clock {
            start: Instant::now(),
            // Not zero, so that something can be a while ago.
            seconds: Cell::new(1),
            date: RefCell::default(),
            format: format.unwrap_or_else(|| unreachable!("the default time format parses")),
        };
        clock.tick();
        clock
    }

    pub(crate) fn tick(&self) {
        self.seconds.set(1 + self.start.elapsed().as_secs() as u32);
        let mut date = self.date.borrow_mut();
        date.clear();
        self.format.write(SystemTime::now(), &mut date);
    }

    /// Seconds since some time before the worker began.
    #[inline]
    pub(crate) fn seconds(&self) -> u32 {
        self.seconds.get()
    }

    /// Now, as `date` says it.
    #[inline]
    pub(crate) fn with_date<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(&self.date.borrow())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_date_is_an_http_date() {
        super::Clock::new().with_date(|date| {
            let date = std::str::from_utf8(date).unwrap();
            assert!(date.len() == 29 && date.ends_with(" GMT") && date.as_bytes()[3] == b',', "{date}");
        });
    }
}
