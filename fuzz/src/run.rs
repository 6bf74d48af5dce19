//! Runs one target: mutates, tries, keeps what was answered in a new way, and stops at the first finding.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::mutate::Mutator;
use crate::targets::Target;

/// No input may keep a parser busy for longer.
const TOO_SLOW: Duration = Duration::from_secs(1);

/// So many inputs are kept to be mutated further.
const MAX_POOL: usize = 4096;

/// What came of a run.
pub(crate) struct Report {
    /// Inputs tried.
    pub(crate) executions: u64,
    /// Different answers seen, as the target tells them apart.
    pub(crate) kinds: usize,
    /// The input that was answered wrongly.
    pub(crate) finding: Option<Finding>,
}

/// An input that was answered wrongly.
pub(crate) struct Finding {
    /// The input.
    pub(crate) input: Vec<u8>,
    /// What is wrong.
    pub(crate) what: String,
}

/// Reads a corpus, in the order of its files' names.
pub(crate) fn corpus(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("no corpus in {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths.iter().map(std::fs::read).collect::<Result<_, _>>()?)
}

/// Tries inputs for as long as told: first the corpus as it is, then what mutations make of it.
pub(crate) fn run(target: &Target, seeds: Vec<Vec<u8>>, seed: u64, time: Duration) -> Report {
    let until = Instant::now() + time;
    let mut report = Report { executions: 0, kinds: 0, finding: None };
    let mut kinds = HashSet::new();
    let mut mutator = Mutator::new(seed, target.dictionary);
    let mut pool = seeds.clone();
    let mut seeds = seeds.into_iter();
    loop {
        let is_seed = seeds.len() > 0;
        let input = seeds.next().unwrap_or_else(|| mutator.next(&pool));
        if !is_seed && Instant::now() >= until {
            break;
        }
        report.executions += 1;
        match try_input(target, &input) {
            // A new kind of answer is as good a guide to new code as there is without instrumenting the build.
            Ok(kind) => {
                if kinds.insert(kind) && !is_seed && pool.len() < MAX_POOL {
                    pool.push(input);
                }
            }
            Err(what) => {
                report.finding = Some(Finding { input, what });
                break;
            }
        }
    }
    report.kinds = kinds.len();
    report
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are findings, told where findings are told.
pub(crate) fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.with_borrow_mut(|text| *text = info.to_string())));
}

/// Tries one input: the kind of answer, or what is wrong with it.
pub(crate) fn try_input(target: &Target, input: &[u8]) -> Result<u64, String> {
    let kind = once(target, input)?;
    let slow = kind.1 > TOO_SLOW;
    // Somebody else may have had the processor: slow is what is slow each time.
    if slow && (0..2).map(|_| once(target, input)).all(|again| again.is_ok_and(|(_, took)| took > TOO_SLOW)) {
        return Err(format!("took {:?} for {} bytes", kind.1, input.len()));
    }
    Ok(kind.0)
}

fn once(target: &Target, input: &[u8]) -> Result<(u64, Duration), String> {
    let start = Instant::now();
    let answer = catch_unwind(AssertUnwindSafe(|| (target.check)(input)))
        .unwrap_or_else(|_| Err(PANIC.with_borrow(|text| format!("panic: {text}"))))?;
    let took = start.elapsed();
    let mut hasher = DefaultHasher::new();
    answer.hash(&mut hasher);
    Ok((hasher.finish(), took))
}
