//! A CA that somebody plugs in, as files or as the Secret `cacerts`, and that is taken into use again when it changes.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maille_api::{Key, Kind, Spec};
use maille_identity::ca::{Cacerts, Secret, Signer};
use maille_store::Store;
use tokio::time::sleep;

use super::{Ca, CaError, Inner, Source, Trust};

/// How often the files are looked at. Whoever replaces four of them needs a moment, too.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// No file of a CA is longer.
const MAX_FILE: u64 = 1 << 20;

/// The Secret, as Istio names it.
const SECRET: (&str, &str) = ("istio-system", "cacerts");

/// What is in a folder, in use.
pub(super) fn from_folder(folder: &Path, now: SystemTime) -> Result<(Inner, Trust), CaError> {
    let place = folder.display().to_string();
    let content = read(folder).map_err(|source| CaError::Unusable { place: place.clone(), source })?;
    plug_in(place, content, now)
}

/// What is in the Secret, in use; `None` when there is no such Secret.
pub(super) fn from_store(store: &Store, now: SystemTime) -> Option<Result<(Inner, Trust), CaError>> {
    Some(plug_in("the Secret istio-system/cacerts".to_owned(), secret(store)?, now))
}

fn plug_in(from: String, content: Cacerts, now: SystemTime) -> Result<(Inner, Trust), CaError> {
    let made = Signer::plugged_in(&content, now);
    let (signer, roots) = made.map_err(|source| CaError::Unusable { place: from.clone(), source })?;
    let signing = Arc::new(signer);
    let trust = Trust::new(roots, &signing);
    Ok((Inner { serving: signing.clone(), signing, source: Source::Plugged { from, content } }, trust))
}

fn read(folder: &Path) -> Result<Cacerts, maille_identity::ca::CaError> {
    let file = |name: &'static str| {
        let unusable = |reason: String| maille_identity::ca::CaError::Unusable { file: name, reason };
        let read = || {
            let file = fs::File::open(folder.join(name))?;
            let mut content = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE), &mut content)?;
            io::Result::Ok(content)
        };
        read().map_err(|error| unusable(error.to_string()))
    };
    Ok(Cacerts {
        certificate: file("ca-cert.pem")?,
        key: Secret(file("ca-key.pem")?),
        chain: file("cert-chain.pem")?,
        roots: file("root-cert.pem")?,
    })
}

fn secret(store: &Store) -> Option<Cacerts> {
    let (namespace, name) = SECRET;
    let object = store.get(&Key { kind: Kind::Secret, namespace: namespace.to_owned(), name: name.to_owned() })?;
    let Spec::Secret(secret) = &object.spec else { return None };
    let data = |name: &str| secret.data.get(name).map(|bytes| bytes.0.clone()).unwrap_or_default();
    Some(Cacerts {
        certificate: data("ca-cert.pem"),
        key: Secret(data("ca-key.pem")),
        chain: data("cert-chain.pem"),
        roots: data("root-cert.pem"),
    })
}

impl Ca {
    /// Takes what is plugged in into use when it has changed, until it is dropped. What cannot be used changes nothing.
    pub(crate) async fn follow(self: Arc<Self>, store: Arc<Store>) {
        let mut revisions = store.subscribe();
        // Something may have come between the start and now.
        revisions.mark_changed();
        let mut complaint = String::new();
        loop {
            match &self.options.cacerts {
                Some(_) => sleep(LOOK).await,
                None => {
                    if revisions.changed().await.is_err() {
                        return;
                    }
                }
            }
            let (ca, from) = (self.clone(), store.clone());
            let looked = tokio::task::spawn_blocking(move || ca.look(&from)).await;
            let problem = match looked {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if !problem.is_empty() && problem != complaint {
                tracing::error!(%problem, "the CA that is plugged in cannot be used; the last good one stays");
            }
            complaint = problem;
        }
    }

    fn look(&self, store: &Store) -> Result<(), CaError> {
        let _changing = self.changing();
        let now = SystemTime::now();
        let found = match &self.options.cacerts {
            Some(folder) => {
                let content =
                    read(folder).map_err(|source| CaError::Unusable { place: folder.display().to_string(), source })?;
                if self.has(&content) {
                    return Ok(());
                }
                plug_in(folder.display().to_string(), content, now)?
            }
            None => match secret(store) {
                // One that is gone stays in use: without it nobody would believe anybody.
                None => return Ok(()),
                Some(content) if self.has(&content) => return Ok(()),
                Some(content) => plug_in("the Secret istio-system/cacerts".to_owned(), content, now)?,
            },
        };
        tracing::info!(roots = found.1.roots.len(), "the CA that is plugged in has changed");
        self.publish(found.0, found.1);
        Ok(())
    }

    fn has(&self, content: &Cacerts) -> bool {
        matches!(&self.lock().source, Source::Plugged { content: current, .. } if current == content)
    }
}
