//! Being in the mesh for as long as the workload runs: the lease is taken, and taken again when it is lost.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::lease::{Lease, LeaseError};
use crate::notice::say;
use crate::way::{Own, Way};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Reads the token anew: a control plane that was started again has another one.
pub type Tokens = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// A workload's place in the mesh. It leaves when this is dropped, or, so that it can be waited for, by [`Membership::leave`].
#[derive(Debug)]
pub struct Membership {
    keeper: JoinHandle<()>,
}

/// What joining takes.
#[derive(Clone)]
pub struct Joining {
    /// The control plane.
    pub way: Way,
    /// Our certificate.
    pub own: Own,
    /// The workload as a `WorkloadEntry`.
    pub entry: Value,
}

impl Membership {
    /// Joins, trying for so long: the control plane may be starting just now.
    ///
    /// # Errors
    /// The last thing that went wrong; a refusal at once.
    pub async fn join(joining: Joining, patience: Duration) -> Result<Self, LeaseError> {
        let end = Instant::now() + patience;
        let mut wait = FIRST_WAIT;
        let lease = loop {
            match joining.once().await {
                Ok(lease) => break lease,
                Err(LeaseError::Unreachable { .. } | LeaseError::Unauthorized { .. })
                    if Instant::now() + wait < end => {}
                Err(error) => return Err(error),
            }
            sleep(wait).await;
            wait = longer(wait);
        };
        Ok(Self { keeper: tokio::spawn(joining.keep(lease)) })
    }

    /// Leaves. When this returns, our side of the lease is closed.
    pub async fn leave(mut self) {
        self.keeper.abort();
        let _ = (&mut self.keeper).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Joining {
    async fn once(&self) -> Result<Lease, LeaseError> {
        let unreachable = |reason: String| LeaseError::Unreachable { control: self.way.control, reason };
        let token = (self.way.tokens)();
        let token = match self.own.borrow().is_some() && self.way.remote {
            // A token is for the first time, and may be over.
            true => token.unwrap_or_default(),
            false => token.map_err(unreachable)?,
        };
        Lease::take(self.way.control, self.way.connect(&self.own), &token, &self.entry).await
    }

    /// Traffic goes on by the configuration there is while the control plane is away.
    async fn keep(self, mut lease: Lease) {
        loop {
            lease.ended().await;
            say(format_args!(
                "the control plane at {} went away; traffic goes on, and we keep trying",
                self.way.control
            ));
            let mut wait = FIRST_WAIT;
            lease = loop {
                // Jitter, so that not every workload of a machine comes at the same moment.
                sleep(wait.mul_f64(0.5 + f64::from(std::process::id() % 64) / 128.0)).await;
                match self.once().await {
                    Ok(lease) => break lease,
                    Err(error @ LeaseError::Refused { .. }) => say(error),
                    Err(_) => {}
                }
                wait = longer(wait);
            };
            say(format_args!("back in the mesh of {}", self.way.control));
        }
    }
}

fn longer(wait: Duration) -> Duration {
    (wait * 2).min(LONGEST_WAIT)
}
