//! The live table: redrawn in place on a terminal, printed line by line elsewhere.

use std::io::{self, Write};

use owo_colors::{OwoColorize, Style};

use super::tally::Line;

/// Up by so many lines, and everything from there on cleared (ECMA-48 CPL and ED).
fn rewind(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}F\x1b[J") }
}

/// Where the table goes.
pub(super) struct Screen {
    in_place: bool,
    /// How many lines stand on the terminal that the next table replaces.
    drawn: usize,
}

impl Screen {
    pub(super) fn new(in_place: bool) -> Self {
        Self { in_place, drawn: 0 }
    }

    /// Shows the table of this moment.
    pub(super) fn show(&mut self, lines: &[Line], seconds: u64) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        if self.in_place {
            let table = draw(lines, seconds);
            write!(out, "{}{table}", rewind(self.drawn))?;
            self.drawn = table.lines().count();
        } else {
            for line in lines {
                writeln!(out, "{seconds:>4}s  {}", row(line))?;
            }
        }
        out.flush()
    }
}

fn draw(lines: &[Line], seconds: u64) -> String {
    let header =
        format!("{:<12} {:<8} {:>7} {:>10} {:>9} {:>9}", "service", "version", "req/s", "success", "p50", "p99");
    let mut text = format!("  {}\n", header.bold());
    for line in lines {
        text += &format!("  {}\n", row(line));
    }
    text + &format!("  {}\n", format_args!("after {seconds} s; Ctrl-C ends").dimmed())
}

fn row(line: &Line) -> String {
    let Line { service, version, rate, success, p50, p99, .. } = line;
    let (success, style) = match success {
        None => ("-".to_owned(), Style::new()),
        Some(share) => (percent(*share), colour(*share)),
    };
    let time = |ms: &u32| if line.success.is_some() { format!("{ms} ms") } else { "-".to_owned() };
    let success = format!("{success:>10}");
    format!("{service:<12} {version:<8} {rate:>7.1} {} {:>9} {:>9}", success.style(style), time(p50), time(p99))
}

fn colour(share: f64) -> Style {
    match share {
        share if share >= 0.999 => Style::new().green(),
        share if share >= 0.95 => Style::new().yellow(),
        _ => Style::new().red().bold(),
    }
}

/// Never rounds a failure away.
fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_failure_is_never_rounded_away() {
        for (share, expected) in [(1.0, "100.0 %"), (0.9999, "99.9 %"), (0.7, "70.0 %"), (0.0, "0.0 %")] {
            assert_eq!(super::percent(share), expected);
        }
    }
}
