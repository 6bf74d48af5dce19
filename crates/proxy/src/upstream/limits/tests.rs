use super::*;

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::NONE;
    change(&mut limits);
    limits
}

#[test]
fn as_many_as_the_limit_and_not_one_more() {
    type Take = fn(Breakers<'_>) -> bool;
    type With = fn(u32) -> Limits;
    // What is taken stays taken: permits are forgotten.
    fn kept(permit: Option<Permit<'_>>) -> bool {
        let taken = permit.is_some();
        std::mem::forget(permit);
        taken
    }
    let takes: [(&str, Take, With); 4] = [
        ("requests", |b| kept(b.request()), |n| limits(|l| l.max_requests = n)),
        ("pending", |b| kept(b.pending()), |n| limits(|l| l.max_pending_requests = n)),
        ("retries", |b| kept(b.retry()), |n| limits(|l| l.max_retries = n)),
        ("connections", |b| take(&b.load.connections, b.limits.max_connections), |n| limits(|l| l.max_connections = n)),
    ];
    for (name, take, with) in takes {
        for limit in [0, 1, 3] {
            let (load, limits) = (Arc::default(), with(limit));
            let got = (0..5).filter(|_| take(Breakers { load: &load, limits: &limits })).count();
            assert_eq!(got as u32, limit.min(5), "{name} limited to {limit}");
        }
        let (load, limits) = (Arc::default(), with(u32::MAX));
        assert!((0..5).all(|_| take(Breakers { load: &load, limits: &limits })), "{name} without a limit");
    }
}

#[test]
fn a_permit_is_given_back_when_dropped() {
    let (load, one) = (Arc::<Load>::default(), limits(|l| l.max_requests = 1));
    let breakers = Breakers { load: &load, limits: &one };
    let first = breakers.request();
    assert!(first.is_some() && breakers.request().is_none());
    drop(first);
    assert!(breakers.request().is_some());
    assert_eq!(load.requests.load(Ordering::Relaxed), 0);
}

#[test]
fn nothing_is_counted_that_nothing_depends_on() {
    let load = Arc::<Load>::default();
    let breakers = Breakers { load: &load, limits: &Limits::NONE };
    let (_request, _retry) = (breakers.request(), breakers.retry());
    assert_eq!(load.requests.load(Ordering::Relaxed), 0);
    assert_eq!(load.retries.load(Ordering::Relaxed), 0);
    // A budget depends on the number of requests, even when that is not limited itself.
    let budget = limits(|l| l.retry_budget = Some(RetryBudget { percent: 20.0, least: 3, interval: None }));
    let _counted = Breakers { load: &load, limits: &budget }.request();
    assert_eq!(load.requests.load(Ordering::Relaxed), 1);
}

#[test]
fn a_retry_budget_is_a_share_of_what_is_going_on() {
    // (percent, at least, requests, pending) -> retries
    let cases = [
        ((20.0, 3), 0, 0, 3),
        ((20.0, 3), 10, 4, 3),
        ((20.0, 3), 15, 5, 4),
        ((20.0, 3), 0, 24, 4),
        ((100.0, 0), 2, 0, 2),
        ((0.0, 0), 50, 50, 0),
        ((25.0, 1), 7, 0, 1),
    ];
    for (budget, requests, pending, most) in cases {
        // The other limit on retries does not count beside a budget.
        let limits = limits(|l| {
            l.retry_budget = Some(RetryBudget { percent: budget.0, least: budget.1, interval: None });
            l.max_retries = 0;
        });
        let load = Arc::<Load>::default();
        load.requests.store(requests, Ordering::Relaxed);
        load.pending.store(pending, Ordering::Relaxed);
        let breakers = Breakers { load: &load, limits: &limits };
        let permits: Vec<_> = std::iter::from_fn(|| breakers.retry()).take(100).collect();
        assert_eq!(permits.len(), most, "{budget:?} of {requests}+{pending}");
    }
}

#[test]
fn a_budget_with_an_interval_counts_what_began_lately() {
    let interval = Some(std::time::Duration::from_secs(3600));
    let budget = limits(|l| l.retry_budget = Some(RetryBudget { percent: 50.0, least: 1, interval }));
    let load = Arc::<Load>::default();
    let breakers = Breakers { load: &load, limits: &budget };
    let retries = || (0..100).map_while(|_| breakers.retry()).collect::<Vec<_>>().len();
    assert_eq!(retries(), 1, "nothing has begun");
    (0..10).for_each(|_| drop(breakers.request()));
    assert_eq!(retries(), 5, "they are over, and count all the same");
}
