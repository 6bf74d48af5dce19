//! PINGs that find out whether the other side is still there.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::config::Http2Options;

/// How long an answer may take when the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks the other side of a connection, again and again, whether it is there.
pub(crate) struct Keepalive {
    ping: PingPong,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether an answer is waited for.
    asked: bool,
}

impl Keepalive {
    /// `None` when the configuration does not ask for it.
    pub(crate) fn new(ping: PingPong, options: &Http2Options) -> Option<Keepalive> {
        let interval = options.keepalive_interval?;
        let timeout = options.keepalive_timeout.unwrap_or(TIMEOUT);
        Some(Keepalive { ping, interval, timeout, timer: Box::pin(sleep(interval)), asked: false })
    }

    /// Whether there was no answer in time.
    pub(crate) fn is_dead(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if self.asked
                && let Poll::Ready(answer) = self.ping.poll_pong(cx)
            {
                if answer.is_err() {
                    return true;
                }
                self.wait(false);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if self.asked || self.ping.send_ping(Ping::opaque()).is_err() {
                return true;
            }
            self.wait(true);
        }
    }

    fn wait(&mut self, asked: bool) {
        self.asked = asked;
        // Not all at the same moment: up to 15 % later, as Envoy does it.
        let interval = self.interval.mul_f64(1.0 + 0.15 * fastrand::f64());
        let next = if asked { self.timeout } else { interval };
        self.timer.as_mut().reset(Instant::now() + next);
    }
}
