use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

type Test = Line<&'static str, &'static str>;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Someone who waits, with the right to open one or not.
struct Someone {
    place: Rc<Place<&'static str, &'static str>>,
    woken: Arc<Woken>,
}

impl Someone {
    fn joins(line: &Test) -> Someone {
        Someone { place: line.join(), woken: Arc::default() }
    }

    fn poll(&self, line: &Test, may_open: bool) -> Poll<Turn<&'static str, (), &'static str>> {
        let waker = Waker::from(self.woken.clone());
        line.poll(&mut Context::from_waker(&waker), &self.place, || may_open.then_some(()))
    }

    fn times_woken(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

#[test]
fn whoever_comes_first_is_served_first() {
    let line = Test::new();
    let (a, b) = (Someone::joins(&line), Someone::joins(&line));
    assert!(a.poll(&line, false).is_pending() && b.poll(&line, false).is_pending());
    assert_eq!(line.give("one"), None);
    assert_eq!((a.times_woken(), b.times_woken()), (1, 0));
    assert_eq!(line.give("two"), None);
    assert_eq!(line.give("three"), Some("three"), "nobody waits any more");
    assert_eq!(b.poll(&line, true), Poll::Ready(Turn::Given("two")));
    assert_eq!(a.poll(&line, true), Poll::Ready(Turn::Given("one")));
}

#[test]
fn only_the_first_may_open_one() {
    let line = Test::new();
    let (a, b) = (Someone::joins(&line), Someone::joins(&line));
    assert!(b.poll(&line, true).is_pending());
    assert_eq!(a.poll(&line, true), Poll::Ready(Turn::Open(())));
    assert_eq!(b.times_woken(), 1, "there may be room for another");
    assert_eq!(b.poll(&line, true), Poll::Ready(Turn::Open(())));
}

#[test]
fn when_one_is_gone_the_first_is_asked_again() {
    let line = Test::new();
    line.opened();
    let a = Someone::joins(&line);
    assert!(a.poll(&line, false).is_pending());
    line.closed();
    assert_eq!((line.open(), a.times_woken()), (0, 1));
    assert_eq!(a.poll(&line, true), Poll::Ready(Turn::Open(())));
}

#[test]
fn who_leaves_hands_on_what_it_has() {
    let line = Test::new();
    let (a, b) = (Someone::joins(&line), Someone::joins(&line));
    assert!(a.poll(&line, false).is_pending() && b.poll(&line, false).is_pending());
    assert_eq!(line.give("one"), None);
    assert_eq!(line.leave(&a.place), Some("one"));
    assert_eq!(line.give("one"), None, "now it is for the other");
    assert_eq!(b.poll(&line, false), Poll::Ready(Turn::Given("one")));
    assert_eq!((line.leave(&a.place), line.leave(&b.place)), (None, None));
}

#[test]
fn who_leaves_first_makes_another_the_first() {
    let line = Test::new();
    let (a, b) = (Someone::joins(&line), Someone::joins(&line));
    assert!(b.poll(&line, true).is_pending());
    assert_eq!(line.leave(&a.place), None);
    assert_eq!(b.times_woken(), 1);
    assert_eq!(b.poll(&line, true), Poll::Ready(Turn::Open(())));
}

#[test]
fn a_failure_is_everybodys() {
    let line = Test::new();
    let all = [Someone::joins(&line), Someone::joins(&line)];
    assert!(all.iter().all(|one| one.poll(&line, false).is_pending()));
    line.fail(|| "refused");
    for one in &all {
        assert_eq!(one.times_woken(), 1);
        assert_eq!(one.poll(&line, true), Poll::Ready(Turn::Failed("refused")));
    }
    assert_eq!(line.give("one"), Some("one"));
}
