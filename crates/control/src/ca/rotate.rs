//! Driving a rotation: each phase until nobody is waited for, and each written down before it begins.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maille_identity::ca::{KeyKind, Signer};
use maille_identity::pem;
use maille_identity::rotation::{Holding, Phase, Root, UnderWay};
use tokio::time::{Instant, sleep};

use super::holders::Holder;
use super::{Ca, CaError, Inner, Source};

/// How long everybody must have had what a phase is for before the next begins: between hearing of new roots and checking
/// others by them, a proxy needs a moment.
const SETTLE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 2 });

/// How often it is looked whether anybody is still waited for.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 500 });

/// How often what has changed is written down.
const SAVE: Duration = Duration::from_secs(1);

/// Why a rotation does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRotation {
    #[error(transparent)]
    UnderWay(#[from] UnderWay),
    #[error(
        "the CA is plugged in from {0}: its roots are rotated there. Put both roots into root-cert.pem, then the new CA beside it, then the new root alone"
    )]
    Plugged(String),
    #[error(transparent)]
    Failed(#[from] CaError),
}

/// A new root with its key.
pub(super) fn new_root(organization: &str, kind: KeyKind, now: SystemTime) -> Result<Root, CaError> {
    let made = Signer::new_root(organization, kind, now);
    let (signer, key) = made.map_err(|source| CaError::Unusable { place: "a new root".into(), source })?;
    Ok(Root { certificate: pem::encode_certificates([signer.certificate()]), key: pem::encode_key(&key) })
}

impl Ca {
    /// Begins to move to a new root.
    pub(crate) fn rotate(&self, organization: &str) -> Result<(), NoRotation> {
        let _changing = self.changing();
        let now = SystemTime::now();
        let (inner, trust) = {
            let current = self.lock();
            let mut roots = match &current.source {
                Source::Own(roots) => roots.clone(),
                Source::Plugged { from, .. } => return Err(NoRotation::Plugged(from.clone())),
            };
            if roots.phase != Phase::Steady {
                return Err(UnderWay(roots.phase).into());
            }
            roots.begin(new_root(organization, self.options.key, now)?)?;
            self.kept.write_roots(&roots)?;
            Inner::own(roots, now, &self.kept)?
        };
        tracing::info!(phase = %Phase::Distribute, "the root is being rotated");
        self.publish(inner, trust);
        Ok(())
    }

    /// Does not wait any longer for those who are absent.
    pub(crate) fn forget_absent(&self) -> usize {
        let forgotten = self.holders.forget_absent();
        self.nudge.notify_one();
        forgotten
    }

    /// Those whom this phase still waits for.
    pub(crate) fn waited_for(&self) -> Vec<Holder> {
        let (phase, trust) = (self.phase(), self.trust());
        let now = Holding { trust: &trust.hash, authority: &trust.authority };
        let mut holders = self.holders.list();
        holders.retain(|holder| {
            // What is absent comes back to news before it comes back to peers. But a root that it believes does not go
            // while its certificate lives.
            let counts = !holder.absent || matches!(phase, Phase::Reissue);
            counts && !phase.is_done_for(holder.holding(), now)
        });
        holders
    }

    /// Drives rotations and writes down who holds what, until it is dropped.
    pub(crate) async fn drive(self: Arc<Self>) {
        let mut done_since: Option<Instant> = None;
        loop {
            if self.phase() == Phase::Steady {
                done_since = None;
                tokio::select! {
                    () = self.nudge.notified() => {}
                    () = sleep(SAVE * 30) => {}
                }
                sleep(LOOK).await;
            } else {
                sleep(LOOK).await;
                done_since = match self.waited_for().as_slice() {
                    [] => done_since.or_else(|| Some(Instant::now())),
                    _ => None,
                };
                if done_since.is_some_and(|since| since.elapsed() >= SETTLE) {
                    done_since = None;
                    if let Err(error) = self.advance() {
                        tracing::error!(%error, "the rotation cannot go on; everything stays as it is");
                        sleep(SAVE * 10).await;
                    }
                }
            }
            let ca = self.clone();
            // Fails only when the runtime ends, and then `stop` saves.
            let _ = tokio::task::spawn_blocking(move || ca.holders.save()).await;
        }
    }

    fn advance(&self) -> Result<(), CaError> {
        let _changing = self.changing();
        let (inner, trust, phase) = {
            let current = self.lock();
            let Source::Own(roots) = &current.source else { return Ok(()) };
            let mut roots = roots.clone();
            roots.advance();
            let phase = roots.phase;
            self.kept.write_roots(&roots)?;
            let (inner, trust) = Inner::own(roots, SystemTime::now(), &self.kept)?;
            (inner, trust, phase)
        };
        tracing::info!(%phase, "the rotation of the root goes on");
        self.publish(inner, trust);
        Ok(())
    }
}
