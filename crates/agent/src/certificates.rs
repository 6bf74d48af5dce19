//! The workload's certificate: its key made here and kept in memory, asked for, renewed in time, handed on.
//!
//! ```text
//! token ─► first certificate ─► half its life ─► renewed with itself ─► …
//!                 └── news of the roots, asked for all along; a new authority means a new certificate soon
//! ```
//!
//! While the control plane is away everything stays as it is, and asking goes on.

mod ask;
mod schedule;

use std::sync::Arc;
use std::time::SystemTime;

use maille_identity::{Workload, pem};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::door::Door;
use ask::Asked;

pub use ask::AskError;

/// Who asks.
#[derive(Clone)]
pub struct Enrolment {
    /// The control plane, and what proves that we may ask.
    pub door: Door,
    /// The workload's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service account it runs under.
    pub service_account: String,
}

/// A workload's certificate as it is renewed, for as long as this is held.
#[derive(Debug)]
pub struct Certificates {
    workload: watch::Receiver<Option<Arc<Workload>>>,
    problem: watch::Receiver<Option<String>>,
    leaving: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

impl Certificates {
    /// Begins to ask.
    pub fn start(enrolment: Enrolment) -> Self {
        let (workload_in, workload) = watch::channel(None);
        let (problem_in, problem) = watch::channel(None);
        let (leaving, told) = watch::channel(false);
        let keeper = Keeper { enrolment, workload: workload_in, problem: problem_in, held: None };
        Self { workload, problem, leaving, keeper: tokio::spawn(keeper.keep(told)) }
    }

    /// What there is, as it changes; nothing until there is a first certificate.
    pub fn workload(&self) -> watch::Receiver<Option<Arc<Workload>>> {
        self.workload.clone()
    }

    /// Why the last attempt failed, if it did.
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Ends, and lets the control plane know that nobody holds the certificate any more.
    pub async fn leave(mut self) {
        self.leaving.send_replace(true);
        let _ = timeout(schedule::FAREWELL, &mut self.keeper).await;
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Keeper {
    enrolment: Enrolment,
    workload: watch::Sender<Option<Arc<Workload>>>,
    problem: watch::Sender<Option<String>>,
    held: Option<Held>,
}

/// The certificate there is.
struct Held {
    asked: Asked,
    renew_at: Instant,
}

impl Keeper {
    async fn keep(mut self, mut leaving: watch::Receiver<bool>) {
        tokio::select! {
            () = self.renew_and_listen() => {}
            _ = leaving.wait_for(|leaving| *leaving) => {}
        }
        if let Some(held) = &self.held {
            // Nobody may be there to hear it.
            let _ = held.asked.farewell(&self.enrolment.door).await;
        }
    }

    async fn renew_and_listen(&mut self) {
        let mut failures = 0;
        loop {
            let due = self.held.as_ref().is_none_or(|held| held.renew_at <= Instant::now());
            let outcome = if due { self.renew().await } else { self.listen().await };
            match outcome {
                Ok(()) => {
                    failures = 0;
                    self.problem.send_if_modified(|problem| problem.take().is_some());
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(%error, "no certificate from the control plane; trying again");
                    }
                    self.problem.send_replace(Some(error.to_string()));
                    let life = self.held.as_ref().map(|held| held.asked.life);
                    sleep(schedule::retry_after(failures, life, fastrand::f64())).await;
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), AskError> {
        let asked = ask::certificate(&self.enrolment, self.held.as_ref().map(|held| &held.asked)).await?;
        tracing::debug!(serial = asked.serial, life = asked.life.as_secs(), "certificate obtained");
        let renew_at = Instant::now() + schedule::renew_after(asked.life, fastrand::f64());
        self.workload.send_replace(Some(asked.workload.clone()));
        self.held = Some(Held { asked, renew_at });
        Ok(())
    }

    /// Hears what is new, until there is something or the certificate is to be renewed.
    async fn listen(&mut self) -> Result<(), AskError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let news = tokio::select! {
            news = held.asked.news(&self.enrolment.door) => news?,
            () = sleep_until(held.renew_at) => return Ok(()),
        };
        let asked = &mut held.asked;
        if news.trust != asked.trust {
            let roots =
                pem::certificates(news.roots.as_bytes()).map_err(|_| AskError::Answer("the roots are not PEM"))?;
            if roots.is_empty() {
                return Err(AskError::Answer("there are no roots in it"));
            }
            tracing::info!(roots = roots.len(), "the roots of the mesh have changed");
            asked.trust = pem::fingerprint(&roots);
            asked.roots = news.roots;
            asked.workload = Arc::new(Workload { roots, ..(*asked.workload).clone() });
            self.workload.send_replace(Some(asked.workload.clone()));
        }
        if news.authority != asked.authority {
            asked.authority = news.authority;
            let soon = Instant::now() + schedule::reissue_after(asked.life, fastrand::f64());
            held.renew_at = held.renew_at.min(soon);
        }
        Ok(())
    }
}

/// How long from now until then; nothing when it is over.
fn until(then: SystemTime) -> std::time::Duration {
    then.duration_since(SystemTime::now()).unwrap_or_default()
}
