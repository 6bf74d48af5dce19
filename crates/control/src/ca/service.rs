//! The certificate API: who gets which certificate, and news of the roots.

use std::sync::Arc;
use std::time::Duration;

use maille_identity::csr::Request as Csr;
use maille_identity::{SpiffeId, ca};
use maille_xds::certificates::{CertificateRequest, CertificateResponse, Certificates, TrustRequest, TrustResponse};
use maille_xds::types::{Struct, ValueKind};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::Shared;
use crate::auth::Caller;

/// How long somebody who asks for news is kept waiting when there is none.
const HELD: Duration = Duration::from_secs(30);

/// The API.
pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Certificates for Service {
    async fn create(&self, request: Request<CertificateRequest>) -> Result<Response<CertificateResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let answer = self.sign(&caller, request).await;
        if let Err(status) = &answer {
            tracing::warn!(%caller, reason = status.message(), "a certificate was refused");
        }
        answer.map(Response::new)
    }

    async fn next(&self, request: Request<TrustRequest>) -> Result<Response<TrustResponse>, Status> {
        let caller = caller(&request)?;
        let TrustRequest { serial, trust, authority, leaving } = request.into_inner();
        let ca = &self.0.ca;
        if leaving {
            ca.leaves(&serial, caller.id());
        } else {
            let _asking = ca.asks(&serial, caller.id(), &trust);
            let mut changes = ca.trust_changes();
            let news = changes.wait_for(|now| now.hash != trust || now.authority != authority);
            let mut stopping = self.0.stopping.subscribe();
            tokio::select! {
                _ = timeout(HELD, news) => {}
                _ = stopping.wait_for(|stopping| *stopping) => {
                    return Err(Status::unavailable("the control plane is shutting down"));
                }
            }
        }
        let now = ca.trust();
        Ok(Response::new(TrustResponse {
            roots: now.pem.clone(),
            trust: now.hash.clone(),
            authority: now.authority.clone(),
        }))
    }
}

impl Service {
    async fn sign(&self, caller: &Caller, request: CertificateRequest) -> Result<CertificateResponse, Status> {
        let CertificateRequest { csr, validity_duration, metadata } = request;
        let metadata = metadata.unwrap_or_default();
        for refused in ["ImpersonatedIdentity", "CertSigner"] {
            if text(&metadata, refused).is_some() {
                return Err(Status::permission_denied(format!(
                    "{refused} is not accepted: everybody gets a certificate for itself, from this CA"
                )));
            }
        }
        let id = match caller {
            Caller::Workload(id) => id.clone(),
            Caller::Owner => self.asked_for(&metadata)?,
        };
        let ttl = u64::try_from(validity_duration).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let replaces = text(&metadata, "REPLACES").map(str::to_owned);
        let (shared, for_whom) = (self.0.clone(), id.clone());
        let work = tokio::task::spawn_blocking(move || {
            let csr = Csr::read(&csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
            shared.ca.issue(&csr, &for_whom, ttl, replaces.as_deref()).map_err(|error| match error {
                ca::CaError::TooLong { .. } => Status::invalid_argument(error.to_string()),
                ca::CaError::Expired => Status::failed_precondition(error.to_string()),
                error => Status::internal(error.to_string()),
            })
        });
        let (issued, trust) = work.await.map_err(|_| Status::internal("the certificate could not be made"))??;
        tracing::info!(%id, serial = issued.serial, %caller, "certificate issued");
        Ok(CertificateResponse { cert_chain: issued.pem().chain([trust.pem.clone()]).collect() })
    }

    /// Which identity the owner of this machine asks for. Whoever has the token could read the CA's key, too, so it may have
    /// any of this mesh; but it must say which, and a workload that is in the mesh under one account gets no other's.
    fn asked_for(&self, metadata: &Struct) -> Result<SpiffeId, Status> {
        let missing = |name: &str| {
            Status::invalid_argument(format!(
                "with the token of the machine's owner, the request's metadata must say {name}"
            ))
        };
        let namespace = text(metadata, "NAMESPACE").ok_or_else(|| missing("NAMESPACE"))?;
        let account = text(metadata, "SERVICE_ACCOUNT").ok_or_else(|| missing("SERVICE_ACCOUNT"))?;
        if let Some(name) = text(metadata, "WORKLOAD_NAME")
            && let Some(registered) = self.0.leases.service_account(namespace, name)
            && registered != account
        {
            return Err(Status::permission_denied(format!(
                "the workload {name} in namespace {namespace} runs as {registered}, not as {account}"
            )));
        }
        let trust_domain = self.0.trust_domains()?.remove(0);
        SpiffeId::new(trust_domain, namespace, account).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("nobody has said who is calling"))
}

fn text<'a>(metadata: &'a Struct, name: &str) -> Option<&'a str> {
    match metadata.fields.get(name)?.kind.as_ref()? {
        ValueKind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}
