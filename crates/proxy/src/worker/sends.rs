//! Small messages that are sent one right after the other. Whoever gets one is woken for it, which costs the sender more than all else it does
//! for a request; while more comes, it is awake. So whoever has one ready lets all others go first that have something to do now, and
//! then they send, one after the other, what has become of it.

use std::future::poll_fn;
use std::task::Poll;

use super::turns::Turns;

/// Lets the others go first, unless somebody waits for a turn: then they may have much to do.
pub(crate) async fn others_first(turns: &Turns) {
    if turns.are_waited_for() {
        return;
    }
    let mut back = false;
    poll_fn(|cx| match std::mem::replace(&mut back, true) {
        true => Poll::Ready(()),
        false => {
            // Behind those that are to run already; unlike yielding to the runtime, this asks the system nothing.
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::{Context, Waker};

    use super::super::turns::{Place, Share};
    use super::*;

    /// Three tasks that each prepare and send, and the order in which they did.
    fn order(turns: Rc<Turns>) -> Vec<&'static str> {
        let said = Rc::new(RefCell::new(vec![]));
        let runtime = maille_net::worker_runtime().unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = [["prepare a", "send a"], ["prepare b", "send b"], ["prepare c", "send c"]]
                .into_iter()
                .map(|[prepare, send]| {
                    let (said, turns) = (said.clone(), turns.clone());
                    tokio::task::spawn_local(async move {
                        said.borrow_mut().push(prepare);
                        others_first(&turns).await;
                        said.borrow_mut().push(send);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        said.take()
    }

    #[test]
    fn all_prepare_before_any_sends() {
        let turns = Rc::new(Turns::default());
        assert_eq!(order(turns.clone()), ["prepare a", "prepare b", "prepare c", "send a", "send b", "send c"]);
        let mut place = Place::default();
        assert!(turns.poll(&Context::from_waker(Waker::noop()), &Rc::<Share>::default(), &mut place).is_pending());
        assert_eq!(order(turns), ["prepare a", "send a", "prepare b", "send b", "prepare c", "send c"], "others wait");
    }
}
